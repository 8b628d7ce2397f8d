"""What is kept of the events: committed before the 200, and once."""
import concurrent.futures
import http.client
import json
import re
import resource
import signal
import threading

import pytest

from receiver.machines import device_id
from receiver.store import READERS, Store, StoreError
from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    event,
    in_threads,
    post,
    query,
)
from support.tools import check
from support.waiting import at_most, wait_for


def messages(receiver):
    return [message for _, _, message in receiver.shown()]


def test_events_are_in_the_data_file_before_the_200_and_after_a_restart(tmp_path):
    data = str(tmp_path / "events")
    with Receiver(data=data) as receiver:
        assert post(receiver, b'{"message":"kept"}') == TAKEN
        assert query(data, "SELECT address, state, code, message FROM events") == [
            ("127.0.0.1", "", 0, "kept")]
    with Receiver(data=data) as receiver:
        assert post(receiver, b'{"message":"more"}') == TAKEN
        assert messages(receiver) == ["kept", "more"]
    with Receiver(data=data) as receiver:
        assert messages(receiver) == ["kept", "more"]


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path):
    full = 2  # the number that SQLite has for this
    with Receiver(data=str(tmp_path / "events")) as receiver:
        assert receiver.execute("PRAGMA journal_mode") == [("wal",)]
        assert receiver.execute("PRAGMA synchronous") == [(full,)]


def test_the_file_can_be_read_and_copied_while_it_serves(tmp_path):
    data, copy = str(tmp_path / "events"), str(tmp_path / "copy")
    with Receiver(data=data) as receiver:
        receiver.tell("10.0.0.1", event("failed", 1020, "a\nb"))
        check("sqlite3", data, f".backup {copy}")
        assert check("sqlite3", copy, "select address, state, code from devices") == (
            "10.0.0.1|failed|1020\n")
    with Receiver(data=copy) as receiver:
        assert receiver.shown("10.0.0.1") == [("user.1020", "failed", "a\nb")]


def test_an_event_that_cannot_be_stored_leaves_nothing_and_stops_nothing(tmp_path):
    with Receiver(data=str(tmp_path / "events")) as receiver:
        with pytest.raises(OSError):
            receiver.tell("10.0.0.1", event("failed", 1, "\ud800"))
        receiver.tell("10.0.0.1", event("failed", 2))
        assert receiver.shown("10.0.0.1") == [("user.2", "failed", "")]


def test_a_full_disk_is_a_500_and_leaves_no_half_event(tmp_path):
    """A limit of the size of a file stands in for the disk."""
    data = str(tmp_path / "events")
    body = json.dumps({"message": "x" * 30000}).encode()
    with ReceiverProcess("--data", data, limit=(resource.RLIMIT_FSIZE, 200000)) as receiver:
        statuses = [post(receiver, body)[0] for _ in range(12)]
        done = receiver.end(signal.SIGINT)
    assert done.status == 0
    assert re.fullmatch("receiver: the database fails, the answer is 500: [ -~]+\n", done.err)
    taken = statuses.count(200)
    assert 0 < taken < 12
    assert statuses == [200] * taken + [500] * (12 - taken)
    with Receiver(data=data) as receiver:
        assert messages(receiver) == ["x" * 30000] * taken
        assert post(receiver, body) == TAKEN


def post_number(receiver, number):
    """Post an event with this number as its message and its key."""
    body = json.dumps({"state": "running", "message": str(number)})
    return post(receiver, body, {"Idempotency-Key": str(number)})


def test_what_was_answered_200_is_there_once_after_a_kill(tmp_path):
    data, taken, unknown = str(tmp_path / "events"), [], []
    one_more = threading.Semaphore(0)

    def post_until_it_fails(client):
        for number in range(client * 1000, client * 1000 + 1000):
            try:
                assert post_number(receiver, number) == TAKEN
            except (OSError, http.client.HTTPException):
                unknown.append(number)
                return
            taken.append(number)
            one_more.release()
    with ReceiverProcess("--data", data) as receiver:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(post_until_it_fails, number) for number in range(8)]
            for _ in range(200):
                assert one_more.acquire(timeout=20)
            receiver.end(signal.SIGKILL)
        for client in clients:
            client.result()
    assert len(taken) >= 200
    assert len(unknown) == 8
    with ReceiverProcess("--data", data) as receiver:
        for number in unknown + taken[-8:]:
            assert post_number(receiver, number) == TAKEN
    kept = [int(text) for text, in query(data, "SELECT message FROM events")]
    assert sorted(kept) == sorted(taken + unknown)
    assert query(data, "SELECT events FROM devices") == [(len(kept),)]


def test_nothing_is_missing_or_there_twice_after_ten_kills(tmp_path):
    """Each client goes on after the kill, with a repetition of what got no answer."""
    data, taken = str(tmp_path / "events"), []
    going = [0] * 8  # of each client: the number that it posts next

    def post_until_it_fails(client):
        while True:
            try:
                assert post_number(receiver, client * 10000 + going[client]) == TAKEN
            except (OSError, http.client.HTTPException):
                return
            taken.append(client * 10000 + going[client])
            going[client] += 1
            one_more.release()
    for _ in range(10):
        one_more = threading.Semaphore(0)
        with ReceiverProcess("--data", data) as receiver:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                clients = [pool.submit(post_until_it_fails, number) for number in range(8)]
                for _ in range(60):
                    assert one_more.acquire(timeout=20)
                receiver.end(signal.SIGKILL)
            for client in clients:
                client.result()
    kept = [int(text) for text, in query(data, "SELECT message FROM events")]
    unknown = {client * 10000 + number for client, number in enumerate(going)}
    assert len(taken) >= 600
    assert sorted(set(kept) - unknown) == sorted(taken)
    assert len(set(kept)) == len(kept)
    assert query(data, "SELECT events FROM devices") == [(len(kept),)]
    assert query(data, "SELECT sum(count) FROM totals") == [(1,)]
    assert query(data, "PRAGMA integrity_check") == [("ok",)]


def test_an_event_that_was_answered_500_is_not_kept_later(settings):
    settings(COMMIT_MOST=1)
    with Receiver() as receiver, concurrent.futures.ThreadPoolExecutor(1) as pool:
        writer = receiver.store.writers.get()  # as if the disk were busy
        try:
            first = pool.submit(post, receiver)
            wait_for(lambda: receiver.answering and receiver.store.queue.empty())
            assert post(receiver)[0] == 500
            assert first.result(10)[0] == 500  # but its transaction has begun
        finally:
            receiver.store.writers.put(writer)
        settings(COMMIT_MOST=20)
        receiver.store.check()
        assert len(receiver.shown()) == 1


ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT * FROM n"


@pytest.mark.parametrize("data", [None, "events"], ids=["in memory", "in a file"])
def test_a_search_that_takes_long_is_ended_and_disturbs_nobody(data, settings, tmp_path):
    settings(QUERY_MOST=0.1, STEPS_BETWEEN=100)
    with Receiver(data=data and str(tmp_path / data)) as receiver:
        with pytest.raises(StoreError, match="the search takes too long"), at_most(10):
            receiver.store._read(f"SELECT count(*) FROM ({ENDLESS})")
        settings(QUERY_MOST=20)
        assert post(receiver) == TAKEN
        assert len(receiver.shown()) == 1


def test_events_by_an_id_come_in_while_all_others_search(settings, tmp_path):
    with Receiver(data=str(tmp_path / "events")) as receiver:
        readers = [receiver.store.readers.get() for _ in range(READERS)]
        try:
            path = f"/devices/{device_id('127.0.0.1')}/events"
            assert ask(receiver, "POST", path, b"{}") == TAKEN
            settings(QUERY_MOST=0.1)
            status, body = ask(receiver, "GET", "/events")
            settings(QUERY_MOST=20)
            assert (status, b"too many search the database" in body) == (500, True)
        finally:
            for reader in readers:
                receiver.store.readers.put(reader)
        assert ask(receiver, "GET", "/events")[0] == 200


def test_the_end_does_not_wait_for_a_search(tmp_path):
    with Receiver(data=str(tmp_path / "events")) as receiver:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            search = pool.submit(receiver.store._read, f"SELECT count(*) FROM ({ENDLESS})")
            wait_for(lambda: receiver.store.readers.qsize() < READERS)
            with at_most(5):
                receiver.__exit__()
            assert isinstance(search.exception(10), StoreError)


def test_an_observer_that_fails_stops_nothing(receiver, capsys):
    receiver.store.observers.insert(0, lambda change: [][0])
    for _ in range(2):
        receiver.tell("10.0.0.1", event("running", 1000))
    receiver.store.check()
    assert capsys.readouterr().err == (
        "receiver: bug: IndexError: list index out of range\n" * 2)


def test_many_clients_share_a_commit_and_all_of_it_is_kept(tmp_path, monkeypatch):
    batches, commit = [], Store._commit

    def note(store, jobs):
        batches.append(len(jobs))
        return commit(store, jobs)
    monkeypatch.setattr(Store, "_commit", note)

    def post_ten(client):
        for number in range(10):
            body = json.dumps({"message": f"{client}.{number}"})
            assert post(receiver, body) == TAKEN
    with Receiver(data=str(tmp_path / "events")) as receiver:
        in_threads(64, post_ten)
        kept = messages(receiver)
    assert sorted(kept) == sorted(f"{client}.{number}" for client in range(64)
                                  for number in range(10))
    assert sum(batches) == 640
    assert max(batches) > 1
