"""Lists as CSV, as RFC 4180 has it, for people who open them in a spreadsheet."""
import csv
import io

import pytest

from receiver.views import csv_cell
from support.receivers import Receiver, ask, event, read_json, requested

ODD = ["", "a,b", 'say "x"', "one\ntwo", "one\r\ntwo", "\u00fc \U0001f600", "'quoted'",
       " x", "1,5", "a\tb", "'=1", "x=1", "a-b"]
FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "-", "=cmd|' /C calc'!A0",
            '=HYPERLINK("http://x","y")']


def read_csv(receiver, path):
    """Return the rows of what a request gets, as Python reads CSV strictly."""
    status, body = ask(receiver, "GET", path)
    assert status == 200
    return list(csv.reader(io.StringIO(body.decode(), newline=""), strict=True))


def test_the_events_as_csv(receiver):
    receiver.tell("10.0.0.1", event("running", 1000, "begin"))
    receiver.put("web-1", "10.0.0.2", {"state": "", "code": None, "message": "phoned home"})
    times = [row["created_at"] for row in read_json(receiver, "/events")["events"]]
    assert read_csv(receiver, "/events.csv") == [
        ["number", "created_at", "device", "ip", "state", "code", "message"],
        ["2", times[0], "web-1", "10.0.0.2", "", "", "phoned home"],
        ["1", times[1], "10.0.0.1", "10.0.0.1", "running", "1000", "begin"]]


def test_the_machines_as_csv():
    with Receiver(names={"10.0.0.1": "db", "10.0.0.9": "late"}) as receiver:
        receiver.tell("10.0.0.1", event("running", 1000, "begin"))
        receiver.tell("10.0.0.1", event("failed", 1010, "lost"))
        device = read_json(receiver, "/devices")["devices"][0]
        names, failed, never = read_csv(receiver, "/devices.csv")
        assert names == ["device", "hostname", "ip", "state", "code", "message",
                         "steps_failed", "events", "run_began_at", "state_since",
                         "last_event_at"]
        assert failed == ["10.0.0.1", "db", "10.0.0.1", "failed", "1010", "lost", "1", "2",
                          device["run_began_at"], device["state_since"],
                          device["last_event_at"]]
        assert never == ["10.0.0.9", "late", "", "never", "", "", "0", "0", "", "", ""]


@pytest.mark.parametrize("path", ["/events.csv", "/devices.csv"])
def test_says_what_it_is(receiver, path):
    with requested(receiver, "GET", path) as reply:
        assert reply.getheader("Content-Type") == "text/csv; charset=utf-8; header=present"
        assert reply.getheader("X-Content-Type-Options") == "nosniff"
        assert reply.read().endswith(b"\r\n")


@pytest.mark.parametrize("message", ODD, ids=ascii)
def test_a_message_comes_back_as_it_was(receiver, message):
    receiver.tell("10.0.0.1", event("running", 1000, message))
    assert read_csv(receiver, "/events.csv")[1][-1] == message


def test_lines_end_as_rfc_4180_says_and_only_there(receiver):
    receiver.tell("10.0.0.1", event("running", 1000, "one\ntwo"))
    receiver.tell("10.0.0.1", event("running", 1000, 'say "x"'))
    body = ask(receiver, "GET", "/events.csv")[1]
    assert body.count(b"\r\n") == 3
    assert b',"one\ntwo"\r\n' in body
    assert b',"say ""x"""\r\n' in body


@pytest.mark.parametrize("text", FORMULAS, ids=ascii)
def test_what_a_spreadsheet_would_run_is_a_text_there(receiver, text):
    receiver.tell("10.0.0.1", event(text[:20], -7, text))
    row = read_csv(receiver, "/events.csv")[1]
    assert row[4:] == ["'" + text[:20], "-7", "'" + text]
    for path in ("/events.csv", "/devices.csv"):
        for cell in read_csv(receiver, path)[1]:
            assert not cell.startswith(tuple("=+@\t\r\n"))
            assert not cell.startswith("-") or cell == "-7"


def test_a_number_below_0_is_no_formula():
    assert csv_cell(-7) == -7
    assert csv_cell("-7") == "'-7"


@pytest.mark.parametrize("query, numbers", [
    ("state=failed", ["2"]), ("after=2", ["3"]), ("device=10.0.0.1", ["2", "1"]),
    ("q=none", [])])
def test_takes_the_filters_of_the_list(receiver, query, numbers):
    receiver.tell("10.0.0.1", event("running", 1000, "a"))
    receiver.tell("10.0.0.1", event("failed", 1000, "b"))
    receiver.tell("10.0.0.2", event("running", 1000, "c"))
    assert [row[0] for row in read_csv(receiver, f"/events.csv?{query}")[1:]] == numbers


@pytest.mark.parametrize("query, machines", [
    ("state=failed", ["10.0.0.1"]), ("q=c", ["10.0.0.2"]), ("state=quiet", [])])
def test_takes_the_filters_of_the_list_of_machines(receiver, query, machines):
    receiver.tell("10.0.0.1", event("failed", 1000, "b"))
    receiver.tell("10.0.0.2", event("running", 1000, "c"))
    assert [row[0] for row in read_csv(receiver, f"/devices.csv?{query}")[1:]] == machines


def test_each_machine_is_there_once_also_if_the_order_changes_meanwhile(receiver, monkeypatch):
    for number in range(5):
        receiver.tell(f"10.0.0.{number}", event("running"))
    device, failed = receiver.store.device, []

    def device_as_another_fails(machine, now):
        if not failed:
            receiver.tell("10.0.0.4", event("failed"))
            failed.append(True)
            assert receiver.store.forget("10.0.0.3")
        return device(machine, now)
    monkeypatch.setattr(receiver.store, "device", device_as_another_fails)
    rows = read_csv(receiver, "/devices.csv")[1:]
    assert sorted((row[0], row[3]) for row in rows) == [
        ("10.0.0.0", "running"), ("10.0.0.1", "running"), ("10.0.0.2", "running"),
        ("10.0.0.4", "failed")]


@pytest.mark.parametrize("path", ["/events.csv", "/devices.csv"])
def test_has_all_rows_and_no_pages(receiver, settings, path):
    settings(CSV_BLOCK=2)
    for number in range(5):
        receiver.tell(f"10.0.0.{number}", event("running"))
    assert len(read_csv(receiver, path)) == 6
    assert ask(receiver, "GET", f"{path}?page=2")[0] == 400
