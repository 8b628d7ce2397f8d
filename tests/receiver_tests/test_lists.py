"""What programs read: lists as JSON, their order, their pages."""
import json
import re

import service
from support.receivers import Receiver, ask, get, read_json, state


def test_the_timeline_as_json_is_in_the_shape_of_the_api(receiver):
    for message in ("first", "second"):
        receiver.put("127.0.0.1", {"state": "running", "code": 1007, "message": message})
    url = f"{receiver.url}/devices/{receiver.device('127.0.0.1')}/events"
    events = json.loads(get(url).decode())["events"]
    assert [event["body"] for event in events] == ["second", "first"]
    assert set(events[0]) == {"id", "type", "state", "body", "created_at", "ip"}
    assert (events[0]["type"], events[0]["ip"]) == ("user.1007", "127.0.0.1")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", events[0]["created_at"])
    assert events[0]["id"] != events[1]["id"]


def test_lists_the_failed_then_the_running_then_the_rest_by_number(receiver):
    for address, word in (("10.0.0.10", "succeeded"), ("10.0.0.9", "succeeded"),
                          ("fe80::1", "dancing"), ("10.0.0.3", "running"),
                          ("10.0.0.2", "running"), ("10.0.0.100", "failed"),
                          ("10.0.0.20", "failed")):
        receiver.put(address, state(word))
    shown = read_json(receiver, "/devices")
    assert [device["ip"] for device in shown["devices"]] == [
        "10.0.0.20", "10.0.0.100", "10.0.0.3", "10.0.0.2", "10.0.0.9", "10.0.0.10", "fe80::1"]
    assert shown["counts"] == {"failed": 2, "running": 2, "succeeded": 2, "other": 1,
                               "quiet": 0}
    page = get(receiver.url).decode()
    for told in ("2 failed", "2 running", "2 succeeded", "1 other"):
        assert told in page
    links = re.findall('href="/devices/([^"]+)', page)
    assert links == [device["ip"] for device in shown["devices"]]


def test_the_latest_state_of_a_device_is_shown_in_one_line(receiver):
    receiver.put("10.0.0.1", state("running", 1010, "begin"))
    receiver.put("10.0.0.1", state("failed", 1020, "one\ntwo " + "x" * 3000))
    for nothing in (state("", 0, ""), state("", 7, "no state")):
        receiver.put("10.0.0.1", nothing)
    device, = read_json(receiver, "/devices")["devices"]
    assert (device["state"], device["type"], device["events"]) == ("failed", "user.1020", 4)
    assert device["message"].startswith("one two xxx") and len(device["message"]) == 200


def test_a_device_that_is_silent_is_quiet_and_then_begins_a_new_run():
    now = service.time_of("2026-03-01T12:00:00.000000Z")
    row = dict(id="i", address="10.0.0.1", code=1, message="", events=1,
               run_at="2026-03-01T10:00:00.000000Z", last_at="2026-03-01T11:00:00.000000Z")
    for word, after, quiet in (("running", 3600, False), ("running", 3599, True),
                               ("failed", 1, False)):
        assert service.device_view(dict(row, state=word), "n", now, after)["quiet"] is quiet
    with Receiver(quiet_after=1e-6) as receiver:
        receiver.put("10.0.0.1", state("running"))
        first, = read_json(receiver, "/devices")["devices"]
        assert first["quiet"] and "running, quiet" in get(receiver.url).decode()
        assert "1 quiet" in get(receiver.url).decode()
        receiver.put("10.0.0.1", state("running"))
        second, = read_json(receiver, "/devices")["devices"]
        assert second["run_began_at"] == second["last_event_at"] > first["run_began_at"]
    with Receiver() as receiver:
        receiver.put("10.0.0.1", state("running"))
        receiver.put("10.0.0.1", state("running"))
        device, = read_json(receiver, "/devices")["devices"]
        assert not device["quiet"] and device["run_began_at"] < device["last_event_at"]


def test_lists_have_pages_as_the_api_had_them(receiver):
    for number in range(25):
        receiver.put("10.0.0.1", state("running", number))
        receiver.put(f"10.0.1.{number}", state("running"))
    for path in ("/devices/10.0.0.1/events", "/devices"):
        shown = [read_json(receiver, f"{path}?page={page}&per_page=9") for page in (1, 2, 3, 4)]
        lists = [page.get("events", page.get("devices")) for page in shown]
        assert [len(items) for items in lists] == [9, 9, 7 + (path == "/devices"), 0]
        ids = [item["id"] for items in lists for item in items]
        assert len(set(ids)) == len(ids)
        assert shown[1]["meta"] == {
            "total": len(ids), "current_page": 2, "last_page": 3,
            **{name: {"href": f"{path}?page={page}&per_page=9"} for name, page in (
                ("self", 2), ("first", 1), ("last", 3), ("previous", 1), ("next", 3))}}
        assert shown[0]["meta"]["previous"] is shown[2]["meta"]["next"] is None
        assert len(list(read_json(receiver, path).values())[
            0 if path == "/devices" else 1]) == 10
        for query in ("page=0", "page=x", "per_page=1001", "per_page=", "page=-1"):
            assert ask(receiver, "GET", f"{path}?{query}")[0] == 400


def test_the_device_that_asks_has_a_timeline_before_its_first_event(receiver):
    own = read_json(receiver, "/devices/127.0.0.1/events")
    assert (own["events"], own["meta"]["total"]) == ([], 0)
    for other in ("10.0.0.1/events", "10.0.0.1", "none", "none/events", "%ff"):
        assert ask(receiver, "GET", "/devices/" + other)[0] == 404
