"""The lines on stderr that tell of requests that are refused."""
import json

import pytest

from support.receivers import Receiver, ask, event, exchange, post

LARGE = b"POST /events HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"
REFUSED = {  # method, path, body, headers, status; what the line says
    "no event": ("POST", "/events", b"[]", {}, 400, "'no event: no object'"),
    "no event by name": ("POST", "/devices/a/events", b"", {}, 400, "'no event: "),
    "another address": ("POST", "/devices/10.0.0.1/events", b"{}", {}, 403,
                        "'only 10.0.0.1 itself may post there'"),
    "a page elsewhere": ("POST", "/events", b"{}", {"Origin": "http://evil.example"}, 403,
                         "'Origin: another site'"),
    "a foreign host": ("GET", "/", None, {"Host": "evil.example"}, 403,
                       "'Host: if evil.example is this receiver, start it with --host-name'"),
    "a malformed host": ("POST", "/events", b"{}", {"Host": "a b"}, 400, "'Host: "),
    "an unknown parameter": ("GET", "/devices?stat=failed", None, {}, 400,
                             "'stat: there is no such parameter here; "),
    "no machine as CSV": ("GET", "/events.csv?device=%20", None, {}, 400,
                          "' : no address and no name'"),
    "no machine in a list": ("GET", "/events?device=a/b", None, {}, 400,
                             "'a/b: no address and no name'"),
    "no machine": ("GET", "/devices/a+b/wait", None, {}, 400, "'a+b: no address and no name'"),
    "a long length": ("POST", "/events", None, {"Content-Length": "99999999"}, 413,
                      "'more than 4194304 bytes'"),
    "chunks": ("POST", "/events", None, {"Transfer-Encoding": "chunked"}, 411,
               "'Transfer-Encoding: "),
}


@pytest.mark.parametrize("method, path, body, headers, status, said", REFUSED.values(),
                         ids=REFUSED.keys())
def test_a_refusal_is_one_line_for_each_address_in_a_while(
        receiver, capsys, settings, method, path, body, headers, status, said):
    for _ in range(3):
        assert ask(receiver, method, path, body, headers)[0] == status
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f"receiver: refused 127.0.0.1: {status}, {said}")
    assert ask(receiver, method, path, body, headers, source="127.0.0.2")[0] == status
    line, = capsys.readouterr().err.splitlines()
    assert line.startswith(f"receiver: refused 127.0.0.2: {status}, {said}")
    settings(WARN_EVERY=-1)
    assert ask(receiver, method, path, body, headers)[0] == status
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_another_reason_is_another_line(receiver, capsys):
    assert post(receiver, b"[]")[0] == post(receiver, b"{")[0] == 400
    assert ask(receiver, "GET", "/?x=1")[0] == 400
    assert capsys.readouterr().err.count("receiver: refused 127.0.0.1: 400, ") == 3


def test_a_head_that_is_malformed_is_a_line(receiver, capsys):
    exchange(receiver, b"GET / HTTP/1.1\r\nX : 1\r\n\r\n")
    assert capsys.readouterr().err == (
        "receiver: refused 127.0.0.1: 400, 'a header line is malformed'\n")


def test_machines_beyond_the_limit_are_429_and_a_line(settings, capsys):
    settings(MACHINES_MOST=1)
    with Receiver(names={"10.0.0.1": "web-01"}) as receiver:
        for name in ("a", "b"):  # one for web-01, which has its place
            assert ask(receiver, "POST", f"/devices/{name}/events", b"{}")[0] == 200
        status, body = ask(receiver, "POST", "/devices/c/events", b"{}")
        assert status == 429
        assert "--names or --only" in json.loads(body.decode())["errors"][0]
        assert ask(receiver, "POST", "/devices/a/events", b"{}")[0] == 200
        receiver.tell("10.0.0.1", event("running"))  # as an option names it
        assert len(receiver.shown("10.0.0.1")) == 1
        assert receiver.shown("c") == []
    assert capsys.readouterr().err.startswith("receiver: refused 127.0.0.1: 429, '2 machines ")


def test_the_line_names_the_machine_behind_the_proxy(capsys):
    with Receiver(proxy="127.0.0.1") as receiver:
        assert post(receiver, b"[]", {"X-Forwarded-For": "10.0.0.7"})[0] == 400
        assert post(receiver, b"{}", {"X-Forwarded-For": "nobody"})[0] == 400
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "receiver: refused 10.0.0.7: 400", "receiver: refused 127.0.0.1: 400"]


@pytest.mark.parametrize("path", ["/?%1b[2J%0aX=1", "/?x%c2%9b=1", "/devices/%1b%0a/wait"])
def test_a_line_has_no_control_characters(receiver, capsys, path):
    assert ask(receiver, "GET", path)[0] == 400
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said[:-1].isprintable()
    assert said.isascii()


def test_many_reasons_are_bounded(receiver, capsys, settings):
    settings(WARN_MOST=5)
    for number in range(20):
        assert ask(receiver, "GET", f"/?x{number}=1")[0] == 400
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_a_post_by_a_name_that_is_not_its_own_is_taken_in_silence(receiver, capsys):
    assert post(receiver, b"{}", {"Host": "metadata.example.com"})[0] == 200
    assert capsys.readouterr().err == ""
