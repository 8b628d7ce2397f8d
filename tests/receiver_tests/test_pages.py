"""What people read, as HTML."""
import datetime
import html
import re
import string

import pytest

import service
from support.receivers import event, get, read_json, read_page, requested


def test_a_page_says_what_it_is_and_that_it_runs_nothing(receiver):
    with requested(receiver, "GET", "/") as reply:
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert reply.headers["Content-Security-Policy"] == (
            "default-src 'none'; frame-ancestors 'none'; style-src 'unsafe-inline'")


def test_a_page_is_not_stored_or_it_would_be_the_timeline_of_yesterday(receiver):
    with requested(receiver, "GET", "/") as reply:
        assert reply.headers["Cache-Control"] == "no-store"


def test_a_page_escapes_everything(receiver):
    receiver.put("127.0.0.1", event("<i>", 1007, "<script>\"&'"))
    page = read_page(receiver, "/devices/127.0.0.1")
    assert "<script" not in page
    assert "<i>" not in page
    assert "&lt;script&gt;&quot;&amp;&#x27;" in page
    assert "&lt;i&gt;" in page


def test_a_page_shows_the_newest_event_first_and_refreshes_itself(receiver):
    receiver.put("127.0.0.1", event("running", 1007, "early"))
    receiver.put("127.0.0.1", event("failed", 1008, "late"))
    page = read_page(receiver, "/devices/127.0.0.1")
    assert page.index("user.1008") < page.index("user.1007")
    assert 'class="failed">failed' in page
    assert 'http-equiv="refresh" content="5"' in page


@pytest.mark.parametrize("seconds, text", [
    (-5, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")])
def test_says_a_duration_as(seconds, text):
    assert service.duration(datetime.timedelta(seconds=seconds)) == text


TOOK = [  # an event a minute, oldest first; the time that is shown with it
    (event("running", 1010), ""), (event("running", 1020), ""), (event("running", 1010), ""),
    (event("succeeded", 1010), "3 min 0 s"), (event("failed", 1010), ""),
    (event("failed", 1020), "4 min 0 s"), (event("running", 1010), ""),
    (event("succeeded", 1010), "1 min 0 s"), (event("running", 1010), ""),
    (event("succeeded", 1010), "1 min 0 s")]


def test_the_page_of_a_device_tells_how_long_it_took_from_the_first_running(receiver):
    for number, (entry, _) in enumerate(TOOK):
        receiver.put("10.0.0.1", entry)
        receiver.execute("UPDATE events SET created_at = ? WHERE number = ?",
                         [f"2026-01-31T10:{number:02}:00.000000Z", number + 1])
    page = read_page(receiver, "/devices/10.0.0.1")
    assert re.findall('class="took">(.*?)<', page) == [took for _, took in reversed(TOOK)]
    assert 'title="2026-01-31T10:05:00.000000Z">31 Jan 10:05:00<' in page


def test_the_page_of_a_device_has_its_id_as_a_name_too(receiver):
    receiver.put("10.0.0.1", event("running"))
    page = read_page(receiver, "/devices/10.0.0.1")
    assert "10.0.0.1" in page
    assert read_page(receiver, f"/devices/{receiver.device('10.0.0.1')}") == page


@pytest.mark.parametrize("path", ["/", "/devices/127.0.0.1"])
def test_a_page_shows_the_beginning_of_an_odd_state(receiver, path):
    odd = string.ascii_uppercase
    receiver.put("127.0.0.1", event(odd))
    page = read_page(receiver, path)
    assert odd[:20] in page
    assert odd[:21] not in page
    shown, = read_json(receiver, "/devices/127.0.0.1/events")["events"]
    assert shown["state"] == odd


def test_a_state_of_megabytes_is_on_no_page(receiver):
    receiver.put("10.0.0.1", event("running " * 100000))
    for path in ("/", "/devices", "/devices/10.0.0.1"):
        assert len(get(receiver.url + path)) < 10000
    (_, state, _), = receiver.shown("10.0.0.1")
    assert len(state) == 800000


@pytest.mark.parametrize("path, row, left", [
    ("/", 'class="address"', 2), ("/devices/10.0.0.9", 'class="time"', 1)])
def test_pages_for_people_lead_to_the_rest(receiver, settings, path, row, left):
    settings(ROWS=2, EVENTS=2)
    for number in range(3):
        receiver.put(f"10.0.0.{number}", event("running"))
        receiver.put("10.0.0.9", event("running"))
    page = read_page(receiver, path)
    assert page.count(row) == 2
    assert "Page 1 of 2" in page
    following = html.unescape(re.search('href="([^"]+)">Next', page).group(1))
    assert read_page(receiver, following).count(row) == left
