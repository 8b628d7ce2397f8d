"""A name that has several addresses in DNS: one of them is dead, or deaf, or answers 500.

Several metadata URLs, one after the other, are in test_several_metadata_urls.py.
"""
import socket

import pytest

import userstate
from support.calls import EVENT
from support.interpreters import resolve_to
from support.peers import ACCEPTED, DEAD_PORT, Peer, answer, black_hole, document
from support.processes import EVENT_WORDS, run, run_code

URL = "http://two.example/events"
# What is at each address of a name. Good: it accepts. Deaf: who connects gets no answer.
# Closed: nobody listens.
NAMES = {
    "one good": ["good"],
    "a good one behind a deaf one": ["deaf", "good"],
    "a good one behind two deaf ones": ["deaf", "deaf", "good"],
    "a good one behind three deaf ones": ["deaf", "deaf", "deaf", "good"],
    "a good one behind closed ones": ["closed", "closed", "closed", "good"],
    "a good one behind both kinds": ["deaf", "closed", "good"],
    "a good one before deaf ones": ["good", "deaf", "deaf"],
}


@pytest.mark.parametrize("name", NAMES)
def test_every_address_of_a_name_gets_a_chance_within_a_try(name, edge_python):
    with black_hole() as deaf, Peer(ACCEPTED) as peer:
        ports = {"good": peer.port, "deaf": deaf, "closed": DEAD_PORT}
        done = run("--timeout=0.6", "--deadline=0.6", *EVENT_WORDS, url=URL,
                   before=resolve_to(*[ports[kind] for kind in NAMES[name]]),
                   python=edge_python)
        assert done == (0, "", "")
        assert len(peer.events) == 1


def test_a_deaf_address_of_two_leaves_a_call_from_python_time_for_the_other(edge_python):
    call = "import sys, userstate; userstate.post_event({}, sys.argv[1], timeout=1, deadline=1)"
    with black_hole() as deaf, Peer(ACCEPTED) as peer:
        done = run_code(resolve_to(deaf, peer.port) + call, URL, python=edge_python)
        assert done.status == 0, done.err
        assert len(peer.events) == 1


@pytest.fixture
def resolve(monkeypatch):
    """Return a function of ports: every name has them, on 127.0.0.1, as its addresses."""
    def to(*ports):
        ways = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))
                for port in ports]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **options: ways)
    return to


@pytest.fixture(params=["closed", "deaf"])
def first(request):
    """The port of a first address where nobody answers."""
    if request.param == "closed":
        yield DEAD_PORT
    else:
        with black_hole() as deaf:
            yield deaf


def test_a_second_address_that_answers_500_and_then_200_is_delivered_to(first, resolve, said):
    with Peer(answer(500), ACCEPTED) as second:
        resolve(first, second.port)
        userstate.post_event(EVENT, URL, timeout=1, **said.options)
        assert second.events == [EVENT, EVENT]
    line, = said.lines
    assert line.startswith(f"{URL}: HTTP 500 Reason; trying again in ")
    assert len(said.time.pauses) == 1


def test_a_second_address_that_answers_500_is_asked_again_for_metadata(first, resolve, said):
    with Peer(answer(500), document(user_state_url="http://h/e")) as second:
        resolve(first, second.port)
        found = userstate.user_state_url(metadata_url=URL, timeout=1, **said.options)
        assert found == "http://h/e"
        assert len(second.requests) == 2
    line, = said.lines
    assert line.startswith(f"{URL}: HTTP 500 Reason; trying again in ")


def test_a_second_address_that_only_answers_500_is_told_at_the_deadline(first, resolve, said):
    with Peer(answer(500)) as second:
        resolve(first, second.port)
        with pytest.raises(userstate.DeadlineError, match="HTTP 500 Reason; gave up at try"):
            userstate.post_event(EVENT, URL, timeout=1, deadline=3, **said.options)
        assert len(second.events) >= 2


def test_a_second_address_that_would_answer_500_is_not_asked_if_the_first_accepts(resolve,
                                                                                  said):
    with Peer(ACCEPTED) as good, Peer(answer(500)) as second:
        resolve(good.port, second.port)
        userstate.post_event(EVENT, URL, **said.options)
        assert good.events == [EVENT]
        assert second.requests == []
    assert said.lines == []
