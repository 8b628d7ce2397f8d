"""What a whole answer is worth, and what is said of it: interim ones, reasons, redirects.

Answers that are not whole are in test_answers_that_break_off.py.
"""
import json
import socket

import pytest

import userstate
from support.calls import EVENT, fetch_from, post_to
from support.peers import ACCEPTED, Peer, answer, document


@pytest.mark.parametrize("script", [
    b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + ACCEPTED], ids=["204", "HTTP 1.0", "after 100"])
def test_this_is_success_too(script, said):
    with Peer(script) as peer:
        post_to(peer, said)
        assert peer.events == [EVENT]
    assert said.lines == []


INTERIM = {
    "100": [100], "102": [102], "103": [103], "three of 103": [103, 103, 103],
    "100, 103": [100, 103], "103, 100, 102": [103, 100, 102], "fifty": [103] * 50}


@pytest.mark.parametrize("size", [1 << 20, 10], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", INTERIM)
def test_interim_answers_are_skipped(name, size, said):
    interim = b"".join(f"HTTP/1.1 {status} Wait\r\nLink: </x>; rel=preload\r\n\r\n".encode()
                       for status in INTERIM[name])

    def after(final):
        def script(connection, peer):
            peer.read(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = interim + final
            for start in range(0, len(data), size):
                connection.sendall(data[start:start + size])
        return script
    with Peer(after(ACCEPTED)) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.requests) == 1
    with Peer(after(document(a=5))) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url, **said.options)["a"] == 5
        assert len(peer.requests) == 1
    assert said.lines == []
    assert said.time.pauses == []
    with Peer(after(answer(404))) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 404 .*refused at try 1 "):
            userstate.post_event({}, peer.url, **said.options)
    with Peer(after(answer(404))) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 404 .*refused at try 4 "):
            userstate.fetch_metadata(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == 4


def test_an_answer_before_the_end_of_the_body_is_read(said):
    def refuse_early(connection, peer):
        connection.recv(1000)
        connection.sendall(answer(413))
        connection.shutdown(socket.SHUT_WR)
        peer.over.wait(0.2)  # the client sends on, into a queue that nobody reads
    with Peer(refuse_early) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 413 Reason; refused at try 1"):
            userstate.post_event({"m": "x" * 9000000}, peer.url, timeout=5, **said.options)


@pytest.mark.parametrize("location, shown", [
    ("http://127.0.0.1:PORT/events?token=s3cret", "http://127.0.0.1:PORT/events"),
    ("file:///etc/passwd", "file:///etc/passwd"), ("/else", "/else"),
    ("http://u:s3cret@h/", "(hidden: @)"), ("http://u:s3cret?x@h/", "(hidden: @)"),
    ("http://[", "http://[")])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed_and_its_target_named(status, location, shown, said):
    with Peer(ACCEPTED) as other:
        location, shown = (text.replace("PORT", str(other.port)) for text in (location, shown))
        with Peer(answer(status, b"", f"Location: {location}")) as peer:
            with pytest.raises(userstate.RefusedError) as caught:
                post_to(peer, said)
            assert len(peer.requests) == 1
        assert other.requests == []
    assert f"redirect to {shown}" in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_redirect_to_itself_is_no_loop(said):
    with Peer(answer(307, b"", "Location: /events")) as peer:
        with pytest.raises(userstate.RefusedError):
            fetch_from(peer, said)
        assert len(peer.requests) == 1


@pytest.mark.parametrize("body, shown", [
    ({"errors": ["a", "b"]}, " (a) (b)"), ({"message": "m"}, " (m)"), ({"error": "e"}, " (e)"),
    ({"errors": ["a", "b", "c", "d"]}, " (a) (b) (c)"),
    ({"errors": []}, ""), ({"errors": [{"a": "s3cret"}]}, ""), ({"message": {}}, ""),
    ({"other": "s3cret"}, ""), ({"message": "a\n\x1b\u202eb"}, " (a b)"),
    ({"message": "x" * 50000}, " (" + "x" * 200 + ")"), (["s3cret"], ""), (None, "")])
def test_the_reason_of_an_answer_is_shown_on_one_line(body, shown, said):
    with Peer(answer(403, json.dumps(body).encode())) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            post_to(peer, said)
    assert f"HTTP 403 Reason{shown}; refused" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_reason_phrase_from_outside_is_cut_and_made_printable(said):
    with Peer(b"HTTP/1.1 403 \x1b[31m" + b"x" * 5000 + b"\r\n\r\n") as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            post_to(peer, said)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


def test_nothing_of_a_document_without_a_status_line_is_shown(said):
    with Peer(b'{"id": "s3cret"}\n') as peer:
        with pytest.raises(userstate.DeadlineError, match="broken answer .BadStatusLine") as c:
            fetch_from(peer, said)
    assert "s3cret" not in str(c.value)
