"""A database of 2.0 is taken over, with the states as they are seen today."""
import os
import resource
import signal
import sqlite3
import time
from contextlib import closing

import pytest

from receiver.store import VERSION, StartError
from support.old_receiver import make_large, make_old
from support.processes import ended
from support.receivers import (
    Receiver,
    ReceiverProcess,
    ask,
    event,
    query,
    read_json,
    run_receiver,
    start_receiver,
)
from support.stories import BEGIN, QUIET_AFTER, Clock, run_of, steps_of
from support.tools import slow
from support.waiting import wait_for

STORIES = {
    "10.0.0.1": "r1000 s1001", "10.0.0.2": "r1000 r1010 s1010", "10.0.0.3": "r1000 f1001",
    "10.0.0.4": "r1000 r1010 f1010 r1020 s1020", "10.0.0.5": "r1000 r1010 f1010 s1010 s1000",
    "10.0.0.6": "r1000 f1000 r1000", "10.0.0.7": "home", "10.0.0.8": "d1000 r1000 home",
    "10.0.0.9": "r1000 r1010 f1010 f1000", "fe80::1%eth0": "n0",
    "10.0.1.1": "r1000 s1000 +9000 r1000", "10.0.1.2": "r1000 +9000 s1000"}


@pytest.fixture
def data(tmp_path):
    """The path of a database."""
    return str(tmp_path / "events")


def test_states_and_steps_are_those_of_the_events(data, settings):
    make_old(data, STORIES)
    settings(utc_now=lambda: BEGIN)
    with Receiver(data=data, quiet_after=QUIET_AFTER) as receiver:
        devices = read_json(receiver, "/devices?per_page=100")["devices"]
        assert {device["device"] for device in devices} == set(STORIES)
        for device in devices:
            run = run_of(STORIES[device["device"]])
            assert device["state"] == run.state
            link = f"/devices/{device['device'].replace('%', '%25')}/steps"
            steps = read_json(receiver, link)["steps"]
            assert " ".join(f"{step['code']}{step['state'][0]}" for step in steps) == (
                steps_of(run))
            assert device["events"] == len(STORIES[device["device"]].replace(
                " +9000", "").split())
    assert query(data, "PRAGMA user_version") == [(VERSION,)]
    assert query(data, "SELECT name FROM sqlite_master WHERE name LIKE 'old%'") == []


def test_events_keep_their_ids_keys_numbers_and_times(data):
    ids = make_old(data, STORIES)
    before = query(data, "SELECT number, id, address, state, code, message, created_at, key "
                         "FROM events ORDER BY number")
    with Receiver(data=data) as receiver:
        for key, kept in ((f'"{ids[0]}"', 0), ('"new"', 1)):
            receiver.tell("10.0.0.1", event("running", 1000, "again"), key)
            assert read_json(receiver, "/events")["last"] == len(ids) + kept
    after = query(data, "SELECT number, id, machine, state, code, message, created_at, key "
                        "FROM events ORDER BY number")
    assert after[:-1] == before
    assert after[-1][5] == "again"
    assert query(data, "SELECT count(*) FROM events WHERE machine != address") == [(0,)]


def test_a_run_goes_on_where_2_0_has_left_it(data, settings):
    clock = Clock()
    settings(utc_now=clock)
    make_old(data, {"10.0.0.1": "r1000 r1010 f1010"})
    with Receiver(data=data, quiet_after=QUIET_AFTER) as receiver:
        assert ask(receiver, "GET", "/devices/10.0.0.1/wait?timeout=0")[0] == 409
        clock.tell(receiver, "10.0.0.1", "+60 r1010 s1010")
        assert ask(receiver, "GET", "/devices/10.0.0.1/wait?timeout=0")[0] == 504
        clock.tell(receiver, "10.0.0.1", "s1000")
        assert ask(receiver, "GET", "/devices/10.0.0.1/wait?timeout=0")[0] == 200
        device, = read_json(receiver, "/devices")["devices"]
        assert (device["state"], device["steps_failed"]) == ("succeeded", 1)


def test_an_empty_database_of_2_0_is_one_of_today(data):
    make_old(data, {})
    for number in range(2):
        with Receiver(data=data) as receiver:
            assert len(read_json(receiver, "/devices")["devices"]) == number
            receiver.tell(f"10.0.0.{number}", event("running"))
    assert query(data, "SELECT count(*) FROM events") == [(2,)]


def test_a_database_that_is_nearly_that_of_2_0_is_left_as_it_is(data):
    make_old(data, STORIES)
    with closing(sqlite3.connect(data)) as connection:
        connection.execute("DROP INDEX outcome")
        connection.commit()
        before = list(connection.iterdump())
    with pytest.raises(StartError, match="cannot use .*: no such index: outcome"):
        Receiver(data=data)
    with closing(sqlite3.connect(data)) as connection:
        assert list(connection.iterdump()) == before


def check_large(data, most, machines):
    """Fail unless all of make_large() is there, and is what it is today."""
    assert query(data, "SELECT count(*), max(number) FROM events") == [(most, most)]
    assert query(data, "SELECT count(*), sum(events), min(state), max(state) FROM devices") == [
        (machines, most, "succeeded", "succeeded")]
    assert query(data, "SELECT count(*), min(seconds), max(seconds) FROM steps") == [
        (machines * 10, 1, 1)]
    assert query(data, "SELECT sum(count), count(*) FROM totals WHERE count > 0") == [
        (machines * 10, 10)]
    assert query(data, "PRAGMA integrity_check") == [("ok",)]


def seconds_to_take_over(data, most, machines, memory):
    make_large(data, most, machines)
    begun = time.monotonic()
    with ReceiverProcess("--data", data) as receiver:
        taken = time.monotonic() - begun
        assert receiver.memory() < memory
    check_large(data, most, machines)
    return taken


def test_is_taken_over_in_a_moment(data):
    """100 000 events within a tenth of the minute that a million of them may take."""
    assert seconds_to_take_over(data, 100000, 500, memory=100) < 6 * 2  # others work, too


@slow
@pytest.mark.parametrize("machines", [50, 5000])
def test_a_million_events_are_taken_over_in_a_minute(data, machines):
    assert seconds_to_take_over(data, 1000000, machines, memory=150) < 60


@pytest.mark.parametrize("megabytes", [0, 1, 6])
def test_goes_on_at_the_next_start_when_it_is_killed_in_between(data, megabytes):
    make_large(data, 40000, 100)
    process = start_receiver("--data", data)
    wait_for(lambda: os.path.exists(data + "-wal")
             and os.path.getsize(data + "-wal") > megabytes * 10**6)
    process.send_signal(signal.SIGKILL)
    assert ended(process).out == ""
    assert query(data, "PRAGMA user_version") == [(0,)]
    assert query(data, "SELECT count(*), max(number) FROM events") == [(40000, 40000)]
    with Receiver(data=data) as receiver:
        assert len(read_json(receiver, "/devices?per_page=1000")["devices"]) == 100
    check_large(data, 40000, 100)


def test_one_that_ends_while_it_takes_over_leaves_it_to_the_next(data):
    make_large(data, 40000, 100)
    process = start_receiver("--data", data)
    wait_for(lambda: os.path.exists(data + "-wal") and os.path.getsize(data + "-wal") > 10**6)
    process.send_signal(signal.SIGTERM)
    done = ended(process)
    assert (done.status, done.out, done.err) == (0, "", "")
    assert query(data, "PRAGMA user_version") == [(0,)]
    with Receiver(data=data):
        check_large(data, 40000, 100)


def test_a_full_disk_while_it_is_taken_over_is_one_line_and_loses_nothing(data):
    make_large(data, 20000, 100)
    size = os.path.getsize(data)
    done = run_receiver("--data", data, limit=(resource.RLIMIT_FSIZE, size))
    assert done.status == 1
    assert done.err.startswith(f"receiver: cannot use {data}: ")
    assert done.err.count("\n") == 1
    assert query(data, "SELECT count(*) FROM events") == [(20000,)]
    with Receiver(data=data):
        check_large(data, 20000, 100)
