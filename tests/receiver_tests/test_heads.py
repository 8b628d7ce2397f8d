"""The head of a request: what a proxy in front might read in another way is refused."""
import pytest

from receiver.handler import HEAD_MOST
from support.receivers import Receiver, connect, exchange

INNER = (b"POST /devices/smuggled/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
         b"Connection: close\r\nContent-Length: 2\r\n\r\n{}")
LENGTH = f"Content-Length: {len(INNER)}".encode()


def post_with(*lines):
    """Return a request of these header lines, whose body is a request, too."""
    return b"\r\n".join([b"POST /events HTTP/1.1", b"Host: 127.0.0.1", *lines, b"", INNER])


MALFORMED = {
    "white space before the colon": post_with(LENGTH.replace(b":", b" :")),
    "a tab before the colon": post_with(LENGTH.replace(b":", b"\t:")),
    "white space in a name": post_with(b"X Y: 1", LENGTH),
    "white space before the coding's colon": post_with(b"Transfer-Encoding : chunked", LENGTH),
    "no colon": post_with(b"Nothing", LENGTH),
    "no name": post_with(b": 1", LENGTH),
    "a name that is no token": post_with(b"X(Y): 1", LENGTH),
    "a name that is not ASCII": post_with(b"X\xe4: 1", LENGTH),
    "a bare CR": post_with(b"X: 1\rContent-Length: 0", LENGTH),
    "a bare CR at the end": post_with(b"X: 1\r", LENGTH),
    "a bare CR as the first line": post_with(b"\rX: 1", LENGTH),
    "a folded line": post_with(b"X: 1", b" 2", LENGTH),
    "a folded line with a header": post_with(b"X: 1", b"\tContent-Length: 0", LENGTH),
    "a folded line that is the first": post_with(LENGTH).replace(b"Host", b" Host", 1),
    "a folded line that is empty": post_with(b"X: 1", b" ", LENGTH),
    "a bare CR in the request": post_with(LENGTH).replace(b"/events ", b"/events\r ", 1),
    "a head that is cut": b"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Le",
    "two lengths": post_with(LENGTH, b"Content-Length: 0"),
    "a length behind a comma": post_with(LENGTH + b", 0"),
    "two hosts": post_with(b"Host: 127.0.0.2", LENGTH),
}


@pytest.mark.parametrize("request_bytes", MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_head_is_a_400_and_the_connection_ends(receiver, request_bytes):
    answer = exchange(receiver, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert receiver.store.last() == 0


@pytest.mark.parametrize("line", [
    b"GET /healthz HTTP/1.1\r\r\n", b"GET /healthz\r HTTP/1.1\r\n",
    b"GET http://[ HTTP/1.1\r\n"])
def test_a_malformed_request_line_is_a_400(receiver, line):
    answer = exchange(receiver, line + b"\r\n" + INNER)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1


def test_an_empty_coding_hides_none_behind_it(receiver):
    answer = exchange(receiver, b"POST /events HTTP/1.1\r\nTransfer-Encoding:\r\n"
                                b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}"
                                + INNER)
    assert answer.startswith(b"HTTP/1.1 411 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert receiver.store.last() == 0


@pytest.mark.parametrize("lines, status", [
    (b"X: %s\r\n" % (b"x" * (HEAD_MOST - 7)), 200),  # with the empty line, all of it
    (b"X: %s\r\n" % (b"x" * (HEAD_MOST - 6)), 431),
    (b"X: %s\r\n" % (b"x" * 1000) * 40, 431)], ids=["most", "more", "many"])
def test_a_head_takes_little_memory(receiver, lines, status):
    answer = exchange(receiver, b"GET /healthz HTTP/1.1\r\n" + lines + b"\r\n")
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert answer.count(b"HTTP/1.1 ") == 1


def test_who_asks_before_the_body_is_told_at_once_to_go_on(receiver):
    with connect(receiver) as connection:
        connection.sendall(b"POST /events HTTP/1.1\r\nContent-Length: 2\r\n"
                           b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_what_is_no_request_is_told_of_its_own_client(capsys):
    with Receiver(proxy="127.0.0.1") as receiver:
        assert exchange(receiver, INNER.replace(
            b"Connection: close", b"X-Forwarded-For: 10.1.1.1") + b"GARBAGE\r\n\r\n"
        ).count(b"HTTP/1.1 ") == 1
    assert capsys.readouterr().err == (
        "receiver: refused 127.0.0.1: 400, \"Bad request syntax ('GARBAGE')\"\n")


@pytest.mark.parametrize("name", ["Content-Length ", "Transfer-Encoding ", "X Y"])
def test_behind_a_proxy_nothing_is_smuggled(name):
    inner = INNER.replace(b"Host", b"X-Forwarded-For: 10.9.9.9\r\nHost")
    with Receiver(proxy="127.0.0.1") as receiver:
        answer = exchange(receiver, (
            f"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\n"
            f"{name}: {len(inner)}\r\n\r\n").encode() + inner)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert receiver.store.last() == 0


@pytest.mark.parametrize("name", ["Content-Length ", "X\rY", " X"])
def test_who_asks_before_the_body_is_refused_as_well(receiver, name):
    answer = exchange(receiver, f"POST /events HTTP/1.1\r\n{name}: 2\r\nContent-Length: 2\r\n"
                                "Expect: 100-continue\r\n\r\n{}".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert receiver.store.last() == 0


WELL_FORMED = {
    "an empty value": b"X:\r\nContent-Length: 2\r\n",
    "white space around a value": b"X: \t1 \t\r\nContent-Length:2 \r\n",
    "odd names": b"!#$%&'*+.^_`|~-9: 1\r\ncontent-LENGTH: 2\r\n",
    "a value that is not ASCII": b"X: \xff\xe4\r\nContent-Length: 2\r\n",
    "lines that end with LF": b"X: 1\nContent-Length: 2\n",
    "the same length twice": b"Content-Length: 2\r\nContent-Length: 2\r\n",
    "zeros before the length": b"Content-Length: 0000002\r\n",
    "nothing else": b"Content-Length: 2\r\n",
}


@pytest.mark.parametrize("lines", WELL_FORMED.values(), ids=WELL_FORMED.keys())
def test_takes_what_is_allowed(receiver, lines):
    answer = exchange(receiver, b"POST /events HTTP/1.1\r\n" + lines + b"\r\n{}")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert receiver.shown() == [("user.0", "", "")]


def test_http_1_0_is_answered_and_ends_the_connection(receiver):
    answer = exchange(receiver, b"POST /events HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}" + INNER)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert receiver.store.last() == 1


def test_http_1_0_may_keep_the_connection(receiver):
    keep = b"POST /events HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}"
    assert exchange(receiver, keep * 2 + INNER).count(b"HTTP/1.1 200 ") == 3
    assert receiver.store.last() == 3


def test_http_0_9_reads_and_writes_nothing(receiver):
    assert exchange(receiver, b"GET /healthz\r\n\r\n") == b'{\n  "status": "ok"\n}'
    assert b"Bad HTTP/0.9 request" in exchange(receiver, b"POST /events\r\n\r\n{}")
    assert receiver.store.last() == 0


def test_requests_that_come_at_once_are_answered_in_their_order(receiver):
    requests = [b"POST /devices/a/events HTTP/1.1\r\nContent-Length: 16\r\n\r\n"
                b'{"state":"done"}', b"GET /devices/a/events HTTP/1.1\r\n\r\n"]
    answer = exchange(receiver, requests[0] * 20 + requests[1])
    assert answer.count(b"HTTP/1.1 200 ") == 21
    assert len(receiver.shown("a")) == 20
    assert answer.endswith(b"]}\n\r\n0\r\n\r\n")


def test_what_comes_behind_a_refusal_is_not_read_as_a_request(receiver):
    bad = b"POST /events HTTP/1.1\r\nContent-Length: many\r\n\r\n"
    answer = exchange(receiver, INNER.replace(b"Connection: close\r\n", b"") + bad + INNER)
    assert answer.count(b"HTTP/1.1 200 ") == answer.count(b"HTTP/1.1 400 ") == 1
    assert answer.count(b"HTTP/1.1 ") == 2
    assert receiver.store.last() == 1
