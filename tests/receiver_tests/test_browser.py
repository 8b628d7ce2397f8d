"""The pages in Chromium, as a person sees them."""
import datetime
import threading

import pytest

import service
from support.browser import HEIGHT, NARROW, WIDE
from support.receivers import Receiver, event, read_page
from support.tools import slow

pytestmark = slow
NAMES = {f"10.0.0.{n}": f"node-{n:02}.rack1.example.com" for n in range(1, 51)}
FAILED = ("10.0.0.18", "10.0.0.45")
RUNNING = [f"10.0.0.{n}" for n in range(1, 51, 5)]
LONG = "exit status 100 after 3 s: E: Unable to locate package grub-efi-amd64-signed " * 9
HOSTILE = "<script>document.title = 'run'</script><b id=bold>&amp;</b>"


def latest_state(address):
    if address in FAILED:
        return "failed"
    return "running" if address in RUNNING else "succeeded"


@pytest.fixture(scope="session")
def fleet():
    """Fifty machines that install themselves; two have failed, one has no name."""
    with Receiver(names=NAMES) as receiver:
        for address in NAMES:
            receiver.put(address, event("running", 1000, LONG))
            receiver.put(address, event(latest_state(address), 1099, "a\n" + LONG))
        receiver.put("10.0.0.1", event("x" * 500, -2**63, "y" * 5000))
        for address in ("10.0.0.50", "2001:db8:1234:5678:9abc:def0:1234:5678"):
            receiver.put(address, event("succeeded", 1, HOSTILE))
        yield receiver


PATHS = ["/", "/devices/10.0.0.1", "/devices/10.0.0.50"]
CELLS_OF_TWO_LINES = """
return [...document.querySelectorAll("th, td, li")].filter(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
}).map(cell => cell.className)"""


@pytest.mark.parametrize("path, classes", [
    ("/", set()), ("/devices/10.0.0.1", {"message"}), ("/devices/10.0.0.50", {"message"})])
def test_no_cell_but_the_message_has_two_lines(browser, fleet, path, classes):
    browser.show(fleet.url + path)
    assert browser.run("return document.querySelectorAll('td').length") > 3
    assert set(browser.run(CELLS_OF_TWO_LINES)) == classes


OVERFLOWING = """
const clipped = arguments[0];
return [document.documentElement, ...document.querySelectorAll("body *")].filter(
  e => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > innerWidth
).filter(e => !clipped.includes(e.className)).map(e => e.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("path, clipped", [
    ("/", ["name", "message"]), ("/devices/10.0.0.1", []), ("/devices/10.0.0.50", [])])
def test_nothing_overflows_but_what_is_clipped(browser, fleet, path, clipped, width):
    browser.show(fleet.url + path, width)
    assert browser.run("return innerWidth") == width
    assert browser.run(OVERFLOWING, clipped) == []


def test_the_message_has_room_at_400_pixels(browser, fleet):
    browser.show(fleet.url + "/devices/10.0.0.50", NARROW)
    assert browser.run("return document.querySelector('td.message').offsetWidth") > 300


ADDRESSES = """
return [...document.querySelectorAll("td.address")].map(cell => ({
  title: cell.title, text: cell.firstChild.textContent, path: cell.firstChild.pathname,
  cut: cell.scrollWidth > cell.clientWidth,
  room: cell.parentNode.querySelector(".message").offsetWidth}))"""


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("names", [
    {"192.168.200.200": "node-01.rack12.building7.example.com"}, None],
    ids=["named", "nameless"])
def test_a_long_address_leaves_the_message_its_room(browser, width, names):
    long, short = "fe80:1234:5678:9abc:def0:1234:5678:9abc%enp129s0f1np1.4", "192.168.200.200"
    an_hour = datetime.timedelta(seconds=3590)
    an_hour_ago = f"{datetime.datetime.now(datetime.timezone.utc) - an_hour:%FT%T.000000Z}"
    with Receiver(names=names, quiet_after=1) as receiver:
        for address in (long, short):
            receiver.put(address, event("running", 1000, LONG))
        receiver.execute("UPDATE devices SET run_at = ?, last_at = ?",
                         [an_hour_ago, an_hour_ago])
        browser.show(receiver.url, width)
        assert browser.run("return document.documentElement.scrollWidth") == width
        shown = {cell["title"]: cell for cell in browser.run(ADDRESSES)}
        assert set(shown) == {long, short}
        for address, cut in ((long, True), (short, False)):
            cell = shown[address]
            assert cell["text"] == address
            assert cell["path"] == "/devices/" + address.replace("%", "%25")
            assert cell["cut"] is cut
            assert cell["room"] >= 0.35 * width
            assert "user.1000" in read_page(receiver, cell["path"])


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_failed_devices_are_above_the_fold(browser, fleet, width):
    browser.show(fleet.url, width)
    bottoms = browser.run("return [...document.querySelectorAll('td.failed')].map("
                          "e => e.getBoundingClientRect().bottom)")
    assert len(bottoms) == 2
    assert max(bottoms) < HEIGHT / 2
    assert browser.run("return document.documentElement.scrollHeight") < 6000


@pytest.mark.parametrize("path", ["/", "/devices/10.0.0.50"])
def test_a_message_of_html_is_text(browser, fleet, path):
    browser.show(fleet.url + path)
    shown = browser.run("return [...document.querySelectorAll('td.message')].map("
                        "e => e.textContent)")
    assert HOSTILE in shown
    assert browser.run("return document.querySelectorAll('script, #bold').length") == 0
    assert browser.run("return document.title") != "run"


CONTRASTS = """
const paper = document.body.appendChild(document.createElement("p"));
paper.style.backgroundColor = "Canvas";
function luminance(color) {
  const [r, g, b] = color.match(/[0-9.]+/g).map(v => v / 255).map(
    v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
const back = luminance(getComputedStyle(paper).backgroundColor);
return [back, ...[...document.querySelectorAll("h1, th, td, a, li")].map(e => {
  const ink = luminance(getComputedStyle(e).color);
  return (Math.max(ink, back) + 0.05) / (Math.min(ink, back) + 0.05);
})]"""
ENOUGH = 4.5  # WCAG, level AA


@pytest.mark.parametrize("path", PATHS)
def test_is_readable_on_light_paper(browser, fleet, path):
    browser.show(fleet.url + path)
    paper, *contrasts = browser.run(CONTRASTS)
    assert paper > 0.9
    assert min(contrasts) > ENOUGH


@pytest.mark.parametrize("path", PATHS)
def test_is_readable_on_dark_paper(browser, fleet, path):
    browser.show(fleet.url + path, dark=True)
    paper, *contrasts = browser.run(CONTRASTS)
    assert paper < 0.05
    assert min(contrasts) > ENOUGH


def test_states_differ_by_word_and_shape(browser, fleet):
    browser.show(fleet.url)
    shapes = browser.run("""
        return ["failed", "running", "succeeded"].map(name => {
          const cell = document.querySelector("td." + name);
          const style = getComputedStyle(cell, "::before");
          return [cell.textContent, style.clipPath + style.borderWidth + style.borderRadius];
        })""")
    assert [word for word, _ in shapes] == ["failed", "running", "succeeded"]
    assert len({shape for _, shape in shapes}) == 3


WHEN_LOADED = """
const done = arguments[0];
const tell = () => requestAnimationFrame(() => done([performance.timeOrigin, scrollY]));
if (document.readyState === "complete") tell();
else addEventListener("load", tell);"""


@pytest.mark.parametrize("path", ["/", "/devices/10.0.0.1"])
def test_refreshes_itself_and_keeps_its_place(browser, fleet, path, settings, monkeypatch):
    settings(REFRESH=1)
    loads = threading.Semaphore(0)
    frame = service.frame

    def note(*words):
        loads.release()
        return frame(*words)
    monkeypatch.setattr(service, "frame", note)
    browser.show(fleet.url + path)
    first = browser.run("scrollTo(0, 300); return performance.timeOrigin")
    assert browser.run("return scrollY") == 300
    for _ in range(3):
        assert loads.acquire(timeout=20)
    again, place = browser.ask("/execute/async", script=WHEN_LOADED, args=[])
    assert again > first
    assert place == 300
