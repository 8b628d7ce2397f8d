"""The pages in Chromium, as a person sees them."""
import datetime
import http.server
import threading
import urllib.parse

import pytest

from receiver import pages, views
from receiver.events import time_text
from receiver.machines import device_link
from support.browser import HEIGHT, NARROW, WIDE
from support.tools import slow

pytestmark = slow
BEGIN = datetime.datetime(2026, 1, 31, 10, 0, tzinfo=datetime.timezone.utc)
NOW = BEGIN + datetime.timedelta(hours=1)
HOSTILE = "<script>document.title = 'run'</script><b id=bold>&amp;</b>"
LONG = "exit status 100 after 3 s: E: Unable to locate package grub-efi-amd64-signed"
STATES = ("failed", "quiet", "running", "succeeded")
LONG_ADDRESS = "fe80:1234:5678:9abc:def0:1234:5678:9abc%enp129s0f1np1.4"


class Site(http.server.ThreadingHTTPServer):
    """Serves pages: a dict of paths and functions that return them; None: it hangs up."""

    def __init__(self, **shown):
        super().__init__(("127.0.0.1", 0), Handler)
        self.shown = shown
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.is_away = False

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.thread.join()
        self.server_close()


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = urllib.parse.urlsplit(self.path).path.strip("/") or "list"
        if self.server.is_away or name not in self.server.shown:
            return
        if "text/html" not in self.headers["Accept"]:  # as /steps, which is JSON, too
            self.send_error(406)
            return
        body = self.server.shown[name]()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Security-Policy", pages.POLICY)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


def at(seconds):
    return time_text(BEGIN + datetime.timedelta(seconds=seconds))


def a_step(begin, end=None, state="succeeded", code=1010, message="unpack the image"):
    return {"code": code, "message": message, "began_at": at(begin),
            "state": "running" if end is None else state, "outcome": message + ": " + LONG,
            "ended_at": None if end is None else at(end),
            "seconds": None if end is None else max(0.0, float(end - begin))}


def a_device(number=1, **changes):
    address = f"10.0.0.{number}"
    path = device_link(changes.get("device", address))
    return {"id": str(number), "device": address, "hostname": None, "ip": address, "path": path,
            "state": "running", "type": "user.1010", "code": 1010, "message": "unpack",
            "steps_failed": 0, "quiet": False, "events": 2, "last": 2,
            "last_event_at": at(1860), "run_began_at": at(0), "state_since": at(0), **changes}


def an_event(**changes):
    return {"state": "running", "type": "user.1010", "message": "unpack",
            "created_at": at(0), **changes}


NESTED = [a_step(0, 2500, "failed", 1000, "user-data"), a_step(1, 2, message="prepare"),
          a_step(3, 2400, message="install " + LONG), a_step(100, 1200, message=HOSTILE),
          a_step(1200, 1200, message="nothing at all"),
          a_step(2401, 2499, "failed", -2**63, "y" * 200), a_step(2600)]
MANY = [a_step(n * 10, n * 10 + n % 11, "failed" if n == 77 else "succeeded", 1000 + n,
               f"step {n}") for n in range(300)]
UNEVEN = [a_step(-259200), a_step(-259000, -259000), a_step(3599, 3600, "failed")]
BACK = [a_step(3000, 3500), a_step(3100, 100), a_step(110, 120), a_step(130)]


def a_fleet():
    """Return devices and {machine: steps}: named, nameless, long, odd, and some rest."""
    devices = [a_device(n, state=STATES[min(n // 2, 3)], message=f"install: {LONG}",
                        hostname=f"node-{n:02}.rack12.building7.example.com")
               for n in range(1, 40)]
    devices += [
        a_device(40, device=LONG_ADDRESS, ip=LONG_ADDRESS, message=HOSTILE),
        a_device(41, state="x" * 20, type=f"user.{-2**63}", message="y" * 200),
        a_device(42, state="succeeded", steps_failed=12, hostname="web-42"),
        views.never_view("10.0.0.43", "", "/devices/10.0.0.43")]
    shapes = (NESTED, MANY, UNEVEN, BACK, [a_step(0, 10)])
    return devices, {device["device"]: shapes[index % 5] for index, device
                     in enumerate(devices) if device["id"]}


def show_list():
    devices, steps = a_fleet()
    counts = {"failed": 1, "quiet": 2, "running": 3, "succeeded": 35, "other": 1, "never": 1}
    return pages.devices_page(devices, steps, counts, views.meta_view("/?", 2, 43, 129),
                              None, "", NOW)


def show_nameless():
    return pages.devices_page([a_device(), a_device(40, device=LONG_ADDRESS, ip=LONG_ADDRESS)],
                              {}, dict.fromkeys(views.KINDS, 1),
                              views.meta_view("/?", 1, 10, 2), "failed", HOSTILE, NOW)


def show_device(steps, **changes):
    events = [an_event(message=text) for text in (HOSTILE, "y" * 9000, LONG)]
    device = a_device(state="failed", hostname="node-01.example.com", message=LONG, **changes)
    return pages.device_page(device, steps, events,
                             views.meta_view("/devices/10.0.0.1?", 2, 3, 9), NOW)


def show_steps():
    def kind(seconds, **changes):
        return {"code": 1010, "message": "unpack", "running": 1, "failed": 2, "succeeded": 3,
                "median_seconds": seconds, "longest_seconds": seconds, "slowest": LONG_ADDRESS,
                "slowest_hostname": None, "slowest_path": device_link(LONG_ADDRESS), **changes}
    kinds = [kind(3.0), kind(259200.0, code=-2**63, message="y" * 200),
             kind(None, slowest=None, message=HOSTILE)]
    return pages.steps_page(kinds, views.meta_view("/steps?", 1, 10, 3), NOW)


INSTALL = "http://[2001:db8::1]:8000", "ab" * 32, f"#!/bin/sh\necho {LONG * 9} {HOSTILE}\n" * 40


def show_empty():
    return pages.devices_page([], {}, dict.fromkeys(views.KINDS, 0),
                              views.meta_view("/?", 1, 10, 0), None, "", NOW,
                              install=pages.install_parts(*INSTALL))


SHOWN = {"list": show_list, "nameless": show_nameless, "nested": lambda: show_device(NESTED),
         "many": lambda: show_device(MANY), "uneven": lambda: show_device(UNEVEN),
         "back": lambda: show_device(BACK), "steps": show_steps, "empty": show_empty,
         "missing": lambda: pages.missing_page("x" * 300 + HOSTILE)}
TIMELINES = ("nested", "many", "uneven", "back")


@pytest.fixture(scope="session")
def site():
    with Site(**SHOWN) as site:
        yield site


OVERFLOWING = """
if (document.documentElement.scrollWidth > innerWidth) return ["the page"];
const clipped = e => e.closest("pre.script, .label, .devices td, td.slowest");
return [...document.querySelectorAll("body *")].filter(
  e => e.getBoundingClientRect().right > innerWidth && !clipped(e)
).map(e => e.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", SHOWN)
def test_nothing_overflows(browser, site, name, width):
    browser.show(f"{site.url}/{name}", width)
    assert browser.run("return innerWidth") == width
    assert browser.run(OVERFLOWING) == []


OVERLAPPING = """
const boxes = [...document.querySelectorAll(arguments[0])].map(
  e => [e.closest(".timeline, .strip, tr"), e.getBoundingClientRect(), e.textContent]);
const found = [];
boxes.forEach(([place, a, text], index) => boxes.slice(0, index).forEach(([other, b, word]) => {
  if (place === other && a.left < b.right - .5 && b.left < a.right - .5 &&
      a.top < b.bottom - .5 && b.top < a.bottom - .5) found.push(text + " / " + word);
}));
return found"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_no_bars_of_a_strip_overlap(browser, site, width):
    browser.show(f"{site.url}/list", width)
    assert browser.run("return document.querySelectorAll('svg.strip rect').length") > 300
    assert browser.run(OVERLAPPING, "svg.strip rect") == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", TIMELINES)
def test_nothing_in_a_timeline_overlaps(browser, site, name, width):
    browser.show(f"{site.url}/{name}", width)
    assert browser.run("return document.querySelectorAll('.plot rect, .plot text').length") > 8
    assert browser.run(OVERLAPPING, ".timeline rect, .timeline text, .label") == []


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("name", ["list", "nameless", "nested", "steps"])
def test_no_cells_overlap(browser, site, name, width):
    browser.show(f"{site.url}/{name}", width)
    assert browser.run("return document.querySelectorAll('td').length") > 10
    assert browser.run(OVERLAPPING, "td") == []


@pytest.mark.parametrize("name", TIMELINES)
def test_every_bar_can_be_seen(browser, site, name):
    browser.show(f"{site.url}/{name}", NARROW)
    widths = browser.run("return [...document.querySelectorAll('.timeline rect')].map("
                         "e => e.getBoundingClientRect().width)")
    assert min(widths) >= 0.9


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_the_message_has_room_beside_long_names_and_addresses(browser, site, width):
    browser.show(f"{site.url}/list", width)
    widths = browser.run("return [...document.querySelectorAll('td.message')].map("
                         "e => e.offsetWidth)")
    assert min(widths) >= 0.2 * width


ROW = """
const row = document.querySelectorAll("tbody tr")[arguments[0]];
row.scrollIntoView({block: "center"});
const box = row.getBoundingClientRect(), found = new Set();
for (let x = box.left + 1; x < box.right; x += 7)
  for (let y = box.top + 1; y < box.bottom - 1; y += 4)
    found.add(document.elementFromPoint(x, y).closest("a")?.pathname);
return [...found]"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("number", [0, 3, 39, 42])
def test_the_whole_row_leads_to_its_device(browser, site, number, width):
    browser.show(f"{site.url}/list", width)
    machine = a_fleet()[0][number]["device"]
    assert browser.run(ROW, number) == [device_link(machine)]


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_failed_devices_are_above_the_fold(browser, site, width):
    browser.show(f"{site.url}/list", width)
    bottom = browser.run("return document.querySelector('td .failed')"
                         ".getBoundingClientRect().bottom")
    assert bottom < HEIGHT / 2


@pytest.mark.parametrize("name", SHOWN)
def test_text_of_a_machine_is_text(browser, site, name):
    browser.show(f"{site.url}/{name}")
    assert browser.run("return document.querySelectorAll('#bold, main script').length") == 0
    assert browser.run("return document.title") != "run"


VIOLATIONS = """
const found = [];
addEventListener("securitypolicyviolation", e => found.push(e.violatedDirective));
const done = arguments[arguments.length - 1];
fetch(location.href, {headers: {Accept: "text/html"}}).then(() => {
  const script = document.createElement("script");
  script.textContent = "document.title = 'run'";
  document.body.append(script);
  setTimeout(() => done([found, document.title, document.styleSheets.length]), 50);
});"""


def test_the_policy_lets_the_page_work_and_nothing_else(browser, site):
    browser.show(f"{site.url}/nested")
    found, title, sheets = browser.ask("/execute/async", script=VIOLATIONS, args=[])
    assert found == ["script-src-elem"]
    assert title != "run"
    assert sheets == 1


CONTRASTS = """
const paper = document.body.appendChild(document.createElement("p"));
paper.style.backgroundColor = "Canvas";
function luminance(color) {
  const [r, g, b] = color.match(/[0-9.]+/g).map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const back = luminance(getComputedStyle(paper).backgroundColor);
return [back, ...[...document.querySelectorAll(
    "h1, h2, th, td, td span, a, dt, dd, li span, text, .label, .more")].map(e => {
  const style = getComputedStyle(e);
  const ink = luminance(e.tagName === "text" ? style.fill : style.color);
  return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
})]"""
ENOUGH = 4.5  # WCAG, level AA


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", ["list", "nested", "steps", "empty"])
def test_is_readable_on_light_and_on_dark_paper(browser, site, name, dark):
    browser.show(f"{site.url}/{name}", dark=dark)
    paper, *contrasts = browser.run(CONTRASTS)
    assert paper < 0.05 if dark else paper > 0.9
    assert min(contrasts) > ENOUGH


def test_states_differ_by_word_and_shape(browser, site):
    browser.show(f"{site.url}/list")
    shapes = browser.run("""
        return [...document.querySelectorAll(".counts span:not(.all)")].map(e => {
          const style = getComputedStyle(e, "::before");
          return style.clipPath + style.borderWidth + style.borderRadius + style.borderStyle;
        })""")
    assert len(shapes) == len(set(shapes)) == 6


def test_bars_differ_by_pattern(browser, site):
    browser.show(f"{site.url}/list")
    fills = browser.run("""
        return ["failed", "quiet", "running", "succeeded"].map(kind =>
          getComputedStyle(document.querySelector("svg.strip rect." + kind)).fill)""")
    assert fills[:3] == [f'url("#{kind}")' for kind in ("failed", "quiet", "running")]
    assert fills[3].startswith("rgb(")


def test_a_picture_is_told_to_a_screen_reader_and_is_beside_a_table(browser, site):
    browser.show(f"{site.url}/nested")
    assert browser.run("""
        const picture = document.querySelector("svg.timeline");
        return [picture.getAttribute("role"), picture.getAttribute("aria-label").length > 30,
                picture.nextElementSibling.tBodies[0].rows.length]""") == [
        "img", True, len(NESTED)]


# Refreshing.

UNTIL = """
const [test, done] = arguments, look = new Function("return " + test);
(function again() { if (look()) done(); else setTimeout(again, 10); })();"""


def wait_until(browser, test):
    browser.ask("/execute/async", script=UNTIL, args=[test])


class Counting:
    """Shows a page again and again, with another number in it each time."""

    def __init__(self, show):
        self.show, self.number = show, 0

    def __call__(self):
        self.number += 1
        return self.show().replace(b"</h1>", b" <i>%d</i></h1>" % self.number)


NUMBER = "Number(document.querySelector('i').textContent)"


@pytest.fixture
def refreshing(monkeypatch):
    """A site whose pages look for news all the time; the number of the page is in <i>."""
    monkeypatch.setattr(pages, "REFRESH", 0.05)
    with Site(**{name: Counting(show) for name, show in SHOWN.items()}) as site:
        yield site


@pytest.mark.parametrize("name", ["list", "many", "steps"])
def test_refreshes_itself_and_keeps_its_place(browser, refreshing, name):
    browser.show(f"{refreshing.url}/{name}", NARROW)
    most = browser.run("scrollTo(0, 300); return scrollY")
    begun = browser.run("return performance.timeOrigin")
    wait_until(browser, f"{NUMBER} > 3")
    assert browser.run("return [scrollY, performance.timeOrigin]") == [most, begun]


def test_keeps_what_is_folded_and_what_is_not(browser, refreshing):
    browser.show(f"{refreshing.url}/nested")  # opened, as it is not the first page of events
    for is_open in (False, True):
        browser.run("document.querySelector('details').open = arguments[0]", is_open)
        number = browser.run(f"return {NUMBER}")
        wait_until(browser, f"{NUMBER} > {number} + 2")
        assert browser.run("return document.querySelector('details').open") is is_open


def test_does_not_refresh_what_is_selected(browser, refreshing):
    browser.show(f"{refreshing.url}/nested")
    browser.run("getSelection().selectAllChildren(document.querySelector('dd'))")
    number, text = browser.run(f"return [{NUMBER}, getSelection().toString()]")
    served = refreshing.shown["nested"]
    seen = served.number
    wait_until(browser, "(window.looks = (window.looks || 0) + 1) > 40")
    assert served.number > seen + 2
    assert browser.run(f"return [{NUMBER}, getSelection().toString()]") == [number, text]
    browser.run("getSelection().removeAllRanges()")
    wait_until(browser, f"{NUMBER} > {number}")


def test_keeps_the_focus_and_what_is_being_searched_for(browser, refreshing):
    browser.show(f"{refreshing.url}/list")
    browser.run("const field = document.querySelector('[name=q]'); field.focus();"
                "field.value = 'web'; field.setSelectionRange(1, 2)")
    wait_until(browser, f"{NUMBER} > 3")
    assert browser.run("const field = document.activeElement; return ["
                       "field.name, field.value, field.selectionStart]") == ["q", "web", 1]
    browser.run("document.querySelectorAll('.row')[4].focus()")
    number = browser.run(f"return {NUMBER}")
    wait_until(browser, f"{NUMBER} > {number} + 2")
    assert browser.run("return document.activeElement.pathname") == "/devices/10.0.0.5"


def test_says_since_when_the_receiver_is_away_and_goes_on_trying(browser, refreshing):
    browser.show(f"{refreshing.url}/list")
    assert browser.run("return document.querySelector('#away').offsetHeight") == 0
    refreshing.is_away = True
    wait_until(browser, "document.querySelector('#away').offsetHeight > 0")
    words = browser.run("return document.querySelector('#away').textContent")
    assert words[:-5] == "not reached since "
    assert words[-3] == ":"
    assert browser.run("return document.querySelectorAll('tbody tr').length") == 43
    number = browser.run(f"return {NUMBER}")
    refreshing.is_away = False
    wait_until(browser, f"document.querySelector('#away').hidden && {NUMBER} > {number}")


def test_without_a_script_the_page_is_loaded_again(browser, site):
    browser.devtools("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.show(f"{site.url}/list")
        found = browser.devtools("DOM.getDocument", depth=-1)
    finally:
        browser.devtools("Emulation.setScriptExecutionDisabled", value=False)
    assert "'http-equiv', 'refresh', 'content', '5'" in str(found)
