"""That every try and every call ends on time, whatever the peer does."""
import re
import signal
import subprocess

import pytest

import userstate
from support.calls import EVENT, fetch_from, post_to
from support.faults import BODY_HANGS, HANGS
from support.peers import ACCEPTED, Peer, answer, document, flood, part
from support.processes import EVENT_WORDS, run, start
from support.receivers import ReceiverProcess
from support.waiting import at_most, wait_for

METADATA_HANGS = {**HANGS, **BODY_HANGS}


@pytest.mark.parametrize("name", HANGS)
def test_a_try_that_hangs_is_closed_and_tried_again(name, said):
    with Peer(HANGS[name], ACCEPTED) as peer:
        post_to(peer, said, timeout=0.3)
        assert peer.events[-1] == EVENT
        assert peer.closed.acquire(timeout=10)
    assert len(said.lines) == 1


@pytest.mark.parametrize("name", METADATA_HANGS)
def test_metadata_that_hangs_is_closed_and_tried_again(name, said):
    with Peer(METADATA_HANGS[name], document()) as peer:
        assert fetch_from(peer, said, timeout=0.3) == "x"
        assert peer.closed.acquire(timeout=10)
    assert len(said.lines) == 1


@pytest.mark.parametrize("name", METADATA_HANGS)
def test_the_call_ends_at_its_deadline_whatever_the_peer_does(name):
    with Peer(METADATA_HANGS[name]) as peer:
        with at_most(2, least=0.3), pytest.raises(userstate.DeadlineError):
            userstate.fetch_metadata(metadata_url=peer.url, timeout=5, deadline=0.6,
                                     say=lambda line: None)


# Of interim answers without end, and how a try with them ends. Some Pythons themselves end
# one of 100 Continue after a hundred of them; of the others none does.
INTERIM_FLOODS = {
    "103": (b"HTTP/1.1 103 Early Hints\r\n\r\n", "timed out"),
    "100": (b"HTTP/1.1 100 Continue\r\n\r\n", r"(timed out|broken answer \(HTTPException\))"),
}


@pytest.mark.parametrize("status", INTERIM_FLOODS)
def test_a_flood_of_interim_answers_ends_and_is_tried_again(status, said):
    interim, told = INTERIM_FLOODS[status]
    with Peer(flood(b"", interim * 1000), ACCEPTED) as peer:
        with at_most(5):
            userstate.post_event({}, peer.url, timeout=0.3, **said.options)
        assert len(peer.events) == 2
    line, = said.lines
    assert re.search(f"/events: {told}; trying again", line)


def test_a_receiver_that_is_stopped_is_given_up_at_the_deadline():
    with ReceiverProcess() as receiver:
        receiver.process.send_signal(signal.SIGSTOP)
        with at_most(4):
            done = run("--deadline=1", "--metadata-url", receiver.url + "/metadata",
                       *EVENT_WORDS)
    assert done.status == 75
    assert "timed out; gave up" in done.err


WAITS = {
    "in the metadata": ("--metadata-url", part(b"")),
    "in the event": ("--url", part(b"HTTP/1.1 200")),
    "in a pause": ("--url", answer(503, b"", "Retry-After: 30")),
}


@pytest.mark.parametrize("number, rest", [(signal.SIGINT, b"userstate: interrupted\n"),
                                          (signal.SIGTERM, b"")], ids=["INT", "TERM"])
@pytest.mark.parametrize("name", WAITS)
def test_signals_end_it_at_once(name, number, rest, edge_python):
    option, script = WAITS[name]
    with Peer(script) as peer, start("-v", option, peer.url, *EVENT_WORDS, python=edge_python,
                                     stderr=subprocess.PIPE) as process:
        if name == "in a pause":
            while b"trying again" not in process.stderr.readline():
                assert process.poll() is None
        else:
            wait_for(lambda: peer.requests)
        with at_most(2):
            process.send_signal(number)
            assert process.wait(10) == -number
        assert process.stderr.read() == rest
