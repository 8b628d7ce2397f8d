"""What programs read: lists of machines and events as JSON, their order, their pages."""
import re

import pytest

from receiver.machines import device_id
from support.receivers import Receiver, ask, event, read_json, read_page

API = {"id", "type", "state", "body", "created_at", "ip", "modified_by", "interpolated"}
OURS = {"code", "message", "device", "number"}


def addresses(receiver, path="/devices?per_page=100"):
    return [device["device"] for device in read_json(receiver, path)["devices"]]


def test_the_timeline_as_json_is_in_the_shape_of_the_api(receiver):
    receiver.tell("127.0.0.1", event("running", 1007, "first"))
    receiver.tell("127.0.0.1", event("running", 1007, "second"))
    for device in ("127.0.0.1", device_id("127.0.0.1")):
        second, first = read_json(receiver, f"/devices/{device}/events")["events"]
        assert (first["body"], second["body"]) == ("first", "second")
        assert set(second) == API | OURS
        assert (second["type"], second["ip"]) == ("user.1007", "127.0.0.1")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", second["created_at"])
        assert first["id"] != second["id"]
        assert [first["number"], second["number"]] == [1, 2]


def test_lists_the_failed_then_the_running_then_the_rest_by_number(receiver):
    for address, state in (("10.0.0.10", "succeeded"), ("10.0.0.9", "succeeded"),
                           ("fe80::1", "dancing"), ("10.0.0.3", "running"),
                           ("web-1", "succeeded"),
                           ("10.0.0.2", "running"), ("10.0.0.100", "failed"),
                           ("10.0.0.20", "failed")):
        receiver.tell(address, event(state))
    listed = ["10.0.0.20", "10.0.0.100", "10.0.0.3", "10.0.0.2", "10.0.0.9", "10.0.0.10",
              "fe80::1", "web-1"]
    assert addresses(receiver) == listed
    links = re.findall('href="/devices/([^"]+)', read_page(receiver))
    assert list(dict.fromkeys(links)) == listed


def test_counts_the_devices_of_each_state(receiver):
    for number, state in enumerate(["succeeded"] * 2 + ["running"] * 3 + ["failed"] * 4):
        receiver.tell(f"10.0.0.{number}", event(state))
    receiver.tell("fe80::1", event("dancing"))
    assert read_json(receiver, "/devices")["counts"] == {
        "failed": 4, "quiet": 0, "running": 3, "succeeded": 2, "other": 1, "never": 0}


@pytest.mark.parametrize("state", ["", "quiet", "never", "other", "Failed", "dancing"])
def test_what_a_machine_makes_up_as_its_state_is_counted_as_another(receiver, state):
    receiver.tell("10.0.0.1", event(state))
    assert read_json(receiver, "/devices")["counts"] == {
        "failed": 0, "quiet": 0, "running": 0, "succeeded": 0, "other": 1, "never": 0}
    assert addresses(receiver, "/devices?state=other") == ["10.0.0.1"]
    assert addresses(receiver, "/devices?state=quiet") == []
    assert addresses(receiver, "/devices?state=never") == []


def test_the_latest_state_of_a_device_is_shown_in_one_line(receiver):
    receiver.tell("10.0.0.1", event("running", 1010, "begin"))
    receiver.tell("10.0.0.1", event("failed", 1020, "one\ntwo " + "x" * 3000))
    receiver.tell("10.0.0.1", event("", 0, ""))
    receiver.tell("10.0.0.1", event("", 7, "no state"))
    device, = read_json(receiver, "/devices")["devices"]
    assert (device["state"], device["type"], device["events"]) == ("failed", "user.1020", 4)
    assert device["message"] == "one two " + "x" * 192


def test_a_device_that_was_quiet_is_called_that_and_begins_a_new_run():
    with Receiver(quiet_after=1e-6) as receiver:
        receiver.tell("10.0.0.1", event("running"))
        first, = read_json(receiver, "/devices?state=quiet")["devices"]
        assert (first["state"], first["quiet"]) == ("quiet", True)
        assert read_json(receiver, "/devices")["counts"]["quiet"] == 1
        assert read_json(receiver, "/devices")["counts"]["running"] == 0
        receiver.tell("10.0.0.1", event("running"))
        second, = read_json(receiver, "/devices")["devices"]
        assert second["run_began_at"] == second["last_event_at"]
        assert second["run_began_at"] > first["run_began_at"]


def test_a_device_that_was_not_quiet_goes_on_with_its_run(receiver):
    receiver.tell("10.0.0.1", event("running"))
    receiver.tell("10.0.0.1", event("running"))
    device, = read_json(receiver, "/devices")["devices"]
    assert not device["quiet"]
    assert device["run_began_at"] < device["last_event_at"]


@pytest.fixture
def twenty_five(receiver):
    """A receiver that lists a device with 25 events, and 25 others."""
    for number in range(25):
        receiver.tell("10.0.0.1", event("running", number))
        receiver.tell(f"10.0.1.{number}", event("running"))
    return receiver


LISTS = {  # the path, the name of the list, what names one, the sizes of pages of nine
    "events": ("/devices/10.0.0.1/events", "events", "id", [9, 9, 7, 0]),
    "all events": ("/events", "events", "id", [9, 9, 9, 9, 9, 5, 0]),
    "kinds of steps": ("/steps", "steps", "code", [9, 9, 8, 0]),
    "devices": ("/devices", "devices", "id", [9, 9, 8, 0])}


@pytest.mark.parametrize("path, name, key, sizes", LISTS.values(), ids=LISTS.keys())
def test_lists_have_pages_as_the_api_had_them(twenty_five, path, name, key, sizes):
    pages = [read_json(twenty_five, f"{path}?page={page}&per_page=9")
             for page in range(1, len(sizes) + 1)]
    last = len(sizes) - 1
    assert [len(page[name]) for page in pages] == sizes
    things = [thing for page in pages for thing in page[name]]
    assert len({(thing[key], thing["message"]) for thing in things}) == sum(sizes)
    assert pages[1]["meta"] == {
        "total": sum(sizes), "current_page": 2, "last_page": last,
        "self": {"href": f"{path}?page=2&per_page=9"},
        "first": {"href": f"{path}?page=1&per_page=9"},
        "last": {"href": f"{path}?page={last}&per_page=9"},
        "previous": {"href": f"{path}?page=1&per_page=9"},
        "next": {"href": f"{path}?page=3&per_page=9"}}
    assert pages[0]["meta"]["previous"] is None
    assert pages[last - 1]["meta"]["next"] is None


@pytest.mark.parametrize("path, name", [
    ("/devices/10.0.0.1/events", "events"), ("/events", "events"), ("/devices", "devices")])
def test_a_page_of_a_list_has_ten_things_if_no_number_is_given(twenty_five, path, name):
    assert len(read_json(twenty_five, path)[name]) == 10


def test_the_steps_of_a_device_as_json(receiver):
    for state, code, message in (("running", 1000, "begin"), ("running", 1010, "disk"),
                                 ("failed", 1010, "no\ndisk")):
        receiver.tell("10.0.0.1", event(state, code, message))
    began, disk, failed = [row["created_at"] for row in receiver.timeline("10.0.0.1")]
    begun, ended = read_json(receiver, "/devices/10.0.0.1/steps")["steps"]
    assert begun == {"code": 1000, "message": "begin", "state": "running", "began_at": began,
                     "ended_at": None, "seconds": None, "outcome": ""}
    seconds = ended.pop("seconds")
    assert ended == {"code": 1010, "message": "disk", "state": "failed", "began_at": disk,
                     "ended_at": failed, "outcome": "no disk"}
    assert 0 < seconds < 20


@pytest.mark.parametrize("path, last", [
    ("/devices", 50), ("/events", 50), ("/events?state=failed", 50), ("/steps", 50),
    ("/devices/10.0.0.1/events", 50), ("/devices/10.0.0.1/steps", 50)])
def test_every_list_tells_the_number_of_the_latest_event(twenty_five, path, last):
    """Of the latest one of all."""
    assert read_json(twenty_five, path)["last"] == last


@pytest.mark.parametrize("query", ["page=0", "page=x", "page=-1", "page=100001",
                                   "per_page=1001", "per_page=", "per_page=%b2",
                                   "page=1&page=1"])
@pytest.mark.parametrize("path", ["/devices/10.0.0.1/events", "/devices", "/events", "/steps",
                                  "/", "/devices/10.0.0.1", "/devices.csv", "/events.csv"])
def test_a_page_that_cannot_be_is_a_400(receiver, path, query):
    receiver.tell("10.0.0.1", event("running"))
    assert ask(receiver, "GET", f"{path}?{query}")[0] == 400


@pytest.mark.parametrize("path", [
    "/", "/devices", "/devices.csv", "/events", "/events.csv", "/steps", "/metrics",
    "/install", "/devices/10.0.0.1", "/devices/10.0.0.1/events", "/devices/10.0.0.1/steps",
    "/devices/10.0.0.1/wait"])
def test_a_parameter_that_is_not_known_is_a_400_and_named(receiver, path):
    receiver.tell("10.0.0.1", event("failed"))
    status, body = ask(receiver, "GET", f"{path}?sate=failed")
    assert status == 400
    assert b'"sate: there is no such parameter here; known: ' in body


def test_the_device_that_asks_has_a_timeline_before_its_first_event(receiver):
    own = read_json(receiver, "/devices/127.0.0.1/events")
    assert own["events"] == []
    assert (own["meta"]["total"], own["last"]) == (0, 0)


@pytest.mark.parametrize("path", ["10.0.0.1/events", "10.0.0.1", "none", "none/events", "%ff",
                                  "none/steps", "%ff/steps", "a%2fb"])
def test_another_device_without_an_event_is_a_404(receiver, path):
    assert ask(receiver, "GET", "/devices/" + path)[0] == 404
