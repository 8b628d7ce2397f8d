"""What is kept of machines and of steps stays right, whatever is deleted, and by whom."""
import random
import sqlite3
from contextlib import closing

import pytest

from receiver.events import ENDS
from support.receivers import Receiver, ask, event, query, read_json
from support.stories import Clock

KEEP = 10  # days
DAY = 86400


@pytest.fixture
def clock(settings):
    """The clock of the receivers of a test."""
    clock = Clock()
    settings(utc_now=clock)
    return clock


@pytest.fixture
def data(tmp_path):
    """The path of a database."""
    return str(tmp_path / "events")


def by_hand(data, *statements):
    """Do statements of SQL as sqlite3 does, beside the receiver or without it."""
    with closing(sqlite3.connect(data)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def check_counts(data):
    """Fail unless what is kept is what there is."""
    events = dict(query(data, "SELECT machine, count(*) FROM events GROUP BY machine"))
    assert dict(query(data, "SELECT machine, events FROM devices")) == events
    assert query(data, "SELECT machine FROM steps EXCEPT SELECT machine FROM devices") == []
    counted = ("SELECT code, message, state, count(*) FROM steps "
               "GROUP BY code, message, state ORDER BY 1, 2, 3")
    assert query(data, "SELECT code, message, state, count FROM totals WHERE count != 0 "
                       "ORDER BY 1, 2, 3") == query(data, counted)
    assert query(data, "SELECT code, message FROM totals EXCEPT "
                       "SELECT code, message FROM steps") == []


def fleet(receiver):
    """Return {(code, message): how many are running, failed, succeeded} of /steps."""
    return {(kind["code"], kind["message"]): (
        kind["running"], kind["failed"], kind["succeeded"])
        for kind in read_json(receiver, "/steps?per_page=1000")["steps"]}


STORIES = ["r1000 r1010 s1010 r1020 f1020", "r1000 r1010 s1010 s1000", "r1000 r1010"]
BY_HAND = {
    "nothing": ["SELECT 1"],
    "all events": ["DELETE FROM events"],
    "all devices": ["DELETE FROM devices"],
    "all steps": ["DELETE FROM steps"],
    "events of one": ["DELETE FROM events WHERE machine = '10.0.0.1'"],
    "one device": ["DELETE FROM devices WHERE machine = '10.0.0.1'"],
    "what has failed": ["DELETE FROM events WHERE state = 'failed'"],
    "every second event": ["DELETE FROM events WHERE number % 2"],
    "what began": ["DELETE FROM events WHERE state = 'running'"],
    "the latest": ["DELETE FROM events WHERE number > 8"],
    "one by one": [f"DELETE FROM events WHERE number = {n}" for n in range(1, 12)],
    "a device, then events": ["DELETE FROM devices WHERE machine = '10.0.0.0'",
                              "DELETE FROM events WHERE machine = '10.0.0.1'"],
}


@pytest.mark.parametrize("statements", BY_HAND.values(), ids=BY_HAND.keys())
def test_counts_are_right_after_rows_were_deleted_by_hand(data, clock, statements):
    with Receiver(data=data) as receiver:
        for number, story in enumerate(STORIES):
            clock.tell(receiver, f"10.0.0.{number}", story)
        check_counts(data)
        by_hand(data, *statements)
        check_counts(data)
        left = query(data, "SELECT count(*) FROM events")[0][0]
        assert read_json(receiver, "/events")["meta"]["total"] == left
        machines = query(data, "SELECT count(DISTINCT machine) FROM events")[0][0]
        assert sum(read_json(receiver, "/devices")["counts"].values()) == machines
        for number, story in enumerate(STORIES):
            clock.tell(receiver, f"10.0.0.{number}", story + " s1000 r1000 r1010")
            check_counts(data)
        assert read_json(receiver, "/events")["meta"]["total"] == left + 11 + 9
        assert fleet(receiver) == {(1000, "r1000"): (3, 0, 0), (1010, "r1010"): (3, 0, 0)}


def test_the_steps_of_the_fleet_are_those_of_the_latest_runs(data, clock):
    with Receiver(data=data) as receiver:
        for number, story in enumerate(STORIES):
            clock.tell(receiver, f"10.0.0.{number}", story)
        assert fleet(receiver) == {(1000, "r1000"): (2, 0, 1), (1010, "r1010"): (1, 0, 2),
                                   (1020, "r1020"): (0, 1, 0)}
        clock.tell(receiver, "10.0.0.0", "f1000 r1000")
        assert fleet(receiver) == {(1000, "r1000"): (2, 0, 1), (1010, "r1010"): (1, 0, 1)}
        check_counts(data)


@pytest.mark.parametrize("took, median, longest", [
    ([5], 5, 5), ([1, 9], 1, 9), ([3, 1, 2], 2, 3), ([4, 4, 4, 100], 4, 100), ([], None, None)])
def test_the_fleet_tells_how_long_steps_take_and_where(clock, took, median, longest):
    with Receiver() as receiver:
        for number, seconds in enumerate(took):
            clock.tell(receiver, f"10.0.0.{number}", f"r1000 +{seconds - 1} s1000")
        clock.tell(receiver, "10.0.0.99", "r1000")
        kind, = read_json(receiver, "/steps")["steps"]
        assert (kind["median_seconds"], kind["longest_seconds"]) == (median, longest)
        slowest = f"10.0.0.{took.index(longest)}" if took else None
        assert (kind["slowest"], kind["running"]) == (slowest, 1)


def test_a_machine_is_forgotten_as_a_whole(data, clock):
    with Receiver(data=data) as receiver:
        for number, story in enumerate(STORIES):
            clock.tell(receiver, f"10.0.0.{number}", story)
        assert ask(receiver, "DELETE", "/devices/10.0.0.0") == (204, b"")
        check_counts(data)
        assert ask(receiver, "DELETE", "/devices/10.0.0.0")[0] == 404
        assert fleet(receiver) == {(1000, "r1000"): (1, 0, 1), (1010, "r1010"): (1, 0, 1)}
        assert receiver.shown("10.0.0.0") == []
        assert read_json(receiver, "/events")["meta"]["total"] == 6
        clock.tell(receiver, "10.0.0.0", "s1000")
        device, = read_json(receiver, "/devices?q=10.0.0.0")["devices"]
        assert (device["events"], device["state"]) == (1, "succeeded")


def test_a_machine_is_forgotten_and_told_of_in_one_commit(data, clock):
    """In whatever order: as if they had come while the disk was busy."""
    row = {"state": "running", "code": 1000, "message": "x", "machine": "10.0.0.1",
           "address": "10.0.0.1", "key": None, "created_at": "2026-01-31T10:00:00.000000Z"}
    with Receiver(data=data) as receiver:
        store, ids = receiver.store, iter(range(1000))

        def put(writer, batch):
            store._insert(writer, batch, dict(row, id=str(next(ids))), None)

        def forget(writer, batch):
            store._delete(writer, batch, "10.0.0.1")

        def both(functions):
            def do(writer, batch):
                for function in functions:
                    function(writer, batch)
            return do
        for functions, left in (((put, put), 2), ((forget,), 0), ((put, forget), 0),
                                ((put, forget, put), 1), ((forget, put, put), 2),
                                ((put, put, forget), 0)):
            store._do(both(functions))
            check_counts(data)
            assert len(receiver.shown("10.0.0.1")) == left


def test_numbers_are_never_used_again(data, clock):
    with Receiver(data=data) as receiver:
        clock.tell(receiver, "10.0.0.1", "r1000 s1000")
        assert ask(receiver, "DELETE", "/devices/10.0.0.1")[0] == 204
        assert read_json(receiver, "/events")["last"] == 2
        clock.tell(receiver, "10.0.0.1", "r1000")
        by_hand(data, "DELETE FROM events")
    with Receiver(data=data) as receiver:
        assert read_json(receiver, "/events")["last"] == 3
        clock.tell(receiver, "10.0.0.1", "r1000")
        assert [row["number"] for row in receiver.timeline("10.0.0.1")] == [4]


def test_an_event_that_came_before_takes_no_count_again(data, clock):
    with Receiver(data=data) as receiver:
        for _ in range(3):
            receiver.tell("10.0.0.1", event("running"), "key")
        check_counts(data)
        assert read_json(receiver, "/devices")["devices"][0]["events"] == 1


def test_a_wait_ends_though_the_event_that_tells_why_has_been_deleted(data, clock):
    with Receiver(data=data) as receiver:
        clock.tell(receiver, "10.0.0.1", "r1000 r1010 f1010 f1000")
        by_hand(data, "DELETE FROM events WHERE code = 1010 AND state = 'failed'")
        status, body = ask(receiver, "GET", "/devices/10.0.0.1/wait?timeout=0")
        assert status == 409
        assert b'"message": "f1010"' in body


# --keep

def test_what_is_older_than_the_days_to_keep_goes(data, clock):
    with Receiver(data=data, keep=KEEP) as receiver:
        clock.tell(receiver, "10.0.0.1", "r1000 s1000")
        clock.tell(receiver, "10.0.0.2", f"r1000 +{KEEP * DAY} s1000")
        receiver.store.sweep()
        assert receiver.shown("10.0.0.1") == []
        assert receiver.shown("10.0.0.2") == [("user.1000", "succeeded", "s1000")]
        assert [device["device"] for device in read_json(receiver, "/devices")["devices"]
                ] == ["10.0.0.2"]
        check_counts(data)


@pytest.mark.parametrize("seconds, left", [(KEEP * DAY - 1, 1), (KEEP * DAY + 1, 0)])
def test_keeps_events_for_as_long_as_it_is_told(clock, seconds, left):
    with Receiver(keep=KEEP) as receiver:
        clock.tell(receiver, "10.0.0.1", f"r1000 +{seconds}")
        receiver.store.sweep()
        assert len(receiver.shown("10.0.0.1")) == left


def test_goes_in_transactions_of_some_events_and_goes_on_behind_what_stays(
        data, clock, settings):
    settings(SWEEP_MOST=10)
    changes = []
    with Receiver(data=data, keep=KEEP) as receiver:
        for number in range(95):
            clock.tell(receiver, f"10.0.0.{number % 3}", "r1000")
        clock.tell(receiver, "10.0.0.9", f"+{KEEP * DAY + DAY} r1000")
        do = receiver.store._do

        def note(*arguments):
            before = query(data, "SELECT count(*) FROM events")[0][0]
            result = do(*arguments)
            changes.append(before - query(data, "SELECT count(*) FROM events")[0][0])
            return result
        receiver.store._do = note
        receiver.store.sweep()
        assert max(changes) == 10
        assert sum(changes) == 95
        assert query(data, "SELECT machine FROM devices") == [("10.0.0.9",)]
        check_counts(data)


def test_a_new_event_is_kept_when_all_others_of_its_machine_go_in_the_same_commit(data, clock):
    with Receiver(data=data, keep=KEEP) as receiver:
        clock.tell(receiver, "10.0.0.1", f"r1000 r1010 +{KEEP * DAY + DAY}")
        row = {"state": "succeeded", "code": 1010, "message": "new", "machine": "10.0.0.1",
               "address": "10.0.0.1", "key": None, "id": "x",
               "created_at": "2026-03-01T00:00:00.000000Z"}

        def both(writer, batch):
            receiver.store._insert(writer, batch, row, None)
            receiver.store._delete_events(writer, batch, [[1], [2]])
        receiver.store._do(both)
        assert query(data, "SELECT message FROM events") == [("new",)]
        check_counts(data)
        assert [step[0] for step in query(data, "SELECT state FROM steps ORDER BY number")] == [
            "running", "succeeded"]


def test_a_file_whose_events_go_does_not_grow(data, clock):
    message, sizes = "x" * 5000, []
    with Receiver(data=data, keep=KEEP) as receiver:
        for _ in range(6):
            for number in range(100):
                receiver.tell("10.0.0.1", event("running", number, message))
            clock.pass_by(KEEP * DAY + DAY)
            receiver.store.sweep()
            sizes.append(receiver.store.size())
            assert query(data, "SELECT count(*) FROM events") == [(0,)]
    assert max(sizes[1:]) <= sizes[0] * 1.1
    assert max(sizes) < 2e6


def test_counts_are_right_after_whatever_comes_in_whatever_order(data, clock, settings):
    settings(STEPS_MOST=6, SWEEP_MOST=7)
    dice = random.Random(7)
    with Receiver(data=data, keep=KEEP, quiet_after=600) as receiver:
        for _ in range(400):
            machine = f"10.0.0.{dice.randrange(3)}"
            choice = dice.randrange(40)
            if choice == 0:
                receiver.store.forget(machine)
            elif choice == 1:
                receiver.store.sweep()
            elif choice == 2:
                by_hand(data, f"DELETE FROM events WHERE number % 5 = {dice.randrange(5)}")
            else:
                clock.pass_by(dice.choice((1, 1, 60, 700, DAY)))
                state = dice.choice((*ENDS, "running", "running"))
                receiver.tell(machine, event(state, dice.randrange(1000, 1009), "x"))
        check_counts(data)
        assert query(data, "SELECT max(n) <= 6 FROM "
                           "(SELECT count(*) AS n FROM steps GROUP BY machine)") == [(1,)]
