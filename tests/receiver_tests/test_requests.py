"""Requests in odd forms, and clients that behave badly."""
import http.client
import json
import re
import socket
import struct
import time
import urllib.request

import pytest

import service
from support.receivers import ask, get, state
from support.waiting import wait_for


@pytest.mark.parametrize("method, path, status", [
    ("POST", "/events/", 404), ("GET", "/nothing", 404), ("POST", "/", 404),
    ("POST", "/metadata", 405), ("GET", "/devices/none/events", 404),
    ("GET", "/metadata", 200), ("GET", "/metadata?x=1", 200), ("GET", "/", 200)])
def test_answers(receiver, method, path, status):
    assert ask(receiver, method, path)[0] == status


def test_head_is_answered_without_a_body(receiver):
    receiver.put("127.0.0.1", {"state": "running", "code": 1000, "message": "m"})
    for path in ("/", "/devices", "/devices/127.0.0.1/events"):
        with socket.create_connection(receiver.server_address) as connection:
            connection.sendall(f"HEAD {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
            got = connection.makefile("rb").read()
        assert got.startswith(b"HTTP/1.1 200 ") and got.endswith(b"\r\n\r\n")


HEADS = {
    "over 4 MiB": (f"Content-Length: {4 * 2**20 + 1}", 413),
    "endless length": ("Content-Length: " + "9" * 5000, 413),
    "negative": ("Content-Length: -1", 400),
    "a word": ("Content-Length: many", 400),
    "signed": ("Content-Length: +2", 400),
    "chunked": ("Transfer-Encoding: chunked", 411),
}


@pytest.mark.parametrize("name", HEADS)
def test_goes_on_serving_after_a_bad_length(receiver, name):
    header, status = HEADS[name]
    with socket.create_connection(receiver.server_address) as bad:
        bad.sendall(f"POST /events HTTP/1.1\r\n{header}\r\n\r\n".encode())
        assert bad.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
    assert ask(receiver, "POST", "/events", b"{}") == (200, b"")


def test_a_body_that_is_cut_is_no_event_although_it_is_json(receiver):
    with socket.create_connection(receiver.server_address, timeout=10) as bad:
        bad.sendall(b'POST /events HTTP/1.1\r\nContent-Length: 99\r\n\r\n{"code": 1}')
        bad.shutdown(socket.SHUT_WR)
        assert bad.recv(100) == b""
    assert receiver.shown() == []


def test_takes_a_body_of_4_mib(receiver):
    empty = json.dumps(state("running", 1000, ""))
    body = json.dumps(state("running", 1000, "x" * (4 * 2**20 - len(empty)))).encode()
    assert len(body) == 4 * 2**20
    assert ask(receiver, "POST", "/events", body) == (200, b"")
    assert len(receiver.shown()[0][2]) == 4 * 2**20 - len(empty)


def test_a_body_that_nobody_asked_for_is_not_the_next_request(receiver):
    connection = http.client.HTTPConnection(*receiver.server_address)
    for _ in range(2):
        connection.request("POST", "/metadata", b"GET /nothing HTTP/1.0\r\n\r\n")
        reply = connection.getresponse()
        assert (reply.status, bool(reply.read())) == (405, True)
    connection.close()


def test_serves_others_while_a_client_hangs(receiver):
    with socket.create_connection(receiver.server_address) as idle, \
            socket.create_connection(receiver.server_address) as half:
        half.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        idle.sendall(b"GET")
        assert ask(receiver, "POST", "/events", b"{}") == (200, b"")


def test_an_unknown_page_is_a_404_for_urllib_too(receiver):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(receiver.url + "/phone-home")


def test_a_fault_of_its_own_is_a_line_and_no_end(receiver, monkeypatch, capsys):
    def fail(body):
        raise KeyError("\x1b")
    monkeypatch.setattr(service, "read_event", fail)
    for _ in range(2):
        with pytest.raises(http.client.RemoteDisconnected):
            ask(receiver, "POST", "/events", b"{}")
    assert get(receiver.url)
    assert re.fullmatch("service: cannot answer: KeyError: [ -~]+\n", capsys.readouterr().err)


@pytest.mark.parametrize("request_head", [
    b"", b"POST /events HT", b"POST /events HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
    b"POST /events HTTP/1.1\r\nContent-Length: 999999\r\n\r\n{"])
def test_cuts_off_a_client_that_sends_byte_after_byte(receiver, monkeypatch, request_head):
    monkeypatch.setattr(service, "REQUEST_MOST", 0.3)
    with socket.create_connection(receiver.server_address) as slow:
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
    wait_for(lambda: not receiver.serving)
    assert ask(receiver, "POST", "/events", b"{}") == (200, b"")


def test_cuts_off_a_client_that_does_not_read(receiver, monkeypatch):
    for _ in range(4):
        receiver.put("127.0.0.1", state("running", 1, "x" * (4 << 20)))
    monkeypatch.setattr(service, "REQUEST_MOST", 0.5)
    with socket.create_connection(receiver.server_address) as deaf:
        deaf.sendall(b"GET /devices/127.0.0.1/events HTTP/1.1\r\n\r\n")
        wait_for(lambda: receiver.serving)
        wait_for(lambda: not receiver.serving)


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
def test_goes_on_in_silence_after(receiver, name, capsys):
    with socket.create_connection(receiver.server_address) as bad:
        bad.sendall(BAD[name])
        bad.shutdown(socket.SHUT_WR)
        answer = bad.makefile("rb").read()
        assert re.match(rb"HTTP/1.[01] [45]\d\d |<!DOCTYPE", answer)
    with socket.create_connection(receiver.server_address) as reset:
        reset.sendall(BAD[name])
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(receiver, "POST", "/events", b"{}") == (200, b"")
    wait_for(lambda: not receiver.serving)
    assert capsys.readouterr().err == ""


def test_a_client_that_sends_too_much_reads_why(receiver):
    connection = http.client.HTTPConnection(*receiver.server_address)
    connection.request("POST", "/events", b"x" * (4 * 2**20 + 1))
    assert connection.getresponse().status == 413
    connection.close()
    with socket.create_connection(receiver.server_address) as polite:
        polite.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 9999999\r\n"
                       b"Expect: 100-continue\r\n\r\n")
        assert polite.recv(100).startswith(b"HTTP/1.1 413 ")


def test_closes_behind_a_refusal_and_reads_on_for_a_moment(receiver, monkeypatch):
    monkeypatch.setattr(service, "DRAIN_MOST", 2)
    with socket.create_connection(receiver.server_address, timeout=10) as refused:
        begun = time.monotonic()
        refused.sendall(b"POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert b"\r\nConnection: close\r\n" in refused.makefile("rb").read()
        assert time.monotonic() - begun < 2  # and not when it has ended to read
        with pytest.raises(ConnectionError):
            while time.monotonic() < begun + 10:
                refused.sendall(b"x")
        assert time.monotonic() - begun < 9
