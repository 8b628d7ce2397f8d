"""Handshakes of TLS that fail, hang, are slow, or meet a service that speaks http.

Certificates that are trusted or not are in test_tls.py.
"""
import re
import ssl
from contextlib import suppress

import pytest

import userstate
from support.authority import server_side, trusting
from support.interpreters import resolve_to
from support.peers import ACCEPTED, DEAD_PORT, Peer, answer
from support.processes import EVENT_WORDS, run
from support.waiting import at_most


def handshake_of(data):
    """Return a wrap of a Peer that answers the first bytes by data, and closes."""
    def wrap(connection):
        connection.recv(65536)
        connection.sendall(data)
        raise OSError("no TLS")
    return wrap


def https(peer):
    return f"https://127.0.0.1:{peer.port}/events"


def test_https_to_a_service_that_speaks_http_is_named(said):
    def plain(connection, peer):
        connection.recv(65536)
        connection.sendall(answer(400))
    with Peer(plain) as peer:
        with pytest.raises(userstate.DeadlineError, match="is it http"):
            userstate.post_event({}, https(peer), **said.options)


@pytest.mark.parametrize("reason", ["WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"])
def test_what_each_openssl_says_of_http_is_told_in_the_same_way(reason, said, monkeypatch):
    """The second is that of OpenSSL 3.2 and later; so the fault is made here."""
    def wrap_socket(*words, **options):
        error = ssl.SSLError(1, f"[SSL: {reason}]")
        error.reason = reason
        raise error
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap_socket)
    with Peer(ACCEPTED) as peer:
        line = rf"no TLS: {reason} \(is it http\?\); gave up"
        with pytest.raises(userstate.DeadlineError, match=line):
            userstate.post_event({}, https(peer), **said.options)


@pytest.mark.parametrize("answered, told", [
    (b"\x15\x03\x03\x00\x02\x02\x28", "(?i)handshake.failure"), (b"", "(?i)eof|reset")],
    ids=["failure", "closed"])
def test_a_service_that_speaks_tls_and_fails_is_not_taken_for_http(answered, told, said):
    with Peer(ACCEPTED, wrap=handshake_of(answered)) as peer:
        with pytest.raises(userstate.DeadlineError) as caught:
            userstate.post_event({}, peer.url, **said.options)
    assert re.search(told, said.lines[0])  # a try near the deadline may time out
    for line in [*said.lines, str(caught.value)]:
        assert "is it http" not in line


def test_faults_of_the_transport_are_tried_again(authority, said, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    wraps = [handshake_of(answer(400)), handshake_of(b""),
             handshake_of(b"\x16\x03\x03\x00\x7a\x02"), server_side(authority, "good")]
    with Peer(ACCEPTED, wrap=lambda connection: wraps.pop(0)(connection)) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 1
    assert len(said.time.pauses) == 3


@pytest.mark.parametrize("begin, go_on", [(b"", b""), (b"\x16\x03\x03\x40\x00", b"\x02")],
                         ids=["hangs", "drips"])
def test_a_handshake_that_hangs_or_drips_is_closed_on_time(begin, go_on):
    def wrap(connection):
        connection.recv(10)
        connection.sendall(begin)
        with suppress(ConnectionError):
            while go_on and not peer.over.wait(0.02):
                connection.sendall(go_on)
        peer.wait_closed(connection)
        raise OSError("closed")
    with Peer(ACCEPTED, wrap=wrap) as peer:
        with at_most(0.9), pytest.raises(userstate.DeadlineError, match="timed out"):
            userstate.post_event({}, peer.url, deadline=0.1, say=lambda line: None)
        assert peer.closed.acquire(timeout=10)


# What is at each address of a name. Closed: nobody listens.
NAMES = {
    "one good": ["good"],
    "two good ones": ["good", "good"],
    "a good one behind a closed one": ["closed", "good"],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_slow_handshake_may_take_what_is_left_of_the_try(name, authority):
    """Only the connecting to each address of a name has its share of the time."""
    good = server_side(authority, "named")

    def slowly(connection):
        peer.over.wait(0.6)  # of 1.0
        return good(connection)
    with Peer(ACCEPTED, wrap=slowly) as peer:
        ports = {"good": peer.port, "closed": DEAD_PORT}
        done = run("--timeout=1.0", "--deadline=1.0", *EVENT_WORDS, url="https://good.example/",
                   before=resolve_to(*[ports[kind] for kind in NAMES[name]]),
                   env=trusting(authority))
        assert done == (0, "", "")
        assert len(peer.events) == 1
