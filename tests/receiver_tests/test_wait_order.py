"""Which end of a machine counts for the one who waits, and what it is told of it."""
import concurrent.futures
import datetime
import json
from contextlib import ExitStack

import pytest

from receiver import events, parameters, store
from support.receivers import (
    Receiver,
    ask,
    begin_to_wait,
    event,
    read_json,
    read_to_end,
)
from support.waiting import wait_for

MACHINE = "10.0.0.1"


def tell(receiver, *pairs):
    for state, code in pairs:
        receiver.tell(MACHINE, event(state, code, f"{state} {code}"))


def wait(receiver, query="", machine=MACHINE):
    """Return what one is told who waits no time: (status, the message or error)."""
    status, body = ask(receiver, "GET", f"/devices/{machine}/wait?timeout=0&{query}")
    answer = json.loads(body.decode())
    return status, answer.get("message") or answer["errors"][0]


NOTHING = (504, "nothing has ended within 0 s")
STORIES = {  # what the machine has said, what one is told who waits for its end
    "nothing": ([], NOTHING),
    "a step that succeeded in another": (
        [("running", 1000), ("running", 1020), ("succeeded", 1020)], NOTHING),
    "a step that failed in another": (
        [("running", 1000), ("running", 1020), ("failed", 1020)], (409, "failed 1020")),
    "the cause, not the last failure": (
        [("running", 1000), ("running", 1020), ("failed", 1020), ("failed", 1000)],
        (409, "failed 1020")),
    "a step that failed and succeeded": (
        [("running", 1000), ("running", 1020), ("failed", 1020), ("running", 1020),
         ("succeeded", 1020)], NOTHING),
    "all of it": (
        [("running", 1000), ("running", 1020), ("succeeded", 1020), ("succeeded", 1000)],
        (200, "succeeded 1000")),
    "an end that was never opened": (
        [("running", 1000), ("succeeded", 1001)], (200, "succeeded 1001")),
    "another try": (
        [("running", 1000), ("failed", 1000), ("running", 1000)], NOTHING),
}


@pytest.mark.parametrize("story, told", STORIES.values(), ids=STORIES.keys())
def test_without_a_code_the_end_of_the_machine_counts(receiver, story, told):
    tell(receiver, *story)
    assert wait(receiver) == told


def test_with_a_code_its_latest_end_counts(receiver):
    tell(receiver, ("running", 1000), ("running", 1020), ("failed", 1020))
    assert wait(receiver, "code=1020") == (409, "failed 1020")
    assert wait(receiver, "code=1000") == NOTHING
    tell(receiver, ("succeeded", 1020))
    assert wait(receiver, "code=1020") == (200, "succeeded 1020")


def test_after_a_number_only_what_is_newer_counts(receiver):
    tell(receiver, ("running", 1000), ("succeeded", 1000))
    last = read_json(receiver, "/devices")["last"]
    assert last == 2
    for query in ("", "code=1000&"):
        assert wait(receiver, f"{query}after={last - 1}") == (200, "succeeded 1000")
        assert wait(receiver, f"{query}after={last}") == NOTHING
    tell(receiver, ("running", 1000), ("failed", 1000))
    for query in ("", "code=1000&"):
        assert wait(receiver, f"{query}after={last}") == (409, "failed 1000")


def test_the_number_counts_whatever_the_clock_did(receiver, monkeypatch):
    tell(receiver, ("running", 1000), ("succeeded", 1000))
    receiver.execute("UPDATE events SET created_at = '2222-01-01T00:00:00.000000Z'")
    assert wait(receiver, "code=1000&after=2") == NOTHING
    set_back(monkeypatch, hours=1)
    tell(receiver, ("running", 1000), ("failed", 1000))
    assert wait(receiver, "code=1000&after=2") == (409, "failed 1000")
    assert wait(receiver, "after=2") == (409, "failed 1000")


def set_back(monkeypatch, **much):
    """Set the receiver's clock back, as seen by all of its rooms."""
    now = events.utc_now

    def earlier():
        return now() - datetime.timedelta(**much)
    for room in (events, parameters):
        monkeypatch.setattr(room, "utc_now", earlier)
    assert store.events.utc_now is earlier


def at(text, receiver):
    """Say that all events came at that time."""
    receiver.execute(f"UPDATE events SET created_at = '{text}'")


def test_since_whole_seconds_is_what_came_after_that_second(receiver):
    tell(receiver, ("failed", 1000))
    at("2026-01-31T12:00:00.400000Z", receiver)  # and who asks at 12:00:00.9 cuts it
    for query in ("", "code=1000&"):
        assert wait(receiver, query + "since=2026-01-31T12:00:00Z") == NOTHING
        assert wait(receiver, query + "since=2026-01-31T11:59:59Z") == (409, "failed 1000")
        assert wait(receiver, query + "since=2026-01-31T12:00:00.3Z") == (409, "failed 1000")
        assert wait(receiver, query + "since=2026-01-31T12:00:00.4Z") == NOTHING
        assert wait(receiver, query + "since=2026-01-31T13:00:00.5%2B01:00") == NOTHING


def test_an_end_in_the_future_of_the_clock_is_of_an_earlier_installation(receiver):
    tell(receiver, ("succeeded", 1000))
    at("2222-01-01T00:00:00.000000Z", receiver)
    for query in ("", "code=1000&"):
        assert wait(receiver, query) == (200, "succeeded 1000")
        assert wait(receiver, query + "since=2026-01-31T12:00:00Z") == NOTHING


def test_the_second_in_which_one_asks_is_not_in_the_future(receiver):
    now = events.time_text(events.utc_now())[:19] + "Z"
    assert wait(receiver, f"since={now}") == NOTHING


def test_who_waits_is_told_503_when_the_receiver_ends():
    with ExitStack() as stack:
        with Receiver() as receiver:
            waiting = [stack.enter_context(begin_to_wait(receiver, machine))
                       for machine in ("web-01", MACHINE)]
            wait_for(lambda: len(receiver.waiting) == 2)
        for connection in waiting:
            answer = read_to_end(connection)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 5\r\n" in answer
            assert b'"the receiver ends"' in answer


def test_who_waits_for_a_name_is_told_when_it_ends(receiver):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, receiver, "GET", "/devices/WEB-01/wait")
        wait_for(lambda: receiver.waiting)
        assert ask(receiver, "POST", "/devices/web-02/events", b'{"state":"failed"}')[0] == 200
        assert ask(receiver, "POST", "/devices/web-01/events",
                   b'{"state":"succeeded","message":"mine"}')[0] == 200
        status, body = answer.result(10)
    assert (status, json.loads(body.decode())["message"]) == (200, "mine")
    assert json.loads(body.decode())["device"] == "web-01"
