"""The metadata document, which has the shape of the real one."""
import json

from receiver.machines import device_id
from support.receivers import Receiver, ask, exchange, get


def test_the_document_has_the_real_shape_and_points_back(receiver):
    body = get(receiver.metadata_url)
    document = json.loads(body.decode())
    assert 3000 < len(body) < 5600
    assert document["user_state_url"] == receiver.url + "/events"
    assert document["phone_home_url"] == receiver.url + "/phone-home"
    assert document["network"]["addresses"][0]["address"] == "127.0.0.1"


def test_the_document_points_to_the_name_that_was_asked(receiver):
    _, body = ask(receiver, "GET", "/metadata", None, {"Host": "localhost:81"})
    assert json.loads(body.decode())["user_state_url"] == "http://localhost:81/events"


def test_the_document_points_to_the_address_if_no_name_was_asked(receiver):
    answer = exchange(receiver, b"GET /metadata HTTP/1.0\r\n\r\n")
    assert f"{receiver.url}/events".encode() in answer


# The document, a leaf a line, as jq names them; SHORT is the beginning of DEVICE. What it
# says of a machine with IPv6 is apart.
DOCUMENT = """
id "DEVICE"
hostname "NAME"
iqn "iqn.2024-02.net.packet:device.SHORT"
operating_system.slug "custom_ipxe"
operating_system.distro "custom_ipxe"
operating_system.version "1"
operating_system.license_activation.state "unlicensed"
operating_system.image_tag null
plan "c3.medium.x86"
reserved false
class "c3.medium.x86"
facility "da11"
metro "da"
private_subnets.0 "10.0.0.0/8"
tags.0 "practice"
ssh_keys.0 "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINotAKeyJustForPractice you@laptop"
customdata {}
specs.cpus.0.count 1
specs.cpus.0.type "AMD EPYC 7402P 24-Core Processor"
specs.memory.total "64GB"
specs.drives.0.count 2
specs.drives.0.size "240GB"
specs.drives.0.type "SSD"
specs.drives.0.category "boot"
specs.drives.1.count 2
specs.drives.1.size "480GB"
specs.drives.1.type "SSD"
specs.drives.1.category "storage"
specs.nics.0.count 2
specs.nics.0.type "10Gbps"
specs.features.raid true
specs.features.txt true
specs.features.uefi false
switch_short_id "5707e61f"
storage.disks.0.device "/dev/sda"
storage.disks.0.wipeTable true
storage.disks.0.partitions.0.label "BIOS"
storage.disks.0.partitions.0.number 1
storage.disks.0.partitions.0.size 4096
storage.disks.0.partitions.1.label "SWAP"
storage.disks.0.partitions.1.number 2
storage.disks.0.partitions.1.size "3993600"
storage.disks.0.partitions.2.label "ROOT"
storage.disks.0.partitions.2.number 3
storage.disks.0.partitions.2.size 0
storage.filesystems.0.mount.device "/dev/sda3"
storage.filesystems.0.mount.format "ext4"
storage.filesystems.0.mount.point "/"
storage.filesystems.0.mount.create.options.0 "-L"
storage.filesystems.0.mount.create.options.1 "ROOT"
storage.filesystems.1.mount.device "/dev/sda2"
storage.filesystems.1.mount.format "swap"
storage.filesystems.1.mount.point "none"
storage.filesystems.1.mount.create.options.0 "-L"
storage.filesystems.1.mount.create.options.1 "SWAP"
volumes []
network.bonding.mode 4
network.bonding.link_aggregation "mlag_ha"
network.bonding.mac "02:00:5e:10:00:01"
network.interfaces.0.name "eth0"
network.interfaces.0.mac "02:00:5e:10:00:01"
network.interfaces.0.bond "bond0"
network.interfaces.1.name "eth1"
network.interfaces.1.mac "02:00:5e:10:00:02"
network.interfaces.1.bond "bond0"
network.addresses.0.id "e9629c9a-a30c-5b9d-8cf0-dda8f1301ded"
network.addresses.0.address_family 4
network.addresses.0.netmask "255.255.255.254"
network.addresses.0.created_at "2024-02-25T18:55:11Z"
network.addresses.0.public true
network.addresses.0.cidr 31
network.addresses.0.management true
network.addresses.0.enabled true
network.addresses.0.network "192.0.2.7"
network.addresses.0.address "192.0.2.7"
network.addresses.0.gateway "192.0.2.7"
network.addresses.0.parent_block.network "192.0.2.7"
network.addresses.0.parent_block.netmask "255.255.255.254"
network.addresses.0.parent_block.cidr 25
network.addresses.0.parent_block.href "/ips/DEVICE"
network.addresses.1.id "634f8e9c-0aa3-5882-84a4-e3d710354de5"
network.addresses.1.address_family 4
network.addresses.1.netmask "255.255.255.254"
network.addresses.1.created_at "2024-02-25T18:55:11Z"
network.addresses.1.public false
network.addresses.1.cidr 31
network.addresses.1.management true
network.addresses.1.enabled true
network.addresses.1.network "10.70.17.9"
network.addresses.1.address "10.70.17.9"
network.addresses.1.gateway "10.70.17.9"
network.addresses.1.parent_block.network "10.70.17.9"
network.addresses.1.parent_block.netmask "255.255.255.254"
network.addresses.1.parent_block.cidr 25
network.addresses.1.parent_block.href "/ips/DEVICE"
network.metal_gateways []
api_url "SERVICE"
phone_home_url "SERVICE/phone-home"
user_state_url "SERVICE/events"
"""
OF_IPV6 = """
network.addresses.0.id "bc5950af-29a6-53ed-9429-cf1f36727afe"
network.addresses.0.address_family 6
network.addresses.0.netmask "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"
network.addresses.0.cidr 127
network.addresses.0.network "2001:db8::7"
network.addresses.0.address "2001:db8::7"
network.addresses.0.gateway "2001:db8::7"
network.addresses.0.parent_block.network "2001:db8::7"
network.addresses.0.parent_block.netmask "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe"
network.addresses.0.parent_block.cidr 56
"""


def leaves(value, path=""):
    """Return a line "path value" for each value in a JSON document."""
    if isinstance(value, dict) and value:
        pairs = value.items()
    elif isinstance(value, list) and value:
        pairs = enumerate(value)
    else:
        return [f"{path[1:]} {json.dumps(value)}"]
    return [leaf for key, inner in pairs for leaf in leaves(inner, f"{path}.{key}")]


def told_of(address):
    """Return the leaves of what the machine at address is told, with the names above."""
    with Receiver(proxy="127.0.0.1", names={address: "NAME"}) as receiver:
        status, body = ask(receiver, "GET", "/metadata", None, {"X-Forwarded-For": address})
        assert status == 200
        device = device_id(address)
        text = body.decode().replace(receiver.url, "SERVICE").replace(device, "DEVICE")
        return leaves(json.loads(text.replace(device[:8], "SHORT")))


def test_the_document_says_what_the_real_one_says_of_a_machine():
    assert told_of("192.0.2.7") == DOCUMENT.strip().splitlines()


def test_the_document_says_what_differs_of_a_machine_with_ipv6():
    four, six = told_of("192.0.2.7"), told_of("2001:db8::7")
    assert [leaf for leaf in six if leaf not in four] == OF_IPV6.strip().splitlines()
    assert [leaf.split()[0] for leaf in six] == [leaf.split()[0] for leaf in four]
