"""How it is started, what prevents that, and how it ends."""
import os
import re
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import urllib.request

import pytest

import service
from support.files import TESTS
from support.receivers import Process, ask, get, read_json
from support.waiting import wait_for


def test_starts_says_what_to_export_and_ends_in_silence_on_ctrl_c():
    with subprocess.Popen([sys.executable, "-B", os.path.join(TESTS, "service.py"), "--port",
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
    with subprocess.Popen([sys.executable, "-B", os.path.join(TESTS, "service.py"), "--data",
                           data], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as starting:
        wait_for(lambda: os.path.exists(data + "-lock"))
        starting.send_signal(number)
        assert starting.communicate(timeout=20) == (b"", b"")
        assert starting.returncode == 0
    other.close()


def test_says_in_a_line_that_it_cannot_write_to_stdout():
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-B", os.path.join(TESTS, "service.py"), "--port", "0"],
            stdout=full, stderr=subprocess.PIPE, timeout=20)
    assert (ended.returncode, ended.stderr) == (
        1, b"service: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize("words", [["--port", "70000"], ["--host", "192.0.2.1"]])
def test_says_in_a_line_why_it_cannot_start(words):
    ended = subprocess.run([sys.executable, "-B", os.path.join(TESTS, "service.py"), *words],
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


def test_without_names_a_device_is_called_after_its_id(receiver):
    assert read_json(receiver, "/metadata")["hostname"] == (
        "practice-" + receiver.device("127.0.0.1")[:8])


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
        [sys.executable, "-B", os.path.join(TESTS, "service.py"), "--port", "0", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert re.fullmatch(f"service: {line}\n", ended.stderr.decode())


@pytest.mark.parametrize("words", [
    ["--quiet-after", "0"], ["--quiet-after", "nan"], ["--only", "x"], ["--port", "x"],
    ["--trust-proxy", "proxy.example"]])
def test_refuses_an_option_that_is_wrong_with_status_2(words):
    ended = subprocess.run([sys.executable, "-B", os.path.join(TESTS, "service.py"), *words],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert f"argument {words[0]}: invalid " in ended.stderr.decode()
