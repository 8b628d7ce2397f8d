"""Faults of a service as data: what passes, what hangs, what a body can do."""
from support.peers import (
                           answer,
                           hang_before_request,
                           hang_up,
                           part,
                           reset_after_request,
                           reset_at_once,
)

# Passing faults of both ends: tried again until the deadline.
FAULTS = {
    **{str(status): answer(status, b'{"errors":["later"]}')
       for status in (408, 425, 429, 500, 502, 503, 504, 507, 599, 999)},
    "500 without a body": answer(500),
    "early hints only": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "reset before the request": reset_at_once,
    "reset after the request": reset_after_request,
    "closed without an answer": hang_up,
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "binary": b"\x15\x03\x01\x00\x02\x02\x50",
    "status no number": b"HTTP/1.1 abc OK\r\n\r\n",
    "status line cut": b"HTTP/1.1 2",
    "header line of 200 kB": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200000 + b"\r\n\r\n",
    "10000 headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
}


# Those that only time ends; `timeout` is small in their tests.
HANGS = {
    "hang before the request": hang_before_request,
    "hang after the request": part(b""),
    "hang in the status line": part(b"HTTP/1.1 20"),
    "drip in the headers": part(b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "endless 100 Continue": part(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "503 with a body that hangs": part(b"HTTP/1.1 503 No\r\nContent-Length: 9\r\n\r\n"),
}


# Those of an answer that is a success for a POST, whose body is not read.
BODIES = {
    "body cut": b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
    "bad chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "chunk cut": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
}


BODY_HANGS = {
    "body hangs": part(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
    "body drips": part(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b" "),
    "endless body drips": part(b"HTTP/1.1 200 OK\r\n\r\n", b" "),
}
