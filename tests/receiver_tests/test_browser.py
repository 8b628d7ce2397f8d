"""The pages in Chromium, as a person sees them."""
import datetime
import threading

import pytest

import service
from support.browser import HEIGHT, NARROW, WIDE
from support.receivers import Receiver, get
from support.tools import slow

pytestmark = slow
NAMES = {f"10.0.0.{n}": f"node-{n:02}.rack1.example.com" for n in range(1, 51)}
LONG = "exit status 100 after 3 s: E: Unable to locate package grub-efi-amd64-signed " * 9
HOSTILE = "<script>document.title = 'run'</script><b id=bold>&amp;</b>"


@pytest.fixture(scope="session")
def fleet():
    """Fifty machines that install themselves; two have failed, one has no name."""
    with Receiver(names=NAMES) as receiver:
        for number, address in enumerate(NAMES):
            receiver.put(address, {"state": "running", "code": 1000, "message": LONG})
            state = "failed" if number in (17, 44) else "succeeded" if number % 5 else "running"
            receiver.put(address, {"state": state, "code": 1099, "message": "a\n" + LONG})
        receiver.put("10.0.0.1", {"state": "x" * 500, "code": -2**63, "message": "y" * 5000})
        for address in ("10.0.0.50", "2001:db8:1234:5678:9abc:def0:1234:5678"):
            receiver.put(address, {"state": "succeeded", "code": 1, "message": HOSTILE})
        yield receiver


PATHS = ("/", "/devices/10.0.0.1", "/devices/10.0.0.50")
CELLS_OF_TWO_LINES = """
return [...document.querySelectorAll("th, td, li")].filter(cell => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
}).map(cell => cell.className)"""
OVERFLOWING = """
return [document.documentElement, ...document.querySelectorAll("body *")].filter(
  e => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > innerWidth
).map(e => e.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("path", PATHS)
def test_no_cell_but_the_message_has_two_lines(browser, fleet, path):
    browser.show(fleet.url + path)
    assert browser.run("return document.querySelectorAll('td').length") > 3
    broken = browser.run(CELLS_OF_TWO_LINES)
    assert set(broken) == (set() if path == "/" else {"message"})


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("path", PATHS)
def test_nothing_overflows(browser, fleet, path, width):
    browser.show(fleet.url + path, width)
    assert browser.run("return innerWidth") == width
    clipped = {"name", "message"} if path == "/" else set()
    assert [text for text in browser.run(OVERFLOWING) if not any(
        f'class="{name}"' in text for name in clipped)] == []


def test_the_message_has_room_at_400_pixels(browser, fleet):
    browser.show(fleet.url + "/devices/10.0.0.50", NARROW)
    assert browser.run("return document.querySelector('td.message').offsetWidth") > 300


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("named", [True, False])
def test_a_long_address_leaves_the_message_its_room(browser, width, named):
    address = "fe80:1234:5678:9abc:def0:1234:5678:9abc%enp129s0f1np1.4"
    short = "192.168.200.200"
    names = {short: "node-01.rack12.building7.example.com"}
    with Receiver(names=names if named else None, quiet_after=1) as receiver:
        for device in (address, short):
            receiver.put(device, {"state": "running", "code": 1000, "message": LONG})
        past = service.time_text(service.utc_now() - datetime.timedelta(seconds=3590))
        receiver.store.writer.execute(
            "UPDATE devices SET run_at = ?, last_at = ?", (past, past))
        browser.show(receiver.url, width)
        assert browser.run("return document.documentElement.scrollWidth") == width
        shown = browser.run("""
            return [...document.querySelectorAll("td.address")].map(cell => [
              cell.title, cell.firstChild.textContent, cell.scrollWidth > cell.clientWidth,
              cell.firstChild.pathname, cell.parentNode.querySelector(".message").offsetWidth,
              cell.offsetWidth])""")
        path = service.device_link(address)
        assert {row[0]: row[1:4] for row in shown} == {
            short: [short, False, "/devices/" + short],
            address: [address, True, path]}
        assert min(row[4] for row in shown) >= 0.35 * width
        assert b"user.1000" in get(receiver.url + path)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_failed_devices_are_above_the_fold(browser, fleet, width):
    browser.show(fleet.url, width)
    failed = browser.run("return [...document.querySelectorAll('td.failed')].map("
                         "e => e.getBoundingClientRect().bottom)")
    assert len(failed) == 2 and max(failed) < HEIGHT / 2
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


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("path", PATHS)
def test_is_readable(browser, fleet, path, dark):
    browser.show(fleet.url + path, dark=dark)
    paper, *contrasts = browser.run(CONTRASTS)
    assert paper < 0.05 if dark else paper > 0.9
    assert min(contrasts) > 4.5  # WCAG, level AA


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


@pytest.mark.parametrize("path", ["/", "/devices/10.0.0.1"])
def test_refreshes_itself_and_keeps_its_place(browser, fleet, path, monkeypatch):
    monkeypatch.setattr(service, "REFRESH", 1)
    loads = threading.Semaphore(0)
    frame = service.frame

    def noting(*words):
        loads.release()
        return frame(*words)
    monkeypatch.setattr(service, "frame", noting)
    browser.show(fleet.url + path)
    first = browser.run("scrollTo(0, 300); return performance.timeOrigin")
    assert browser.run("return scrollY") == 300
    for _ in range(3):
        assert loads.acquire(timeout=20)
    again, place = browser.ask("/execute/async", script="""
        const done = arguments[0];
        const tell = () => requestAnimationFrame(
          () => done([performance.timeOrigin, scrollY]));
        if (document.readyState === "complete") tell();
        else addEventListener("load", tell);""", args=[])
    assert again > first and place == 300
