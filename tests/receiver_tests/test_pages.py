"""What people read, as HTML."""
import html
import http.client
import re
import urllib.request

import pytest

import service
from support.receivers import get, read_json, state


def test_a_page_says_what_it_is_and_that_it_runs_nothing(receiver):
    with urllib.request.urlopen(receiver.url) as reply:
        assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
        assert reply.headers["Content-Security-Policy"] == (
            "default-src 'none'; frame-ancestors 'none'; style-src 'unsafe-inline'")


def test_the_page_shows_and_escapes_everything_and_refreshes_itself(receiver):
    receiver.put("127.0.0.1", {"state": "<i>", "code": 1007, "message": "<script>\"&'"})
    receiver.put("127.0.0.1", {"state": "failed", "code": 1008, "message": "late"})
    page = get(receiver.url + "/devices/127.0.0.1").decode()
    assert "<script" not in page and "<i>" not in page
    assert "&lt;script&gt;&quot;&amp;&#x27;" in page and "&lt;i&gt;" in page
    assert 'http-equiv="refresh" content="5"' in page and 'class="failed">failed' in page
    assert page.index("user.1008") < page.index("user.1007")
    connection = http.client.HTTPConnection(*receiver.server_address)
    connection.request("GET", "/")
    reply = connection.getresponse()
    assert reply.headers["Cache-Control"] == "no-store"  # or it is yesterday's timeline
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    connection.close()


@pytest.mark.parametrize("seconds, text", [
    (-5, "0 s"), (59.9, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90000, "1 d 1 h")])
def test_says_a_duration_as(seconds, text):
    assert service.duration(service.datetime.timedelta(seconds=seconds)) == text


def test_the_page_of_a_device_tells_how_long_it_took_from_the_first_running(receiver):
    for entry in (state("running", 1010), state("running", 1020), state("running", 1010),
                  state("succeeded", 1010), state("failed", 1010), state("failed", 1020),
                  state("running", 1010), state("succeeded", 1010),
                  state("running", 1010), state("succeeded", 1010)):
        receiver.put("10.0.0.1", entry)
    times = [f"2026-01-31T10:{minute:02}:00.000000Z" for minute in range(10)]
    for number, at in enumerate(times, 1):
        receiver.store.writer.execute("UPDATE events SET created_at = ? WHERE number = ?",
                                      (at, number))
    page = get(receiver.url + "/devices/10.0.0.1").decode()
    assert re.findall('class="took">(.*?)<', page) == [
        "1 min 0 s", "", "1 min 0 s", "", "4 min 0 s", "", "3 min 0 s", "", "", ""]
    assert f'title="{times[5]}">31 Jan 10:05:00<' in page
    assert get(f"{receiver.url}/devices/{receiver.device('10.0.0.1')}").decode() == page


def test_a_page_shows_the_beginning_of_an_odd_state(receiver):
    odd = "".join(map(chr, range(ord("A"), ord("A") + 26)))
    receiver.put("127.0.0.1", state(odd))
    for path in ("/", "/devices/127.0.0.1"):
        shown = get(receiver.url + path).decode()
        assert odd[:20] in shown and odd[:21] not in shown
    assert read_json(receiver, "/devices/127.0.0.1/events")["events"][0]["state"] == odd


def test_pages_for_people_lead_to_the_rest(receiver, monkeypatch):
    monkeypatch.setattr(service, "ROWS", 2)
    monkeypatch.setattr(service, "EVENTS", 2)
    for number in range(3):
        receiver.put(f"10.0.0.{number}", state("running"))
        receiver.put("10.0.0.9", state("running"))
    for path, rows in (("/", 'class="address"'), ("/devices/10.0.0.9", 'class="time"')):
        page = get(receiver.url + path).decode()
        assert page.count(rows) == 2 and "Page 1 of 2" in page
        following = html.unescape(re.search('href="([^"]+)">Next', page).group(1))
        assert 1 <= get(receiver.url + following).decode().count(rows) <= 2


def test_a_state_of_megabytes_is_on_no_page(receiver):
    receiver.put("10.0.0.1", state("running " * 100000))
    for path in ("/", "/devices", "/devices/10.0.0.1"):
        assert len(get(receiver.url + path)) < 10000
    assert len(receiver.shown("10.0.0.1")[0][1]) == 800000
