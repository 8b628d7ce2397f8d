"""To wait for a machine."""
import concurrent.futures
import datetime
import json
import signal
import time

import pytest

import service
from support.receivers import Process, ask, begin_to_wait, state
from support.waiting import wait_for

WAITS = {
    "succeeded": ("", [("succeeded", 1099)], 200),
    "failed": ("", [("failed", 1020)], 409),
    "the newest": ("", [("failed", 1099), ("succeeded", 1020)], 200),
    "running": ("", [("running", 1099), ("dancing", 1099)], 504),
    "a code": ("code=1099&", [("succeeded", 1099), ("failed", 1020)], 200),
    "another code": ("code=1099&", [("succeeded", 1020)], 504),
    "since a while ago": ("since=2020-01-01T00:00:00Z&", [("failed", 1)], 409),
    "since a zone": ("since=2020-01-01t00:00:00.5%2B02:00&", [("failed", 1)], 409),
    "since a plus": ("since=2020-01-01T00:00:00+02:00&", [("failed", 1)], 409),
    "since tomorrow": ("since=2222-01-01T00:00:00Z&", [("failed", 1)], 504),
}


@pytest.mark.parametrize("name", WAITS)
def test_waits_for(receiver, name):
    query, events, status = WAITS[name]
    for word, code in events:
        receiver.put("10.0.0.1", state(word, code, "then"))
    for device in ("10.0.0.1", receiver.device("10.0.0.1")):
        got, body = ask(receiver, "GET", f"/devices/{device}/wait?{query}timeout=0.02")
        assert got == status
        assert status == 504 or json.loads(body.decode())["body"] == "then"


@pytest.mark.parametrize("device", ["127.0.0.1", service.device_id("127.0.0.1")])
def test_waits_for_a_device_that_is_not_known_until_it_ends(receiver, device):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, receiver, "GET", f"/devices/{device}/wait?code=1099")
        wait_for(lambda: receiver.waiting)
        for word, code in (("running", 1099), ("failed", 1020), ("succeeded", 1099)):
            receiver.put("127.0.0.1", state(word, code, word))
        status, body = answer.result(10)
    assert (status, json.loads(body.decode())["type"]) == (200, "user.1099")
    assert not receiver.store.listeners and not receiver.waiting


def test_what_arrives_has_to_be_what_is_waited_for(receiver):
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        path = f"/devices/127.0.0.1/wait?timeout=0.5&since={datetime.date.max}T00:00:00Z"
        answer = pool.submit(ask, receiver, "GET", path)
        wait_for(lambda: receiver.waiting)
        receiver.put("127.0.0.1", state("succeeded"))
        assert answer.result(10)[0] == 504


@pytest.mark.parametrize("query", [
    "code=x", "code=", "code=1.0", "code=9223372036854775808", "timeout=x", "timeout=-1",
    "timeout=86401", "timeout=1e3", "timeout=", "since=", "since=yesterday", "since=2020-01-01",
    "since=2020-02-30T00:00:00Z", "since=2020-01-01T00:00:00", "until=1", "code=1&code=2",
    "since=0001-01-01T00:00:00%2B09:00", "since=2020-01-01T00:00:00%2B99:00"])
def test_does_not_wait_for_what_it_does_not_understand(receiver, query):
    status, body = ask(receiver, "GET", "/devices/10.0.0.1/wait?" + query)
    errors = {"code": "code: must be a number like 1099",
              "timeout": "timeout: must be seconds, at most 86400",
              "since": "since: must be a time like 2026-01-31T12:00:00Z"}
    error = errors.get(query.partition("=")[0])
    if "&" in query or "until" in query:
        error = "there are code, timeout and since, each once"
    elif "02-30" in query or "%2B" in query:
        error = "since: there is no such time"
    assert (status, json.loads(body.decode())) == (400, {"errors": [error]})
    assert ask(receiver, "GET", "/devices/nobody/wait")[0] == 400


def test_notices_that_a_client_that_waited_has_gone(receiver, monkeypatch):
    monkeypatch.setattr(service, "LOOK_EVERY", 0.05)
    with begin_to_wait(receiver.server_address), begin_to_wait(receiver.server_address) as gone:
        wait_for(lambda: len(receiver.waiting) == 2)
        gone.close()
        wait_for(lambda: len(receiver.waiting) == 1)
        assert ask(receiver, "POST", "/events", b"{}") == (200, b"")


def test_more_clients_than_may_wait_are_refused(receiver, monkeypatch, capsys):
    monkeypatch.setattr(service, "WAITING_MOST", 1)
    with begin_to_wait(receiver.server_address):
        wait_for(lambda: receiver.waiting)
        for _ in range(2):
            assert ask(receiver, "GET", "/devices/10.0.0.1/wait")[0] == 503
        receiver.put("10.0.0.1", state("succeeded"))
        assert ask(receiver, "GET", "/devices/10.0.0.1/wait")[0] == 200
    assert capsys.readouterr().err == (
        "service: 1 clients wait for machines; more are refused\n")


def test_500_that_wait_take_no_processor_and_slow_nobody():
    def seconds_of_posts():
        begun = time.monotonic()
        for _ in range(100):
            assert own.post(b"{}") == 200
        return time.monotonic() - begun
    with Process() as own:
        alone = min(seconds_of_posts() for _ in range(3))
        waiting = [begin_to_wait(own.server_address) for _ in range(500)]
        among = min(seconds_of_posts() for _ in range(3))
        before = own.busy()
        assert ask(own, "GET", "/devices/10.0.0.1/wait?timeout=2")[0] == 504
        assert own.busy() - before < 0.3
        assert among < 2 * alone + 0.1
        assert own.post(b'{"state":"failed"}') == 200
        connection = begin_to_wait(own.server_address, "127.0.0.1")
        assert connection.recv(100).startswith(b"HTTP/1.1 409 ")
        for client in [connection, *waiting]:
            client.close()


def test_clients_that_wait_leave_descriptors_to_others():
    with Process(limit="RLIMIT_NOFILE, (100, 100)") as own:
        waiting = [begin_to_wait(own.server_address) for _ in range(120)]
        begun = time.monotonic()
        assert own.post(b"{}") == 200
        assert time.monotonic() - begun < service.REQUEST_MOST / 2
        waiting[-1].settimeout(10)
        answer = waiting[-1].makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: 10\r\n" in answer
        for connection in waiting:
            connection.close()
        own.end(signal.SIGTERM)
        assert "service: 50 clients wait for machines; more are refused\n" in own.errors()
