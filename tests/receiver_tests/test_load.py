"""Many clients, many devices, many events, and few threads and descriptors."""
import concurrent.futures
import json
import math
import re
import resource
import signal
import sqlite3
import threading
import time
from contextlib import closing

from receiver.handler import ROWS
from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    begin_to_wait,
    clients,
    connect,
    event,
    get,
    in_threads,
    post,
    read_page,
    read_to_end,
    requested,
)
from support.waiting import at_most, wait_for


def test_closing_lets_every_client_go():
    with Receiver() as receiver:
        idle, waiting = connect(receiver), begin_to_wait(receiver)
        wait_for(lambda: receiver.waiting and receiver.serving)
    with idle, waiting:
        assert idle.recv(100) == b""
        assert read_to_end(waiting).startswith(b"HTTP/1.1 503 ")


def test_threads_without_a_client_end(receiver, settings):
    settings(IDLE_MOST=0.05)
    before = set(threading.enumerate())
    with clients(9, connect, receiver):
        wait_for(lambda: len(receiver.serving) == 9)
        own = set(threading.enumerate()) - before
        assert own  # one may have been there before
    wait_for(lambda: not any(thread.is_alive() for thread in own))
    assert post(receiver) == TAKEN


def test_says_that_all_threads_are_taken_and_gives_those_that_idle_less_time(
        receiver, settings, capsys):
    settings(THREADS_MOST=3, CROWDED_MOST=0.3)
    with clients(3, connect, receiver):
        wait_for(lambda: len(receiver.serving) == 3)
        assert post(receiver) == TAKEN
    assert capsys.readouterr().err == (
        "receiver: all 3 threads are taken; more clients wait\n")


def test_a_thousand_that_idle_hold_up_nobody():
    with ReceiverProcess() as receiver:
        with clients(1000, connect, receiver):
            with at_most(10):  # half of the time that one who idles has
                assert post(receiver) == TAKEN


def test_without_descriptors_it_neither_spins_nor_ends():
    with ReceiverProcess(limit=(resource.RLIMIT_NOFILE, 40)) as receiver:
        with clients(60, connect, receiver):
            before, begun = receiver.busy(), time.monotonic()
            assert post(receiver) == TAKEN
            assert receiver.busy() - before < 0.5 * (time.monotonic() - begun)
        done = receiver.end(signal.SIGTERM)
        assert re.fullmatch("receiver: cannot let clients in: .*\n", done.err)


def test_40_messages_of_4_mib_at_once_take_neither_memory_nor_a_page(tmp_path):
    body = json.dumps({"message": "\u00e9" * (2 * 2**20 - 20)}, ensure_ascii=False).encode()
    with ReceiverProcess("--data", str(tmp_path / "events")) as receiver:
        assert in_threads(40, lambda number: post(receiver, body)) == [TAKEN] * 40
        for path in ("/", "/devices", "/devices/127.0.0.1"):
            assert len(get(receiver.url + path)) < 2 * 2**20
        for path in ("/devices/127.0.0.1/events?per_page=1000", "/events.csv"):
            with requested(receiver, "GET", path) as reply:
                size = sum(len(part) for part in iter(lambda: reply.read(2**20), b""))
                assert size > 40 * len(body)
        assert receiver.memory() < 300


def test_a_large_event_that_has_come_is_not_cut_off_for_others(settings):
    settings(LARGE_MOST=1, LARGE_PATIENCE=0.001)
    body = json.dumps({"message": "x" * 100000}).encode()
    with Receiver() as receiver, concurrent.futures.ThreadPoolExecutor(3) as pool:
        writer = receiver.store.writers.get()  # as if the disk were busy
        try:
            first = pool.submit(post, receiver, body)
            wait_for(lambda: math.inf in receiver.room._begun_at.values())
            others = [pool.submit(post, receiver, body) for _ in range(2)]
            wait_for(lambda: len(receiver.serving) == 3)
            assert ask(receiver, "GET", "/metadata")[0] == 200  # it goes on meanwhile
            receiver.room._patience = 20  # the others may take long, too
        finally:
            receiver.store.writers.put(writer)
        assert [done.result(10) for done in (first, *others)] == [TAKEN] * 3


def fill_with_a_million_events(data):
    """Make the database of a receiver, with events of one device, faster than they come."""
    with Receiver(data=data) as receiver:
        receiver.tell("127.0.0.1", event("running", 1000))
        receiver.tell("127.0.0.1", event("running", 1001))
    with closing(sqlite3.connect(data)) as connection:
        connection.executescript("""
            PRAGMA synchronous = OFF;
            WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
            INSERT INTO events SELECT i, 'x' || i, '127.0.0.1', '127.0.0.1', 'running',
                1000 + i % 2, 'message', '2026-01-01T00:00:00.000000Z', NULL FROM n;
            UPDATE devices SET events = 1000000, last = 1000000;
            """)


def test_a_million_events_in_the_file_take_neither_time_nor_memory(tmp_path):
    data = str(tmp_path / "events")
    fill_with_a_million_events(data)
    with ReceiverProcess("--data", data) as receiver:
        before = receiver.busy()
        with at_most(10):
            for path in ("/", "/devices", "/devices/127.0.0.1",
                         "/devices/127.0.0.1/events?per_page=1000",
                         "/devices/127.0.0.1/events", "/events?page=50000", "/steps",
                         "/events?after=999990&state=running&q=mess", "/metrics"):
                assert ask(receiver, "GET", path)[0] == 200
            for query in ("timeout=0", "timeout=0&code=1001"):
                assert ask(receiver, "GET", f"/devices/127.0.0.1/wait?{query}")[0] == 504
            assert post(receiver, b'{"state":"succeeded","code":1001}') == TAKEN
            assert ask(receiver, "GET", "/devices/127.0.0.1")[0] == 200
        assert receiver.busy() - before < 2
        assert receiver.memory() < 100


def test_thousands_of_events_that_come_take_no_memory(tmp_path):
    def post_some(client):
        for number in range(100):
            body = json.dumps({"state": ("running", "succeeded")[number % 2],
                               "code": 1000 + number // 2 % 20, "message": "x" * 1000})
            assert post(receiver, body) == TAKEN
    with ReceiverProcess("--data", str(tmp_path / "events")) as receiver:
        in_threads(16, post_some)
        before = receiver.memory()
        in_threads(16, post_some)
        assert receiver.memory() - before < 6
        assert receiver.memory() < 100


def test_the_page_of_a_thousand_devices_takes_a_moment(receiver):
    for number in range(1000):
        receiver.tell(f"10.0.{number // 250}.{number % 250}", event("running", 1000, "step"))

    def seconds_of_a_page():
        begun = time.process_time()
        page = read_page(receiver)
        assert "0 of 1000 done" in page
        assert page.count("<tr><td") == ROWS
        return time.process_time() - begun
    assert min(seconds_of_a_page() for _ in range(3)) < 0.2
