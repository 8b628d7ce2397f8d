"""A machine in a network of its own, which changes its source address or shares one."""
import json
import os
import re
import signal
import subprocess
import sys
import uuid

import pytest

from support.files import SCRIPT
from support.processes import ended, run_command, start_command
from support.receivers import RECEIVER_SCRIPT, ReceiverProcess, event, read_json
from support.tools import find, needs

# Of RFC 2544; others may run the same tests on this machine.
HOST, FIRST, SECOND = (f"198.18.{os.getpid() % 256}.{number}" for number in (1, 2, 3))


class Machine:
    """A network namespace, joined to this one by a pair of interfaces."""

    def __init__(self):
        self.name = f"us-{uuid.uuid4().hex[:8]}"
        self.link = self.name[:11] + "h"

    def ip(self, *words):
        done = subprocess.run([find("ip"), *words], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=20)
        if done.returncode:
            pytest.skip(f"ip {' '.join(words)}: {done.stdout.decode().strip()}")

    def __enter__(self):
        self.ip("netns", "add", self.name)
        try:
            self.ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0",
                    "netns", self.name)
            self.ip("address", "add", f"{HOST}/24", "dev", self.link)
            self.ip("link", "set", self.link, "up")
            self.ip("-n", self.name, "link", "set", "eth0", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception):
        subprocess.run([find("ip"), "netns", "delete", self.name], timeout=20, check=False)
        subprocess.run([find("ip"), "link", "delete", self.link], timeout=20, check=False,
                       stderr=subprocess.DEVNULL)

    def have(self, address):
        """Have this address and no other one."""
        self.ip("-n", self.name, "address", "flush", "dev", "eth0")
        self.ip("-n", self.name, "address", "add", f"{address}/24", "dev", "eth0")

    def report(self, url, state, code=1000):
        """Report a state by the program, in the namespace."""
        done = run_command(find("ip"), "netns", "exec", self.name, sys.executable, "-B", SCRIPT,
                           "--metadata-url", url, state, str(code), state)
        assert done.status == 0, done


@pytest.fixture
def machine():
    needs("ip")
    if os.getuid() != 0:
        pytest.skip("a network namespace is for root")
    with Machine() as machine:
        yield machine


@pytest.fixture
def lan_receiver(machine):
    with ReceiverProcess("--host", HOST) as receiver:
        yield receiver


def rows(receiver):
    return {device["device"]: (device["state"], device["ip"])
            for device in read_json(receiver, "/devices")["devices"]}


def test_a_name_survives_another_address(machine, lan_receiver):
    url = f"{lan_receiver.url}/devices/WEB-01/metadata"
    machine.have(FIRST)
    machine.report(url, "running")
    assert rows(lan_receiver) == {"web-01": ("running", FIRST)}
    machine.have(SECOND)
    machine.report(url, "succeeded")
    assert rows(lan_receiver) == {"web-01": ("succeeded", SECOND)}


def test_without_a_name_another_address_is_another_machine(machine, lan_receiver):
    for address, state in ((FIRST, "running"), (SECOND, "succeeded")):
        machine.have(address)
        machine.report(f"{lan_receiver.url}/metadata", state)
    assert rows(lan_receiver) == {FIRST: ("running", FIRST), SECOND: ("succeeded", SECOND)}


def test_two_machines_behind_one_address_are_two_by_their_names(machine, lan_receiver):
    machine.have(FIRST)
    for name, state in (("web-01", "failed"), ("web-02", "succeeded")):
        machine.report(f"{lan_receiver.url}/devices/{name}/metadata", state)
    assert rows(lan_receiver) == {"web-01": ("failed", FIRST), "web-02": ("succeeded", FIRST)}


def test_another_machine_neither_posts_as_an_address_nor_deletes(machine, lan_receiver):
    machine.have(FIRST)
    machine.report(f"{lan_receiver.url}/metadata", "running")
    machine.have(SECOND)
    for method, path in (("POST", f"/devices/{FIRST}/events"),
                         ("DELETE", f"/devices/{FIRST}")):
        code = ("import http.client, sys; c = http.client.HTTPConnection(*sys.argv[1:3]); "
                "c.request(*sys.argv[3:]); print(c.getresponse().status)")
        done = run_command(find("ip"), "netns", "exec", machine.name, sys.executable, "-c",
                           code, *map(str, lan_receiver.server_address), method, path,
                           json.dumps(event("succeeded")))
        assert done.out == "403\n", done
    assert rows(lan_receiver) == {FIRST: ("running", FIRST)}


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_says_the_addresses_of_all_interfaces_also_without_a_way_out(host, machine):
    def ip(words):
        machine.ip("-n", machine.name, *words.split())
    machine.have(FIRST)
    ip("link add lan0 type veth peer name lan1")
    wanted = {FIRST, "192.168.77.1"}
    ip("address add 192.168.77.1/24 dev lan0")
    if host == "::":
        wanted.add("[fd00:77::1]")
        ip("address add fd00:77::1/64 dev lan0 nodad")
    for name in ("lan0", "lan1", "lo"):
        ip(f"link set {name} up")
    process = start_command(find("ip"), "netns", "exec", machine.name, sys.executable, "-B",
                            RECEIVER_SCRIPT, "--host", host, "--port", "0",
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    lines = [process.stdout.readline().decode() for _ in range(1 + len(wanted))]
    process.send_signal(signal.SIGTERM)
    assert ended(process).status == 0
    found = re.findall(r"http://(\[.*?\]|[^:/]+):\d+/\n", "".join(lines))
    assert set(found) == wanted
    assert lines[1].startswith("export USERSTATE_METADATA_URL=http://")
