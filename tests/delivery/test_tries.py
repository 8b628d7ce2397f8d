"""What is tried again and how often: faults that pass, three more tries, at once."""
import random
import re
import socket
import subprocess

import pytest

import userstate
from support.calls import EVENT, fetch_from, post_to
from support.faults import BODIES, FAULTS
from support.peers import ACCEPTED, DEAD, Peer, answer, document
from support.processes import EVENT_WORDS, start
from support.waiting import PATIENCE

# Tried again until the deadline.


@pytest.mark.parametrize("name", FAULTS)
def test_tries_an_event_again_after(name, said):
    with Peer(FAULTS[name], FAULTS[name], ACCEPTED) as peer:
        post_to(peer, said)
        assert peer.events[-1] == EVENT
        assert len(set(peer.bodies)) == 1
    assert len(said.time.pauses) == 2
    assert len(said.lines) == 1


METADATA_FAULTS = {**FAULTS, **BODIES}


@pytest.mark.parametrize("name", METADATA_FAULTS)
def test_tries_the_metadata_again_after(name, said):
    with Peer(METADATA_FAULTS[name], METADATA_FAULTS[name], document()) as peer:
        assert fetch_from(peer, said) == "x"
    assert len(said.time.pauses) == 2
    assert len(said.lines) == 1


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
    assert len(said.time.pauses) == 2
    assert len(said.lines) == 1


def test_any_sequence_of_passing_faults_and_then_200_is_one_accepted_event():
    dice = random.Random(2026)
    names = [name for name in FAULTS if name != "reset before the request"]
    for _ in range(40):
        faults = [dice.choice(names) for _ in range(dice.randrange(9))]
        with Peer(*[FAULTS[name] for name in faults], ACCEPTED) as peer:
            userstate.post_event(EVENT, peer.url, say=lambda line: None,
                                 sleep=lambda seconds: None)
            assert peer.events == [EVENT] * (len(faults) + 1), faults


def test_equal_problems_are_said_once_and_the_last_line_is_the_verdict(said):
    scripts = [answer(500), answer(503), answer(500), answer(503), answer(403)]
    with Peer(*scripts) as peer:
        with pytest.raises(userstate.RefusedError, match=r"403.*refused at try 5 after \d"):
            post_to(peer, said)
    first, second = said.lines
    assert re.search(r"HTTP 500 .*; trying again in \d+\.\d s, for \d+\.\d s at most$", first)
    assert re.search(r"HTTP 503 .*; trying again in \d+\.\d s, for \d+\.\d s at most$", second)


def test_a_service_that_comes_up_late_is_delivered_to():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # nobody listens there yet
        reserved.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/events"
        with start(*EVENT_WORDS, url=url, stderr=subprocess.PIPE) as process:
            assert b"Connection refused" in process.stderr.readline()
            reserved.listen(5)
            connection, _ = reserved.accept()
            with connection:
                assert connection.recv(65536).startswith(b"POST ")
                connection.sendall(ACCEPTED)
            assert process.wait(20) == 0


# Three more tries.


@pytest.mark.parametrize("tries", [1, 2, 3])
@pytest.mark.parametrize("status", [400, 404])
def test_metadata_400_and_404_may_pass(status, tries, said):
    script = answer(status, b'{"message":"resource not found"}')
    with Peer(*[script] * tries, document()) as peer:
        assert fetch_from(peer, said) == "x"
        assert len(peer.requests) == tries + 1
    assert "resource not found" in said.lines[0]


@pytest.mark.parametrize("tries", [1, 2, 3])
def test_event_400_may_pass(tries, said):
    with Peer(*[answer(400)] * tries, ACCEPTED) as peer:
        post_to(peer, said)
        assert peer.events == [EVENT] * (tries + 1)


def test_the_key_may_appear_later(said):
    without = document(user_state_url=None)
    with Peer(without, without, without, document(user_state_url="http://h/")) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == "http://h/"


def test_other_faults_do_not_use_up_the_three_more_tries(said):
    scripts = [answer(400), answer(500)] * 3 + [answer(500)] * 4 + [ACCEPTED]
    with Peer(*scripts) as peer:
        post_to(peer, said)
        assert len(peer.events) == 11


@pytest.mark.parametrize("call, status", [(post_to, 400), (fetch_from, 400), (fetch_from, 404)],
                         ids=["event-400", "metadata-400", "metadata-404"])
def test_three_more_tries_and_then_refused(call, status, said):
    with Peer(answer(status)) as peer:
        with pytest.raises(userstate.RefusedError, match=f"HTTP {status}.*refused at try 4"):
            call(peer, said)
        assert len(peer.requests) == 4


# Refused at once.

AT_ONCE = [300, 301, 302, 303, 305, 307, 308, 401, 402, 403, 405, 406, 407, 409, 410, 411,
           413, 418, 422, 451, 499, 501, 505]


@pytest.mark.parametrize("status", [404, *AT_ONCE])
def test_an_event_is_refused_at_once_by(status, said):
    line = rf"HTTP {status} Reason \(no \[31m way\); refused at try 1"
    with Peer(answer(status, b'{"error":"no\\u001b[31m way"}')) as peer:
        with pytest.raises(userstate.RefusedError, match=line):
            post_to(peer, said)
        assert len(peer.requests) == 1
    assert said.lines == []


def test_an_event_is_refused_at_once_by_304_which_has_no_body(said):
    with Peer(answer(304)) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 304 Reason; refused at try 1"):
            post_to(peer, said)
        assert len(peer.requests) == 1
    assert said.lines == []


@pytest.mark.parametrize("status", [304, *AT_ONCE])
def test_metadata_is_refused_at_once_by(status, said):
    with Peer(answer(status)) as peer:
        with pytest.raises(userstate.RefusedError, match=f"HTTP {status} "):
            fetch_from(peer, said)
        assert len(peer.requests) == 1


BUGS = [TypeError("boom"), AttributeError("boom"), KeyError("boom"), ZeroDivisionError("boom"),
        RuntimeError("boom"), AssertionError("boom"), RecursionError("boom"),
        UnicodeError("boom"), StopIteration("boom"), LookupError("boom")]


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_bug_is_refused_at_once_with_its_type(error, said, monkeypatch):
    def fail(*args, **options):
        raise error
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    line = f"{type(error).__name__}.*refused at try 1 "
    with pytest.raises(userstate.RefusedError, match=line):
        userstate.post_event({}, DEAD, **said.options)
    with pytest.raises(userstate.RefusedError, match=line):
        userstate.fetch_metadata(metadata_url=DEAD, **said.options)
    assert said.lines == []
    assert said.time.pauses == []


@pytest.mark.parametrize("status, limit", [
    (500, r"for (\d+\.\d) s at most"), (400, "3 times at most")])
def test_the_first_line_of_a_fault_says_for_how_long_it_is_tried(status, limit, said):
    with Peer(answer(status)) as peer:
        with pytest.raises(userstate.UserStateError):
            post_to(peer, said, deadline=60)
    line, = said.lines
    found = re.search(rf"; trying again in \d+\.\d s, {limit}$", line)
    if status == 500:
        assert float(found.group(1)) == 60
    else:
        assert len(said.time.pauses) == 3


def test_a_line_begins_with_the_event_that_it_is_about(said):
    with Peer(answer(503), ACCEPTED) as peer:
        with Peer(answer(500), document(user_state_url=peer.url)) as metadata:
            userstate.send_user_state_event("failed", 1042, "x", metadata_url=metadata.url,
                                            **said.options)
    assert [line.partition(": HTTP")[0] for line in said.lines] == [
        f"failed 1042: {metadata.url}", f"failed 1042: {peer.url}"]


def test_a_question_for_the_address_alone_is_about_no_event(said):
    with Peer(answer(500), document(user_state_url="http://h/")) as peer:
        userstate.user_state_url(metadata_url=peer.url, **said.options)
        line, = said.lines
        assert line.startswith(f"{peer.url}: HTTP 500")
