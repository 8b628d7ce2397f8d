"""Requests in odd forms, and clients that behave badly."""
import http.client
import json
import re
import socket
import struct
import urllib.error
from contextlib import closing

import pytest

from receiver import handler
from support.receivers import (
    TAKEN,
    ask,
    connect,
    event,
    exchange,
    get,
    post,
    read_to_end,
)
from support.waiting import at_most, wait_for


@pytest.mark.parametrize("method, path, status", [
    ("GET", "/", 200), ("GET", "/metadata", 200), ("GET", "/metadata?x=1", 200),
    ("GET", "/nothing", 404), ("POST", "/", 404), ("POST", "/events/", 404),
    ("GET", "/devices/none/events", 404), ("POST", "/metadata", 405)])
def test_answers(receiver, method, path, status):
    assert ask(receiver, method, path)[0] == status


def test_an_unknown_page_is_a_404_for_urllib_too(receiver):
    with pytest.raises(urllib.error.HTTPError, match="404") as raised:
        get(receiver.url + "/phone-home")
    raised.value.close()


@pytest.mark.parametrize("path", ["/", "/devices", "/devices/127.0.0.1/events"])
def test_head_is_answered_without_a_body(receiver, path):
    receiver.tell("127.0.0.1", event("running"))
    answer = exchange(receiver, f"HEAD {path} HTTP/1.1\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


def test_a_body_that_nobody_asked_for_is_not_the_next_request(receiver):
    with closing(http.client.HTTPConnection(*receiver.server_address)) as connection:
        for _ in range(2):
            connection.request("POST", "/metadata", b"GET /nothing HTTP/1.0\r\n\r\n")
            reply = connection.getresponse()
            assert (reply.status, reply.getheader("Allow")) == (405, "GET")
            assert reply.read() != b""


def test_takes_a_body_of_4_mib(receiver):
    room = 4 * 2**20 - len(json.dumps(event("running")))
    body = json.dumps(event("running", message="x" * room)).encode()
    assert len(body) == 4 * 2**20
    assert post(receiver, body) == TAKEN
    assert receiver.shown() == [("user.1000", "running", "x" * room)]


HEADS = {
    "over 4 MiB": (f"Content-Length: {4 * 2**20 + 1}", 413),
    "endless length": ("Content-Length: " + "9" * 5000, 413),
    "negative": ("Content-Length: -1", 400),
    "a word": ("Content-Length: many", 400),
    "signed": ("Content-Length: +2", 400),
    "chunked": ("Transfer-Encoding: chunked", 411),
    "chunked and a length": ("Content-Length: 2\r\nTransfer-Encoding: chunked", 411),
    "two lengths": ("Content-Length: 2\r\nContent-Length: 3", 400),
    "two lengths in one": ("Content-Length: 2, 3", 400),
    "hexadecimal": ("Content-Length: 0x2", 400),
    "an empty length": ("Content-Length:", 400),
}


@pytest.mark.parametrize("header, status", HEADS.values(), ids=HEADS.keys())
def test_goes_on_serving_after_a_bad_length(receiver, header, status):
    with connect(receiver) as bad:
        bad.sendall(f"POST /events HTTP/1.1\r\n{header}\r\n\r\n".encode())
        assert bad.recv(100).startswith(f"HTTP/1.1 {status} ".encode())
    assert post(receiver) == TAKEN


def test_a_client_that_sends_too_much_reads_why(receiver):
    assert post(receiver, b"x" * (4 * 2**20 + 1))[0] == 413


def test_a_client_that_asks_before_it_sends_too_much_reads_why(receiver):
    with connect(receiver) as polite:
        polite.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 9999999\r\n"
                       b"Expect: 100-continue\r\n\r\n")
        assert polite.recv(100).startswith(b"HTTP/1.1 413 ")


def has_reset(client):
    """Send one more byte; return whether the connection has ended for both directions."""
    try:
        client.sendall(b"x")
    except ConnectionError:
        return True
    return False


def test_closes_behind_a_refusal_and_reads_on_for_a_moment(receiver, settings):
    settings(DRAIN_MOST=2)
    with connect(receiver) as refused:
        with at_most(9, least=1):
            with at_most(2):  # and not when it has ended to read
                refused.sendall(b"POST /events HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
                assert b"\r\nConnection: close\r\n" in read_to_end(refused)
            wait_for(lambda: has_reset(refused))


def test_a_body_that_is_cut_is_no_event_although_it_is_json(receiver):
    assert exchange(receiver, b'POST /events HTTP/1.1\r\nContent-Length: 99\r\n\r\n'
                              b'{"code": 1}') == b""
    assert receiver.shown() == []


def test_serves_others_while_a_client_hangs(receiver):
    with connect(receiver) as idle, connect(receiver) as half:
        half.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 9\r\n\r\n{")
        idle.sendall(b"GET")
        assert post(receiver) == TAKEN


def is_cut_off(client):
    """Send one more byte; return whether the receiver has ended the connection."""
    try:
        client.sendall(b"x")
        return not client.recv(100)
    except socket.timeout:
        return False
    except ConnectionError:
        return True


@pytest.mark.parametrize("begin", [
    b"", b"POST /events HT", b"POST /events HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
    b"POST /events HTTP/1.1\r\nContent-Length: 999999\r\n\r\n{"])
def test_cuts_off_a_client_that_sends_byte_after_byte(receiver, settings, begin):
    settings(REQUEST_MOST=0.3)
    with connect(receiver) as slow:
        slow.sendall(begin)
        slow.settimeout(0.01)
        with at_most(10):
            wait_for(lambda: is_cut_off(slow))
    wait_for(lambda: not receiver.serving)
    assert post(receiver) == TAKEN


def test_cuts_off_a_client_that_does_not_read(receiver, settings):
    for _ in range(4):
        receiver.tell("127.0.0.1", event("running", message="x" * 4 * 2**20))
    settings(REQUEST_MOST=0.5)
    with connect(receiver) as deaf:
        deaf.sendall(b"GET /devices/127.0.0.1/events HTTP/1.1\r\n\r\n")
        wait_for(lambda: receiver.serving)
        wait_for(lambda: not receiver.serving)


BAD = {
    "no version": b"GET\r\n\r\n",
    "noise": bytes(range(256)) * 20,
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500,
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
AT_MOST_A_LINE = r"(receiver: refused 127\.0\.0\.1: [45]\d\d, [ -~]{1,400}\n)?"


@pytest.mark.parametrize("request_bytes", BAD.values(), ids=BAD.keys())
def test_refuses_with_one_line_at_most(receiver, request_bytes, capsys):
    for _ in range(2):
        answer = exchange(receiver, request_bytes)
        assert re.match(rb'HTTP/1.[01] [45]\d\d |\{\s+"errors": ', answer)
    assert post(receiver) == TAKEN
    wait_for(lambda: not receiver.serving)
    assert re.fullmatch(AT_MOST_A_LINE, capsys.readouterr().err)


@pytest.mark.parametrize("request_bytes", BAD.values(), ids=BAD.keys())
def test_goes_on_after_a_reset_behind(receiver, request_bytes, capsys):
    with connect(receiver) as reset:
        reset.sendall(request_bytes)
        reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert post(receiver) == TAKEN
    wait_for(lambda: not receiver.serving)
    assert re.fullmatch(AT_MOST_A_LINE, capsys.readouterr().err)


def test_a_client_that_is_gone_when_it_is_answered_is_forgotten(receiver):
    writer = receiver.store.writers.get()  # as if the disk were busy
    try:
        with connect(receiver) as gone:
            gone.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
            wait_for(lambda: receiver.answering)
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        receiver.store.writers.put(writer)
    wait_for(lambda: not receiver.serving)
    assert not receiver.answering  # else the end would wait for it


def test_a_fault_of_its_own_is_a_line_and_no_end(receiver, monkeypatch, capsys):
    def fail(body):
        raise KeyError("\x1b")
    monkeypatch.setattr(handler, "read_event", fail)
    for _ in range(2):
        with pytest.raises(http.client.RemoteDisconnected):
            post(receiver)
    assert get(receiver.url + "/healthz")
    assert re.fullmatch("receiver: cannot answer: KeyError: [ -~]+\n", capsys.readouterr().err)
