"""What an answer is worth and what is said of it: bodies, reasons, redirects, cuts."""
import json
import socket

import pytest

import userstate
from support.calls import EVENT, ask, post
from support.faults import BODIES, BODY_HANGS
from support.peers import ACCEPTED, Peer, answer, document, part


@pytest.mark.parametrize("name", {**BODIES, **BODY_HANGS})
@pytest.mark.parametrize("status", [b"200 OK", b"201 Created", b"202 Yes", b"299 Odd"])
def test_2xx_to_an_event_is_success_whatever_its_body_does(name, status, said):
    script = {**BODIES, **BODY_HANGS}[name]
    if not callable(script):
        script = script.replace(b"200 OK", status)
    with Peer(script) as peer:
        post(peer, said)
        assert peer.events == [EVENT]
    assert said.lines == []


def test_204_and_connection_close_and_http_1_0_are_success(said):
    for script in (b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n",
                   b"HTTP/1.1 100 Continue\r\n\r\n" + ACCEPTED):
        with Peer(script) as peer:
            post(peer, said)
            assert peer.events == [EVENT]


def test_a_refusal_whose_body_hangs_is_still_one(said):
    with Peer(part(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n")) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 403 No; refused at try 1"):
            post(peer, said, timeout=0.3)


@pytest.mark.parametrize("location, shown", [
    ("http://other.example/events?token=s3cret", "http://other.example/events"),
    ("file:///etc/passwd", "file:///etc/passwd"), ("/else", "/else"),
    ("http://u:s3cret@h/", "(hidden: @)"), ("http://u:s3cret?x@h/", "(hidden: @)"),
    ("http://[", "http://[")])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_and_its_target_named(status, location, shown, said):
    with Peer(ACCEPTED) as other:
        target = location.replace("other.example", f"127.0.0.1:{other.port}")
        with Peer(answer(status, b"", f"Location: {target}")) as peer:
            with pytest.raises(userstate.RefusedError) as caught:
                post(peer, said)
            assert len(peer.requests) == 1
        assert other.requests == []
    text = str(caught.value).replace(f"127.0.0.1:{other.port}", "other.example")
    assert f"redirect to {shown}" in text and "s3cret" not in text


def test_a_redirect_to_itself_is_no_loop(said):
    with Peer(answer(307, b"", "Location: /events")) as peer:
        with pytest.raises(userstate.RefusedError):
            ask(peer, said)
        assert len(peer.requests) == 1


@pytest.mark.parametrize("body, shown", [
    ({"errors": ["a", "b"]}, "(a) (b)"), ({"message": "m"}, "(m)"), ({"error": "e"}, "(e)"),
    ({"errors": []}, ""), ({"errors": [{"a": "s3cret"}]}, ""), ({"message": {}}, ""),
    ({"other": "s3cret"}, ""), ({"message": "a\n\x1b\u202eb"}, "(a b)"),
    ({"message": "x" * 50000}, "(" + "x" * 200 + ")"), (["s3cret"], ""), (None, "")])
def test_the_reason_of_an_answer_is_shown_on_one_line(body, shown, said):
    with Peer(answer(403, json.dumps(body).encode())) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            post(peer, said)
    assert f"HTTP 403 Reason {shown}".strip() + "; refused" in str(caught.value)
    assert "s3cret" not in str(caught.value) and len(str(caught.value)) < 400


def test_nothing_of_a_document_without_a_status_line_is_shown(said):
    with Peer(b'{"id": "s3cret"}\n') as peer:
        with pytest.raises(userstate.DeadlineError, match="broken answer .BadStatusLine") as c:
            ask(peer, said)
    assert "s3cret" not in str(c.value)


def test_a_reason_phrase_from_outside_is_cut_and_made_printable(said):
    with Peer(b"HTTP/1.1 403 \x1b[31m" + b"x" * 5000 + b"\r\n\r\n") as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            post(peer, said)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250


INTERIM = {
    "100": [100], "102": [102], "103": [103], "three of 103": [103] * 3, "100, 103": [100, 103],
    "103, 100, 102": [103, 100, 102], "fifty": [103] * 50}


@pytest.mark.parametrize("cut", [0, 10], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", INTERIM)
def test_interim_answers_are_skipped(name, cut, said):
    interim = b"".join(f"HTTP/1.1 {status} Wait\r\nLink: </x>; rel=preload\r\n\r\n".encode()
                       for status in INTERIM[name])

    def after(final):
        def script(connection, peer):
            peer.read(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = interim + final
            for start in range(0, len(data), cut or len(data)):
                connection.sendall(data[start:start + (cut or len(data))])
        return script
    with Peer(after(ACCEPTED)) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.requests) == 1
    with Peer(after(document(a=5))) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url, **said.options)["a"] == 5
        assert len(peer.requests) == 1
    assert said.lines == [] and said.time.pauses == []
    with Peer(after(answer(404))) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 404 .*refused at try 1 "):
            userstate.post_event({}, peer.url, **said.options)
    with Peer(after(answer(404))) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 404 .*refused at try 4 "):
            userstate.fetch_metadata(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == 4


@pytest.mark.parametrize("body", [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n",
                                  b"HTTP/1.1 200 OK\r\nContent-Le",
                                  b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"])
def test_an_answer_that_is_cut_within_its_headers_is_none(body, said):
    with Peer(body, body, ACCEPTED) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 3
    assert len(said.lines) == 1 and "broken answer (IncompleteRead)" in said.lines[0]


def test_an_answer_before_the_end_of_the_body_is_read(said):
    def refuse_early(connection, peer):
        connection.recv(1000)
        connection.sendall(answer(413))
        connection.shutdown(socket.SHUT_WR)
        peer.over.wait(0.2)  # the client sends on, into a queue that nobody reads
    with Peer(refuse_early) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 413 Reason; refused at try 1"):
            userstate.post_event({"m": "x" * 9000000}, peer.url, timeout=5, **said.options)
