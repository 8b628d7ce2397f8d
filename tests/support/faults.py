"""Faults of a service as data: what passes, what hangs, what a body can do."""
from support.peers import (
    answer,
    hang_before_request,
    hang_up,
    part,
    reset_after_request,
    reset_at_once,
    then_reset,
)

# Passing faults of both ends: tried again until the deadline.
FAULTS = {
    **{str(status): answer(status, b'{"errors":["later"]}')
       for status in (408, 425, 429, 500, 502, 503, 504, 507, 599, 999)},
    "500 without a body": answer(500),
    "early hints only": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "reset before the request": reset_at_once,
    "reset after the request": reset_after_request,
    "reset in the status line": then_reset(b"HTTP/1.1 2"),
    "reset in the headers": then_reset(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "closed without an answer": hang_up,
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "binary": b"\x15\x03\x01\x00\x02\x02\x50",
    "status no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "status line cut": b"HTTP/1.1 2",
    "header line of 200 kB": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200000 + b"\r\n\r\n",
    "10000 headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
}


# Those that only time ends; `timeout` is small in their tests. Some Pythons end a flood of
# 100 Continue themselves after a hundred of them; no test lasts until that many have come.
HANGS = {
    "hang before the request": hang_before_request,
    "hang after the request": part(b""),
    "hang in the status line": part(b"HTTP/1.1 20"),
    "drip in the headers": part(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "endless 100 Continue": part(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "endless 103 Early Hints": part(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "503 with a body that hangs": part(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n"),
}


def bodies(status):
    """Return, by name, answers of this status whose body breaks off."""
    start = f"HTTP/1.1 {status}\r\n".encode()
    return {
        "body cut": start + b"Content-Length: 99\r\n\r\n{",
        "body reset": then_reset(start + b"Content-Length: 99\r\n\r\n{"),
        "bad chunk": start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        "chunk cut": start + b"Transfer-Encoding: chunked\r\n\r\n9\r\n{",
    }


def body_hangs(status):
    """Return, by name, answers of this status whose body does not end."""
    start = f"HTTP/1.1 {status}\r\n".encode()
    return {
        "body hangs": part(start + b"Content-Length: 99\r\n\r\n{"),
        "body drips": part(start + b"Content-Length: 9999\r\n\r\n", b" "),
        "endless body drips": part(start + b"\r\n", b" "),
    }


# Those of an answer that is a success for a POST, whose body is not read.
BODIES = bodies("200 OK")
BODY_HANGS = body_hangs("200 OK")
