"""What is tried again and how often: faults that pass, three more tries, at once."""
import random
import re
import socket
import subprocess
import sys

import pytest

import userstate
from support.calls import EVENT, ask, post
from support.faults import BODIES, FAULTS
from support.files import SCRIPT
from support.peers import ACCEPTED, DEAD, Peer, answer, document, reset_at_once

METADATA_FAULTS = dict(FAULTS, **BODIES)


@pytest.mark.parametrize("name", FAULTS)
def test_tries_an_event_again_after(name, said):
    with Peer(FAULTS[name], FAULTS[name], ACCEPTED) as peer:
        post(peer, said)
        assert peer.events[-1] == EVENT and len(set(peer.bodies)) == 1
    assert len(said.time.pauses) == 2 and len(said.lines) == 1


@pytest.mark.parametrize("name", METADATA_FAULTS)
def test_tries_the_metadata_again_after(name, said):
    with Peer(METADATA_FAULTS[name], METADATA_FAULTS[name], document()) as peer:
        assert ask(peer, said) == "x"
    assert len(said.time.pauses) == 2 and len(said.lines) == 1


@pytest.mark.parametrize("tries", [1, 2, 3])
@pytest.mark.parametrize("status", [400, 404])
def test_metadata_400_and_404_may_pass(status, tries, said):
    script = answer(status, b'{"message":"resource not found"}')
    with Peer(*[script] * tries, document()) as peer:
        assert ask(peer, said) == "x"
        assert len(peer.requests) == tries + 1
    assert "resource not found" in said.lines[0]


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_event_400_may_pass(tries, said):
    with Peer(*[answer(400)] * tries, ACCEPTED) as peer:
        post(peer, said)
        assert peer.events == [EVENT] * (tries + 1)


def test_the_key_may_appear_later(said):
    with Peer(*[document(user_state_url=None)] * 3, document(user_state_url="http://h/")
              ) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == "http://h/"


def test_other_faults_do_not_use_up_the_three_more_tries(said):
    scripts = [answer(400), answer(500)] * 3 + [answer(500)] * 4 + [ACCEPTED]
    with Peer(*scripts) as peer:
        post(peer, said)
        assert len(peer.events) == 11


@pytest.mark.parametrize("end, status", [("event", 400), ("metadata", 400),
                                         ("metadata", 404)])
def test_three_more_tries_and_then_refused(end, status, said):
    with Peer(answer(status)) as peer:
        with pytest.raises(userstate.RefusedError, match=f"HTTP {status}.*refused at try 4"):
            (post if end == "event" else ask)(peer, said)
        assert len(peer.requests) == 4


AT_ONCE = [300, 301, 302, 303, 304, 305, 307, 308, 401, 402, 403, 405, 406, 407, 409, 410,
           411, 413, 418, 422, 451, 499, 501, 505]


@pytest.mark.parametrize("status", AT_ONCE + [404])
def test_an_event_is_refused_at_once_by(status, said):
    body = b"" if status == 304 else b'{"error":"no\\u001b[31m way"}'
    reason = r" \(no \[31m way\)" if body else ""
    with Peer(answer(status, body)) as peer:
        with pytest.raises(userstate.RefusedError,
                           match=rf"HTTP {status} Reason{reason}; refused at try 1"):
            post(peer, said)
        assert len(peer.requests) == 1
    assert said.lines == []


@pytest.mark.parametrize("status", AT_ONCE)
def test_metadata_is_refused_at_once_by(status, said):
    with Peer(answer(status)) as peer:
        with pytest.raises(userstate.RefusedError, match=f"HTTP {status} "):
            ask(peer, said)
        assert len(peer.requests) == 1


@pytest.mark.parametrize("script", [
    answer(500), answer(404), answer(403), reset_at_once, document(user_state_url=None),
    answer(302, b"", "Location: /x")], ids=[
        "500", "404", "403", "reset", "no key", "redirect"])
def test_the_second_metadata_address_takes_over(script, said):
    with Peer(script) as first, Peer(document(user_state_url="http://h/")) as second:
        url = f"{first.url} {second.url}"
        assert userstate.user_state_url(metadata_url=url, **said.options) == "http://h/"
    assert len(said.time.pauses) == 1 and first.url in said.lines[0]


def test_metadata_addresses_are_tried_in_turn(said):
    with Peer(answer(404)) as first, Peer(answer(404)) as second:
        with pytest.raises(userstate.RefusedError):
            userstate.fetch_metadata(metadata_url=f"{first.url} {second.url}", **said.options)
        assert (len(first.requests), len(second.requests)) == (2, 2)


def test_equal_problems_are_said_once_and_the_last_line_is_the_verdict(said):
    scripts = [answer(500), answer(503), answer(500), answer(503), answer(403)]
    with Peer(*scripts) as peer:
        with pytest.raises(userstate.RefusedError, match=r"403.*refused at try 5 after \d"):
            post(peer, said)
    assert [re.search("HTTP ...", line).group() for line in said.lines] == [
        "HTTP 500", "HTTP 503"]
    assert all(re.search(r"; trying again in \d+\.\d s$", line) for line in said.lines)


def test_any_sequence_of_passing_faults_and_then_200_is_one_accepted_event():
    dice = random.Random(2026)
    names = [name for name in FAULTS if "reset before" not in name]
    for _ in range(40):
        faults = [dice.choice(names) for _ in range(dice.randrange(9))]
        with Peer(*[FAULTS[name] for name in faults], ACCEPTED) as peer:
            userstate.post_event(EVENT, peer.url, say=lambda line: None,
                                 sleep=lambda seconds: None)
            assert peer.events == [EVENT] * (len(faults) + 1), faults


def test_a_service_that_comes_up_late_is_delivered_to():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/events"
        with subprocess.Popen([sys.executable, "-B", SCRIPT, "--url", url, "running", "1000",
                               "x"], stderr=subprocess.PIPE) as process:
            assert b"Connection refused" in process.stderr.readline()
            reserved.listen(5)
            connection, _ = reserved.accept()
            with connection:
                assert connection.recv(65536).startswith(b"POST ")
                connection.sendall(ACCEPTED)
            assert process.wait(20) == 0


BUGS = [TypeError("boom"), AttributeError("boom"), KeyError("boom"), ZeroDivisionError("boom"),
        RuntimeError("boom"), AssertionError("boom"), RecursionError("boom"),
        UnicodeError("boom"), StopIteration("boom"), LookupError("boom")]


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_bug_is_refused_at_once_with_its_type(error, said, monkeypatch):
    def fail(*args, **options):
        raise error
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for call in (lambda: userstate.post_event({}, DEAD, **said.options),
                 lambda: userstate.fetch_metadata(metadata_url=DEAD, **said.options)):
        with pytest.raises(userstate.RefusedError,
                           match=f"{type(error).__name__}.*refused at try 1 "):
            call()
    assert said.lines == [] and said.time.pauses == []


@pytest.mark.parametrize("error", [
    MemoryError(), OSError(24, "Too many open files"), socket.gaierror(-3, "Temporary failure"),
    socket.timeout("timed out"), ConnectionError("gone"), OSError()], ids=repr)
def test_a_fault_of_network_or_resources_is_tried_again(error, said, monkeypatch):
    find, faults = socket.getaddrinfo, [error, error]

    def fail_twice(*args, **options):
        if faults:
            raise faults.pop()
        return find(*args, **options)
    monkeypatch.setattr(socket, "getaddrinfo", fail_twice)
    with Peer(ACCEPTED) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 1
    assert len(said.time.pauses) == 2 and len(said.lines) == 1
