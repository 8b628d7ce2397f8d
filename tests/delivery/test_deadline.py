"""That every try and every call ends on time, whatever the peer does."""
import os
import signal
import subprocess
import sys
import time

import pytest

import userstate
from support.calls import EVENT, ask, post
from support.faults import BODY_HANGS, HANGS
from support.files import SCRIPT, TOP
from support.peers import ACCEPTED, Peer, answer, document, part
from support.processes import run
from support.waiting import wait_for


@pytest.mark.parametrize("name", HANGS)
def test_a_try_that_hangs_is_closed_and_tried_again(name, said):
    with Peer(HANGS[name], ACCEPTED) as peer:
        post(peer, said, timeout=0.3)
        assert peer.events[-1] == EVENT
        assert peer.closed.acquire(timeout=10)
    assert len(said.lines) == 1


@pytest.mark.parametrize("name", {**HANGS, **BODY_HANGS})
def test_metadata_that_hangs_is_closed_and_tried_again(name, said):
    script = {**HANGS, **BODY_HANGS}[name]
    with Peer(script, document()) as peer:
        assert ask(peer, said, timeout=0.3) == "x"
    assert len(said.lines) == 1


def took(function, *args, **options):
    begun = time.monotonic()
    try:
        result = function(*args, **options)
    except userstate.UserStateError as error:
        result = error
    return result, time.monotonic() - begun


@pytest.mark.parametrize("name", {**HANGS, **BODY_HANGS})
def test_the_call_ends_at_its_deadline_whatever_the_peer_does(name):
    with Peer({**HANGS, **BODY_HANGS}[name]) as peer:
        result, seconds = took(userstate.fetch_metadata, metadata_url=peer.url, timeout=5,
                               deadline=0.6, say=lambda line: None)
    assert isinstance(result, userstate.DeadlineError) and 0.3 < seconds < 2


WAITS = {
    "in the metadata": (["--metadata-url"], part(b"")),
    "in the event": (["--url"], part(b"HTTP/1.1 200")),
    "in a pause": (["--url"], answer(503, b"", "Retry-After: 30")),
}


@pytest.mark.parametrize("number, status", [(signal.SIGINT, -2), (signal.SIGTERM, -15)])
@pytest.mark.parametrize("name", WAITS)
def test_signals_end_it_at_once(name, number, status, edge_python):
    option, script = WAITS[name]
    with Peer(script) as peer, subprocess.Popen(
            [edge_python, "-B", SCRIPT, "-v", *option, peer.url, "running", "1000", "x"],
            stderr=subprocess.PIPE) as process:
        if name == "in a pause":
            while b"trying again" not in process.stderr.readline():
                assert process.poll() is None
        else:
            wait_for(lambda: peer.requests)
        begun = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == status and time.monotonic() - begun < 2
        rest = process.stderr.read()
        assert rest == (b"userstate: interrupted\n" if status == -2 else b"")


def test_a_stopped_service_is_given_up_at_the_deadline():
    service = [sys.executable, "-B", os.path.join(TOP, "tests", "service.py"), "--port", "0"]
    with subprocess.Popen(service, stdout=subprocess.PIPE) as process:
        try:
            process.stdout.readline()
            url = process.stdout.readline().decode().strip().split("=")[1]
            process.send_signal(signal.SIGSTOP)
            begun = time.monotonic()
            ended = run("--deadline=1", "running", "1000", "x",
                        env={"USERSTATE_METADATA_URL": url})
            assert ended.status == 75 and time.monotonic() - begun < 4
            assert "timed out; gave up" in ended.err
        finally:
            process.send_signal(signal.SIGCONT)
            process.kill()


def test_a_flood_of_interim_answers_ends_as_a_time_out(said):
    def flood(connection, peer):
        peer.read(connection)
        while not peer.over.is_set():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    with Peer(flood, ACCEPTED) as peer:
        userstate.post_event({}, peer.url, timeout=0.3, **said.options)
        assert len(peer.events) == 2
    assert len(said.lines) == 1 and "/events: timed out; trying again" in said.lines[0]
