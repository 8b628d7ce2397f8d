"""The local service, over HTTP, as a person or a script meets it."""
import concurrent.futures
import contextlib
import datetime
import html
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import pytest
from conftest import HERE, Platform, get

import service
from service import read_event


class Process:
    """The service in a process of its own, started with these words; `limit`: resource's."""

    def __init__(self, *words, limit=None):
        code = "import service, sys; sys.exit(service.main(sys.argv[1:]))"
        if limit:
            code = f"import resource; resource.setrlimit(resource.{limit}); {code}"
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-c", code, "--port", "0", *words], cwd=HERE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.url = re.search(r"http\S+(?=/)", self.process.stdout.readline().decode()).group()
        self.server_address = re.search(r"//(.*):", self.url).group(1), int(
            self.url.rpartition(":")[2])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end(signal.SIGKILL)

    def end(self, number):
        self.process.send_signal(number)
        self.process.wait(20)

    def errors(self):
        return self.process.stderr.read().decode()

    def post(self, body):
        return ask(self, "POST", "/events", body)[0]

    def busy(self):
        """Return the seconds of processor that it has used; Linux only."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            return sum(map(int, file.read().split()[13:15])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Return the most memory that it has had, in MiB; Linux only."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1)) / 1024


def select(data, statement):
    """Return what sqlite3 reads of the file beside the service."""
    connection = sqlite3.connect(data)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def in_threads(number, function):
    """Call function(n) for n from 0 in as many threads at once; return what they return."""
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        return list(pool.map(function, range(number)))


def ask(platform, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection(*platform.server_address[:2], timeout=10)
    connection.request(method, path, body, dict(headers))
    reply = connection.getresponse()
    got = reply.status, reply.read()
    connection.close()
    return got


ACCEPTED = {
    "an event": (b'{"state":"running","code":1000,"message":"x"}', "running", 1000, "x"),
    "an empty object": (b"{}", "", 0, ""),
    "null": (b"null", "", 0, ""),
    "null fields": (b'{"state":null,"code":null,"message":null}', "", 0, ""),
    "any code": (b'{"code":-7}', "", -7, ""),
    "the largest code": (b'{"code":9223372036854775807}', "", 2**63 - 1, ""),
    "the least code": (b'{"code":-9223372036854775808}', "", -2**63, ""),
    "any state": (b'{"state":"dancing"}', "dancing", 0, ""),
    "names in capitals": (b'{"STATE":"a","Code":1,"MesSage":"b"}', "a", 1, "b"),
    "the last of two": (b'{"code":1,"code":2}', "", 2, ""),
    "other names": (b'{"other":{"code":"x"},"code":3}', "", 3, ""),
    "white space": (b' \t\r\n{"code":1}\n', "", 1, ""),
    "lone surrogate": (b'{"message":"a\\udcffb"}', "", 0, "a\ufffdb"),
    "a pair of surrogates": (b'{"message":"\\ud83d\\ude00"}', "", 0, "\U0001f600"),
    "not UTF-8": (b'{"message":"a\xffb\xe2\x82"}', "", 0, "a\ufffdb\ufffd\ufffd"),
    "a long s": ('{"\u017ftate":"x"}'.encode(), "x", 0, ""),
    "a huge number elsewhere": (b'{"other":' + b"9" * 1000000 + b"}", "", 0, ""),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_takes_for_an_event(platform, name):
    body, state, code, message = ACCEPTED[name]
    assert ask(platform, "POST", "/events", body) == (200, b"")
    assert platform.shown() == [(f"user.{code}", state, message)]


REFUSED = {
    "nothing": b"", "no JSON": b"running", "an array": b"[]", "a string": b'"x"',
    "a number": b"1", "quoted code": b'{"code":"1000"}', "fraction": b'{"code":1000.0}',
    "exponent": b'{"code":1e3}', "boolean code": b'{"code":true}',
    "65 bits": b'{"code":9223372036854775808}', "state a number": b'{"state":1}',
    "65 bits below 0": b'{"code":-9223372036854775809}',
    "a huge code": b'{"code":' + b"9" * 1000000 + b"}",
    "message an object": b'{"message":{}}', "NaN": b'{"code":NaN}',
    "byte-order mark": b'\xef\xbb\xbf{"code":1}', "trailing bytes": b'{"code":1} x',
    "two documents": b'{"code":1}{"code":2}', "cut": b'{"code":1000,"state":"run',
    "control character": b'{"message":"\n"}', "too deep": b'{"a":' * 100000,
    "wrong, then right": b'{"code":"1","code":1}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_an_empty_400(platform, name):
    assert ask(platform, "POST", "/events", REFUSED[name]) == (400, b"")
    assert platform.shown() == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_takes_events_by_any_method_and_content_type(platform, method):
    got = ask(platform, method, "/events", b'{"code":1}', {"Content-Type": "text/x"})
    assert got == (200, b"") and platform.shown() == [("user.1", "", "")]


@pytest.mark.parametrize("method, path, status", [
    ("POST", "/events/", 404), ("GET", "/nothing", 404), ("POST", "/", 404),
    ("POST", "/metadata", 405), ("GET", "/devices/none/events", 404),
    ("GET", "/metadata", 200), ("GET", "/metadata?x=1", 200), ("GET", "/", 200)])
def test_answers(platform, method, path, status):
    assert ask(platform, method, path)[0] == status


def test_the_document_has_the_real_shape_and_points_back(platform):
    body = get(platform.metadata_url)
    document = json.loads(body.decode())
    assert 3000 < len(body) < 5600
    assert document["user_state_url"] == platform.url + "/events"
    assert document["phone_home_url"] == platform.url + "/phone-home"
    assert document["network"]["addresses"][0]["address"] == "127.0.0.1"


# The document, a leaf a line, as jq names them; what it says of a machine with IPv6 is apart.
DOCUMENT = """
id "DEVICE"
hostname "NAME"
iqn "iqn.2024-02.net.packet:device.DEVICE"
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
    pairs = (value.items() if isinstance(value, dict) and value else
             enumerate(value) if isinstance(value, list) and value else None)
    if pairs is None:
        return [f"{path[1:]} {json.dumps(value)}"]
    return [leaf for key, inner in pairs for leaf in leaves(inner, f"{path}.{key}")]


def test_the_document_says_what_the_real_one_says_of_a_machine():
    four = leaves(service.document("DEVICE", "192.0.2.7", "NAME", "SERVICE"))
    assert four == DOCUMENT.strip().splitlines()
    six = leaves(service.document("DEVICE", "2001:db8::7", "NAME", "SERVICE"))
    assert [leaf for leaf in six if leaf not in four] == OF_IPV6.strip().splitlines()
    assert [leaf.split()[0] for leaf in six] == [leaf.split()[0] for leaf in four]


def test_a_page_says_what_it_is_and_that_it_runs_nothing(platform):
    with urllib.request.urlopen(platform.url) as reply:
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        assert reply.headers["Content-Security-Policy"] == (
            "default-src 'none'; frame-ancestors 'none'; style-src 'unsafe-inline'")


def test_head_is_answered_without_a_body(platform):
    platform.put("127.0.0.1", {"state": "running", "code": 1000, "message": "m"})
    for path in ("/", "/devices", "/devices/127.0.0.1/events"):
        with socket.create_connection(platform.server_address) as connection:
            connection.sendall(f"HEAD {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            got = connection.makefile("rb").read()
        assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"\r\n\r\n")


def test_every_source_address_is_a_device_of_its_own(platform):
    for address in ("127.0.0.1", "127.0.0.2"):
        connection = http.client.HTTPConnection(*platform.server_address,
                                                source_address=(address, 0))
        try:
            connection.request("POST", "/events", json.dumps({"message": address}))
        except OSError:
            pytest.skip("this system has one loopback address")
        assert connection.getresponse().status == 200
        connection.close()
    assert platform.shown("127.0.0.1") == [("user.0", "", "127.0.0.1")]
    assert platform.shown("127.0.0.2") == [("user.0", "", "127.0.0.2")]
    page = get(platform.url).decode()
    assert "127.0.0.1" in page and "127.0.0.2" in page


def test_drops_the_events_of_unknown_addresses_and_says_200():
    with Platform(only=["127.0.0.9"]) as platform:
        assert ask(platform, "POST", "/events", b"{}") == (200, b"")
        assert ask(platform, "POST", "/events", b"[]") == (400, b"")
        status, body = ask(platform, "GET", "/metadata")
        assert (status, json.loads(body.decode())) == (
            404, {"message": "resource not found"})
        assert "No event yet" in get(platform.url).decode()


def test_says_now_and_then_whose_events_are_dropped(monkeypatch, capsys):
    monkeypatch.setattr(service, "WARN_MOST", 2)
    with Platform(only=["127.0.0.9"]) as platform:
        for address in ("127.0.0.1", "::1", "127.0.0.1", "127.0.0.9", "10.0.0.1"):
            platform.put(address, {"state": "", "code": 0, "message": ""})
        assert capsys.readouterr().err == "".join(
            f"service: an event of {address} was dropped: it is not in --only\n"
            for address in ("127.0.0.1", "::1"))
        monkeypatch.setattr(service, "WARN_EVERY", -1)
        assert ask(platform, "POST", "/events", b"{}") == (200, b"")
        assert "of 127.0.0.1 was dropped" in capsys.readouterr().err


def test_the_timeline_as_json_is_in_the_shape_of_the_api(platform):
    for message in ("first", "second"):
        platform.put("127.0.0.1", {"state": "running", "code": 1007, "message": message})
    url = f"{platform.url}/devices/{platform.device('127.0.0.1')}/events"
    events = json.loads(get(url).decode())["events"]
    assert [event["body"] for event in events] == ["second", "first"]
    assert set(events[0]) == {"id", "type", "state", "body", "created_at", "ip"}
    assert (events[0]["type"], events[0]["ip"]) == ("user.1007", "127.0.0.1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", events[0]["created_at"])
    assert events[0]["id"] != events[1]["id"]


def test_the_page_shows_and_escapes_everything_and_refreshes_itself(platform):
    platform.put("127.0.0.1", {"state": "<i>", "code": 1007, "message": "<script>\"&'"})
    platform.put("127.0.0.1", {"state": "failed", "code": 1008, "message": "late"})
    page = get(platform.url + "/devices/127.0.0.1").decode()
    assert "<script" not in page and "<i>" not in page
    assert "&lt;script&gt;&quot;&amp;&#x27;" in page and "&lt;i&gt;" in page
    assert 'http-equiv="refresh" content="5"' in page and 'class="failed">failed' in page
    assert page.index("user.1008") < page.index("user.1007")
    connection = http.client.HTTPConnection(*platform.server_address)
    connection.request("GET", "/")
    reply = connection.getresponse()
    assert reply.headers["Cache-Control"] == "no-store"  # or it is yesterday's timeline
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    connection.close()


def test_events_are_in_the_data_file_before_the_200_and_after_a_restart(tmp_path):
    data = str(tmp_path / "events")
    with Platform(data=data) as platform:
        assert ask(platform, "POST", "/events", b'{"message":"kept"}')[0] == 200
        assert select(data, "SELECT address, state, code, message FROM events") == [
            ("127.0.0.1", "", 0, "kept")]
    with Platform(data=data) as platform:
        assert ask(platform, "POST", "/events", b'{"message":"more"}')[0] == 200
        assert [body for _, _, body in platform.shown()] == ["kept", "more"]
    with Platform(data=data) as platform:
        assert [body for _, _, body in platform.shown()] == ["kept", "more"]


def test_a_full_disk_is_a_500_and_leaves_no_half_event(tmp_path):
    data = str(tmp_path / "events")
    body = json.dumps({"message": "x" * 30000}).encode()
    with Process("--data", data, limit="RLIMIT_FSIZE, (200000, 200000)") as own:
        statuses = [own.post(body) for _ in range(12)]
        own.end(signal.SIGINT)
        assert own.process.returncode == 0
        assert re.fullmatch("service: the database fails, the answer is 500: [ -~]+\n",
                            own.errors())
    accepted = statuses.count(200)
    assert accepted > 0 and statuses == [200] * accepted + [500] * (12 - accepted)
    with Platform(data=data) as platform:
        assert [len(body) for _, _, body in platform.shown()] == [30000] * accepted
        assert ask(platform, "POST", "/events", body)[0] == 200


HEADS = {
    "over 4 MiB": (f"Content-Length: {4 * 2**20 + 1}", 413),
    "endless length": ("Content-Length: " + "9" * 5000, 413),
    "negative": ("Content-Length: -1", 400),
    "a word": ("Content-Length: many", 400),
    "signed": ("Content-Length: +2", 400),
    "chunked": ("Transfer-Encoding: chunked", 411),
}


@pytest.mark.parametrize("name", HEADS)
def test_goes_on_serving_after_a_bad_length(platform, name):
    header, status = HEADS[name]
    with socket.create_connection(platform.server_address) as bad:
        bad.sendall(f"POST /events HTTP/1.1\r\n{header}\r\n\r\n".encode())
        assert bad.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
    assert ask(platform, "POST", "/events", b"{}") == (200, b"")


def test_a_body_that_is_cut_is_no_event_although_it_is_json(platform):
    with socket.create_connection(platform.server_address, timeout=10) as bad:
        bad.sendall(b'POST /events HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"code": 1}')
        bad.shutdown(socket.SHUT_WR)
        assert bad.recv(100) == b""
    assert platform.shown() == []


def test_takes_a_body_of_4_mib(platform):
    empty = json.dumps(state("running", 1000, ""))
    body = json.dumps(state("running", 1000, "x" * (4 * 2**20 - len(empty)))).encode()
    assert len(body) == 4 * 2**20
    assert ask(platform, "POST", "/events", body) == (200, b"")
    assert len(platform.shown()[0][2]) == 4 * 2**20 - len(empty)


def test_a_body_that_nobody_asked_for_is_not_the_next_request(platform):
    connection = http.client.HTTPConnection(*platform.server_address)
    for _ in range(2):
        connection.request("POST", "/metadata", b"GET /nothing HTTP/1.0\r\n\r\n")
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (405, True)
    connection.close()


def test_serves_others_while_a_client_hangs(platform):
    with socket.create_connection(platform.server_address) as idle, \
            socket.create_connection(platform.server_address) as half:
        half.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        idle.sendall(b"GET")
        assert ask(platform, "POST", "/events", b"{}") == (200, b"")


def test_read_event_never_raises_but_for_value_errors():
    import random
    dice = random.Random(1)
    for _ in range(3000):
        body = bytes(dice.choice(b'{}[]":,\\ucode1.-e+statmg \xff\xef\n') for _ in
                     range(dice.randrange(30)))
        try:
            event = read_event(body)
        except ValueError:
            continue
        assert set(event) == {"state", "code", "message"}


def test_starts_says_what_to_export_and_ends_in_silence_on_ctrl_c():
    with subprocess.Popen([sys.executable, "-B", os.path.join(HERE, "service.py"), "--port",
                           "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as service:
        first, second = service.stdout.readline(), service.stdout.readline()
        url = re.fullmatch(rb"export USERSTATE_METADATA_URL=(http://\S+/metadata)\n", second)
        assert first.startswith(b"#") and b"user_state_url" in get(url.group(1).decode())
        service.send_signal(signal.SIGINT)
        assert service.communicate(timeout=20) == (b"", b"")
        assert service.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_in_silence_while_it_waits_for_the_database(tmp_path, number):
    data = str(tmp_path / "events")
    other = sqlite3.connect(data, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with subprocess.Popen([sys.executable, "-B", os.path.join(HERE, "service.py"), "--data",
                           data], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as starting:
        until(lambda: os.path.exists(data + "-lock"))
        starting.send_signal(number)
        assert starting.communicate(timeout=20) == (b"", b"")
        assert starting.returncode == 0
    other.close()


def test_says_in_a_line_that_it_cannot_write_to_stdout():
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-B", os.path.join(HERE, "service.py"), "--port", "0"],
            stdout=full, stderr=subprocess.PIPE, timeout=20)
    assert (ended.returncode, ended.stderr) == (
        1, b"service: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize("words", [["--port", "70000"], ["--host", "192.0.2.1"]])
def test_says_in_a_line_why_it_cannot_start(words):
    ended = subprocess.run([sys.executable, "-B", os.path.join(HERE, "service.py"), *words],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ended.returncode == 1 and ended.stdout == b""
    assert re.fullmatch(rb"service: cannot start on .*\n", ended.stderr)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_with_status_0_though_clients_wait(number):
    with Process() as own, socket.create_connection(own.server_address) as waiting:
        waiting.sendall(b"GET /devices/127.0.0.1/wait HTTP/1.0\r\n\r\n")
        assert own.post(b"{}") == 200
        own.end(number)
        assert (own.process.returncode, own.errors()) == (0, "")


def test_an_unknown_page_is_a_404_for_urllib_too(platform):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(platform.url + "/phone-home")


# What is kept

def test_an_event_with_the_same_key_is_kept_once_for_each_device(tmp_path):
    data = str(tmp_path / "events")
    key = {"Idempotency-Key": '"0123"'}
    for _ in range(2):
        with Platform(data=data) as platform:
            for _ in range(2):
                assert ask(platform, "POST", "/events", b"{}", key) == (200, b"")
            platform.put("127.0.0.2", {"state": "", "code": 1, "message": ""}, '"0123"')
    with Platform(data=data) as platform:
        assert (len(platform.shown()), len(platform.shown("127.0.0.2"))) == (1, 1)
        for _ in range(2):
            assert ask(platform, "POST", "/events", b"{}") == (200, b"")
        assert len(platform.shown()) == 3


@pytest.mark.parametrize("key", ["", " ", "\t "], ids=repr)
def test_an_empty_key_is_none(platform, key):
    for _ in range(2):
        assert ask(platform, "POST", "/events", b"{}", {"Idempotency-Key": key}) == (200, b"")
    assert len(platform.shown()) == 2


def test_what_was_answered_200_is_there_once_after_a_kill(tmp_path):
    data, accepted, unknown = str(tmp_path / "events"), [], []
    enough = threading.Semaphore(0)

    def post(own, number):
        key = {"Idempotency-Key": str(number)}
        event = json.dumps({"state": "running", "message": str(number)})
        return ask(own, "POST", "/events", event, key)[0]

    def load(client):
        for number in range(client * 1000, client * 1000 + 1000):
            try:
                assert post(own, number) == 200
            except (OSError, http.client.HTTPException):
                return unknown.append(number)
            accepted.append(number)
            enough.release()
        return None
    with Process("--data", data) as own:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(load, number) for number in range(8)]
            for _ in range(200):
                enough.acquire()
            own.end(signal.SIGKILL)
        for client in clients:
            client.result()
    assert len(accepted) >= 200 and len(unknown) == 8
    with Process("--data", data) as own:
        for number in unknown + accepted[-8:]:
            assert post(own, number) == 200
    kept = [int(text) for text, in select(data, "SELECT message FROM events")]
    assert sorted(kept) == sorted(accepted + unknown)
    assert select(data, "SELECT events FROM devices") == [(len(kept),)]


def test_many_clients_share_a_commit_and_all_of_it_is_kept(tmp_path, monkeypatch):
    batches, insert = [], service.Store.insert

    def noting(store, rows):
        batches.append(len(rows))
        return insert(store, rows)
    monkeypatch.setattr(service.Store, "insert", noting)

    def load(client):
        for number in range(10):
            event = json.dumps({"message": f"{client}.{number}"})
            assert ask(platform, "POST", "/events", event)[0] == 200
    with Platform(data=str(tmp_path / "events")) as platform:
        in_threads(64, load)
        kept = [body for _, _, body in platform.shown()]
    assert sorted(kept) == sorted(f"{c}.{n}" for c in range(64) for n in range(10))
    assert sum(batches) == 640 and max(batches) > 1


def test_an_event_that_cannot_be_stored_leaves_nothing_and_stops_nothing(tmp_path):
    with Platform(data=str(tmp_path / "events")) as platform:
        with pytest.raises(OSError):
            platform.put("10.0.0.1", {"state": "failed", "code": 1, "message": "\ud800"})
        platform.put("10.0.0.1", {"state": "failed", "code": 2, "message": ""})
        assert platform.shown("10.0.0.1") == [("user.2", "failed", "")]
        assert [platform.store.writer.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous")] == ["wal", 2]  # 2: FULL


def make_lines(path):
    path.write_text('{"id": "x", "type": "user.1"}\n')
    return "lines of JSON, as version 1 wrote them"


def make_text(path):
    path.write_text("not this")
    return "no SQLite database"


def make_other(path):
    connection = sqlite3.connect(str(path))
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    return "the database of another program"


def make_broken(path):
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    return "(not a database|malformed)"


@pytest.mark.parametrize("make", [make_lines, make_text, make_other, make_broken])
def test_leaves_a_file_that_is_not_its_own_as_it_is(tmp_path, make):
    reason = make(tmp_path / "events")
    before = (tmp_path / "events").read_bytes()
    with pytest.raises(service.StartError, match=reason):
        Platform(data=str(tmp_path / "events"))
    assert (tmp_path / "events").read_bytes() == before


def test_says_what_holds_the_database(tmp_path, monkeypatch):
    data = str(tmp_path / "events")
    monkeypatch.setattr(service, "LOCKED_MOST", 0.1)
    with Platform(data=data):
        with pytest.raises(service.StartError, match="another service holds it"):
            Platform(data=data)
    other = sqlite3.connect(data, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(service.StartError, match="database is locked"):
        Platform(data=data)
    other.close()
    with Platform(data=data) as platform:
        other = sqlite3.connect(data, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        status, body = ask(platform, "POST", "/events", b"{}")
        assert status == 500 and b"locked" in body and platform.shown() == []
        other.close()
        assert ask(platform, "POST", "/events", b"{}") == (200, b"")
        assert len(platform.shown()) == 1


def test_one_file_has_one_service_by_whatever_name(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "events").touch()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "events")
    with Platform(data=str(tmp_path / "folder" / "link")):
        for name in ("events", "folder/link", "folder/../events"):
            with pytest.raises(service.StartError, match="another service holds it"):
                Platform(data=str(tmp_path / name))


def start_with(limit, *words):
    """Return how the start ended, in a process with this limit; `limit`: resource's."""
    code = ("import resource, service, sys\n"
            f"resource.setrlimit(resource.{limit})\nsys.exit(service.main(sys.argv[1:]))")
    return subprocess.run([sys.executable, "-B", "-c", code, "--port", "0", *words], cwd=HERE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)


def test_a_full_disk_at_the_start_is_called_that_and_leaves_no_lock(tmp_path):
    ended = start_with("RLIMIT_FSIZE, (0, 0)", "--data", str(tmp_path / "events"))
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert re.fullmatch(b"service: cannot use .*: .*(disk|file).*\n", ended.stderr)
    assert b"another" not in ended.stderr and os.listdir(str(tmp_path)) == []
    Platform(data=str(tmp_path / "events")).server_close()
    ended = start_with("RLIMIT_FSIZE, (0, 0)", "--data", str(tmp_path / "events"))
    assert ended.returncode == 1 and b"another" not in ended.stderr


def test_a_file_of_another_program_gets_no_lock(tmp_path):
    make_other(tmp_path / "events")
    with pytest.raises(service.StartError):
        Platform(data=str(tmp_path / "events"))
    assert os.listdir(str(tmp_path)) == ["events"]


@contextlib.contextmanager
def as_nobody():
    """Be no root, whom no mode of a file holds up."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.mark.parametrize("file, folder", [(0o444, 0o777), (0o644, 0o555), (0o444, 0o555)])
def test_does_not_start_on_a_database_that_it_cannot_write(file, folder):
    with tempfile.TemporaryDirectory() as place:  # tmp_path is hidden from others
        data = os.path.join(place, "events")
        Platform(data=data).server_close()
        os.chmod(data, file)
        os.chmod(data + "-lock", 0o666)
        os.chmod(place, folder)
        with as_nobody(), pytest.raises(service.StartError, match=(
                "cannot use .*events: (attempt to write a readonly|unable to open) database")):
            Platform(data=data)
        os.chmod(place, 0o700)


def test_the_file_can_be_read_and_copied_while_it_serves(tmp_path):
    if not shutil.which("sqlite3"):
        pytest.skip("sqlite3 is not installed")
    data, copy = str(tmp_path / "events"), str(tmp_path / "copy")
    with Platform(data=data) as platform:
        platform.put("10.0.0.1", {"state": "failed", "code": 1020, "message": "a\nb"})
        for words in ([data, f".backup {copy}"],
                      [copy, "select address, state, code from devices"]):
            ended = subprocess.run(["sqlite3", *words], stdout=subprocess.PIPE, check=True)
        assert ended.stdout == b"10.0.0.1|failed|1020\n"
    with Platform(data=copy) as platform:
        assert platform.shown("10.0.0.1") == [("user.1020", "failed", "a\nb")]


# What is shown

def state(state, code=1000, message=""):
    return {"state": state, "code": code, "message": message}


def read_json(platform, path):
    return json.loads(get(platform.url + path).decode())


def test_lists_the_failed_then_the_running_then_the_rest_by_number(platform):
    for address, word in (("10.0.0.10", "succeeded"), ("10.0.0.9", "succeeded"),
                          ("fe80::1", "dancing"), ("10.0.0.3", "running"),
                          ("10.0.0.2", "running"), ("10.0.0.100", "failed"),
                          ("10.0.0.20", "failed")):
        platform.put(address, state(word))
    shown = read_json(platform, "/devices")
    assert [device["ip"] for device in shown["devices"]] == [
        "10.0.0.20", "10.0.0.100", "10.0.0.3", "10.0.0.2", "10.0.0.9", "10.0.0.10", "fe80::1"]
    assert shown["counts"] == {"failed": 2, "running": 2, "succeeded": 2, "other": 1,
                               "quiet": 0}
    page = get(platform.url).decode()
    for told in ("2 failed", "2 running", "2 succeeded", "1 other"):
        assert told in page
    links = re.findall('href="/devices/([^"]+)', page)
    assert links == [device["ip"] for device in shown["devices"]]


def test_the_latest_state_of_a_device_is_shown_in_one_line(platform):
    platform.put("10.0.0.1", state("running", 1010, "begin"))
    platform.put("10.0.0.1", state("failed", 1020, "one\ntwo " + "x" * 3000))
    for nothing in (state("", 0, ""), state("", 7, "no state")):
        platform.put("10.0.0.1", nothing)
    device, = read_json(platform, "/devices")["devices"]
    assert (device["state"], device["type"], device["events"]) == ("failed", "user.1020", 4)
    assert device["message"].startswith("one two xxx") and len(device["message"]) == 200


def test_a_device_that_is_silent_is_quiet_and_then_begins_a_new_run():
    now = service.time_of("2026-03-01T12:00:00.000000Z")
    row = dict(id="i", address="10.0.0.1", code=1, message="", events=1,
               run_at="2026-03-01T10:00:00.000000Z", last_at="2026-03-01T11:00:00.000000Z")
    for word, after, quiet in (("running", 3600, False), ("running", 3599, True),
                               ("failed", 1, False)):
        assert service.device_view(dict(row, state=word), "n", now, after)["quiet"] is quiet
    with Platform(quiet_after=1e-6) as platform:
        platform.put("10.0.0.1", state("running"))
        first, = read_json(platform, "/devices")["devices"]
        assert first["quiet"] and "running, quiet" in get(platform.url).decode()
        assert "1 quiet" in get(platform.url).decode()
        platform.put("10.0.0.1", state("running"))
        second, = read_json(platform, "/devices")["devices"]
        assert second["run_began_at"] == second["last_event_at"] > first["run_began_at"]
    with Platform() as platform:
        platform.put("10.0.0.1", state("running"))
        platform.put("10.0.0.1", state("running"))
        device, = read_json(platform, "/devices")["devices"]
        assert not device["quiet"] and device["run_began_at"] < device["last_event_at"]


@pytest.mark.parametrize("seconds, text", [
    (-5, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")])
def test_says_a_duration_as(seconds, text):
    assert service.duration(service.datetime.timedelta(seconds=seconds)) == text


def test_the_page_of_a_device_tells_how_long_it_took_from_the_first_running(platform):
    for entry in (state("running", 1010), state("running", 1020), state("running", 1010),
                  state("succeeded", 1010), state("failed", 1010), state("failed", 1020),
                  state("running", 1010), state("succeeded", 1010),
                  state("running", 1010), state("succeeded", 1010)):
        platform.put("10.0.0.1", entry)
    times = [f"2026-01-31T10:{minute:02}:00.000000Z" for minute in range(10)]
    for number, at in enumerate(times, 1):
        platform.store.writer.execute("UPDATE events SET created_at = ? WHERE number = ?",
                                      (at, number))
    page = get(platform.url + "/devices/10.0.0.1").decode()
    assert re.findall('class="took">(.*?)<', page) == [
        "1 min 0 s", "", "1 min 0 s", "", "4 min 0 s", "", "3 min 0 s", "", "", ""]
    assert f'title="{times[5]}">31 Jan 10:05:00<' in page
    assert get(f"{platform.url}/devices/{platform.device('10.0.0.1')}").decode() == page


def test_lists_have_pages_as_the_api_had_them(platform):
    for number in range(25):
        platform.put("10.0.0.1", state("running", number))
        platform.put(f"10.0.1.{number}", state("running"))
    for path in ("/devices/10.0.0.1/events", "/devices"):
        shown = [read_json(platform, f"{path}?page={page}&per_page=9") for page in (1, 2, 3, 4)]
        lists = [page.get("events", page.get("devices")) for page in shown]
        assert [len(items) for items in lists] == [9, 9, 7 + (path == "/devices"), 0]
        ids = [item["id"] for items in lists for item in items]
        assert len(set(ids)) == len(ids)
        assert shown[1]["meta"] == {
            "total": len(ids), "current_page": 2, "last_page": 3,
            **{name: {"href": f"{path}?page={page}&per_page=9"} for name, page in (
                ("self", 2), ("first", 1), ("last", 3), ("previous", 1), ("next", 3))}}
        assert shown[0]["meta"]["previous"] is shown[2]["meta"]["next"] is None
        assert len(list(read_json(platform, path).values())[
            0 if path == "/devices" else 1]) == 10
        for query in ("page=0", "page=x", "per_page=1001", "per_page=", "page=-1"):
            assert ask(platform, "GET", f"{path}?{query}")[0] == 400


def test_a_page_shows_the_beginning_of_an_odd_state(platform):
    odd = "".join(map(chr, range(ord("A"), ord("A") + 26)))
    platform.put("127.0.0.1", state(odd))
    for path in ("/", "/devices/127.0.0.1"):
        shown = get(platform.url + path).decode()
        assert odd[:20] in shown and odd[:21] not in shown
    assert read_json(platform, "/devices/127.0.0.1/events")["events"][0]["state"] == odd


def test_pages_for_people_lead_to_the_rest(platform, monkeypatch):
    monkeypatch.setattr(service, "ROWS", 2)
    monkeypatch.setattr(service, "EVENTS", 2)
    for number in range(3):
        platform.put(f"10.0.0.{number}", state("running"))
        platform.put("10.0.0.9", state("running"))
    for path, rows in (("/", 'class="address"'), ("/devices/10.0.0.9", 'class="time"')):
        page = get(platform.url + path).decode()
        assert page.count(rows) == 2 and "Page 1 of 2" in page
        following = html.unescape(re.search('href="([^"]+)">Next', page).group(1))
        assert 1 <= get(platform.url + following).decode().count(rows) <= 2


def test_the_device_that_asks_has_a_timeline_before_its_first_event(platform):
    own = read_json(platform, "/devices/127.0.0.1/events")
    assert (own["events"], own["meta"]["total"]) == ([], 0)
    for other in ("10.0.0.1/events", "10.0.0.1", "none", "none/events", "%ff"):
        assert ask(platform, "GET", "/devices/" + other)[0] == 404


def test_phoning_home_is_on_the_timeline_and_changes_no_state(platform):
    home = read_json(platform, "/metadata")["phone_home_url"]
    path = home[len(platform.url):]
    assert ask(platform, "POST", path, b"instance_id=i&hostname=h") == (200, b"")
    assert platform.shown() == [("phone_home", "", "phoned home")]
    assert "phone_home" in get(platform.url).decode()
    platform.put("127.0.0.1", state("failed", 1020, "x"))
    assert ask(platform, "POST", path)[0] == 200
    device, = read_json(platform, "/devices")["devices"]
    assert (device["state"], device["type"], device["events"]) == ("failed", "user.1020", 3)


def test_a_state_of_megabytes_is_on_no_page(platform):
    platform.put("10.0.0.1", state("running " * 100000))
    for path in ("/", "/devices", "/devices/10.0.0.1"):
        assert len(get(platform.url + path)) < 10000
    assert len(platform.shown("10.0.0.1")[0][1]) == 800000


# Waiting

WAITS = {
    "succeeded": ("", [("succeeded", 1099)], 200),
    "failed": ("", [("failed", 1020)], 409),
    "the newest": ("", [("failed", 1099), ("succeeded", 1020)], 200),
    "running": ("", [("running", 1099), ("dancing", 1099)], 504),
    "a code": ("code=1099&", [("succeeded", 1099), ("failed", 1020)], 200),
    "another code": ("code=1099&", [("succeeded", 1020)], 504),
    "since a while ago": ("since=2020-01-01T00:00:00Z&", [("failed", 1)], 409),
    "since a zone": ("since=2020-01-01t00:00:00.5%2B02:00&", [("failed", 1)], 409),
    "since a plus": ("since=2020-01-01T00:00:00+02:00&", [("failed", 1)], 409),
    "since tomorrow": ("since=2222-01-01T00:00:00Z&", [("failed", 1)], 504),
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_for(platform, name):
    query, events, status = WAITS[name]
    for word, code in events:
        platform.put("10.0.0.1", state(word, code, "then"))
    for device in ("10.0.0.1", platform.device("10.0.0.1")):
        got, body = ask(platform, "GET", f"/devices/{device}/wait?{query}timeout=0.02")
        assert got == status
        assert status == 504 or json.loads(body.decode())["body"] == "then"


@pytest.mark.parametrize("device", ["127.0.0.1", service.device_id("127.0.0.1")])
def test_waits_for_a_device_that_is_not_known_until_it_ends(platform, device):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, platform, "GET", f"/devices/{device}/wait?code=1099")
        until(lambda: platform.waiting)
        for word, code in (("running", 1099), ("failed", 1020), ("succeeded", 1099)):
            platform.put("127.0.0.1", state(word, code, word))
        status, body = answer.result(10)
    assert (status, json.loads(body.decode())["type"]) == (200, "user.1099")
    assert not platform.store.listeners and not platform.waiting


def test_what_arrives_has_to_be_what_is_waited_for(platform):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        path = f"/devices/127.0.0.1/wait?timeout=0.5&since={datetime.date.max}T00:00:00Z"
        answer = pool.submit(ask, platform, "GET", path)
        until(lambda: platform.waiting)
        platform.put("127.0.0.1", state("succeeded"))
        assert answer.result(10)[0] == 504


def until(true):
    """Return when true() is."""
    ends = time.monotonic() + 20
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.001)


@pytest.mark.parametrize("query", [
    "code=x", "code=", "code=1.0", "code=9223372036854775808", "timeout=x", "timeout=-1",
    "timeout=86401", "timeout=1e3", "timeout=", "since=", "since=yesterday", "since=2020-01-01",
    "since=2020-02-30T00:00:00Z", "since=2020-01-01T00:00:00", "until=1", "code=1&code=2",
    "since=0001-01-01T00:00:00%2B09:00", "since=2020-01-01T00:00:00%2B99:00"])
def test_does_not_wait_for_what_it_does_not_understand(platform, query):
    status, body = ask(platform, "GET", "/devices/10.0.0.1/wait?" + query)
    errors = {"code": "code: must be a number like 1099",
              "timeout": "timeout: must be seconds, at most 86400",
              "since": "since: must be a time like 2026-01-31T12:00:00Z"}
    error = errors.get(query.partition("=")[0])
    if "&" in query or "until" in query:
        error = "there are code, timeout and since, each once"
    elif "02-30" in query or "%2B" in query:
        error = "since: there is no such time"
    assert (status, json.loads(body.decode())) == (400, {"errors": [error]})
    assert ask(platform, "GET", "/devices/nobody/wait")[0] == 400


def begin_to_wait(address, device="10.9.9.9"):
    connection = socket.create_connection(address)
    connection.sendall(f"GET /devices/{device}/wait HTTP/1.1\r\n\r\n".encode())
    return connection


def test_notices_that_a_client_that_waited_has_gone(platform, monkeypatch):
    monkeypatch.setattr(service, "LOOK_EVERY", 0.05)
    with begin_to_wait(platform.server_address), begin_to_wait(platform.server_address) as gone:
        until(lambda: len(platform.waiting) == 2)
        gone.close()
        until(lambda: len(platform.waiting) == 1)
        assert ask(platform, "POST", "/events", b"{}") == (200, b"")


def test_more_clients_than_may_wait_are_refused(platform, monkeypatch, capsys):
    monkeypatch.setattr(service, "WAITING_MOST", 1)
    with begin_to_wait(platform.server_address):
        until(lambda: platform.waiting)
        for _ in range(2):
            assert ask(platform, "GET", "/devices/10.0.0.1/wait")[0] == 503
        platform.put("10.0.0.1", state("succeeded"))
        assert ask(platform, "GET", "/devices/10.0.0.1/wait")[0] == 200
    assert capsys.readouterr().err == (
        "service: 1 clients wait for machines; more are refused\n")


def test_500_that_wait_take_no_processor_and_slow_nobody():
    def seconds_of_posts():
        begun = time.monotonic()
        for _ in range(100):
            assert own.post(b"{}") == 200
        return time.monotonic() - begun
    with Process() as own:
        alone = min(seconds_of_posts() for _ in range(3))
        waiting = [begin_to_wait(own.server_address) for _ in range(500)]
        among = min(seconds_of_posts() for _ in range(3))
        before = own.busy()
        assert ask(own, "GET", "/devices/10.0.0.1/wait?timeout=2")[0] == 504
        assert own.busy() - before < 0.3
        assert among < 2 * alone + 0.1
        assert own.post(b'{"state":"failed"}') == 200
        connection = begin_to_wait(own.server_address, "127.0.0.1")
        assert connection.recv(100).startswith(b"HTTP/1.1 409 ")
        for client in [connection, *waiting]:
            client.close()


# Who may do what

@pytest.mark.parametrize("headers, status", [
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
    ({"Origin": "http://{host}.evil.example"}, 403), ({"Origin": "http://127.0.0.1:1"}, 403),
    ({"Origin": ""}, 403), ({"Origin": "http://{host}"}, 200),
    ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Sec-Fetch-Site": "none"}, 200)], ids=str)
def test_a_page_of_another_site_cannot_write(platform, headers, status):
    host = "{}:{}".format(*platform.server_address)
    headers = {name: value.replace("{host}", host) for name, value in headers.items()}
    for path in ("/events", "/phone-home"):
        for method in ("POST", "PUT") if path == "/events" else ("POST",):
            platform.store.writer.execute("DELETE FROM events")
            assert ask(platform, method, path, b"{}", headers)[0] == status
            assert len(platform.shown()) == (status == 200)
    assert ask(platform, "GET", "/", None, headers)[0] == 200


def test_no_answer_lets_a_page_of_another_site_read_it(platform):
    for method, path in (("GET", "/"), ("GET", "/devices"), ("OPTIONS", "/events"),
                         ("GET", "/metadata"), ("GET", "/devices/127.0.0.1/events")):
        request = urllib.request.Request(platform.url + path, method=method,
                                         headers={"Origin": "http://evil.example"})
        try:
            with urllib.request.urlopen(request) as reply:
                headers = reply.headers
        except urllib.error.HTTPError as error:
            headers = error.headers
            error.close()
        assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("host, status", [
    ("evil.example", 403), ("evil.example:80", 403), ("127.0.0.1.evil.example", 403),
    ("localhost.evil.example", 403), ("[::1", 403), ("a:b", 403), ("localhost", 200),
    ("LOCALHOST.:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("192.0.2.1", 200),
    ("metadata.example", 200), ("Metadata.Example:1", 200), ("", 200)])
def test_answers_only_to_its_own_names(host, status):
    with Platform(host_names=["metadata.example"]) as platform:
        for method, path in (("GET", "/metadata"), ("POST", "/events"), ("GET", "/"),
                             ("GET", "/devices")):
            assert ask(platform, method, path, b"{}", {"Host": host})[0] == status


def test_answers_to_the_name_of_the_machine(platform):
    assert ask(platform, "GET", "/", None, {"Host": socket.gethostname()})[0] == 200


def test_the_document_points_to_the_name_that_was_asked(platform):
    _, body = ask(platform, "GET", "/metadata", None, {"Host": "localhost:81"})
    assert json.loads(body.decode())["user_state_url"] == "http://localhost:81/events"
    with socket.create_connection(platform.server_address) as old:
        old.sendall(b"GET /metadata HTTP/1.0\r\n\r\n")
        assert f"{platform.url}/events".encode() in old.makefile("rb").read()


@pytest.mark.parametrize("proxy, forwarded, device", [
    ("127.0.0.1", "10.0.0.7", "10.0.0.7"), ("127.0.0.1", "6.6.6.6, 10.0.0.7", "10.0.0.7"),
    ("127.0.0.1", "::ffff:10.0.0.7", "10.0.0.7"), ("127.0.0.1", "2001:DB8::1", "2001:db8::1"),
    ("127.0.0.1", None, "127.0.0.1"), ("10.0.0.1", "10.0.0.7", "127.0.0.1"),
    (None, "10.0.0.7", "127.0.0.1")])
def test_believes_a_proxy_that_is_trusted(proxy, forwarded, device):
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    with Platform(proxy=proxy) as platform:
        assert ask(platform, "POST", "/events", b"{}", headers) == (200, b"")
        assert len(platform.shown(device)) == 1
        _, body = ask(platform, "GET", "/metadata", None,
                      dict(headers, **{"X-Forwarded-Proto": "https", "Host": "localhost"}))
        document = json.loads(body.decode())
        assert document["id"] == platform.device(device)
        assert document["user_state_url"].partition(":")[0] == (
            "https" if proxy == "127.0.0.1" else "http")


def test_a_proxy_that_names_no_device_is_a_400():
    with Platform(proxy="127.0.0.1") as platform:
        for forwarded in ("unknown", "10.0.0.7, ", ""):
            assert ask(platform, "POST", "/events", b"{}",
                       {"X-Forwarded-For": forwarded})[0] == 400


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """The files of a certificate for 127.0.0.1 and its key."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl command")
    folder = tmp_path_factory.mktemp("certificate")
    names = str(folder / "cert"), str(folder / "key")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-out",
                    names[0], "-keyout", names[1], "-days", "9", "-subj", "/CN=x", "-addext",
                    "subjectAltName=IP:127.0.0.1"], check=True, stderr=subprocess.PIPE)
    return names


def test_serves_https_beside_a_client_that_hangs_in_the_handshake(certificate, monkeypatch):
    monkeypatch.setattr(service, "LOOK_EVERY", 0.05)
    context = ssl.create_default_context(cafile=certificate[0])
    with Platform(tls=service.read_tls(*certificate)) as platform, \
            socket.create_connection(platform.server_address) as hanging:
        assert platform.url.startswith("https://")
        hanging.sendall(b"\x16\x03\x01")
        connection = http.client.HTTPSConnection(*platform.server_address, context=context)
        connection.request("GET", "/metadata")
        document = json.loads(connection.getresponse().read().decode())
        assert document["user_state_url"] == platform.url + "/events"
        connection.request("POST", "/events", b'{"code":1000}')
        assert connection.getresponse().status == 200
        assert platform.shown() == [("user.1000", "", "")]
        connection.request("GET", "/devices/10.0.0.1/wait")
        until(lambda: platform.waiting)
        connection.close()
        until(lambda: not platform.waiting)


# Load, and clients that behave badly

def test_a_fault_of_its_own_is_a_line_and_no_end(platform, monkeypatch, capsys):
    def fail(body):
        raise KeyError("\x1b")
    monkeypatch.setattr(service, "read_event", fail)
    for _ in range(2):
        with pytest.raises(http.client.RemoteDisconnected):
            ask(platform, "POST", "/events", b"{}")
    assert get(platform.url)
    assert re.fullmatch("service: cannot answer: KeyError: [ -~]+\n", capsys.readouterr().err)


def test_closing_lets_every_client_go():
    with Platform() as platform:
        idle = socket.create_connection(platform.server_address)
        waiting = begin_to_wait(platform.server_address)
        until(lambda: platform.waiting and platform.serving)
    for connection in (idle, waiting):
        assert connection.recv(100) == b""
        connection.close()


def test_threads_without_a_client_end(platform, monkeypatch):
    monkeypatch.setattr(service, "IDLE_MOST", 0.05)
    before = set(threading.enumerate())
    idle = [socket.create_connection(platform.server_address) for _ in range(9)]
    until(lambda: len(platform.serving) == 9)
    own = set(threading.enumerate()) - before
    assert len(own) == 9
    for connection in idle:
        connection.close()
    until(lambda: not any(thread.is_alive() for thread in own))
    assert ask(platform, "POST", "/events", b"{}") == (200, b"")


@pytest.mark.parametrize("request_head", [
    b"", b"POST /events HT", b"POST /events HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
    b"POST /events HTTP/1.1\r\nContent-Length: 999999\r\n\r\n{"])
def test_cuts_off_a_client_that_sends_byte_after_byte(platform, monkeypatch, request_head):
    monkeypatch.setattr(service, "REQUEST_MOST", 0.3)
    with socket.create_connection(platform.server_address) as slow:
        slow.sendall(request_head)
        slow.settimeout(0.01)
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() < begun + 10:
                slow.send(b"x")
                try:
                    if not slow.recv(100):
                        raise ConnectionResetError
                except socket.timeout:
                    pass
    until(lambda: not platform.serving)
    assert ask(platform, "POST", "/events", b"{}") == (200, b"")


def test_cuts_off_a_client_that_does_not_read(platform, monkeypatch):
    for _ in range(4):
        platform.put("127.0.0.1", state("running", 1, "x" * (4 << 20)))
    monkeypatch.setattr(service, "REQUEST_MOST", 0.5)
    with socket.create_connection(platform.server_address) as deaf:
        deaf.sendall(b"GET /devices/127.0.0.1/events HTTP/1.1\r\n\r\n")
        until(lambda: platform.serving)
        until(lambda: not platform.serving)


def test_says_that_all_threads_are_taken_and_gives_those_that_idle_less_time(
        platform, monkeypatch, capsys):
    monkeypatch.setattr(service, "THREADS_MOST", 3)
    monkeypatch.setattr(service, "CROWDED_MOST", 0.3)
    idle = [socket.create_connection(platform.server_address) for _ in range(3)]
    until(lambda: len(platform.serving) == 3)
    assert ask(platform, "POST", "/events", b"{}") == (200, b"")
    for connection in idle:
        connection.close()
    assert capsys.readouterr().err == (
        "service: all 3 threads are taken; more clients wait\n")


def test_a_thousand_that_idle_hold_up_nobody():
    with Process() as own:
        idle = [socket.create_connection(own.server_address) for _ in range(1000)]
        begun = time.monotonic()
        assert own.post(b"{}") == 200
        assert time.monotonic() - begun < service.REQUEST_MOST / 2
        for connection in idle:
            connection.close()


def test_without_descriptors_it_neither_spins_nor_ends():
    with Process(limit="RLIMIT_NOFILE, (40, 40)") as own:
        idle = [socket.create_connection(own.server_address) for _ in range(60)]
        before = own.busy()
        begun = time.monotonic()
        assert own.post(b"{}") == 200
        assert own.busy() - before < 0.5 * (time.monotonic() - begun)
        for connection in idle:
            connection.close()
        own.end(signal.SIGTERM)
        assert re.fullmatch("service: cannot let clients in: .*\n", own.errors())


def test_clients_that_wait_leave_descriptors_to_others():
    with Process(limit="RLIMIT_NOFILE, (100, 100)") as own:
        waiting = [begin_to_wait(own.server_address) for _ in range(120)]
        begun = time.monotonic()
        assert own.post(b"{}") == 200
        assert time.monotonic() - begun < service.REQUEST_MOST / 2
        waiting[-1].settimeout(10)
        answer = waiting[-1].makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: 10\r\n" in answer
        for connection in waiting:
            connection.close()
        own.end(signal.SIGTERM)
        assert "service: 50 clients wait for machines; more are refused\n" in own.errors()


def test_40_messages_of_4_mib_at_once_take_neither_memory_nor_a_page(tmp_path):
    body = json.dumps({"message": "\u00e9" * (2 * 2**20 - 20)}, ensure_ascii=False).encode()
    with Process("--data", str(tmp_path / "events")) as own:
        assert in_threads(40, lambda number: own.post(body)) == [200] * 40
        for path in ("/", "/devices", "/devices/127.0.0.1"):
            assert len(get(own.url + path)) < 2 * 2**20
        with urllib.request.urlopen(
                own.url + "/devices/127.0.0.1/events?per_page=1000") as reply:
            assert sum(len(part) for part in iter(lambda: reply.read(2**20), b"")) > 160 * 2**20
        assert own.memory() < 300


def test_a_million_events_in_the_file_take_neither_time_nor_memory(tmp_path):
    data = str(tmp_path / "events")
    Platform(data=data).server_close()
    connection = sqlite3.connect(data)
    connection.executescript("""
        PRAGMA synchronous = OFF;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
        INSERT INTO events SELECT i, 'x' || i, '127.0.0.1', 'running', 1000 + i % 2,
            'message', '2026-01-01T00:00:00.000000Z', NULL FROM n;
        """)
    connection.execute(
        "INSERT INTO devices VALUES ('127.0.0.1', ?, x'00', 1000000, '2026-01-01T00:00:00Z', "
        "'2026-01-01T00:00:00Z', 'running', 1000, '')", [service.device_id("127.0.0.1")])
    connection.commit()
    connection.close()
    with Process("--data", data) as own:
        before, begun = own.busy(), time.monotonic()
        for path in ("/", "/devices", "/devices/127.0.0.1",
                     "/devices/127.0.0.1/events?per_page=1000", "/devices/127.0.0.1/events"):
            get(own.url + path)
        assert ask(own, "GET", "/devices/127.0.0.1/wait?timeout=0")[0] == 504
        assert ask(own, "GET", "/devices/127.0.0.1/wait?timeout=0&code=1001")[0] == 504
        assert own.post(b'{"state":"succeeded","code":1001}') == 200
        get(own.url + "/devices/127.0.0.1")
        assert own.busy() - before < 2 and own.memory() < 100
        assert time.monotonic() - begun < 10


def test_a_thousand_devices_are_on_the_page_in_a_moment(platform):
    event = state("running", 1000, "step")
    platform.store.insert([service.event_row(f"10.0.{n // 250}.{n % 250}", event)
                           for n in range(1000)])
    taken = []
    for _ in range(3):
        begun = time.process_time()
        assert get(platform.url).count(b'class="address"') == 1000
        taken.append(time.process_time() - begun)
    assert min(taken) < 0.2


BAD = {
    "no version": b"GET\r\n\r\n", "noise": bytes(range(256)) * 20, "a TLS hello":
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,
    "a long line": b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n",
    "many headers": b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    "an odd method": b"DANCE /events HTTP/1.1\r\n\r\n",
    "an odd version": b"GET / HTTP/9.9\r\n\r\n",
    "two lengths": b"POST /events HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "an odd path": b"GET //[\xff?%00=%ff&&= HTTP/1.1\r\n\r\n",
    "an odd page": b"GET /devices?page=\xb2 HTTP/1.1\r\n\r\n",
    "an odd device": b"GET /devices/%00%ff%25eth0/wait HTTP/1.1\r\n\r\n",
    "a long zone": b"GET /devices/::1%25" + b"x" * 9999 + b"/wait HTTP/1.1\r\n\r\n",
    "an odd host": b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD)
def test_goes_on_in_silence_after(platform, name, capsys):
    with socket.create_connection(platform.server_address) as bad:
        bad.sendall(BAD[name])
        bad.shutdown(socket.SHUT_WR)
        answer = bad.makefile("rb").read()
        assert re.match(rb"HTTP/1.[01] [45]\d\d |<!DOCTYPE", answer)
    with socket.create_connection(platform.server_address) as reset:
        reset.sendall(BAD[name])
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(platform, "POST", "/events", b"{}") == (200, b"")
    until(lambda: not platform.serving)
    assert capsys.readouterr().err == ""


def test_a_client_that_sends_too_much_reads_why(platform):
    connection = http.client.HTTPConnection(*platform.server_address)
    connection.request("POST", "/events", b"x" * (4 * 2**20 + 1))
    assert connection.getresponse().status == 413
    connection.close()
    with socket.create_connection(platform.server_address) as polite:
        polite.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 9999999\r\n"
                       b"Expect: 100-continue\r\n\r\n")
        assert polite.recv(100).startswith(b"HTTP/1.1 413 ")


def test_closes_behind_a_refusal_and_reads_on_for_a_moment(platform, monkeypatch):
    monkeypatch.setattr(service, "DRAIN_MOST", 2)
    with socket.create_connection(platform.server_address, timeout=10) as refused:
        begun = time.monotonic()
        refused.sendall(b"POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in refused.makefile("rb").read()
        assert time.monotonic() - begun < 2  # and not when it has ended to read
        with pytest.raises(ConnectionError):
            while time.monotonic() < begun + 10:
                refused.sendall(b"x")
        assert time.monotonic() - begun < 9


# Options

def test_names_devices_as_a_hosts_file_does(tmp_path):
    (tmp_path / "names").write_text(
        "# all of them\n10.0.0.1 first.example first # one\n\n"
        "127.0.0.1\tme.example\n2001:DB8::1 six\n10.0.0.1 later\n")
    with Process("--names", str(tmp_path / "names")) as own:
        assert read_json(own, "/metadata")["hostname"] == "me.example"
        assert own.post(b"{}") == 200
        assert b'title="me.example"' in get(own.url)
        assert b"me.example" in get(own.url + "/devices/127.0.0.1")
        assert read_json(own, "/devices")["devices"][0]["hostname"] == "me.example"
    assert service.read_names(str(tmp_path / "names")) == {
        "10.0.0.1": "first.example", "127.0.0.1": "me.example", "2001:db8::1": "six"}


def test_without_names_a_device_is_called_after_its_id(platform):
    assert read_json(platform, "/metadata")["hostname"] == (
        "practice-" + platform.device("127.0.0.1")[:8])


def test_takes_every_option(tmp_path, certificate):
    words = ("--host 127.0.0.1 --only 127.0.0.1 ::1 --quiet-after 0.5 --host-name a.example "
             "--host-name b.example --trust-proxy 127.0.0.1").split()
    with Process(*words, "--data", str(tmp_path / "events")) as own:
        for host in ("a.example", "b.example"):
            assert ask(own, "GET", "/metadata", None, {"Host": host})[0] == 200
        forwarded = {"X-Forwarded-For": "10.0.0.1"}
        assert ask(own, "GET", "/metadata", None, forwarded)[0] == 404
        forwarded = {"X-Forwarded-For": "0:0::1"}
        assert ask(own, "GET", "/metadata", None, forwarded)[0] == 200
    with Process("--tls-cert", certificate[0], "--tls-key", certificate[1]) as own:
        context = ssl.create_default_context(cafile=certificate[0])
        with urllib.request.urlopen(own.url + "/metadata", context=context) as reply:
            assert reply.status == 200


@pytest.mark.parametrize("words, line", [
    (["--data", "{folder}"], "cannot use .*: it is no regular file"),
    (["--data", "{folder}/no/file"], "cannot use .*: unable to open database file"),
    (["--data", "{folder}/lines"], "cannot use .*: it holds lines of JSON, .* another file"),
    (["--names", "{folder}/none"], "cannot read .*: No such file or directory"),
    (["--names", "{folder}/lines"], ".*lines, line 1: must be an address and a name"),
    (["--names", "{folder}/bytes"], "cannot read .*: it is not UTF-8"),
    (["--tls-cert", "{folder}/lines"], "--tls-cert and --tls-key belong together"),
    (["--tls-key", "{folder}/lines"], "--tls-cert and --tls-key belong together"),
    (["--tls-cert", "{folder}/lines", "--tls-key", "{folder}/lines"], "cannot use .*"),
    (["--tls-cert", "{folder}/none", "--tls-key", "{folder}/none"], "cannot use .*No such.*"),
    (["--host", "no such host"], "cannot start on no such host port .*")])
def test_says_in_a_line_what_prevents_a_start(tmp_path, words, line):
    (tmp_path / "lines").write_text('{"id": 1}\n')
    (tmp_path / "bytes").write_bytes(b"10.0.0.1 \xff\n")
    words = [word.replace("{folder}", str(tmp_path)) for word in words]
    ended = subprocess.run(
        [sys.executable, "-B", os.path.join(HERE, "service.py"), "--port", "0", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert re.fullmatch(f"service: {line}\n", ended.stderr.decode())


@pytest.mark.parametrize("words", [
    ["--quiet-after", "0"], ["--quiet-after", "nan"], ["--only", "x"], ["--port", "x"],
    ["--trust-proxy", "proxy.example"]])
def test_refuses_an_option_that_is_wrong_with_status_2(words):
    ended = subprocess.run([sys.executable, "-B", os.path.join(HERE, "service.py"), *words],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert f"argument {words[0]}: invalid " in ended.stderr.decode()


def test_says_that_whoever_reaches_it_can_post_and_read():
    with Process("--host", "0.0.0.0") as own:
        own.end(signal.SIGTERM)
        assert re.fullmatch(r"service: whoever reaches http://0.0.0.0:\d+ can post and read\n",
                            own.errors())
