"""Machines that somebody makes up: bounded, told, and never at the cost of known ones."""
import json
import re

import pytest

from receiver.store import TooManyError
from support.receivers import (
    TAKEN,
    Receiver,
    ask,
    event,
    in_threads,
    post,
    query,
    read_json,
    read_page,
)

MOST = 5
BODY = b'{"state":"running","code":1000}'


@pytest.fixture
def few(settings):
    """Let there be few machines."""
    settings(MACHINES_MOST=MOST)


def post_as(receiver, name):
    return ask(receiver, "POST", f"/devices/{name}/events", BODY)[0]


def names(receiver):
    return {device["device"] for device in
            read_json(receiver, "/devices?per_page=1000")["devices"] if device["events"]}


def test_more_names_than_there_may_be_are_a_429_and_told(few, receiver, capsys):
    assert [post_as(receiver, f"m{number}") for number in range(8)] == [200] * 5 + [429] * 3
    status, body = ask(receiver, "POST", "/devices/m9/events", BODY)
    assert status == 429
    assert b"5 machines are known already; name them by --names or --only" in body
    assert names(receiver) == {f"m{number}" for number in range(MOST)}
    assert re.fullmatch(r"receiver: refused 127\.0\.0\.1: 429, '5 machines are known .*\n",
                        capsys.readouterr().err)


def test_it_is_a_429_for_phoning_home_and_for_addresses_as_well(few, receiver):
    for number in range(MOST):
        assert post_as(receiver, f"m{number}") == 200
    assert ask(receiver, "POST", "/devices/m9/phone-home")[0] == 429
    assert post(receiver, BODY)[0] == 429


def test_known_ones_go_on(few, receiver):
    for number in range(MOST):
        assert post_as(receiver, f"m{number}") == 200
    for number in range(MOST):
        assert post_as(receiver, f"x{number}") == 429
        assert post_as(receiver, f"m{number}") == 200
    told = read_json(receiver, "/events?per_page=100")
    assert len(told["events"]) == told["meta"]["total"] == told["last"] == 2 * MOST


def test_listed_ones_have_a_place_whatever_others_make_up(few):
    with Receiver(names={"127.0.0.1": "own", "10.0.0.1": "db"}) as receiver:
        for number in range(MOST + 2):
            post_as(receiver, f"m{number}")
        assert post(receiver, BODY) == TAKEN
        receiver.tell("10.0.0.1", event("running"))
        assert {"127.0.0.1", "10.0.0.1"} < names(receiver)
        assert post_as(receiver, "m99") == 429


def test_those_of_only_are_as_many_as_are_listed(few):
    listed = [f"m{number}" for number in range(3 * MOST)]
    with Receiver(only=listed) as receiver:
        assert {post_as(receiver, name) for name in listed} == {200}
        assert names(receiver) == set(listed)


def test_one_that_is_forgotten_makes_room(few, receiver):
    for number in range(MOST):
        assert post_as(receiver, f"m{number}") == 200
    assert post_as(receiver, "x") == 429
    assert ask(receiver, "DELETE", "/devices/m3")[0] == 204
    assert post_as(receiver, "x") == 200
    assert post_as(receiver, "y") == 429


def test_one_that_is_swept_makes_room(few, settings):
    with Receiver(keep=1) as receiver:
        for number in range(MOST):
            assert post_as(receiver, f"m{number}") == 200
        receiver.execute("UPDATE events SET created_at = '2000' WHERE machine = 'm3'")
        receiver.store.sweep()
        assert post_as(receiver, "x") == 200
        assert post_as(receiver, "y") == 429


def test_in_one_commit_new_ones_take_what_places_there_are(few, tmp_path):
    """Known ones of the same commit do not count twice."""
    data = str(tmp_path / "events")
    with Receiver(data=data) as receiver:
        for name in ("a", "b", "c"):
            assert post_as(receiver, name) == 200
        results = []

        def all_of(writer, batch):
            for name in ("a", "b", "c", "d", "a", "e", "f", "d", "g"):
                row = dict(json.loads(BODY.decode()), message="", machine=name, address=name,
                           key=None, id=str(len(results)),
                           created_at="2026-01-31T10:00:00.000000Z")
                try:
                    receiver.store._insert(writer, batch, row, MOST)
                except TooManyError:
                    results.append(f"not {name}")
                else:
                    results.append(name)
        receiver.store._do(all_of)
        assert results == ["a", "b", "c", "d", "a", "e", "not f", "d", "not g"]
    assert query(data, "SELECT machine, events FROM devices ORDER BY machine") == [
        ("a", 3), ("b", 2), ("c", 2), ("d", 2), ("e", 1)]


def test_a_refusal_does_not_spoil_the_commit_of_others(few, tmp_path):
    data = str(tmp_path / "events")
    with Receiver(data=data) as receiver:
        statuses = in_threads(32, lambda number: post_as(receiver, f"m{number}"))
        taken = statuses.count(200)
        assert (taken, statuses.count(429)) == (MOST, 32 - MOST)
        assert names(receiver) == {
            f"m{number}" for number, status in enumerate(statuses) if status == 200}
        assert f"0 of {MOST} done" in read_page(receiver)
    assert query(data, "SELECT count(*) FROM events") == [(MOST,)]


def test_reading_makes_up_nobody(few, receiver):
    for number in range(2 * MOST):
        for path in ("metadata", "user-data", "wait?timeout=0", "events", "steps", ""):
            ask(receiver, "GET", f"/devices/m{number}/{path}".rstrip("/"))
    assert names(receiver) == set()
    assert post(receiver, BODY) == TAKEN


@pytest.mark.parametrize("name, status", [
    ("a" * 63, 200), ("a" * 64, 404), ("a%2fb", 404), ("%00", 404), ("%e2%82%ac", 404),
    ("A-b_c.d:e", 200), ("", 404), ("%0d%0a", 404), ("..", 404), (".", 404), ("...", 200)])
def test_a_name_is_short_and_plain(receiver, name, status):
    assert post_as(receiver, name) == status
    assert len(names(receiver)) == (status == 200)
