"""To wait for a machine."""
import concurrent.futures
import json
import resource
import signal
import time
from contextlib import contextmanager

import pytest

from receiver.machines import device_id
from support.receivers import (
    TAKEN,
    ReceiverProcess,
    ask,
    begin_to_wait,
    clients,
    event,
    post,
    read_to_end,
)
from support.waiting import at_most, wait_for

COME = {  # what is asked, what the machine has said, the answer
    "succeeded": ("", [("succeeded", 1099)], 200),
    "failed": ("", [("failed", 1020)], 409),
    "failed, and then all": ("", [("failed", 1020), ("succeeded", 1099)], 200),
    "after another event": ("after=1&", [("running", 1), ("failed", 1)], 409),
    "a code": ("code=1099&", [("succeeded", 1099), ("failed", 1020)], 200),
    "since a while ago": ("since=2020-01-01T00:00:00Z&", [("failed", 1)], 409),
    "since a zone": ("since=2020-01-01t00:00:00.5%2B02:00&", [("failed", 1)], 409),
    "since a plus": ("since=2020-01-01T00:00:00+02:00&", [("failed", 1)], 409),
}


@pytest.mark.parametrize("by", ["10.0.0.1", "ID"])
@pytest.mark.parametrize("query, events, status", COME.values(), ids=COME.keys())
def test_does_not_wait_for_what_has_come(receiver, query, events, status, by):
    for state, code in events:
        receiver.tell("10.0.0.1", event(state, code, "then"))
    device = by.replace("ID", device_id("10.0.0.1"))
    got, body = ask(receiver, "GET", f"/devices/{device}/wait?{query}timeout=0.02")
    assert got == status
    assert json.loads(body.decode())["body"] == "then"


NOT_COME = {  # what is asked, what the machine has said
    "running": ("", [("running", 1099), ("dancing", 1099)]),
    "another code": ("code=1099&", [("succeeded", 1020)]),
    "an inner step": ("", [("running", 1000), ("running", 1020), ("succeeded", 1020)]),
    "after the end": ("after=2&", [("running", 1), ("failed", 1)]),
    "after the end of the code": ("code=1&after=2&", [("running", 1), ("failed", 1)]),
}


@pytest.mark.parametrize("by", ["10.0.0.1", "ID"])
@pytest.mark.parametrize("query, events", NOT_COME.values(), ids=NOT_COME.keys())
def test_waits_in_vain_for_what_does_not_come(receiver, query, events, by):
    for state, code in events:
        receiver.tell("10.0.0.1", event(state, code, "then"))
    device = by.replace("ID", device_id("10.0.0.1"))
    status, body = ask(receiver, "GET", f"/devices/{device}/wait?{query}timeout=0.02")
    assert status == 504
    assert json.loads(body.decode()) == {"errors": ["nothing has ended within 0.02 s"]}


@contextmanager
def one_who_waits(receiver, path):
    """Give the future of the answer to somebody who has begun to wait."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, receiver, "GET", path)
        wait_for(lambda: receiver.waiting)
        yield answer


@pytest.mark.parametrize("by", ["127.0.0.1", "ID"])
def test_waits_for_a_device_that_is_not_known_until_it_ends(receiver, by):
    device = by.replace("ID", device_id("127.0.0.1"))
    with one_who_waits(receiver, f"/devices/{device}/wait?code=1099") as answer:
        receiver.tell("127.0.0.1", event("running", 1099))
        receiver.tell("127.0.0.1", event("failed", 1020))
        receiver.tell("127.0.0.1", event("succeeded", 1099))
        status, body = answer.result(10)
    assert (status, json.loads(body.decode())["type"]) == (200, "user.1099")
    assert not receiver.waiting
    assert not receiver.store.listeners


def test_what_arrives_has_to_be_what_is_waited_for(receiver):
    with one_who_waits(receiver, "/devices/127.0.0.1/wait?timeout=0.5&after=1") as answer:
        receiver.tell("127.0.0.1", event("succeeded"))
        assert answer.result(10)[0] == 504


A_CODE = "code: must be a number like 1000"
SECONDS = "timeout: must be seconds, at most 86400"
A_TIME = "since: must be a time like 2026-01-31T12:00:00Z"
NO_TIME = "since: there is no such time"
A_NUMBER = f"after: must be a number from 0 to {2**63 - 1}"
FUTURE = "since: is in the future, by the receiver's clock; ask with after=NUMBER"
UNKNOWN = ("until: there is no such parameter here; known: code, timeout, since, after")


@pytest.mark.parametrize("query, error", [
    ("code=x", A_CODE), ("code=", A_CODE), ("code=1.0", A_CODE),
    ("code=9223372036854775808", A_CODE),
    ("timeout=x", SECONDS), ("timeout=", SECONDS), ("timeout=-1", SECONDS),
    ("timeout=86401", SECONDS), ("timeout=1e3", SECONDS),
    ("since=", A_TIME), ("since=yesterday", A_TIME), ("since=2020-01-01", A_TIME),
    ("since=2020-01-01T00:00:00", A_TIME),
    ("since=2020-02-30T00:00:00Z", NO_TIME),
    ("since=0001-01-01T00:00:00%2B09:00", NO_TIME),
    ("since=2020-01-01T00:00:00%2B99:00", NO_TIME),
    ("since=2222-01-01T00:00:00Z", FUTURE),
    ("after=", A_NUMBER), ("after=-1", A_NUMBER), ("after=1.5", A_NUMBER),
    ("after=9223372036854775808", A_NUMBER),
    ("until=1", UNKNOWN), ("code=1&code=2", "code: comes twice")])
def test_does_not_wait_for_what_it_does_not_understand(receiver, query, error):
    status, body = ask(receiver, "GET", "/devices/10.0.0.1/wait?" + query)
    assert status == 400
    assert json.loads(body.decode()) == {"errors": [error]}


@pytest.mark.parametrize("device", ["no+body", "n%C3%A4", "x" * 64])
def test_does_not_wait_for_a_device_that_cannot_be(receiver, device):
    status, body = ask(receiver, "GET", f"/devices/{device}/wait")
    assert status == 400
    assert "no address and no name" in body.decode()


def test_notices_that_a_client_that_waited_has_gone(receiver, settings):
    settings(LOOK_EVERY=0.05)
    with begin_to_wait(receiver), begin_to_wait(receiver) as gone:
        wait_for(lambda: len(receiver.waiting) == 2)
        gone.close()
        wait_for(lambda: len(receiver.waiting) == 1)
        assert post(receiver) == TAKEN


def test_more_clients_than_may_wait_are_refused(receiver, settings, capsys):
    settings(WAITING_MOST=1)
    with begin_to_wait(receiver):
        wait_for(lambda: receiver.waiting)
        for _ in range(2):
            assert ask(receiver, "GET", "/devices/10.0.0.1/wait")[0] == 503
        receiver.tell("10.0.0.1", event("succeeded"))
        assert ask(receiver, "GET", "/devices/10.0.0.1/wait")[0] == 200
    assert capsys.readouterr().err == (
        "receiver: 1 clients wait for machines; more are refused\n")


def seconds_of_posts(receiver):
    begun = time.monotonic()
    for _ in range(100):
        assert post(receiver) == TAKEN
    return time.monotonic() - begun


def test_500_that_wait_take_no_processor():
    with ReceiverProcess() as receiver:
        with clients(500, begin_to_wait, receiver):
            seconds_of_posts(receiver)  # by then all of them wait
            before = receiver.busy()
            assert ask(receiver, "GET", "/devices/10.0.0.1/wait?timeout=2")[0] == 504
            assert receiver.busy() - before < 0.3


def test_500_that_wait_slow_nobody():
    """Two receivers in turn, so that another load on the machine slows both."""
    with ReceiverProcess() as alone, ReceiverProcess() as crowded:
        with clients(500, begin_to_wait, crowded):
            rounds = [(seconds_of_posts(alone), seconds_of_posts(crowded)) for _ in range(3)]
        least_alone, least_crowded = map(min, zip(*rounds))
        assert least_crowded < 2 * least_alone + 0.1


def test_one_among_500_that_wait_is_answered():
    with ReceiverProcess() as receiver:
        with clients(500, begin_to_wait, receiver):
            assert post(receiver, b'{"state":"failed"}') == TAKEN
            with begin_to_wait(receiver, "127.0.0.1") as connection:
                assert connection.recv(100).startswith(b"HTTP/1.1 409 ")


def test_clients_that_wait_leave_descriptors_to_others():
    with ReceiverProcess(limit=(resource.RLIMIT_NOFILE, 100)) as receiver:
        with clients(120, begin_to_wait, receiver) as waiting:
            with at_most(10):  # half of the time that a request has
                assert post(receiver) == TAKEN
            answer = read_to_end(waiting[-1])
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nRetry-After: 10\r\n" in answer
        done = receiver.end(signal.SIGTERM)
        assert "receiver: 50 clients wait for machines; more are refused\n" in done.err
