"""How long it waits between two tries, and what Retry-After makes of that."""
import email.utils
import random
import signal
import subprocess
import threading
import time

import pytest

import userstate
from support.calls import EVENT, post_to
from support.faults import FAULTS
from support.peers import ACCEPTED, Peer, answer, part
from support.processes import EVENT_WORDS, ended, start
from support.waiting import at_most


def test_pauses_grow_and_vary_and_leave_time_for_a_last_try(said):
    with Peer(answer(500)) as peer:
        with pytest.raises(userstate.DeadlineError):
            post_to(peer, said)
    assert 148.9 < sum(said.time.pauses) <= 150
    *pauses, last = said.time.pauses
    assert userstate.PAUSES == (1, 2, 4, 8, 15)
    for pause, most in zip(pauses, [1, 2, 4, 8] + [15] * 99):
        assert most / 2 <= pause <= most
    assert len(set(pauses)) == len(pauses)
    assert last <= 14


@pytest.mark.parametrize("name", FAULTS)
def test_gives_up_at_the_deadline_after(name, said):
    begun = said.time.now
    with Peer(FAULTS[name]) as peer:
        with pytest.raises(userstate.DeadlineError, match=r"gave up at try \d+ after 1\d\d"):
            post_to(peer, said)
        assert len(set(peer.bodies)) <= 1
    assert 135 < said.time.now - begun <= 150


@pytest.mark.parametrize("deadline, pauses", [(0.8, [0.4]), (6, [1, 2, 2])])
def test_the_last_try_has_half_of_what_is_left_or_a_second(deadline, pauses, said, monkeypatch):
    monkeypatch.setattr(random, "uniform", lambda least, most: most)
    with Peer(answer(503)) as peer:
        with pytest.raises(userstate.DeadlineError):
            post_to(peer, said, deadline=deadline)
        assert said.time.pauses == pytest.approx(pauses)


DATE = email.utils.formatdate(time.time() + 3600, usegmt=True)


@pytest.mark.parametrize("value, least, most", [
    ("7", 7, 7), ("7 \t", 7, 7), ("30", 30, 30), ("31", 30, 30), ("9999999999", 30, 30),
    pytest.param("9" * 4000, 30, 30, id="4000 digits"),
    pytest.param(DATE, 30, 30, id="in an hour"),
    ("0", 0.5, 1), ("-1", 0.5, 1), ("soon", 0.5, 1),
    ("", 0.5, 1), ("Thu, 01 Jan 1970 00:00:00 GMT", 0.5, 1), ("\xb2", 0.5, 1), ("1.5", 0.5, 1),
    ("Fri, 31 Dec 99999 23:59:59 GMT", 0.5, 1), ("nan", 0.5, 1), ("1, 2", 0.5, 1)])
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_makes_a_pause_longer(status, value, least, most, said):
    with Peer(answer(status, b"", f"Retry-After: {value}"), ACCEPTED) as peer:
        post_to(peer, said)
    assert least <= said.time.pauses[0] <= most


@pytest.mark.parametrize("seconds", [20, 25])
def test_gives_up_now_if_retry_after_ends_at_or_behind_the_deadline(seconds, said):
    with Peer(answer(503, b"", f"Retry-After: {seconds}")) as peer:
        with pytest.raises(userstate.DeadlineError, match="gave up at try 1"):
            post_to(peer, said, deadline=20)
        assert said.time.pauses == []


def test_a_past_retry_after_of_an_answer_that_outlasts_the_deadline_is_harmless():
    header = b"Retry-After: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 9999\r\n\r\n"
    with Peer(part(b"HTTP/1.1 503 No\r\n" + header, b"x")) as peer:
        with pytest.raises(userstate.DeadlineError, match="503 No; gave up at try 1 "):
            userstate.post_event(EVENT, peer.url, deadline=0.3, say=lambda line: None)


def test_an_odd_retry_after_does_not_hide_a_refusal(said):
    with Peer(answer(403, b"", "Retry-After: Jan \xb2 , 1e400 1:2")) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 403"):
            post_to(peer, said)


def test_retry_after_dates_of_all_kinds_are_harmless(said):
    dice = random.Random(3)
    words = ["Mon,", "99", "Jan", "1970", "00:00:60", "GMT", "+9999", "-1", "a:b", "\xff", ","]
    values = [" ".join(dice.choice(words) for _ in range(dice.randrange(8)))
              for _ in range(200)]
    scripts = [answer(503, b"", f"Retry-After: {value}") for value in values]
    with Peer(*scripts, ACCEPTED) as peer:
        post_to(peer, said, deadline=99999)
    assert len(said.time.pauses) == 200
    assert max(said.time.pauses) <= 30


def http_date(seconds):
    return email.utils.formatdate(seconds, usegmt=True)


@pytest.mark.parametrize("wrong_by", [0, -3600, 3600, -1700000000], ids=[
    "right", "an hour behind", "an hour ahead", "1973"])
def test_a_date_of_retry_after_is_read_against_that_of_the_answer(wrong_by, said, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + wrong_by)
    headers = f"Date: {http_date(now)}", f"Retry-After: {http_date(now + 7)}"
    with Peer(answer(503, b"", *headers), ACCEPTED) as peer:
        post_to(peer, said, deadline=20)
    assert said.time.pauses == [7]


@pytest.mark.parametrize("date", ["", "soon", "Fri, 31 Dec 99999 23:59:59 GMT", "\xb2"])
def test_a_date_of_the_answer_that_is_none_is_harmless(date, said):
    headers = f"Date: {date}", "Retry-After: Fri, 01 Jan 2100 00:00:00 GMT"
    with Peer(answer(503, b"", *headers), ACCEPTED) as peer:
        post_to(peer, said)
    pause, = said.time.pauses
    assert pause <= 30


def test_a_machine_that_was_frozen_in_a_pause_makes_one_more_try(said):
    def freeze(seconds):
        said.time.pauses.append(seconds)
        said.time.now += 10000
    options = dict(said.options, sleep=freeze)
    with Peer(answer(503), ACCEPTED) as peer:
        userstate.post_event(EVENT, peer.url, **options)
        assert len(peer.events) == 2
    with Peer(answer(503)) as peer:
        with pytest.raises(userstate.DeadlineError, match="gave up at try 2 "):
            userstate.post_event(EVENT, peer.url, **options)
        assert len(peer.events) == 2


def test_the_try_of_a_machine_that_was_frozen_is_bounded_by_its_time_out(said):
    def freeze(seconds):
        said.time.now += 10000
    with Peer(answer(503), part(b"")) as peer, at_most(3, least=0.3):
        with pytest.raises(userstate.DeadlineError, match="timed out; gave up at try 2 "):
            options = dict(said.options, sleep=freeze)
            userstate.post_event(EVENT, peer.url, timeout=0.3, **options)


def test_a_process_that_was_stopped_in_a_pause_past_its_deadline_delivers(edge_python):
    with Peer(answer(503), ACCEPTED) as peer:
        process = start("--deadline=1", *EVENT_WORDS, url=peer.url, python=edge_python,
                        stderr=subprocess.PIPE)
        assert b"trying again" in process.stderr.readline()
        process.send_signal(signal.SIGSTOP)
        over = threading.Event()
        over.wait(3)  # more than the deadline, in which nothing can be waited for
        process.send_signal(signal.SIGCONT)
        assert ended(process) == (0, "", "")
        assert len(peer.events) == 2


def test_a_pause_that_ends_a_moment_late_makes_the_call_no_longer(said):
    """A busy machine is not a frozen one."""
    def oversleep(seconds):
        said.time.now += 0.7
    with Peer(answer(503), part(b"")) as peer, at_most(2):
        with pytest.raises(userstate.DeadlineError, match="timed out; gave up at try 2 "):
            options = dict(said.options, sleep=oversleep)
            userstate.post_event(EVENT, peer.url, deadline=0.5, **options)


def test_a_date_that_is_over_asks_for_no_pause(said):
    headers = f"Date: {http_date(time.time())}", f"Retry-After: {http_date(0)}"
    with Peer(answer(503, b"", *headers), ACCEPTED) as peer:
        post_to(peer, said, deadline=0.9)
        assert len(peer.events) == 2
