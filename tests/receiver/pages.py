"""What people see: views as HTML and SVG, as bytes.

Every text of a machine goes through fill(), the one place that escapes.
"""
import base64
import datetime
import functools
import hashlib
import html
import pkgutil
import string
import urllib.parse

from receiver import views
from receiver.events import seconds_between, time_of, time_text

REFRESH = 5  # seconds between two looks of a page
TEXT = 10000  # characters of a message that the page of its machine shows
WORD = 20  # characters of a state that are shown: it may be anything
STRIP_MOST = 60  # bars of a strip
STRIP_LEAST = 0.01  # part of a strip that a bar, and a gap, has at the least
STRIP_HIGH, LANE_HIGH = 28, 10  # pixels at the most
AXIS_HIGH, STEP_HIGH = 24, 22  # pixels
BAR_LEAST = 0.005  # part of a timeline; what is shorter is drawn three pixels wide
FAILED_MOST = 5  # failed steps that are told above the timeline
TICKS_MOST = 4  # parts of an axis: at 400 pixels no two of their texts touch
SECOND, MINUTE, HOUR, DAY = 1, 60, 3600, 86400
TICKS = (*(n * SECOND for n in (1, 2, 5, 10, 15, 30)),
         *(n * MINUTE for n in (1, 2, 5, 10, 15, 30)),
         *(n * HOUR for n in (1, 2, 3, 6, 12)),
         *(n * DAY for n in (1, 2, 5, 10, 30, 90, 365, 1825, 7300)))
WORDS = {"never": "never reported"}  # of states, where they are counted


def devices_page(devices, steps, counts, meta, state, text, now, install=None):
    """Return the page of devices, views, of which each row has a strip of its steps.

    steps: {machine: step_views}; counts, meta: views; state, text: what was asked for,
    or None and ""; now: a datetime; install: what install_parts() returned, or None.
    """
    done, total = counts[views.DONE], sum(counts.values())
    heading, told, table = "Nothing has arrived yet", "", ""
    if total:
        heading, told = f"{done} of {total} done", _counts(counts, total, state, text)
    if devices:
        rows = [_device_row(device, steps.get(device["device"], ()), now)
                for device in devices]
        named = any(device["hostname"] for device in devices)
        table = fill("devices_table", {"columns": "named" if named else "nameless"},
                     rows="".join(rows))
    elif install is None:
        table = fill("nothing", {"text": _nothing_found(state, text)})
    title = f"{counts['failed']} failed, {done} of {total} done"
    return _frame(title, fill(
        "devices", {"heading": heading, "json": _path("/devices", state, text),
                    "csv": _path("/devices.csv", state, text)},
        counts=told, install=install or "", table=table, pages=_pages(meta)),
        state, text)


def device_page(device, steps, events, meta, now):
    """Return the page of a device, a view: what it is now, its steps, its events.

    steps: step_views of its latest run; events: some event_views, the newest first,
    of which meta, a view, is the paging; now: a datetime.
    """
    name = device["hostname"] or device["device"]
    address = "" if device["ip"] in (None, name) else device["ip"]
    return _frame(f"{views.state_text(device)}: {name}", fill(
        "device", {"name": name, "address": address, "total": meta["total"],
                   "link": device["path"]},
        facts="".join(_fact(*fact) for fact in _facts(device, steps, now)),
        timeline=_timeline(device, steps, now) if steps else "",
        open=" open" if meta["current_page"] > 1 else "",
        events="".join(map(_event_row, events)), pages=_pages(meta)))


def steps_page(kinds, meta, now):
    """Return the page of kinds of steps, fleet_views; meta: a view; now: a datetime."""
    longest = max((kind["longest_seconds"] or 0 for kind in kinds), default=0) or 1
    rows = "".join(_kind_row(kind, longest) for kind in kinds)
    nothing = "" if kinds else fill("nothing", {"text": "No step has been told of."})
    return _frame("Steps of all machines", fill(
        "steps", {"at": _exact(time_text(now))}, rows=rows, pages=_pages(meta),
        nothing=nothing))


def install_parts(url, sha256, script):
    """Return what to paste on a machine, in HTML.

    url: of this receiver; sha256: of its userstate.py; script: for user-data.
    """
    return fill("install", {"url": url, "sha256": sha256, "script": script})


def install_page(url, sha256, script):
    """Return the page that has install_parts()."""
    return _frame("Install", fill("install_page", {},
                                  parts=install_parts(url, sha256, script)))


def missing_page(text):
    """Return the page for a machine that is not known; text: how it was called."""
    return _frame("Not known", fill("missing", {"text": text[:TEXT]}))


def fill(name, values, **parts):
    """Return the template name with values, escaped, and parts, HTML, filled in."""
    return _template(name).substitute(
        {key: html.escape(str(value)) for key, value in values.items()}, **parts)


@functools.lru_cache(None)
def _template(name):
    return string.Template(_read(f"{name}.html"))


def _read(name):
    return pkgutil.get_data("receiver", f"pages/{name}").decode()


def _frame(title, content, state=None, text=""):
    """Return the whole page of content, which is HTML, as bytes."""
    kept = "" if state is None else fill("kept", {"state": state})
    page = fill("frame", {"refresh": REFRESH, "title": title, "text": text},
                style=STYLE, script=SCRIPT, kept=kept, content=content)
    return page.encode("utf-8", "replace")


def _hash(text):
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


STYLE, SCRIPT = _read("style.css"), _read("refresh.js")
POLICY = ("default-src 'none'; frame-ancestors 'none'; base-uri 'none'; "
          "form-action 'self'; connect-src 'self'; "
          f"style-src {_hash(STYLE)}; script-src {_hash(SCRIPT)}")


def _path(path, state, text):
    """Return path with the filters that are set."""
    values = {name: value for name, value in (("state", state), ("q", text)) if value}
    if not values:
        return path
    return f"{path}?{urllib.parse.urlencode(values, errors='replace')}"


def _counts(counts, total, state, text):
    """Return how many machines there are of each kind, as links to them, in HTML."""
    shown = [(None, total, "all")] + [
        (kind, count, WORDS.get(kind, kind)) for kind, count in counts.items()
        if count or kind in ("failed", state)]
    return "".join(
        fill("count", {"kind": kind or "all", "count": count, "word": word,
                       "link": _path("/", kind, text)},
             current=' aria-current="true"' if kind == state else "")
        for kind, count, word in shown)


def _nothing_found(state, text):
    if not state and not text:
        return "Nothing has arrived yet."
    is_so = f" is {WORDS.get(state, state)}" if state else ""
    has_text = f' with "{text}" in its name, address or message' if text else ""
    return f"No machine{has_text}{is_so}."


def _pages(meta):
    """Return where to find the other pages, in HTML."""
    if meta["last_page"] == 1 and meta["current_page"] == 1:
        return ""
    links = {name: _link("page_link", meta[name]["href"], name.capitalize())
             if meta[name] else "" for name in ("first", "previous", "next", "last")}
    return fill("paging", {"page": meta["current_page"], "of": meta["last_page"]},
                **links)


def _link(template, link, text):
    return fill(template, {"link": link, "text": text}) if text else ""


def _device_row(device, steps, now):
    machine, name = device["device"], device["hostname"] or ""
    address = device["ip"] or ("" if machine == name else machine)
    main, other = "row", "over"  # the link that the whole row is, and one more
    link = device["path"]
    last_at, run_at = device["last_event_at"], device["run_began_at"]
    return fill("devices_row", {
        "kind": _kind(device["state"]), "word": views.state_text(device) or "no state",
        "name": name, "address": address, "link": link,
        "type": _code(device), "message": device["message"],
        "last_at": _exact(last_at), "last": _age(last_at, now),
        "run_at": _exact(run_at), "run": _age(run_at, now)},
        name_link=_link(main, link, name),
        address_link=_link(other if name else main, link, address),
        strip=_strip(device, steps, now))


def _kind(state):
    """Return the class of a state, which may be any text."""
    return state if state in views.KINDS else "other"


def _step_kind(step, device):
    """Return the class of a step; what is open of a machine that is quiet is quiet."""
    is_quiet = device["state"] == "quiet" and step["state"] == "running"
    return "quiet" if is_quiet else _kind(step["state"])


def _code(view):
    return (view["type"] or "").replace("user.", "")


def _exact(text):
    """Return a time of time_text with its year and zone, for people; "" for none."""
    return f"{time_of(text):%Y-%m-%d %H:%M:%S} UTC" if text else ""


def _short(text):
    return f"{time_of(text):%d %b %H:%M:%S}"


def _age(text, now):
    return views.age(seconds_between(text, time_text(now))) if text else ""


def _seconds(step, now):
    """Return how long a step took, or has taken until now."""
    if step["seconds"] is not None:
        return step["seconds"]
    return seconds_between(step["began_at"], time_text(now))


def _told(step, now):
    """Return what a bar says of its step."""
    took = views.duration(_seconds(step, now))
    state = f"{step['state']} {'for' if step['state'] == 'running' else 'after'}"
    return f"{step['code']} {step['message']}: {state} {took}"


def _percent(part):
    return f"{100 * part:.2f}%"


def _strip(device, steps, now):
    """Return a picture of steps in one row, in HTML."""
    if not steps:
        return ""
    shown = _most_telling(steps, now)
    _, _, places = views.bars(shown, now, min(STRIP_LEAST, 0.25 / len(shown)))
    lanes = 1 + max(lane for _, _, lane in places)
    high = min(LANE_HIGH, STRIP_HIGH / lanes)
    bars = [fill("bar", {
        "kind": _step_kind(step, device), "left": _percent(left),
        "width": _percent(width), "top": f"{lane * high:.1f}",
        "height": f"{high * 0.8:.1f}", "title": _told(step, now)})
        for step, (left, width, lane) in zip(shown, places)]
    failed = sum(step["state"] == "failed" for step in steps)
    label = f"{len(steps)} steps, {failed} failed"
    return fill("strip", {"height": f"{lanes * high:.0f}", "label": label},
                bars="".join(bars))


def _most_telling(steps, now):
    """Return steps without the shortest of those that succeeded, if there are many."""
    if len(steps) <= STRIP_MOST:
        return steps
    order = sorted(range(len(steps)), key=lambda index: (
        steps[index]["state"] == "succeeded", -_seconds(steps[index], now)))
    return [steps[index] for index in sorted(order[:STRIP_MOST])]


def _facts(device, steps, now):
    """Return what a device is now: (term, text, class, what is told of it)."""
    state_at, last_at = device["state_since"], device["last_event_at"]
    if last_at is None:
        return [("State", "never reported", "never", "")]
    state = views.state_text(device) or "no state"
    state += f" since {_short(state_at)} UTC ({_since(state_at, now)})"
    facts = [("State", state, _kind(device["state"]), _exact(state_at))]
    term = "Failed" if device["state"] == "failed" else "Message"
    facts.append((term, f"{_code(device)} {device['message']}", "message", ""))
    facts += _failures(device, steps)
    facts += [("Step", _told(step, now), "message", f"since {_exact(step['began_at'])}")
              for step in steps if step["ended_at"] is None][-1:]
    began_at = device["run_began_at"]
    end_at = time_text(now) if device["state"] == "running" else last_at
    facts.append(("In all", views.duration(seconds_between(began_at, end_at)), "",
                  f"from {_exact(began_at)} to {_exact(end_at)}"))
    facts.append(("Latest", f"{_since(last_at, now)} ago", "", _exact(last_at)))
    return facts


def _failures(device, steps):
    """Return the steps that failed, but for the one that the device tells, as facts."""
    told = device["code"], device["message"]
    failed = [step for step in steps if step["state"] == "failed"
              and (step["code"], step["outcome"]) != told]
    facts = [("Failed", f"{step['code']} {step['outcome'] or step['message']}",
              "message", _exact(step["ended_at"])) for step in failed[:FAILED_MOST]]
    if failed[FAILED_MOST:]:
        facts.append(("", f"and {len(failed) - FAILED_MOST} more", "", ""))
    return facts


def _fact(term, text, kind, title):
    return fill("fact", {"term": term, "text": text, "kind": kind, "title": title})


def _since(text, now):
    return views.duration(seconds_between(text, time_text(now)))


def _timeline(device, steps, now):
    """Return steps as a picture with an axis of time, and as a table, in HTML."""
    begin, end, places = views.bars(steps, now)
    bars, labels, rows = [], [], []
    for number, (step, place) in enumerate(zip(steps, places)):
        kind, top = _step_kind(step, device), AXIS_HIGH + number * STEP_HIGH
        bars.append(_step_bar(step, kind, place, top, now))
        labels.append(fill("label", {
            "kind": kind, "lane": min(place[2], 3), "top": top, "height": STEP_HIGH,
            "text": step["message"] or step["code"]}))
        rows.append(_step_row(step, kind, now))
    failed = sum(step["state"] == "failed" for step in steps)
    label = (f"Timeline of {len(steps)} steps, {failed} failed, from "
             f"{_exact(time_text(begin))} to {_exact(time_text(end))}. "
             "The table below has the same.")
    return fill("timeline", {"height": AXIS_HIGH + len(steps) * STEP_HIGH,
                             "label": label},
                ticks="".join(_ticks(begin, end)), bars="".join(bars),
                labels="".join(labels), rows="".join(rows))


def _step_bar(step, kind, place, top, now):
    """Return the bar of a step, and its seconds at the end of it."""
    left, width, _ = place
    bar = fill("bar", {
        "kind": kind, "left": _percent(left), "top": top + 4, "height": STEP_HIGH - 8,
        "width": 3 if width < BAR_LEAST else _percent(width),
        "title": _told(step, now)})
    return bar + fill("took", {
        "kind": kind, "left": _percent(left + width), "top": top + STEP_HIGH - 7,
        "text": views.duration(_seconds(step, now))})


def _ticks(begin, end):
    """Give the marks of an axis of time, at round times, in HTML."""
    span = (end - begin).total_seconds()
    size = next((size for size in TICKS if span <= TICKS_MOST * size), TICKS[-1])
    seconds = -begin.timestamp() % size  # to the first round time
    if seconds > span:
        seconds = 0
    while seconds <= span:
        at = begin + datetime.timedelta(seconds=seconds)
        yield fill("tick", {"left": _percent(seconds / span),
                            "text": _tick_text(at, size)})
        seconds += size


def _tick_text(at, size):
    if size < MINUTE:
        return f"{at:%H:%M:%S}"
    if size < DAY and (at.hour or at.minute):
        return f"{at:%H:%M}"
    return f"{at:%d %b}" if size < 90 * DAY else f"{at:%b %Y}"


def _step_row(step, kind, now):
    return fill("step_row", {
        "kind": kind, "word": kind if kind == "quiet" else step["state"][:WORD],
        "code": step["code"], "message": step["message"], "outcome": step["outcome"],
        "at": step["began_at"], "exact": _exact(step["began_at"]),
        "time": _short(step["began_at"]), "took": views.duration(_seconds(step, now))})


def _event_row(event):
    message, at = event["message"], event["created_at"]
    if len(message) > TEXT:
        message = f"{message[:TEXT]} [the rest of it is in the JSON]"
    return fill("event_row", {
        "kind": _kind(event["state"]), "word": event["state"][:WORD],
        "type": event["type"], "message": message, "at": at, "exact": _exact(at),
        "time": _short(at)})


def _kind_row(kind, longest):
    """Return the row of a kind of step; longest: the most seconds of all kinds."""
    def took(name):
        seconds = kind[name]
        return "" if seconds is None else views.duration(seconds)
    slowest = kind["slowest"] or ""
    name = kind["slowest_hostname"] or slowest
    return fill("steps_row", {
        **{state: kind[state] for state in ("running", "failed", "succeeded")},
        "code": kind["code"], "message": kind["message"], "slowest": slowest,
        "failing": "failed" if kind["failed"] else "",
        "median": took("median_seconds"), "longest": took("longest_seconds"),
        "median_width": _percent((kind["median_seconds"] or 0) / longest),
        "longest_width": _percent((kind["longest_seconds"] or 0) / longest)},
        slowest_link=_link("page_link", kind["slowest_path"], name))
