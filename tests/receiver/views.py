"""What pages, JSON, CSV and metrics show in the same way: values made of rows."""
import datetime
import math

from receiver.events import seconds_between, time_of, time_text
from receiver.parameters import PAGE_MOST

KINDS = ("failed", "quiet", "running", "succeeded", "other", "never")
DONE = "succeeded"


def event_type(code):
    """Return what the timeline calls an event with code; None: phoned home."""
    return "phone_home" if code is None else f"user.{code}"


def event_view(row):
    """Return the event of a row, with the names that the platform's API had for it."""
    return {"id": row["id"], "type": event_type(row["code"]), "state": row["state"],
            "body": row["message"], "created_at": row["created_at"],
            "ip": row["address"], "modified_by": {}, "interpolated": row["message"],
            "code": row["code"], "message": row["message"], "device": row["machine"],
            "number": row["number"]}


def device_view(row, name, path):
    """Return what is told of the machine of a row.

    name: what it is called, or ""; path: of its page.
    """
    return {"id": row["id"], "device": row["machine"], "hostname": name or None, "path": path,
            "ip": row["address"], "state": row["shown"], "type": event_type(row["code"]),
            "code": row["code"], "message": row["message"],
            "steps_failed": row["failed"], "quiet": row["shown"] == "quiet",
            "events": row["events"], "last": row["last"],
            "last_event_at": row["last_at"], "run_began_at": row["run_at"],
            "state_since": row["state_at"]}


def never_view(machine, name, path):
    """Return what is told of a machine that is expected, and has told nothing."""
    return {"id": None, "device": machine, "hostname": name or None, "path": path,
            "ip": None, "state": "never", "type": None, "code": None, "message": "",
            "steps_failed": 0, "quiet": False, "events": 0, "last": 0,
            "last_event_at": None, "run_began_at": None, "state_since": None}


def state_text(device):
    """Return the state of a device_view in words: succeeded, 1 step failed."""
    failed = device["steps_failed"]
    if device["state"] == "succeeded" and failed:
        return f"succeeded, {failed} step{'s' if failed > 1 else ''} failed"
    return device["state"]


def step_view(row):
    """Return a step of a row; ended_at and seconds are None while it is open."""
    return {name: row[name] for name in ("code", "message", "state", "began_at",
                                         "ended_at", "seconds", "outcome")}


def fleet_view(row, name, path):
    """Return a kind of step of a row; name, path: of its slowest machine, if there is one."""
    return {"code": row["code"], "message": row["message"], "running": row["running"],
            "failed": row["failed"], "succeeded": row["succeeded"],
            "median_seconds": row["median"], "longest_seconds": row["longest"],
            "slowest": row["slowest"], "slowest_hostname": name or None,
            "slowest_path": path or None}


def counts_view(counts, never):
    """Return how many machines there are of each of KINDS; never: that have not told."""
    known = {kind: counts.get(kind, 0) for kind in KINDS}
    other = sum(count for state, count in counts.items()  # a machine may say "other", too
                if state == "other" or state not in KINDS)
    return dict(known, other=other, never=never)


def meta_view(path, page, per_page, total):
    """Return the paging of a list of total things, as the platform's API tells it.

    path: with the parameters that are to be kept, and a ? or & at its end.
    """
    last = min(max(1, math.ceil(total / per_page)), PAGE_MOST)

    def link(number):
        return {"href": f"{path}page={number}&per_page={per_page}"}
    return {"total": total, "current_page": page, "last_page": last,
            "self": link(page), "first": link(1), "last": link(last),
            "previous": link(page - 1) if page > 1 else None,
            "next": link(page + 1) if page < last else None}


def duration(seconds):
    """Return seconds as people say them, in the two largest units."""
    seconds = max(0, int(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds // 60 % 60} min"
    return f"{seconds // 86400} d {seconds // 3600 % 24} h"


def age(seconds):
    """Return seconds in one unit, so that ages in a column can be compared."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def bars(steps, now, least=0.0):
    """Return (begin, end, [(left, width, lane)]) of a picture of steps, step_views.

    begin and end: what the axis of time spans, datetimes. Of each step: where its bar
    begins and how long it is, as parts of the span; and its lane, the first that is
    free then, so that what is in a step lies below it. now: a datetime, at which the
    bars of open steps end. least: the part of the span that each bar and each gap has
    at the least; without an axis, time may be stretched where much happens.
    """
    now = time_text(now)
    first = min(step["began_at"] for step in steps)
    spans, free_at, lanes = [], [], []  # free_at: when the latest bar of a lane ends
    for step in steps:
        begin = seconds_between(first, step["began_at"])
        end = max(begin + 1e-6, seconds_between(first, step["ended_at"] or now))
        lane = next((lane for lane, at in enumerate(free_at) if at <= begin),
                    len(free_at))
        free_at[lane:lane + 1] = [end]
        spans.append((begin, end))
        lanes.append(lane)
    place, length = _places(spans, least)
    places = [(place[begin] / length, (place[end] - place[begin]) / length, lane)
              for (begin, end), lane in zip(spans, lanes)]
    begin, seconds = time_of(first), max(end for _, end in spans)
    return begin, begin + datetime.timedelta(seconds=seconds), places


def _places(spans, least):
    """Return {second: its place} of the ends of spans, and the length of all."""
    moments = sorted({moment for span in spans for moment in span})
    gap = least * moments[-1]
    place, at = {moments[0]: 0.0}, 0.0
    for before, after in zip(moments, moments[1:]):
        at += max(after - before, gap)
        place[after] = at
    return place, at


def csv_cell(value):
    """Return value for a cell of CSV; text that a spreadsheet would run is quoted."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value
