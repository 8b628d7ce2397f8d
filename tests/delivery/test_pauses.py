"""How long it waits between two tries, and what Retry-After makes of that."""
import email.utils
import random
import time

import pytest

import userstate
from support.calls import EVENT, post_to
from support.faults import FAULTS
from support.peers import ACCEPTED, Peer, answer, part


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
    ("7", 7, 7), ("30", 30, 30), ("31", 30, 30), ("9999999999", 30, 30),
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
