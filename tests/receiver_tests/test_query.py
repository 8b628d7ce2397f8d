"""What is asked of lists: filters, what comes after a number, and links that keep them."""
import datetime
import urllib.parse

import pytest

from receiver.events import time_text
from support.receivers import Receiver, ask, event, get, read_json
from support.stories import BEGIN, Clock

EVENTS = [  # number: who, state, code, message
    ("10.0.0.1", "running", 1000, "begin"), ("web-1", "running", 1000, "Begin"),
    ("10.0.0.1", "failed", 1010, "100% of /dev/sda"), ("web-1", "succeeded", 1000, "done"),
    ("10.0.0.2", "dancing", -7, "B\u00dcGEL"), ("10.0.0.1", "", 0, "")]


@pytest.fixture
def clock(settings):
    """The clock of the receiver, a second after the last of EVENTS."""
    clock = Clock()
    settings(utc_now=clock)
    return clock


@pytest.fixture
def receiver(clock):
    """A receiver that has EVENTS, one a second, and one that phoned home, number 7."""
    with Receiver(names={"10.0.0.1": "db", "10.0.0.9": "late"}) as receiver:
        for machine, *words in EVENTS:
            clock.now += datetime.timedelta(seconds=1)
            receiver.tell(machine, event(*words))
        clock.tell(receiver, "10.0.0.2", "home")
        clock.now += datetime.timedelta(seconds=1)
        yield receiver


def at(seconds):
    return urllib.parse.quote(time_text(BEGIN + datetime.timedelta(seconds=seconds)))


FILTERS = {  # what is asked, the numbers of the events
    "nothing": ("", [7, 6, 5, 4, 3, 2, 1]),
    "a state": ("state=running", [2, 1]),
    "a state that nobody has": ("state=lost", []),
    "no state": ("state=", [7, 6]),
    "a code": ("code=1000", [4, 2, 1]),
    "a code below 0": ("code=-7", [5]),
    "code 0 is not phoning home": ("code=0", [6]),
    "an address": ("device=10.0.0.1", [6, 3, 1]),
    "an address in another form": ("device=::ffff:10.0.0.1", [6, 3, 1]),
    "a name of --names": ("device=db", [6, 3, 1]),
    "a NAME": ("device=WEB-1", [4, 2]),
    "a machine that is not known": ("device=10.0.0.77", []),
    "a text, in any case": ("q=begin", [2, 1]),
    "a text that is no pattern": ("q=100%25%20of%20/", [3]),
    "no pattern": ("q=%25", [3]),
    "after a number": ("after=5", [7, 6]),
    "after the latest": ("after=7", []),
    "after all that can be": ("after=9223372036854775807", []),
    "since a whole second": (f"since={at(3)}", [7, 6, 5, 4]),
    "since a second, as people write it": ("since=2026-01-31T10:00:03Z", [7, 6, 5, 4]),
    "since, in another zone": ("since=2026-01-31T11:00:03%2B01:00", [7, 6, 5, 4]),
    "until": (f"until={at(3)}", [3, 2, 1]),
    "until the future": ("until=2222-01-01T00:00:00Z", [7, 6, 5, 4, 3, 2, 1]),
    "since and until": (f"since={at(2)}&until={at(4)}", [4, 3]),
    "a state and a code": ("state=running&code=1010", []),
    "a machine and a state": ("device=10.0.0.1&state=failed", [3]),
    "a machine, after a number": ("device=web-1&after=2", [4]),
    "all of it": (f"device=db&state=failed&code=1010&after=2&q=SDA&since={at(0)}&until={at(9)}",
                  [3]),
}


@pytest.mark.parametrize("query, numbers", FILTERS.values(), ids=FILTERS.keys())
def test_lists_the_events_that_are_as_wanted_the_newest_first(receiver, query, numbers):
    told = read_json(receiver, f"/events?{query}")
    assert [row["number"] for row in told["events"]] == numbers
    assert told["meta"]["total"] == len(numbers)
    assert told["last"] == 7


@pytest.mark.parametrize("query, numbers", [
    ("", [6, 3, 1]), ("state=failed", [3]), ("after=3", [6]), ("q=begin", [1]),
    ("code=0", [6]), (f"until={at(1)}", [1])])
def test_the_events_of_a_machine_have_the_same_filters(receiver, query, numbers):
    told = read_json(receiver, f"/devices/db/events?{query}")
    assert [row["number"] for row in told["events"]] == numbers
    assert told["meta"]["total"] == len(numbers)


@pytest.mark.parametrize("query", [
    "code=x", "code=", "code=1e3", "code=9223372036854775808", "after=-1", "after=x", "after=",
    "since=yesterday", "since=2026-02-30T00:00:00Z", "until=now", "since=", "state=a&state=b",
    "since=2026-01-31T10:00:09Z", "q=a&q=a"])
def test_a_filter_that_cannot_be_is_a_400_that_names_it(receiver, query):
    status, body = ask(receiver, "GET", f"/events?{query}")
    assert status == 400
    assert query.partition("=")[0].encode() + b": " in body


def test_the_machine_of_an_event_is_named_in_its_path_not_behind_it(receiver):
    status, body = ask(receiver, "GET", "/devices/web-1/events?device=db")
    assert status == 400
    assert b"device: there is no such parameter here" in body


DEVICES = {  # what is asked, the machines
    "nothing": ("", ["10.0.0.1", "10.0.0.2", "web-1", "10.0.0.9"]),
    "failed": ("state=failed", ["10.0.0.1"]), "succeeded": ("state=succeeded", ["web-1"]),
    "other": ("state=other", ["10.0.0.2"]), "its word": ("state=dancing", ["10.0.0.2"]),
    "never": ("state=never", ["10.0.0.9"]), "running": ("state=running", []),
    "quiet": ("state=quiet", []), "what is none": ("state=x", []),
    "a name": ("q=DB", ["10.0.0.1"]), "a NAME": ("q=web", ["web-1"]),
    "part of an address": ("q=0.0.2", ["10.0.0.2"]), "a message": ("q=SDA", ["10.0.0.1"]),
    "a name of one that never reported": ("q=late", ["10.0.0.9"]),
    "an address of one that never reported": ("q=0.0.9", ["10.0.0.9"]),
    "no pattern": ("q=%25", ["10.0.0.1"]), "no text": ("q=", ["10.0.0.1", "10.0.0.2",
                                                               "web-1", "10.0.0.9"]),
    "over the end of a text": ("q=db10", []),
    "both": ("state=failed&q=db", ["10.0.0.1"]), "neither": ("state=succeeded&q=db", []),
}


@pytest.mark.parametrize("query, machines", DEVICES.values(), ids=DEVICES.keys())
def test_lists_the_machines_that_are_as_wanted(receiver, query, machines):
    told = read_json(receiver, f"/devices?{query}")
    assert [device["device"] for device in told["devices"]] == machines
    assert told["meta"]["total"] == len(machines)
    assert sum(told["counts"].values()) == 4  # of all, whatever is asked for


PATHS = {  # a list with filters, the name of the list
    "/events?device=10.0.0.1&q=%26+%23%25&per_page=1": "events",
    "/events?state=&per_page=1": "events",
    "/events?since=2026-01-31T11:00:00%2B01:00&after=1&per_page=1": "events",
    "/devices/db/events?code=1000&until=2026-01-31T10:00:04Z&per_page=1": "events",
    "/devices?state=failed&q=%C3%9C&per_page=1": "devices",
    "/devices?per_page=1&q=0.0": "devices"}


@pytest.mark.parametrize("path, name", PATHS.items())
def test_the_links_to_other_pages_keep_what_was_asked_for(receiver, path, name):
    for number in range(3):
        for machine in ("10.0.0.1", "10.0.0.2", "10.0.0.3"):
            receiver.tell(machine, event("failed", 1000, f"& #% \u00dc {number}"))
            receiver.tell(machine, event("", 1000, f"& #% \u00dc {number}"))
    wanted, told, found = read_json(receiver, path)["meta"]["total"], None, []
    link = path
    while link:
        told = read_json(receiver, link)
        found += [thing["id"] or thing["device"] for thing in told[name]]
        assert told["meta"]["total"] == wanted
        link = (told["meta"]["next"] or {}).get("href")
    assert len(set(found)) == len(found) == wanted > 0
    for other in ("first", "last", "previous", "self"):
        assert read_json(receiver, told["meta"][other]["href"] if told["meta"][other]
                         else path)["meta"]["total"] == wanted


def test_a_text_is_found_in_any_case_of_any_script(receiver):
    receiver.tell("10.0.0.3", event("failed", 1000, "\u00c4PFEL \u0416"))
    for text in ("\u00e4pfel", "\u00c4Pfel", "\u0436", "PFEL"):
        for path, found in (("/events", [8]), ("/devices", ["10.0.0.3"])):
            listed = read_json(receiver, f"{path}?q={urllib.parse.quote(text)}")
            key = "number" if path == "/events" else "device"
            assert [each[key] for each in listed[path[1:]]] == found


def test_no_list_links_to_a_page_that_cannot_be_asked_for(receiver, settings):
    settings(PAGE_MOST=3)
    links = read_json(receiver, "/events?per_page=1&page=3")["meta"]
    assert (links["total"], links["last_page"], links["next"]) == (7, 3, None)
    assert links["last"]["href"].endswith("?page=3&per_page=1")


def test_what_comes_after_the_last_number_is_what_is_new(receiver):
    last = read_json(receiver, "/events")["last"]
    assert read_json(receiver, f"/events?after={last}")["events"] == []
    receiver.tell("10.0.0.3", event("failed", 1, "new"))
    new, = read_json(receiver, f"/events?after={last}")["events"]
    assert (new["message"], new["number"]) == ("new", last + 1)


def test_after_a_number_holds_whatever_the_clock_did(receiver, clock):
    last = read_json(receiver, "/events")["last"]
    clock.tell(receiver, "web-1", "-99999 r1000 s1000")
    told = read_json(receiver, f"/events?after={last}&device=web-1")["events"]
    assert [row["message"] for row in told] == ["s1000", "r1000"]
    path = f"/devices/web-1/wait?timeout=0&after={last}"
    assert ask(receiver, "GET", path)[0] == 200
    assert ask(receiver, "GET", f"/devices/10.0.0.1/wait?timeout=0&after={last}")[0] == 504


def test_a_list_whose_events_go_meanwhile_is_still_json(receiver):
    """As if they were deleted between the look for their numbers and for themselves."""
    numbers = receiver.store.numbers
    receiver.store.numbers = lambda *values: (9, [99, *numbers(*values)[1], 98])
    told = read_json(receiver, "/events")
    assert [row["number"] for row in told["events"]] == [7, 6, 5, 4, 3, 2, 1]


def test_head_of_a_list_has_no_body(receiver):
    for path in ("/events", "/devices", "/events.csv", "/devices.csv", "/steps"):
        assert ask(receiver, "HEAD", path) == (200, b"")
        assert get(receiver.url + path)
