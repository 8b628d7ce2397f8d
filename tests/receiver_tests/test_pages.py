"""What people see: views as HTML and SVG, without a browser."""
import base64
import datetime
import hashlib
import html
import html.parser
import re

import pytest

from receiver import pages, views
from receiver.events import time_text
from receiver.machines import device_link

BEGIN = datetime.datetime(2026, 1, 31, 10, 0, tzinfo=datetime.timezone.utc)
NOW = BEGIN + datetime.timedelta(hours=1)
HOSTILE = "</title></script><script>\"&'"
ESCAPED = "&lt;/title&gt;&lt;/script&gt;&lt;script&gt;&quot;&amp;&#x27;"
COUNTS = {"failed": 2, "quiet": 1, "running": 10, "succeeded": 29, "other": 0, "never": 18}


def at(seconds):
    return time_text(BEGIN + datetime.timedelta(seconds=seconds))


def a_step(begin, end=None, state="succeeded", code=1010, message="unpack", outcome="done"):
    """Return a step from begin to end, in seconds; None: it is open."""
    return {"code": code, "message": message, "began_at": at(begin),
            "state": "running" if end is None else state, "outcome": outcome,
            "ended_at": None if end is None else at(end),
            "seconds": None if end is None else max(0.0, float(end - begin))}


def a_device(**changes):
    path = device_link(changes.get("device", "10.0.0.1"))
    return {"id": "1", "device": "10.0.0.1", "hostname": None, "ip": "10.0.0.1",
            "state": "running", "type": "user.1010", "code": 1010, "message": "unpack",
            "steps_failed": 0, "quiet": False, "events": 2, "last": 2, "path": path,
            "last_event_at": at(1860), "run_began_at": at(0), "state_since": at(0), **changes}


def an_event(**changes):
    return {"state": "running", "type": "user.1010", "message": "unpack",
            "created_at": at(0), **changes}


def a_kind(**changes):
    path = device_link(changes.get("slowest", "10.0.0.7") or "")
    return {"code": 1010, "message": "unpack", "running": 1, "failed": 2, "succeeded": 3,
            "median_seconds": 61.0, "longest_seconds": 7200.0, "slowest": "10.0.0.7",
            "slowest_hostname": None, "slowest_path": path, **changes}


def a_meta(path="/?", page=1, total=1):
    return views.meta_view(path, page, 10, total)


def show_devices(devices, steps=(), counts=COUNTS, meta=None, state=None, text="", **more):
    """Return the page of devices as text; steps: of all of them."""
    by_machine = {device["device"]: steps for device in devices}
    return pages.devices_page(devices, by_machine, counts, meta or a_meta(), state, text,
                              NOW, **more).decode()


def show_device(device=None, steps=(), events=(), meta=None):
    return pages.device_page(device or a_device(), steps, events, meta or a_meta(),
                             NOW).decode()


def bars_of(page):
    """Return (class, x, width, y, height) of the bars of the pictures of a page."""
    return re.findall(r'<rect class="(\w+)" x="([^"]+)" width="([^"]+)" y="([^"]+)" '
                      r'height="([^"]+)"><title>', page)


def links_of(page):
    return [html.unescape(link) for link in re.findall('href="([^"]+)"', page)]


# Positions.

@pytest.mark.parametrize("spans, places", [
    ([(0, 60), (60, 240)], [(0, 0.25, 0), (0.25, 0.75, 0)]),
    ([(0, 100), (10, 20), (20, 60)], [(0, 1, 0), (0.1, 0.1, 1), (0.2, 0.4, 1)]),
    ([(0, 100), (10, 50), (20, 40), (60, 70)],
     [(0, 1, 0), (0.1, 0.4, 1), (0.2, 0.2, 2), (0.6, 0.1, 1)]),
    ([(0, 1800), (1800, None)], [(0, 0.5, 0), (0.5, 0.5, 0)])],
    ids=["one after another", "nested", "nested twice", "open until now"])
def test_a_bar_is_where_and_as_long_as_its_step(spans, places):
    steps = [a_step(*span) for span in spans]
    now = BEGIN + datetime.timedelta(seconds=3600)
    begin, end, found = views.bars(steps, now)
    assert begin == BEGIN
    assert end == BEGIN + datetime.timedelta(seconds=max(
        3600 if last is None else last for _, last in spans))
    for (left, width, lane), place in zip(found, places):
        assert (round(left, 6), round(width, 6), lane) == place


def overlapping(places):
    """Return the pairs of bars that lie over each other."""
    return [(one, other) for index, one in enumerate(places) for other in places[:index]
            if one[2] == other[2] and one[0] < other[0] + other[1] - 1e-9
            and other[0] < one[0] + one[1] - 1e-9]


ODD_SPANS = {
    "a step of nothing": [(0, 0)],
    "nothing beside three days": [(0, 0), (1, 259200), (259200, 259200)],
    "three hundred": [(n * 10, n * 10 + n % 7) for n in range(300)],
    "three hundred at once": [(n, 1000) for n in range(300)],
    "the clock was set back": [(3000, 3100), (3100, 50), (60, 70), (80, None)],
    "the clock was wrong by years": [(-1700000000, -1700000000), (0, 5)],
    "the future": [(90000, None), (90001, 90002)]}


@pytest.mark.parametrize("least", [0, 0.01])
@pytest.mark.parametrize("spans", ODD_SPANS.values(), ids=ODD_SPANS.keys())
def test_no_bars_overlap_and_all_are_in_the_picture(spans, least):
    _, _, places = views.bars([a_step(*span) for span in spans], NOW, least)
    assert overlapping(places) == []
    for left, width, _ in places:
        assert left >= 0
        assert width > 0
        assert left + width <= 1 + 1e-9


@pytest.mark.parametrize("spans", ODD_SPANS.values(), ids=ODD_SPANS.keys())
def test_a_page_shows_steps_of(spans):
    steps = [a_step(*span) for span in spans]
    assert len(bars_of(show_device(steps=steps))) == len(spans)
    strip = bars_of(show_devices([a_device()], steps))
    assert len(strip) == min(len(spans), pages.STRIP_MOST)


def test_in_a_strip_the_shortest_step_can_be_seen():
    steps = [a_step(0, 259200), a_step(100, 100, "failed", 1020)]
    _, (kind, _, width, _, _) = bars_of(show_devices([a_device()], steps))
    assert kind == "failed"
    assert float(width.rstrip("%")) >= 0.9


def test_a_strip_of_too_many_steps_leaves_out_short_ones_that_succeeded():
    steps = [a_step(n, n + 0.5) for n in range(300)]
    steps[7] = a_step(7, 7.1, "failed")
    steps[-1] = a_step(299)
    page = show_devices([a_device()], steps)
    kinds = [bar[0] for bar in bars_of(page)]
    assert len(kinds) == pages.STRIP_MOST
    assert kinds.count("failed") == 1
    assert kinds[-1] == "running"
    assert 'aria-label="300 steps, 1 failed"' in page


def test_what_is_in_a_step_lies_below_it():
    steps = [a_step(0, 100), a_step(10, 20), a_step(20, 30)]
    tops = [float(top) for _, _, _, top, _ in bars_of(show_devices([a_device()], steps))]
    assert tops[0] < tops[1] == tops[2]


def test_in_a_timeline_each_step_has_a_row_of_its_own():
    steps = [a_step(n, n + 1) for n in range(300)]
    bars = bars_of(show_device(steps=steps))
    tops = [float(top) for _, _, _, top, _ in bars]
    assert tops == [pages.AXIS_HIGH + 4 + n * pages.STEP_HIGH for n in range(300)]


@pytest.mark.parametrize("begin, end, texts", [
    (0, 4, ["10:00:00", "10:00:01", "10:00:02", "10:00:03", "10:00:04"]),
    (30, 3000, ["10:15", "10:30", "10:45"]),
    (0, 72000, ["12:00", "18:00", "01 Feb", "06:00"]),
    (0, 259200, ["01 Feb", "02 Feb", "03 Feb"]),
    (-1700000000, 0, ["Dec 1989", "Dec 2009"]),
    (0, 0, ["10:00:00"]), (0.1, 0.3, ["10:00:00"])])
def test_an_axis_has_marks_at_round_times(begin, end, texts):
    page = show_device(steps=[a_step(begin, end)])
    assert re.findall('<line .*?<text [^>]+>(.*?)</text>', page) == texts


def test_a_timeline_tells_the_seconds_of_each_step():
    page = show_device(steps=[a_step(0, 61), a_step(61, 61.2), a_step(70)])
    assert re.findall('dx="6">(.*?)</text>', page) == ["1 min 1 s", "0 s", "58 min 50 s"]


def test_a_timeline_has_a_table_beside_it_with_one_row_a_step():
    page = show_device(steps=[
        a_step(0, 61, outcome="unpack: done after 61 s"),
        a_step(70, 73, "failed", 1020, "install", "install: exit status 3")])
    table = page[page.index('<table class="steps">'):page.index("<details")]
    assert table.count("<tr>") == 3
    assert "unpack: done after 61 s" in table
    assert "install: exit status 3" in table
    assert 'class="number took">1 min 1 s' in table
    assert '<span class="failed">failed</span>' in table
    assert 'title="2026-01-31 10:01:10 UTC">31 Jan 10:01:10<' in table
    assert 'role="img" aria-label="Timeline of 2 steps, 1 failed, from 2026-01-31 ' in page


# Words.

@pytest.mark.parametrize("seconds, text", [
    (-5, "0 s"), (59.9, "59 s"), (119, "119 s"), (120, "2 min"), (1799, "29 min"),
    (7199, "119 min"), (7200, "2 h"), (172799, "47 h"), (172800, "2 d")])
def test_says_an_age_in_one_unit(seconds, text):
    page = show_devices([a_device(last_event_at=time_text(
        NOW - datetime.timedelta(seconds=seconds)))])
    assert re.search(r'class="age latest"><a [^>]+>(.*?)</a>', page).group(1) == text


def test_an_age_has_the_exact_time_with_year_and_zone_beside_it():
    page = show_devices([a_device()])
    assert 'title="2026-01-31 10:31:00 UTC">29 min</a>' in page


@pytest.mark.parametrize("changes, kind, word", [
    ({"state": "failed", "steps_failed": 1}, "failed", "failed"),
    ({"state": "quiet", "quiet": True}, "quiet", "quiet"),
    ({"state": "succeeded"}, "succeeded", "succeeded"),
    ({"state": "succeeded", "steps_failed": 1}, "succeeded", "succeeded, 1 step failed"),
    ({"state": "succeeded", "steps_failed": 2}, "succeeded", "succeeded, 2 steps failed"),
    ({"state": "wobbling"}, "other", "wobbling"),
    ({"state": ""}, "other", "no state")])
def test_a_row_says_its_state_by_word_and_class(changes, kind, word):
    assert f'<span class="{kind}">{word}</span>' in show_devices([a_device(**changes)])


def test_what_is_open_of_a_quiet_machine_is_quiet():
    device, steps = a_device(state="quiet"), [a_step(0), a_step(1, 2)]
    for page in (show_devices([device], steps), show_device(device, steps)):
        assert [bar[0] for bar in bars_of(page)] == ["quiet", "succeeded"]


def test_the_page_says_how_many_are_done_and_links_to_the_others():
    page = show_devices([a_device()])
    assert "<h1>29 of 60 done</h1>" in page
    assert "<title>2 failed, 29 of 60 done</title>" in page
    for kind, count, word in (("failed", 2, "failed"), ("quiet", 1, "quiet"),
                              ("succeeded", 29, "succeeded"),
                              ("never", 18, "never reported")):
        assert f'href="/?state={kind}"><span class="{kind}">{count} {word}<' in page
    assert "other" not in re.search('(?s)<ul class="counts">.*?</ul>', page).group()


def test_links_and_the_search_keep_the_filters():
    page = show_devices([a_device()], meta=a_meta("/?state=failed&q=a%26b&", 2, 30),
                        state="failed", text="a&b")
    links = links_of(page)
    assert "/?state=failed&q=a%26b&page=1&per_page=10" in links  # first, previous
    assert "/?state=failed&q=a%26b&page=3&per_page=10" in links  # next, last
    assert "/?state=running&q=a%26b" in links
    assert "/?q=a%26b" in links  # all
    assert "/devices?state=failed&q=a%26b" in links
    assert "/devices.csv?state=failed&q=a%26b" in links
    assert '<input type="hidden" name="state" value="failed">' in page
    assert 'name="q" value="a&amp;b"' in page


@pytest.mark.parametrize("page, words", [
    (1, ["First", "Next", "Last"]), (2, ["First", "Previous", "Next", "Last"]),
    (3, ["First", "Previous", "Last"])])
def test_a_page_leads_to_the_others(page, words):
    shown = show_devices([a_device()], meta=a_meta("/?", page, 30))
    assert f"Page {page} of 3" in shown
    assert re.findall(r"page=\d+&amp;per_page=10\">(\w+)</a>", shown) == words


@pytest.mark.parametrize("hostname, shown", [(None, "nameless"), ("web-01", "named")])
def test_there_is_a_column_of_names_if_there_are_names(hostname, shown):
    assert f'<table class="devices {shown}">' in show_devices([a_device(hostname=hostname)])


def test_the_whole_row_leads_to_its_device():
    page = show_devices([a_device(device="fe80::1%eth0.1", ip="fe80::1%eth0.1")], [a_step(0)])
    row = page[page.index("<tbody>"):page.index("</tbody>")]
    assert set(links_of(row)) == {"/devices/fe80::1%25eth0.1"}
    assert row.count('class="row"') == 1
    assert row.count("<a ") == row.count('tabindex="-1"') + 1


def test_a_machine_that_never_reported_has_a_row_and_no_times():
    page = show_devices([views.never_view("10.0.0.9", "web-09", "/devices/10.0.0.9")])
    assert '<span class="never">never</span>' in page
    assert ">web-09</a>" in page
    assert ">10.0.0.9</a>" in page
    never = views.never_view("serial-1", "serial-1", "/devices/serial-1")
    assert '>never reported</div>' in show_device(never)


@pytest.mark.parametrize("changes, steps, words", [
    ({"state": "failed", "type": "user.1020", "message": "install: exit status 3"}, [],
     ["failed since 31 Jan 10:00:00 UTC (1 h 0 min)", "1020 install: exit status 3"]),
    ({}, [a_step(0, code=1000), a_step(1800, code=1030, message="boot loader")],
     ["1030 boot loader: running for 30 min 0 s", ">1 h 0 min<", "29 min 0 s ago"]),
    ({"state": "succeeded", "steps_failed": 1}, [
        a_step(0, 5, "failed", 1040, "keys", "keys: exit status 4"), a_step(6, 7, code=1040)],
     ["succeeded, 1 step failed since", "1040 keys: exit status 4", ">31 min 0 s<"])],
    ids=["failed", "running", "succeeded"])
def test_the_page_of_a_device_says_what_it_is_now(changes, steps, words):
    page = show_device(a_device(**changes), steps)
    facts = page[page.index("<dl>"):page.index("</dl>")]
    for word in words:
        assert word in facts.replace("</div>", "<")


@pytest.mark.parametrize("page, opened", [(1, "<details>"), (2, "<details open>")])
def test_events_are_folded_until_one_turns_their_pages(page, opened):
    assert opened in show_device(events=[an_event()],
                                 meta=a_meta("/devices/10.0.0.1?", page, 30))


def test_a_long_message_is_cut_on_the_page():
    page = show_device(events=[an_event(message="x" * 100000)])
    assert len(page) < 40000
    assert "[the rest of it is in the JSON]" in page


def test_the_steps_of_all_machines_have_their_counts_and_times():
    page = pages.steps_page([a_kind()], a_meta("/steps?"), NOW).decode()
    row = page[page.index("<tbody>"):page.index("</tbody>")]
    assert re.findall(r'class="number[^>]*>(?:<span[^>]*>)?(.*?)[<\n]', row) == [
        "1", "2", "3", "1 min 1 s", "2 h 0 min"]
    assert links_of(row) == ["/devices/10.0.0.7"]


def test_a_step_that_has_not_ended_anywhere_has_no_times():
    kind = a_kind(median_seconds=None, longest_seconds=None, slowest=None)
    row = pages.steps_page([kind], a_meta(), NOW).decode().partition("<tbody>")[2]
    assert 'class="number median"><td class="number longest"><td' in row
    widths = re.findall('<rect (?:class="whole" )?width="([0-9.]+)%"', row)
    assert [float(width) for width in widths] == [0, 0]
    assert links_of(row) == []


def test_tells_what_to_paste_when_nothing_has_arrived():
    parts = pages.install_parts("http://10.0.0.1:8000", "ab" * 32, "echo \"$HOME\" <&0")
    for page in (show_devices([], counts=dict.fromkeys(views.KINDS, 0), install=parts),
                 pages.install_page("http://10.0.0.1:8000", "ab" * 32,
                                    "echo \"$HOME\" <&0").decode()):
        text = html.unescape(page)
        assert ("curl -fsS http://10.0.0.1:8000/userstate.py | USERSTATE_METADATA_URL="
                'http://10.0.0.1:8000/metadata python3 -I - running 1000 "hello"') in text
        assert "set metadata http://10.0.0.1:8000/devices/${uuid}/metadata" in text
        assert ">echo &quot;$HOME&quot; &lt;&amp;0</pre>" in page
        assert "ab" * 32 in page


@pytest.mark.parametrize("state, text, words", [
    ("failed", "", "No machine is failed."),
    (None, "<b>", "No machine with &quot;&lt;b&gt;&quot; in its name, address or message."),
    ("failed", "x", "No machine with &quot;x&quot; in its name, address or message is f")])
def test_says_that_nothing_was_found(state, text, words):
    assert words in show_devices([], state=state, text=text)


# Safety.

def test_every_field_of_every_view_is_escaped():
    step = a_step(0, 1, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    device = a_device(device=HOSTILE, hostname=HOSTILE, ip=HOSTILE, state=HOSTILE,
                      type=HOSTILE, code=HOSTILE, message=HOSTILE)
    event = an_event(state=HOSTILE, type=HOSTILE, message=HOSTILE)
    kind = a_kind(code=HOSTILE, message=HOSTILE, slowest=HOSTILE, slowest_hostname=HOSTILE)
    for page in (show_devices([device], [step], state=HOSTILE, text=HOSTILE),
                 show_devices([], state=HOSTILE, text=HOSTILE),
                 show_device(device, [step], [event]),
                 pages.steps_page([kind], a_meta(), NOW).decode(),
                 pages.install_page(HOSTILE, HOSTILE, HOSTILE).decode(),
                 pages.missing_page(HOSTILE).decode()):
        assert "<script>\"" not in page
        assert page.count("<script") == page.count("</script>") == 1
        assert ESCAPED in page


@pytest.mark.parametrize("text", ["\udc80", "\x00\x1b\u202e", "\u0301" * 100, "$text ${x} $$"])
def test_a_page_takes_any_text(text):
    step, device = a_step(0, 1, message=text), a_device(message=text, hostname=text)
    for page in (show_devices([device], [step], text=text), show_device(device, [step]),
                 pages.missing_page(text).decode()):
        assert page.count("</main>") == 1


@pytest.mark.parametrize("code", [-2**63, 2**63 - 1])
def test_a_page_shows_any_code(code):
    device = a_device(code=code, type=f"user.{code}")
    assert f'class="code">{code}<' in show_devices([device])
    assert f'class="code">{code}<' in show_device(device, [a_step(0, 1, code=code)])


def test_the_policy_allows_the_style_and_the_script_of_a_page_and_nothing_else():
    page = show_device(steps=[a_step(0, 1)], events=[an_event()])
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        (text,) = re.findall(f"(?s)<{tag}>(.*?)</{tag}>", page)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in pages.POLICY
    assert "default-src 'none'" in pages.POLICY
    assert not re.search(r"<[^>]+ (style|on\w+)=", page.partition("</style>")[2])


VOID, EMPTY = ("meta", "input"), ("rect", "path", "circle", "line")
LEFT_OPEN = ("html", "body", "p", "li", "tr", "td", "th", "dt", "dd", "thead", "tbody")


class Checker(html.parser.HTMLParser):
    """Raises if an element is closed that is not the last one that was opened."""

    def __init__(self):
        super().__init__()
        self.opened = []

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs)
        if tag not in VOID + LEFT_OPEN:
            self.opened.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in EMPTY

    def handle_endtag(self, tag):
        if tag not in LEFT_OPEN:
            assert self.opened.pop() == tag


def test_every_element_is_closed():
    steps, parts = [a_step(0, 1), a_step(0)], pages.install_parts("http://a", "b", "c")
    for page in (show_devices([a_device()], steps, install=parts, meta=a_meta("/?", 2, 30)),
                 show_device(steps=steps, events=[an_event()]), show_devices([]),
                 pages.steps_page([a_kind()], a_meta(), NOW).decode(),
                 pages.missing_page("x").decode()):
        checker = Checker()
        checker.feed(page)
        assert checker.opened == []
