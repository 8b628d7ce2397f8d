"""An answer that breaks off: a service answers 200 and then resets, closes or hangs.

An event is accepted as soon as the headers are there, whatever comes behind them; metadata
has to be whole. More faults, with no answer at all, are in support/faults.py.
"""
import pytest

import userstate
from support.calls import EVENT, fetch_from, post_to
from support.faults import bodies, body_hangs
from support.peers import ACCEPTED, Peer, answer, document, part, then_reset

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
# What a service sends before it resets the connection.
RESETS = {
    "behind a whole answer": HEAD + b"{}",
    "behind an answer without a body": answer(200),
    "behind the headers": HEAD,
    "in the body": HEAD + b"{",
    "in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{",
}


@pytest.mark.parametrize("name", RESETS)
def test_an_event_that_is_answered_200_and_then_reset_is_accepted(name, said):
    with Peer(then_reset(RESETS[name])) as peer:
        post_to(peer, said)
        assert peer.events == [EVENT]
    assert said.lines == []


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n",
                                  b"HTTP/1.1 200 OK\r\nContent-Le"])
def test_an_event_whose_200_is_reset_within_its_headers_is_sent_again(sent, said):
    with Peer(then_reset(sent), then_reset(sent), ACCEPTED) as peer:
        post_to(peer, said)
        assert peer.events == [EVENT, EVENT, EVENT]
    line, = said.lines
    assert "/events: Connection reset by peer; trying again in " in line


def test_metadata_that_is_answered_200_and_then_reset_is_read_if_it_is_whole(said):
    with Peer(then_reset(document())) as peer:
        assert fetch_from(peer, said) == "x"
        assert len(peer.requests) == 1
    assert said.lines == []


@pytest.mark.parametrize("kept", [1, 9, 40])
def test_metadata_that_is_answered_200_and_reset_in_its_body_is_asked_for_again(kept, said):
    head, end, body = document().partition(b"\r\n\r\n")
    with Peer(then_reset(head + end + body[:kept]), document()) as peer:
        assert fetch_from(peer, said) == "x"
        assert len(peer.requests) == 2
    line, = said.lines
    assert "/events: Connection reset by peer; trying again in " in line


@pytest.mark.parametrize("name", [*bodies(""), *body_hangs("")])
@pytest.mark.parametrize("status", ["200 OK", "201 Created", "202 Yes", "299 Odd"])
def test_2xx_to_an_event_is_success_whatever_its_body_does(name, status, said):
    script = {**bodies(status), **body_hangs(status)}[name]
    with Peer(script) as peer:
        post_to(peer, said)
        assert peer.events == [EVENT]
    assert said.lines == []


@pytest.mark.parametrize("sent", [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n",
                                  b"HTTP/1.1 200 OK\r\nContent-Le",
                                  b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"])
def test_an_answer_that_is_cut_within_its_headers_is_none(sent, said):
    with Peer(sent, sent, ACCEPTED) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 3
    line, = said.lines
    assert "broken answer (IncompleteRead)" in line


def test_a_refusal_whose_body_hangs_is_still_one(said):
    with Peer(part(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n")) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 403 No; refused at try 1"):
            post_to(peer, said, timeout=0.3)


def test_a_refusal_whose_body_is_reset_is_still_one(said):
    with Peer(then_reset(b"HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\n{")) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 403 No; refused at try 1"):
            post_to(peer, said)
