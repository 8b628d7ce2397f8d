"""Many clients, many devices, many events, and few threads and descriptors."""
import json
import re
import signal
import socket
import sqlite3
import threading
import time
import urllib.request

import service
from support.receivers import Process, Receiver, ask, begin_to_wait, get, in_threads, state
from support.waiting import wait_for


def test_closing_lets_every_client_go():
    with Receiver() as receiver:
        idle = socket.create_connection(receiver.server_address)
        waiting = begin_to_wait(receiver.server_address)
        wait_for(lambda: receiver.waiting and receiver.serving)
    for connection in (idle, waiting):
        assert connection.recv(100) == b""
        connection.close()


def test_threads_without_a_client_end(receiver, monkeypatch):
    monkeypatch.setattr(service, "IDLE_MOST", 0.05)
    before = set(threading.enumerate())
    idle = [socket.create_connection(receiver.server_address) for _ in range(9)]
    wait_for(lambda: len(receiver.serving) == 9)
    own = set(threading.enumerate()) - before
    assert len(own) == 9
    for connection in idle:
        connection.close()
    wait_for(lambda: not any(thread.is_alive() for thread in own))
    assert ask(receiver, "POST", "/events", b"{}") == (200, b"")


def test_says_that_all_threads_are_taken_and_gives_those_that_idle_less_time(
        receiver, monkeypatch, capsys):
    monkeypatch.setattr(service, "THREADS_MOST", 3)
    monkeypatch.setattr(service, "CROWDED_MOST", 0.3)
    idle = [socket.create_connection(receiver.server_address) for _ in range(3)]
    wait_for(lambda: len(receiver.serving) == 3)
    assert ask(receiver, "POST", "/events", b"{}") == (200, b"")
    for connection in idle:
        connection.close()
    assert capsys.readouterr().err == (
        "service: all 3 threads are taken; more clients wait\n")


def test_a_thousand_that_idle_hold_up_nobody():
    with Process() as own:
        idle = [socket.create_connection(own.server_address) for _ in range(1000)]
        begun = time.monotonic()
        assert own.post(b"{}") == 200
        assert time.monotonic() - begun < service.REQUEST_MOST / 2
        for connection in idle:
            connection.close()


def test_without_descriptors_it_neither_spins_nor_ends():
    with Process(limit="RLIMIT_NOFILE, (40, 40)") as own:
        idle = [socket.create_connection(own.server_address) for _ in range(60)]
        before = own.busy()
        begun = time.monotonic()
        assert own.post(b"{}") == 200
        assert own.busy() - before < 0.5 * (time.monotonic() - begun)
        for connection in idle:
            connection.close()
        own.end(signal.SIGTERM)
        assert re.fullmatch("service: cannot let clients in: .*\n", own.errors())


def test_40_messages_of_4_mib_at_once_take_neither_memory_nor_a_page(tmp_path):
    body = json.dumps({"message": "\u00e9" * (2 * 2**20 - 20)}, ensure_ascii=False).encode()
    with Process("--data", str(tmp_path / "events")) as own:
        assert in_threads(40, lambda number: own.post(body)) == [200] * 40
        for path in ("/", "/devices", "/devices/127.0.0.1"):
            assert len(get(own.url + path)) < 2 * 2**20
        with urllib.request.urlopen(
                own.url + "/devices/127.0.0.1/events?per_page=1000") as reply:
            assert sum(len(part) for part in iter(lambda: reply.read(2**20), b"")) > 160 * 2**20
        assert own.memory() < 300


def test_a_million_events_in_the_file_take_neither_time_nor_memory(tmp_path):
    data = str(tmp_path / "events")
    Receiver(data=data).server_close()
    connection = sqlite3.connect(data)
    connection.executescript("""
        PRAGMA synchronous = OFF;
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000)
        INSERT INTO events SELECT i, 'x' || i, '127.0.0.1', 'running', 1000 + i % 2,
            'message', '2026-01-01T00:00:00.000000Z', NULL FROM n;
        """)
    connection.execute(
        "INSERT INTO devices VALUES ('127.0.0.1', ?, x'00', 1000000, '2026-01-01T00:00:00Z', "
        "'2026-01-01T00:00:00Z', 'running', 1000, '')", [service.device_id("127.0.0.1")])
    connection.commit()
    connection.close()
    with Process("--data", data) as own:
        before, begun = own.busy(), time.monotonic()
        for path in ("/", "/devices", "/devices/127.0.0.1",
                     "/devices/127.0.0.1/events?per_page=1000", "/devices/127.0.0.1/events"):
            get(own.url + path)
        assert ask(own, "GET", "/devices/127.0.0.1/wait?timeout=0")[0] == 504
        assert ask(own, "GET", "/devices/127.0.0.1/wait?timeout=0&code=1001")[0] == 504
        assert own.post(b'{"state":"succeeded","code":1001}') == 200
        get(own.url + "/devices/127.0.0.1")
        assert own.busy() - before < 2 and own.memory() < 100
        assert time.monotonic() - begun < 10


def test_a_thousand_devices_are_on_the_page_in_a_moment(receiver):
    event = state("running", 1000, "step")
    receiver.store.insert([service.event_row(f"10.0.{n // 250}.{n % 250}", event)
                           for n in range(1000)])
    taken = []
    for _ in range(3):
        begun = time.process_time()
        assert get(receiver.url).count(b'class="address"') == 1000
        taken.append(time.process_time() - begun)
    assert min(taken) < 0.2
