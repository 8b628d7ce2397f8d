"""The metadata document of a machine."""
import uuid


def document(device, address, name, url, machine_url):
    """Return a metadata document of the real shape; what is not given is invented.

    device: its id; name: what it is called; url: the receiver's; machine_url: below which
    the machine reports.
    """
    family = 6 if ":" in address else 4
    size = "255.255.255.254" if family == 4 else "ffff:" * 7 + "fffe"

    def network(of, ip, public, netmask):
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"address:{ip}")),
            "address_family": of, "netmask": netmask,
            "created_at": "2024-02-25T18:55:11Z", "public": public,
            "cidr": 127 if of == 6 else 31, "management": True, "enabled": True,
            "network": ip, "address": ip, "gateway": ip,
            "parent_block": {"network": ip, "netmask": netmask,
                             "cidr": 56 if of == 6 else 25, "href": f"/ips/{device}"},
        }

    return {
        "id": device,
        "hostname": name or f"practice-{device[:8]}",
        "iqn": f"iqn.2024-02.net.packet:device.{device[:8]}",
        "operating_system": {
            "slug": "custom_ipxe", "distro": "custom_ipxe", "version": "1",
            "license_activation": {"state": "unlicensed"}, "image_tag": None},
        "plan": "c3.medium.x86", "reserved": False, "class": "c3.medium.x86",
        "facility": "da11", "metro": "da",
        "private_subnets": ["10.0.0.0/8"],
        "tags": ["practice"],
        "ssh_keys": [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINotAKeyJustForPractice you@laptop"],
        "customdata": {},
        "specs": {
            "cpus": [{"count": 1, "type": "AMD EPYC 7402P 24-Core Processor"}],
            "memory": {"total": "64GB"},
            "drives": [
                {"count": 2, "size": "240GB", "type": "SSD", "category": "boot"},
                {"count": 2, "size": "480GB", "type": "SSD", "category": "storage"}],
            "nics": [{"count": 2, "type": "10Gbps"}],
            "features": {"raid": True, "txt": True, "uefi": False}},
        "switch_short_id": "5707e61f",
        "storage": {
            "disks": [{"device": "/dev/sda", "wipeTable": True, "partitions": [
                {"label": "BIOS", "number": 1, "size": 4096},
                {"label": "SWAP", "number": 2, "size": "3993600"},
                {"label": "ROOT", "number": 3, "size": 0}]}],
            "filesystems": [
                {"mount": {"device": "/dev/sda3", "format": "ext4", "point": "/",
                           "create": {"options": ["-L", "ROOT"]}}},
                {"mount": {"device": "/dev/sda2", "format": "swap", "point": "none",
                           "create": {"options": ["-L", "SWAP"]}}}]},
        "volumes": [],
        "network": {
            "bonding": {"mode": 4, "link_aggregation": "mlag_ha",
                        "mac": "02:00:5e:10:00:01"},
            "interfaces": [
                {"name": "eth0", "mac": "02:00:5e:10:00:01", "bond": "bond0"},
                {"name": "eth1", "mac": "02:00:5e:10:00:02", "bond": "bond0"}],
            "addresses": [network(family, address, True, size),
                          network(4, "10.70.17.9", False, "255.255.255.254")],
            "metal_gateways": []},
        "api_url": url,
        "phone_home_url": f"{machine_url}/phone-home",
        "user_state_url": f"{machine_url}/events",
    }
