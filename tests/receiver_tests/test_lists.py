"""What programs read: lists as JSON, their order, their pages."""
import re

import pytest

import service
from support.receivers import Receiver, ask, event, read_json, read_page


def test_the_timeline_as_json_is_in_the_shape_of_the_api(receiver):
    receiver.put("127.0.0.1", event("running", 1007, "first"))
    receiver.put("127.0.0.1", event("running", 1007, "second"))
    device = receiver.device("127.0.0.1")
    second, first = read_json(receiver, f"/devices/{device}/events")["events"]
    assert (first["body"], second["body"]) == ("first", "second")
    assert set(second) == {"id", "type", "state", "body", "created_at", "ip"}
    assert (second["type"], second["ip"]) == ("user.1007", "127.0.0.1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", second["created_at"])
    assert first["id"] != second["id"]


def test_lists_the_failed_then_the_running_then_the_rest_by_number(receiver):
    for address, state in (("10.0.0.10", "succeeded"), ("10.0.0.9", "succeeded"),
                           ("fe80::1", "dancing"), ("10.0.0.3", "running"),
                           ("10.0.0.2", "running"), ("10.0.0.100", "failed"),
                           ("10.0.0.20", "failed")):
        receiver.put(address, event(state))
    addresses = ["10.0.0.20", "10.0.0.100", "10.0.0.3", "10.0.0.2", "10.0.0.9", "10.0.0.10",
                 "fe80::1"]
    listed = read_json(receiver, "/devices")["devices"]
    assert [device["ip"] for device in listed] == addresses
    assert re.findall('href="/devices/([^"]+)', read_page(receiver)) == addresses


def test_counts_the_devices_of_each_state(receiver):
    for number, state in enumerate(["succeeded"] * 2 + ["running"] * 3 + ["failed"] * 4):
        receiver.put(f"10.0.0.{number}", event(state))
    receiver.put("fe80::1", event("dancing"))
    assert read_json(receiver, "/devices")["counts"] == {
        "failed": 4, "running": 3, "succeeded": 2, "other": 1, "quiet": 0}
    page = read_page(receiver)
    for told in ("4 failed", "3 running", "2 succeeded", "1 other"):
        assert told in page


def test_the_latest_state_of_a_device_is_shown_in_one_line(receiver):
    receiver.put("10.0.0.1", event("running", 1010, "begin"))
    receiver.put("10.0.0.1", event("failed", 1020, "one\ntwo " + "x" * 3000))
    receiver.put("10.0.0.1", event("", 0, ""))
    receiver.put("10.0.0.1", event("", 7, "no state"))
    device, = read_json(receiver, "/devices")["devices"]
    assert (device["state"], device["type"], device["events"]) == ("failed", "user.1020", 4)
    assert device["message"] == "one two " + "x" * 192


@pytest.mark.parametrize("state, quiet_after, quiet", [
    ("running", 3600, False), ("running", 3599, True), ("failed", 1, False)])
def test_a_device_that_runs_is_quiet_after_a_time_of_silence(state, quiet_after, quiet):
    row = {"id": "i", "address": "10.0.0.1", "state": state, "code": 1, "message": "",
           "events": 1, "run_at": "2026-03-01T10:00:00.000000Z",
           "last_at": "2026-03-01T11:00:00.000000Z"}
    now = service.time_of("2026-03-01T12:00:00.000000Z")
    assert service.device_view(row, "n", now, quiet_after)["quiet"] is quiet


def test_a_device_that_was_quiet_is_called_that_and_begins_a_new_run():
    with Receiver(quiet_after=1e-6) as receiver:
        receiver.put("10.0.0.1", event("running"))
        first, = read_json(receiver, "/devices")["devices"]
        page = read_page(receiver)
        assert first["quiet"]
        assert "running, quiet" in page
        assert "1 quiet" in page
        receiver.put("10.0.0.1", event("running"))
        second, = read_json(receiver, "/devices")["devices"]
        assert second["run_began_at"] == second["last_event_at"]
        assert second["run_began_at"] > first["run_began_at"]


def test_a_device_that_was_not_quiet_goes_on_with_its_run(receiver):
    receiver.put("10.0.0.1", event("running"))
    receiver.put("10.0.0.1", event("running"))
    device, = read_json(receiver, "/devices")["devices"]
    assert not device["quiet"]
    assert device["run_began_at"] < device["last_event_at"]


@pytest.fixture
def twenty_five(receiver):
    """A receiver that lists a device with 25 events, and 25 others."""
    for number in range(25):
        receiver.put("10.0.0.1", event("running", number))
        receiver.put(f"10.0.1.{number}", event("running"))
    return receiver


LISTS = {  # the path, the name of the list, the sizes of pages of nine
    "events": ("/devices/10.0.0.1/events", "events", [9, 9, 7, 0]),
    "devices": ("/devices", "devices", [9, 9, 8, 0])}


@pytest.mark.parametrize("path, name, sizes", LISTS.values(), ids=LISTS.keys())
def test_lists_have_pages_as_the_api_had_them(twenty_five, path, name, sizes):
    pages = [read_json(twenty_five, f"{path}?page={page}&per_page=9") for page in (1, 2, 3, 4)]
    assert [len(page[name]) for page in pages] == sizes
    ids = {thing["id"] for page in pages for thing in page[name]}
    assert len(ids) == sum(sizes)
    assert pages[1]["meta"] == {
        "total": sum(sizes), "current_page": 2, "last_page": 3,
        "self": {"href": f"{path}?page=2&per_page=9"},
        "first": {"href": f"{path}?page=1&per_page=9"},
        "last": {"href": f"{path}?page=3&per_page=9"},
        "previous": {"href": f"{path}?page=1&per_page=9"},
        "next": {"href": f"{path}?page=3&per_page=9"}}
    assert pages[0]["meta"]["previous"] is None
    assert pages[2]["meta"]["next"] is None


@pytest.mark.parametrize("path, name", [
    ("/devices/10.0.0.1/events", "events"), ("/devices", "devices")])
def test_a_page_of_a_list_has_ten_things_if_no_number_is_given(twenty_five, path, name):
    assert len(read_json(twenty_five, path)[name]) == 10


@pytest.mark.parametrize("query", ["page=0", "page=x", "page=-1", "per_page=1001", "per_page="])
@pytest.mark.parametrize("path", ["/devices/10.0.0.1/events", "/devices"])
def test_a_page_that_cannot_be_is_a_400(receiver, path, query):
    receiver.put("10.0.0.1", event("running"))
    assert ask(receiver, "GET", f"{path}?{query}")[0] == 400


def test_the_device_that_asks_has_a_timeline_before_its_first_event(receiver):
    own = read_json(receiver, "/devices/127.0.0.1/events")
    assert own["events"] == []
    assert own["meta"]["total"] == 0


@pytest.mark.parametrize("path", ["10.0.0.1/events", "10.0.0.1", "none", "none/events", "%ff"])
def test_another_device_without_an_event_is_a_404(receiver, path):
    assert ask(receiver, "GET", "/devices/" + path)[0] == 404
