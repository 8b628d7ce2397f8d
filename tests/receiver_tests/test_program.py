"""What a machine fetches from the receiver: userstate.py and the script that uses it."""
import hashlib
import html
import os
import shlex
import sys

import pytest

from support.files import SOURCE
from support.processes import run_command
from support.receivers import Receiver, ask, event, read_json, requested
from support.tools import find, needs

SHA256 = hashlib.sha256(SOURCE).hexdigest()
PROXIED = {"Host": "boot.example", "X-Forwarded-For": "10.0.0.7", "X-Forwarded-Proto": "https"}


def test_serves_the_program_as_it_is_with_its_tag(receiver):
    with requested(receiver, "GET", "/userstate.py") as reply:
        assert (reply.status, reply.read()) == (200, SOURCE)
        assert reply.getheader("ETag") == f'"{SHA256}"'
        assert reply.getheader("Content-Type").startswith("text/x-python")
    with requested(receiver, "HEAD", "/userstate.py") as reply:
        assert reply.getheader("Content-Length") == str(len(SOURCE))
        assert reply.read() == b""


@pytest.mark.parametrize("tag, status, body", [
    (f'"{SHA256}"', 304, b""), ('"another"', 200, SOURCE), (SHA256, 200, SOURCE),
    (f'W/"{SHA256}"', 304, b""), (f'"another", "{SHA256}"', 304, b""), ("*", 304, b"")])
def test_who_has_the_program_does_not_get_it_again(receiver, tag, status, body):
    with requested(receiver, "GET", "/userstate.py", headers={"If-None-Match": tag}) as reply:
        assert (reply.status, reply.read()) == (status, body)
        assert reply.getheader("ETag") == f'"{SHA256}"'
        assert reply.headers.get_all("Cache-Control") == ["no-cache"]
        length = {200: str(len(SOURCE)), 304: None}[status]
        assert reply.getheader("Content-Length") == length


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
@pytest.mark.parametrize("path", ["/userstate.py", "/user-data", "/devices/a/user-data"])
def test_nobody_changes_them(receiver, method, path):
    assert ask(receiver, method, path, b"{}")[0] == 404


def assigned(script):
    """Return {name: value} of the lines NAME=VALUE of a script, as a shell reads them."""
    pairs = (line.partition("=") for line in script.splitlines() if not line.startswith(" "))
    return {name.replace("export ", ""): shlex.split(value) for name, _, value in pairs
            if name.replace("export ", "").isidentifier() and "(" not in value}


@pytest.mark.parametrize("path, machine", [
    ("/user-data", ""), ("/devices/WEB-01/user-data", "/devices/web-01"),
    ("/devices/::FFFF:10.0.0.1/user-data", "/devices/10.0.0.1")])
def test_fills_the_script_in_with_its_address_the_sum_and_the_machine(receiver, path, machine):
    for headers, base in (({}, receiver.url), ({"Host": "boot.example:81"},
                                               "http://boot.example:81")):
        status, body = ask(receiver, "GET", path, headers=headers)
        assert status == 200
        values = assigned(body.decode("ascii"))
        assert values["PROGRAM"] == [base + "/userstate.py"]
        assert values["SHA256"] == [SHA256]
        assert values["USERSTATE_METADATA_URL"] == [f"{base}{machine}/metadata"]


def test_behind_a_proxy_the_script_leads_to_the_proxy():
    with Receiver(proxy="127.0.0.1") as receiver:
        _, body = ask(receiver, "GET", "/user-data", headers=PROXIED)
        assert assigned(body.decode())["PROGRAM"] == ["https://boot.example/userstate.py"]
        _, body = ask(receiver, "GET", "/user-data",
                      headers=dict(PROXIED, **{"X-Forwarded-Proto": "x; reboot"}))
        assert assigned(body.decode())["PROGRAM"] == ["http://boot.example/userstate.py"]


@pytest.mark.parametrize("host", ["$(reboot)", "a;b", "`b`", "a'b", 'a"b', "a b", "a&b"])
def test_no_host_gets_a_command_into_the_script(receiver, host):
    status, body = ask(receiver, "GET", "/user-data", headers={"Host": host})
    assert status == 400
    assert b"#!/bin" not in body


def test_the_page_of_what_to_paste_is_there_while_nothing_has_arrived(receiver):
    for path in ("/", "/install"):
        page = html.unescape(ask(receiver, "GET", path)[1].decode())
        assert f"USERSTATE_METADATA_URL={receiver.url}/metadata\n" in page
        assert SHA256 in page
    receiver.tell("10.0.0.1", event("running"))
    assert SHA256 not in ask(receiver, "GET", "/")[1].decode()
    assert SHA256 in ask(receiver, "GET", "/install")[1].decode()


def test_the_script_is_one_that_a_shell_can_read(receiver):
    _, body = ask(receiver, "GET", "/devices/web-01/user-data")
    assert body.startswith(b"#!/bin/")
    assert run_command("sh", "-n", input=body) == (0, "", "")


def test_one_line_with_curl_reports(receiver):
    needs("curl")
    line = (f"curl -fsS {receiver.url}/userstate.py | "
            f"USERSTATE_METADATA_URL={receiver.url}/devices/web-01/metadata "
            f"'{sys.executable}' -I - running 1000 'a try'")
    assert run_command("sh", "-c", line).status == 0
    assert receiver.shown("web-01") == [("user.1000", "running", "a try")]


def test_the_served_script_runs_and_reports_by_name(receiver, tmp_path):
    needs("curl", "timeout", "sha256sum")
    _, body = ask(receiver, "GET", "/devices/web-01/user-data")
    script = body.decode("ascii").replace("/srv/app", str(tmp_path / "app"))
    path = os.path.dirname(find("python3")) + os.pathsep + os.environ["PATH"]
    done = run_command("sh", "-c", script, cwd=str(tmp_path),
                       env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": path})
    assert done.status == 100, done
    assert [(kind, state) for kind, state, _ in receiver.shown("web-01")] == [
        ("user.1000", "running"), ("user.1010", "running"), ("user.1010", "succeeded"),
        ("user.1020", "running"), ("user.1020", "failed"), ("user.1000", "failed")]
    device, = read_json(receiver, "/devices")["devices"]
    assert device["device"] == "web-01"
    assert (device["state"], device["code"]) == ("failed", 1020)  # the cause
