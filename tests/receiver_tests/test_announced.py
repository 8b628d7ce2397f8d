"""The addresses that a receiver says at its start, and from where it can be started."""
import glob
import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from receiver import __main__ as program
from support.files import SOURCE, TESTS, TOP
from support.processes import Ended, ended, run, start_command
from support.receivers import (
    RECEIVER_SCRIPT,
    TAKEN,
    ReceiverProcess,
    ask,
    get,
    make_archive,
    post,
    read_json,
    run_receiver,
)


def own_addresses(family):
    """Return the addresses of this host's interfaces but the loopback, or skip."""
    found = program.own_addresses(family)
    if not found:
        pytest.skip("this host has no address but the loopback")
    return found


def lines_until_ready(receiver):
    """Return all lines that it has said on stdout; it has to have been ended."""
    receiver.process.send_signal(signal.SIGTERM)
    rest = receiver.process.stdout.read().decode()  # to the end
    assert ended(receiver.process).status == 0
    return "".join(receiver.announced) + rest


@pytest.mark.parametrize("host, family", [
    ("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6)])
def test_for_all_interfaces_it_says_addresses_that_machines_can_use(host, family):
    own = own_addresses(family)
    try:
        with ReceiverProcess("--host", host) as receiver:
            assert read_json(receiver, "/healthz") == {"status": "ok"}
            said = lines_until_ready(receiver)
    except AssertionError as error:
        if family == socket.AF_INET6 and "cannot start" in str(error):
            pytest.skip("no IPv6 here")
        raise
    found = re.findall(r"http://(\[.*?\]|[^:/]+):\d+/", said)
    assert found
    assert not {"0.0.0.0", "[::]", "127.0.0.1", "[::1]"} & set(found)
    assert found[0].strip("[]") == own[0]
    assert {address.strip("[]") for address in found} == set(own)
    assert f"export USERSTATE_METADATA_URL=http://{found[0]}:" in said


def test_the_program_reaches_what_it_says_for_all_interfaces():
    own_addresses(socket.AF_INET)
    with ReceiverProcess("--host", "0.0.0.0") as receiver:
        url = receiver.announced[1].strip().partition("=")[2]
        assert run("running", "1000", "x", env={"USERSTATE_METADATA_URL": url}).status == 0
        device, = read_json(receiver, "/devices")["devices"]
        assert device["ip"] == receiver.server_address[0]


@pytest.mark.parametrize("family, host", [
    (socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_host_without_a_network_says_its_loopback(monkeypatch, family, host):
    class Bound:
        scheme, address_family = "http", family
        server_address = ("0.0.0.0" if family == socket.AF_INET else "::", 8000)
    monkeypatch.setattr(program, "own_addresses", lambda family: [])
    shown = f"[{host}]" if ":" in host else host
    assert program.urls(Bound) == [f"http://{shown}:8000"]


def test_serves_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with ReceiverProcess("--host", "::1") as receiver:
        assert receiver.url.startswith("http://[::1]:")
        assert json.loads(get(receiver.url + "/metadata"))["user_state_url"] == (
            receiver.url + "/events")
        url = receiver.announced[1].strip().partition("=")[2]
        assert run("running", "1000", "x", env={"USERSTATE_METADATA_URL": url}).status == 0
        device, = json.loads(get(receiver.url + "/devices"))["devices"]
        assert device["device"] == "::1"


def test_a_port_that_is_taken_names_the_option():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run_receiver("--port", port) == (
            1, "", f"receiver: cannot start on 127.0.0.1 port {port}: [Errno 98] Address "
                   "already in use; another --port?\n")


def start_as(*command, cwd):
    """Start the receiver by this command, with the tests' flags; return its address."""
    process = start_command(*command, "--port", "0", cwd=str(cwd), stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    line = process.stdout.readline().decode()
    assert re.search(r"http://\S+:\d+/", line), ended(process)
    return process, line.strip().rpartition(" ")[2]


def check_and_end(process, url):
    """Let what runs take an event and serve its pages and the program."""
    assert get(url + "userstate.py") == SOURCE
    assert b"<table" in get(url + "install") or b"<pre" in get(url + "install")
    assert b"USERSTATE_METADATA_URL" in get(url + "devices/web-01/user-data")
    assert run("--metadata-url", url + "devices/web-01/metadata", "running", "1000",
               "x").status == 0
    assert b"web-01" in get(url + "devices/web-01")
    assert b"<svg" in get(url) or b"web-01" in get(url)
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize("folder", [TOP, TESTS, RECEIVER_SCRIPT, os.sep])
def test_starts_from_any_folder(folder):
    where = os.path.relpath(RECEIVER_SCRIPT, folder)
    check_and_end(*start_as(sys.executable, "-B", where, cwd=folder))


def test_starts_though_strays_lie_in_the_working_folder(tmp_path):
    for name in ("json", "receiver", "userstate", "sqlite3"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stray')")
    check_and_end(*start_as(sys.executable, "-B", RECEIVER_SCRIPT, cwd=tmp_path))


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """The receiver as one file, made by the Makefile."""
    return make_archive(tmp_path_factory.mktemp("archive"))


def test_the_one_file_serves_all_from_any_folder(archive, tmp_path):
    check_and_end(*start_as(sys.executable, archive, cwd=tmp_path))
    check_and_end(*start_as(sys.executable, "-I", archive, cwd=os.path.dirname(archive)))
    assert os.listdir(str(tmp_path)) == []
    assert not glob.glob(os.path.dirname(archive) + "/**/__pycache__", recursive=True)


def test_the_one_file_runs_by_itself(archive, tmp_path):
    copy = tmp_path / "receiver.pyz"
    with open(archive, "rb") as file:
        copy.write_bytes(file.read())
    copy.chmod(0o755)
    path = os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"]
    process = start_command(str(copy), "--port", "0", cwd=str(tmp_path), env={"PATH": path},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    url = process.stdout.readline().decode().strip().rpartition(" ")[2]
    check_and_end(process, url)


def test_the_one_file_runs_with_each_python(archive, python, tmp_path):
    if python_version(python) < (3, 8):
        pytest.skip("the receiver needs Python 3.8")
    check_and_end(*start_as(python, archive, cwd=tmp_path))


def python_version(python):
    shown = subprocess.run([python, "-c", "import sys; print(*sys.version_info[:2])"],
                           stdout=subprocess.PIPE, check=True).stdout
    return tuple(map(int, shown.split()))


def test_says_all_of_its_options():
    done = run_receiver("--help")
    assert (done.status, done.err) == (0, "")
    wanted = ("--host --port --data --keep --only --names --quiet-after --notify --notify-on "
              "--host-name --allow-delete --tls-cert --tls-key --trust-proxy --help").split()
    assert sorted(re.findall(r"(?m)^  (?:-h, )?(--[a-z-]+)", done.out)) == sorted(wanted)


def test_takes_events_at_once_when_it_has_said_its_address():
    with ReceiverProcess() as receiver:
        assert post(receiver) == TAKEN
        assert ask(receiver, "GET", "/healthz")[0] == 200
        assert isinstance(receiver.end(signal.SIGTERM), Ended)
