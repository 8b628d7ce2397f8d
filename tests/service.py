#!/usr/bin/env python3
"""A receiver of user state events: the metadata service and the timelines of machines.

    python3 tests/service.py [--host ADDRESS] [--port N] [--data FILE] [...]

Answers GET /metadata and POST /events as the servers behind metadata.packet.net did.
Every source address is a device with a timeline of its own. A person reads / in a
browser, a program /devices, and /devices/<id or address>/wait answers when a machine is
done.

From top to bottom: what an event is, the store, what is shown of it, the pages, the
metadata document, the answers to requests, the server, the command line.
"""
import argparse
import concurrent.futures
import contextlib
import datetime
import functools
import html
import http.server
import ipaddress
import json
import math
import os
import queue
import re
import signal
import socket
import socketserver
import sqlite3
import ssl
import string
import sys
import threading
import time
import urllib.parse
import uuid

BODY_MOST = 4 << 20  # bytes of an event; the real service documents no limit
LARGE = 64 << 10  # bytes of an event that takes memory to read, and
LARGE_MOST = 4  # how many of those are read at once, for about 20 MiB each
THREADS_MOST = 1500  # clients at once, a thread each: a thousand that idle, a storm
WAITING_MOST = 1000  # clients that wait for a machine, beyond those
REQUEST_MOST = 20  # seconds for a request and its answer, whatever the client does
CROWDED_MOST = 3  # seconds for the same while others cannot get in
DRAIN_MOST = 3  # seconds to read what a client sends that has been refused
IDLE_MOST = 10  # seconds that a thread lives without a client
SWEEP = 0.25  # seconds between two looks for clients that are over their time
FULL_PAUSE = 0.05  # seconds before the next try to let a client in
LOOK_EVERY = 2  # seconds after which one who waits looks whether its client has gone
WAIT, WAIT_MOST = 600, 86400  # seconds to wait for a machine: by default, at most
BATCH_MOST = 500  # events of one commit
LOCKED_MOST = 5  # seconds to wait for another process that holds the database
COMMIT_MOST = 15  # seconds to wait for a commit: less than REQUEST_MOST, to say 500
PER_PAGE, PER_PAGE_MOST = 10, 1000  # of JSON, as of the platform's API
PAGE_MOST = 100000  # the last page that can be asked for, as there
ROWS, EVENTS = 1000, 100  # of a page for people: devices, events of a device
LINE = 200  # characters of a message that one line shows
TEXT = 10000  # characters of a message that the page of its device shows
WORD = 20  # characters of a state that are shown: it may be anything
REFRESH = 5  # seconds between two loads of a page
QUIET_AFTER = 3600  # seconds of silence that are too long for a device that is running
CACHED = 10000  # addresses, about 1 MiB
WARN_EVERY = 60  # seconds between two equal lines on stderr
WARN_MOST = 100  # different lines in that time: there are many addresses

FIELDS = {"state": "", "code": 0, "message": ""}  # and what Go makes of those left out
STATES = ("failed", "running", "succeeded")  # in the order of their urgency
ENDS = ("succeeded", "failed")  # those that are waited for


def read_event(body):
    """Return the event in body (bytes) as Go's encoding/json reads it into a struct.

    Raises ValueError for what that refuses: quoted, fractional, exponent or 65-bit
    codes, strings that are none, a byte-order mark, anything behind the document. It
    takes names in any case, the last of equal ones, null and nothing as the zero value,
    and makes U+FFFD of every byte that is not UTF-8.
    """
    def refuse(text):
        raise ValueError(text)
    try:
        text = body.decode("utf-8", "surrogateescape")
        text = re.sub("[\udc80-\udcff]", "\ufffd", text)
        pairs = json.loads(text, object_pairs_hook=_Pairs, parse_constant=refuse,
                           parse_int=lambda digits: int(digits[:30]))
    except RecursionError:
        raise ValueError("too deep") from None
    if pairs is not None and not isinstance(pairs, _Pairs):
        raise ValueError("no object")
    event = dict(FIELDS)
    for name, value in pairs or ():
        name = name.lower().replace("\u017f", "s")  # Go folds the long s, too
        if name in FIELDS and value is not None:
            event[name] = _field(name, value)
    return event


class _Pairs(list):
    """A JSON object as (name, value) pairs."""


def _field(name, value):
    if type(value) is not type(FIELDS[name]):
        raise ValueError(name)
    if name != "code":  # a lone surrogate
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not -2**63 <= value < 2**63:
        raise ValueError(name)
    return value


@functools.lru_cache(CACHED)
def usual_address(text):
    """Return the address in text in its usual form, IPv4 in IPv6 as IPv4.

    Raises ValueError if it is none.
    """
    # ipaddress knows no zone before Python 3.9, and takes any text for one.
    match = re.fullmatch(r"([0-9A-Fa-f:.]+)(%[\w.-]{1,15})?", text, re.ASCII)
    if not match:
        raise ValueError(f"no address: {text:.50}")
    address = ipaddress.ip_address(match.group(1))
    address = getattr(address, "ipv4_mapped", None) or address
    return f"{address}{match.group(2) or ''}"


@functools.lru_cache(CACHED)
def device_id(address):
    """Return the id of the device at address."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"device:{address}"))


def time_text(moment):
    """Return moment, an aware datetime, as the API writes it: these sort as text."""
    moment = moment.astimezone(datetime.timezone.utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_of(text):
    """Return the datetime that time_text wrote."""
    return datetime.datetime.fromisoformat(text[:-1] + "+00:00")


def utc_now():
    return datetime.datetime.now(datetime.timezone.utc)


class StartError(Exception):
    """What prevents a start, as one line."""


class StoreError(OSError):
    """The database cannot take or give what it is asked for."""


APPLICATION = 0x75737374  # PRAGMA application_id, by which a database is known as ours
SCHEMA = f"""
BEGIN;
PRAGMA application_id = {APPLICATION};
CREATE TABLE IF NOT EXISTS events (
    number INTEGER PRIMARY KEY,  -- in the order in which they came
    id TEXT NOT NULL,
    address TEXT NOT NULL,       -- of the device
    state TEXT NOT NULL,
    code INTEGER,                -- NULL: the device has phoned home
    message TEXT NOT NULL,
    created_at TEXT NOT NULL,    -- UTC
    key TEXT                     -- the Idempotency-Key, if there was one
);
CREATE INDEX IF NOT EXISTS timeline ON events (address);
CREATE INDEX IF NOT EXISTS outcome ON events (address, code, state);
CREATE UNIQUE INDEX IF NOT EXISTS once ON events (address, key) WHERE key IS NOT NULL;
CREATE TABLE IF NOT EXISTS devices (
    address TEXT PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    place BLOB NOT NULL,         -- by which addresses are sorted as numbers
    events INTEGER NOT NULL,
    run_at TEXT NOT NULL,        -- time of the first event of its latest run
    last_at TEXT NOT NULL,       -- time of its latest event
    state TEXT NOT NULL,         -- the latest, or the beginning of it
    code INTEGER,
    message TEXT NOT NULL        -- the beginning of it, in one line
);
COMMIT;
"""
INSERT_EVENT = """
INSERT INTO events (id, address, state, code, message, created_at, key)
VALUES (:id, :address, :state, :code, :message, :created_at, :key)
ON CONFLICT DO NOTHING
"""
# An event without a state tells nothing new of a device that has one.
UPDATE_DEVICE = """
INSERT INTO devices (address, id, place, events, run_at, last_at, state, code, message)
VALUES (:address, :device, :place, 1, :created_at, :created_at, :word, :code, :line)
ON CONFLICT (address) DO UPDATE SET
    events = events + 1,
    run_at = CASE WHEN last_at < :run_ended THEN :created_at ELSE run_at END,
    last_at = :created_at,
    state = CASE WHEN :word = '' THEN state ELSE :word END,
    code = CASE WHEN :word = '' AND state != '' THEN code ELSE :code END,
    message = CASE WHEN :word = '' AND state != '' THEN message ELSE :line END
"""
# Failed first, then running, the one that is silent for the longest time first.
LIST_DEVICES = """
SELECT * FROM devices ORDER BY
    CASE state WHEN 'failed' THEN 0 WHEN 'running' THEN 1 ELSE 2 END,
    CASE state WHEN 'running' THEN last_at END, place
LIMIT ? OFFSET ?
"""
COUNT_DEVICES = """
SELECT state, count(*) AS count, total(state = 'running' AND last_at < ?) AS quiet
FROM devices GROUP BY state
"""
OUTCOME = """
SELECT number FROM events WHERE address = (SELECT address FROM devices WHERE id = ?)
AND state IN ('succeeded', 'failed') AND created_at > ?
"""
# When that which ends with an event began: the first time that it was running since the
# end before.
BEGUN = """
SELECT min(created_at) AS begun FROM events
WHERE address = :address AND code = :code AND state = 'running' AND number < :number
AND number > coalesce((SELECT max(number) FROM events WHERE address = :address
    AND code = :code AND state IN ('succeeded', 'failed') AND number < :number), 0)
"""


def event_row(address, event, key=None):
    """Return event, a dict, of the device at address as it is stored now."""
    return dict(event, id=str(uuid.uuid4()), address=address, key=key,
                device=device_id(address), place=_place(address),
                word=event["state"][:WORD],
                line=" ".join(event["message"][:LINE * 2].split())[:LINE],
                created_at=time_text(utc_now()))


class Store:
    """The events, in the SQLite database at path, or in memory if that is None.

    One thread writes; a lock guards each of the two connections, which are the same one
    in memory. Raises StartError if path cannot be used.
    """

    def __init__(self, path, quiet_after):
        self.quiet_after = datetime.timedelta(seconds=quiet_after)
        self.holder = None
        try:
            with contextlib.ExitStack() as undo:
                if path is not None:
                    _check_file(path)
                    self.holder = _Holder(path)
                    undo.callback(self.holder.undo)
                self.writer = _connect(path)
                undo.callback(self.writer.close)
                self.reader = self.writer if path is None else _connect(path)
                undo.pop_all()  # all is well
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"cannot use {path}: {error}") from None
        self.writing = threading.Lock()
        self.reading = self.writing if path is None else threading.Lock()
        self.queue = queue.SimpleQueue()  # (event, future) of those to be written
        self.listening = threading.Lock()
        self.listeners = {}  # device id: the queues of those who wait for it
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def put(self, address, event, key=None):
        """Keep event, a dict, of the device at address; return when it is committed.

        An event whose key (a str) the device has used before is not kept again. Raises
        StoreError if nothing of it is kept.
        """
        future = concurrent.futures.Future()
        self.queue.put((event_row(address, event, key), future))
        try:
            future.result(COMMIT_MOST)
        except concurrent.futures.TimeoutError:
            raise StoreError("the database takes too long") from None

    def _write(self):
        """Commit what has come in since the last commit, until None comes in."""
        closing = False
        while not closing:
            batch = [self.queue.get()]
            while len(batch) < BATCH_MOST and not self.queue.empty():
                batch.append(self.queue.get())
            closing = None in batch
            self._commit([item for item in batch if item is not None])

    def _commit(self, batch):
        """Commit the events of batch in one transaction and tell who waits, or none."""
        try:
            with self.writing:
                kept = self.insert([row for row, future in batch])
        except Exception as error:  # of whatever kind: the writer has to go on
            for _, future in batch:
                future.set_exception(StoreError(str(error)))
            return
        for _, future in batch:
            future.set_result(None)
        for row in kept:
            self._tell(row)

    def insert(self, rows):
        """Insert rows of event_row in one transaction; return those that are kept."""
        ended = time_text(utc_now() - self.quiet_after)
        try:
            self.writer.execute("BEGIN IMMEDIATE")
            kept = [row for row in rows
                    if self.writer.execute(INSERT_EVENT, row).rowcount]
            self.writer.executemany(UPDATE_DEVICE, [dict(row, run_ended=ended)
                                                    for row in kept])
            self.writer.execute("COMMIT")
            return kept
        finally:
            self.writer.rollback()  # nothing, after the commit

    def _tell(self, row):
        if row["state"] in ENDS:
            with self.listening:
                for arrivals in self.listeners.get(row["device"], ()):
                    arrivals.put(row)

    @contextlib.contextmanager
    def listen(self, device):
        """Give a queue of what device will end with; None in it: the service ends."""
        arrivals = queue.SimpleQueue()
        with self.listening:
            self.listeners.setdefault(device, []).append(arrivals)
        try:
            yield arrivals
        finally:
            with self.listening:
                self.listeners[device].remove(arrivals)
                if not self.listeners[device]:
                    del self.listeners[device]

    def _read(self, statement, values=()):
        """Return the rows that statement selects, as dicts."""
        try:
            with self.reading:
                return [dict(row) for row in self.reader.execute(statement, values)]
        except sqlite3.Error as error:
            raise StoreError(str(error)) from None

    def counts(self, now):
        """Return {state: number of devices}, and how many of them are quiet."""
        rows = self._read(COUNT_DEVICES, [time_text(now - self.quiet_after)])
        return ({row["state"]: row["count"] for row in rows},
                int(sum(row["quiet"] for row in rows)))

    def devices(self, offset, limit):
        """Return the rows of some devices, those to look after first."""
        return self._read(LIST_DEVICES, [limit, offset])

    def device(self, device):
        """Return the row of a device, or None if it has no event."""
        return (self._read("SELECT * FROM devices WHERE id = ?", [device]) or [None])[0]

    def numbers(self, address, offset, limit):
        """Return the numbers of some events of the device at address, newest first."""
        return [row["number"] for row in self._read(
            "SELECT number FROM events WHERE address = ? ORDER BY number DESC "
            "LIMIT ? OFFSET ?", [address, limit, offset])]

    def event(self, number):
        """Return an event as a row."""
        return self._read("SELECT * FROM events WHERE number = ?", [number])[0]

    def begun(self, row):
        """Return when that which ends with the event of row began, a str, or None."""
        return self._read(BEGUN, row)[0]["begun"]

    def outcome(self, device, code, since):
        """Return the newest event that ends something of device, or None.

        code: an int, or None for any; since: what it is newer than, of time_text or "".
        """
        only, values = ("AND code = ?", [code]) if code is not None else ("", [])
        found = self._read(f"{OUTCOME} {only} ORDER BY number DESC LIMIT 1",
                           [device, since, *values])
        return self.event(found[0]["number"]) if found else None

    def close(self):
        """Write what has come in, let those who wait go, close the database."""
        self.queue.put(None)
        self.thread.join()
        with self.listening:
            for arrivals in sum(self.listeners.values(), []):
                arrivals.put(None)
        with self.writing:
            self.writer.close()
        with self.reading:
            self.reader.close()
        if self.holder is not None:
            self.holder.close()


def _check_file(path):
    """Raise OSError if path is there and nothing that SQLite may open."""
    if not os.path.lexists(path):
        return
    if not os.path.isfile(path):
        raise OSError("it is no regular file")
    with open(path, "rb") as file:
        begin = file.read(16)
    if begin.startswith(b"{"):
        raise OSError("it holds lines of JSON, as version 1 wrote them, and is left as "
                      "it is; give another file")
    if begin not in (b"", b"SQLite format 3\0"):
        raise OSError("it is no SQLite database")


class _Holder:
    """Keeps a second service away from path, by whatever name, until it is closed.

    It locks a file of its own, so that sqlite3 can read and back up the database.
    Raises OSError or sqlite3.Error if it cannot.
    """

    def __init__(self, path):
        self.path = f"{os.path.realpath(path)}-lock"
        self.new = not os.path.lexists(self.path)
        self.connection = sqlite3.connect(self.path, timeout=0, isolation_level=None,
                                          check_same_thread=False)
        try:
            self.connection.execute("BEGIN EXCLUSIVE")
        except BaseException as error:  # a signal, too
            if isinstance(error, sqlite3.Error) and "locked" in str(error):
                self.close()  # sqlite3 tells no code before Python 3.11
                raise OSError(f"another service holds it ({error})") from None
            self.undo()
            raise

    def close(self):
        self.connection.close()

    def undo(self):
        """Close it and leave no file that was not there before."""
        if self.new:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.close()


def _connect(path):
    # The absolute path, as SQLite takes the name :memory: for no file.
    name = ":memory:" if path is None else os.path.abspath(path)
    connection = sqlite3.connect(name, timeout=LOCKED_MOST, isolation_level=None,
                                 check_same_thread=False)
    try:
        return _prepared(connection)
    except BaseException:  # also a signal, while it waits for another process
        connection.close()
        raise


def _prepared(connection):
    connection.row_factory = sqlite3.Row
    known = connection.execute("PRAGMA application_id").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if known != APPLICATION and tables:
        raise sqlite3.DatabaseError("it is the database of another program")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if known != APPLICATION:
        connection.executescript(SCHEMA)
    else:  # changes nothing, but fails if nothing can be written
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
    return connection


@functools.lru_cache(CACHED)
def _place(address):
    number = ipaddress.ip_address(address.partition("%")[0])
    return bytes([number.version]) + number.packed


def duration(span):
    """Return span, a timedelta, as people say it, in its two largest units."""
    seconds = max(0, int(span.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 86400:
        return f"{seconds // 3600} h {seconds // 60 % 60} min"
    return f"{seconds // 86400} d {seconds // 3600 % 24} h"


def event_type(code):
    """Return what the timeline calls an event with code; None: phoned home."""
    return "phone_home" if code is None else f"user.{code}"


def event_view(row):
    """Return the event of a row as the platform's API shows it."""
    return {"id": row["id"], "type": event_type(row["code"]), "state": row["state"],
            "body": row["message"], "created_at": row["created_at"],
            "ip": row["address"]}


def device_view(row, name, now, quiet_after):
    """Return what is told of the device of a row at now, a datetime.

    It is quiet if it has said that it is running, and nothing for quiet_after seconds.
    """
    silent = (now - time_of(row["last_at"])).total_seconds()
    return {"id": row["id"], "hostname": name, "ip": row["address"],
            "state": row["state"], "type": event_type(row["code"]),
            "message": row["message"],
            "quiet": row["state"] == "running" and silent > quiet_after,
            "events": row["events"], "last_event_at": row["last_at"],
            "run_began_at": row["run_at"]}


def counts_view(states, quiet):
    """Return how many devices there are of each kind, the ones to look after first."""
    known = {state: states.get(state, 0) for state in STATES}
    other = sum(states.values()) - sum(known.values())
    return dict(known, other=other, quiet=quiet)


def meta_view(path, page, per_page, total):
    """Return the paging of a list of total things, as the platform's API tells it."""
    last = max(1, math.ceil(total / per_page))

    def link(number):
        return {"href": f"{path}?page={number}&per_page={per_page}"}
    return {"total": total, "current_page": page, "last_page": last,
            "self": link(page), "first": link(1), "last": link(last),
            "previous": link(page - 1) if page > 1 else None,
            "next": link(page + 1) if page < last else None}


STYLE = """
:root { color-scheme: light dark; --line: #ccc; --dim: #555; --link: #0b57d0;
  --failed: #b3141c; --running: #0b57d0; --succeeded: #16702d }
@media (prefers-color-scheme: dark) { :root { --line: #444; --dim: #aaa;
  --link: #8ab4f8; --failed: #ff8a80; --running: #8ab4f8; --succeeded: #81c995 } }
body { font: 15px/1.4 system-ui, sans-serif; margin: 1em auto; max-width: 90em;
  padding: 0 1em }
h1 { font-size: 1.3em; margin: 0 0 .3em; overflow-wrap: anywhere }
a { color: var(--link) }
ul { display: flex; flex-wrap: wrap; gap: 0 1.5em; list-style: none; margin: 0 0 .6em;
  padding: 0 }
table { border-collapse: collapse; width: 100% }
th, td { border-bottom: 1px solid var(--line); padding: .25em .8em .25em 0;
  text-align: left; vertical-align: top; white-space: nowrap }
th { color: var(--dim); font-weight: normal }
td { font-variant-numeric: tabular-nums }
.devices td { overflow: hidden; text-overflow: ellipsis }
td.name { max-width: 11vw }
td.address { max-width: 9em }
.nameless .address { max-width: 19em }
.devices td:first-child { max-width: 9em }
.devices td.code { max-width: 6em }
.nameless .name { display: none }
.message { width: 99% }
.devices td.message { max-width: 0 }
.events td.message { overflow-wrap: anywhere; white-space: pre-wrap }
.failed { color: var(--failed); font-weight: bold }
.running { color: var(--running) }
.succeeded { color: var(--succeeded) }
.failed::before, .running::before, .succeeded::before { box-sizing: border-box;
  content: ""; display: inline-block; forced-color-adjust: none; height: .7em;
  margin-right: .4em; width: .7em }
.failed::before { background: currentColor;
  clip-path: polygon(50% 0, 100% 100%, 0 100%) }
.running::before { border: 2px solid currentColor; border-radius: 50% }
.succeeded::before { background: currentColor; border-radius: 50% }
.quiet::before { border-style: dotted }
@media (max-width: 50em) {
  table, tbody { display: block }
  thead { display: none }
  tr { border-bottom: 1px solid var(--line); display: flex; flex-wrap: wrap;
    gap: 0 1em; padding: .4em 0 }
  td, .devices td { border: 0; max-width: 100%; padding: 0 }
  td.message, .devices td.message { flex: 0 0 100%; max-width: 100%; order: 1;
    width: auto }
  td.message:empty, td.took:empty { display: none }
  td.run::before { color: var(--dim); content: "first " }
  td.took::before { color: var(--dim); content: "took " }
}
"""
FRAME = string.Template("""<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="refresh" content="$refresh">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>$style</style>
$content""")
DEVICES = string.Template("""<h1>Devices</h1>
<ul>$counts</ul>
<table class="devices $nameless">
<thead><tr><th>State<th class="name">Name<th>Address<th>Code<th class="message">Message
<th>Latest event<th title="$run">First event</thead>
<tbody>
$rows</tbody>
</table>
$pages""")
RUN = ("of its latest run: of those that followed each other without a gap longer than "
       "--quiet-after")
COUNT = string.Template('<li class="$kind">$count $word')
DEVICE = string.Template(
    '<tr><td class="$kind" title="$word">$word<td class="name" title="$name">$name'
    '<td class="address" title="$address"><a href="$link">$address</a>'
    '<td class="code" title="$code">$code<td class="message" title="$message">$message'
    '<td class="age" title="$last_at">$last ago'
    '<td class="age run" title="$run_at">$run ago\n')
TIMELINE = string.Template("""<h1>$name $address</h1>
<ul><li><a href="/">All devices</a><li><a href="$link/events">JSON</a></ul>
<table class="events">
<thead><tr><th>State<th>Code<th class="message">Message<th>Took<th>Time (UTC)</thead>
<tbody>
$rows</tbody>
</table>
$pages""")
EVENT = string.Template(
    '<tr><td class="$kind">$word<td class="code">$type<td class="message">$message'
    '<td class="took">$took'
    '<td class="time"><time datetime="$at" title="$at">$time</time>\n')
PAGES = string.Template('<p>Page $page of $last. <a href="$first">First</a> '
                        '<a href="$next">Next</a>\n')


def fill(template, values, **parts):
    """Return template with values, escaped, and parts, which are HTML, in it."""
    return template.substitute(
        {name: html.escape(str(value)) for name, value in values.items()}, **parts)


def frame(title, content):
    """Return the whole page of content, which is HTML, as bytes."""
    values = {"refresh": REFRESH, "title": title}
    return fill(FRAME, values, style=STYLE, content=content).encode("utf-8", "replace")


def state_shown(state, quiet=False):
    """Return (class, word) of a state, which may be any string."""
    kind = state if state in STATES else "other"
    return (kind + " quiet", state + ", quiet") if quiet else (kind, state[:WORD])


def pages_shown(meta, path):
    """Return where to find the other pages, in HTML."""
    if meta["last_page"] == 1:
        return ""
    page, last = meta["current_page"], meta["last_page"]
    return fill(PAGES, {"page": page, "last": last, "first": path,
                        "next": f"{path}?page={min(page + 1, last)}"})


def devices_page(devices, counts, meta, names, now):
    """Return the page of devices, which are device_view's."""
    rows = []
    for device in devices:
        kind, word = state_shown(device["state"], device["quiet"])
        last_at, run_at = device["last_event_at"], device["run_began_at"]
        rows.append(fill(DEVICE, {
            "kind": kind, "word": word, "name": device["hostname"] if names else "",
            "link": device_link(device["ip"]), "address": device["ip"],
            "code": device["type"].replace("user.", ""), "message": device["message"],
            "last_at": last_at, "last": duration(now - time_of(last_at)),
            "run_at": run_at, "run": duration(now - time_of(run_at))}))
    told = "".join(fill(COUNT, {"kind": kind, "count": count, "word": kind})
                   for kind, count in counts.items() if count or kind in ENDS)
    title = f"{counts['failed']} failed, {counts['running']} running"
    if not devices:
        return frame(title, "<h1>Devices</h1>\n<p>No event yet.\n")
    values = {"nameless": "" if names else "nameless", "run": RUN}
    return frame(title, fill(DEVICES, values, counts=told, rows="".join(rows),
                             pages=pages_shown(meta, "/")))


def device_link(address):
    return "/devices/" + urllib.parse.quote(address, safe=":")


def timeline_page(events, meta, address, name):
    """Return the page of one device; events are (event_view, when it began or None)."""
    rows = []
    for event, began_at in events:
        kind, word = state_shown(event["state"])
        message, at, took = event["body"], time_of(event["created_at"]), ""
        if len(message) > TEXT:
            message = f"{message[:TEXT]} [the rest of it is in the JSON]"
        if began_at is not None:
            took = duration(at - time_of(began_at))
        rows.append(fill(EVENT, {
            "kind": kind, "word": word, "type": event["type"], "message": message,
            "took": took, "at": event["created_at"], "time": f"{at:%d %b %H:%M:%S}"}))
    link = device_link(address)
    return frame(f"{name} {address}", fill(
        TIMELINE, {"name": name, "address": address, "link": link},
        rows="".join(rows), pages=pages_shown(meta, link)))


def document(device, address, name, service):
    """Return a metadata document of the real shape; what is not given is invented."""
    family = 6 if ":" in address else 4
    size = "255.255.255.254" if family == 4 else "ffff:" * 7 + "fffe"

    def network(of, ip, public, netmask):
        return {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, f"address:{ip}")),
            "address_family": of, "netmask": netmask,
            "created_at": "2024-02-25T18:55:11Z", "public": public,
            "cidr": 127 if of == 6 else 31, "management": True, "enabled": True,
            "network": ip, "address": ip, "gateway": ip,
            "parent_block": {"network": ip, "netmask": netmask,
                             "cidr": 56 if of == 6 else 25, "href": f"/ips/{device}"},
        }

    return {
        "id": device,
        "hostname": name,
        "iqn": f"iqn.2024-02.net.packet:device.{device[:8]}",
        "operating_system": {
            "slug": "custom_ipxe", "distro": "custom_ipxe", "version": "1",
            "license_activation": {"state": "unlicensed"}, "image_tag": None},
        "plan": "c3.medium.x86", "reserved": False, "class": "c3.medium.x86",
        "facility": "da11", "metro": "da",
        "private_subnets": ["10.0.0.0/8"],
        "tags": ["practice"],
        "ssh_keys": [
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINotAKeyJustForPractice you@laptop"],
        "customdata": {},
        "specs": {
            "cpus": [{"count": 1, "type": "AMD EPYC 7402P 24-Core Processor"}],
            "memory": {"total": "64GB"},
            "drives": [
                {"count": 2, "size": "240GB", "type": "SSD", "category": "boot"},
                {"count": 2, "size": "480GB", "type": "SSD", "category": "storage"}],
            "nics": [{"count": 2, "type": "10Gbps"}],
            "features": {"raid": True, "txt": True, "uefi": False}},
        "switch_short_id": "5707e61f",
        "storage": {
            "disks": [{"device": "/dev/sda", "wipeTable": True, "partitions": [
                {"label": "BIOS", "number": 1, "size": 4096},
                {"label": "SWAP", "number": 2, "size": "3993600"},
                {"label": "ROOT", "number": 3, "size": 0}]}],
            "filesystems": [
                {"mount": {"device": "/dev/sda3", "format": "ext4", "point": "/",
                           "create": {"options": ["-L", "ROOT"]}}},
                {"mount": {"device": "/dev/sda2", "format": "swap", "point": "none",
                           "create": {"options": ["-L", "SWAP"]}}}]},
        "volumes": [],
        "network": {
            "bonding": {"mode": 4, "link_aggregation": "mlag_ha",
                        "mac": "02:00:5e:10:00:01"},
            "interfaces": [
                {"name": "eth0", "mac": "02:00:5e:10:00:01", "bond": "bond0"},
                {"name": "eth1", "mac": "02:00:5e:10:00:02", "bond": "bond0"}],
            "addresses": [network(family, address, True, size),
                          network(4, "10.70.17.9", False, "255.255.255.254")],
            "metal_gateways": []},
        "api_url": service,
        "phone_home_url": f"{service}/phone-home",
        "user_state_url": f"{service}/events",
    }


def numbers_of(query, **limits):
    """Return the numbers in query, a part of an address, by name.

    limits: (default, least, most) by name. Raises ValueError for a number beyond them.
    """
    given = urllib.parse.parse_qs(query, keep_blank_values=True)
    numbers = []
    for name, (default, least, most) in limits.items():
        text = given.get(name, [str(default)])[-1]
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError(f"{name}: must be a number from {least} to {most}")
        numbers.append(int(text))
    return numbers


def wait_options(query):
    """Return what is to be waited for: the code or None, seconds, time_text or "".

    Raises ValueError for what is not understood.
    """
    given = urllib.parse.parse_qs(query, keep_blank_values=True)
    for name, values in given.items():
        if name not in ("code", "timeout", "since") or len(values) > 1:
            raise ValueError("there are code, timeout and since, each once")
    code = given.get("code", [None])[0]
    if code is not None:
        if not re.fullmatch("-?[0-9]{1,19}", code) or not -2**63 <= int(code) < 2**63:
            raise ValueError("code: must be a number like 1099")
        code = int(code)
    timeout = given.get("timeout", [str(WAIT)])[0]
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", timeout) or (
            float(timeout) > WAIT_MOST):
        raise ValueError(f"timeout: must be seconds, at most {WAIT_MOST}")
    since = given.get("since", [None])[0]
    return code, float(timeout), "" if since is None else time_text(rfc3339(since))


def rfc3339(text):
    """Return the datetime that text says in the way of RFC 3339; or ValueError."""
    # A + that was not written as %2B has become a space.
    match = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})"
                         r"(\.[0-9]+)?([Zz]|[-+ ][0-9]{2}:[0-9]{2})", text)
    if not match:
        raise ValueError("since: must be a time like 2026-01-31T12:00:00Z")
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone.replace(" ", "+")
    fraction = f"{fraction or '.'}000000"[:7]
    try:
        moment = datetime.datetime.fromisoformat(f"{date}T{clock}{fraction}{zone}")
        return moment.astimezone(datetime.timezone.utc)
    except (ValueError, OverflowError):
        raise ValueError("since: there is no such time") from None


def device_named(text):
    """Return the id of the device that text, a part of a path, names by id or address.

    Raises ValueError if it is neither.
    """
    text = urllib.parse.unquote(text)
    if re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text):
        return text
    return device_id(usual_address(text))


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one client."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "userstate", ""
    wbufsize = -1  # head and body in one packet

    def setup(self):
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()

    def handle_one_request(self):
        self.server.watch(self.connection)
        super().handle_one_request()

    def parse_request(self):
        self.server.watch(self.connection)  # the time before does not count
        return super().parse_request()

    def handle_expect_100(self):
        # Else the client would send what is then refused.
        return not self.refused() and super().handle_expect_100()

    def log_message(self, format, *args):
        """Say nothing: the timeline is the log."""

    def answer(self):
        if self.refused():
            return
        length = int(self.headers.get("Content-Length", "0"))
        with self.server.room_for(length):
            self.body = self.rfile.read(length)
            if len(self.body) < length:
                self.close_connection = True
                return
            try:
                self.dispatch()
            except StoreError as error:
                self.server.warn("the database fails, the answer is 500", f": {error}")
                self.reply_error(500, str(error))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def refused(self):
        """Refuse what no request may be, and return True; else note whose it is."""
        self.route, _, self.query = self.path.partition("?")
        refusal = self.size_refusal() or self.site_refusal()
        try:
            self.address = self.find_address()
        except ValueError:
            refusal = 400, "X-Forwarded-For: the last entry must be an address"
        if refusal is None:
            return False
        status, reason = refusal
        self.close_connection = True
        if reason:
            self.reply_error(status, reason)
        else:
            self.reply(status)
        self.wfile.flush()
        self.drain()
        return True

    def drain(self):
        """End the answer, and read what still comes: a reset would overtake it."""
        ends = time.monotonic() + DRAIN_MOST
        cut_off(self.connection, socket.SHUT_WR)
        self.connection.settimeout(DRAIN_MOST)
        while time.monotonic() < ends and self.rfile.read1(LARGE):
            pass

    def size_refusal(self):
        lengths = set(self.headers.get_all("Content-Length", ["0"]))
        length = lengths.pop()
        if self.headers.get("Transfer-Encoding"):
            return 411, ""
        if lengths or not re.fullmatch("[0-9]+", length):
            return 400, ""
        if len(length) > 9 or int(length) > BODY_MOST:
            return 413, ""
        return None

    def site_refusal(self):
        """Refuse what a page on another site makes the browser of a visitor do."""
        host = self.headers.get("Host", "")
        if host and not self.server.knows_host(host):
            return 403, "Host: not a name of this service; see its option --host-name"
        if self.route not in WRITING:
            return None
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return 403, "Origin: another site"
        if self.headers.get("Sec-Fetch-Site") == "cross-site":
            return 403, "Sec-Fetch-Site: another site"
        return None

    def find_address(self):
        """Return the address of the device; raise ValueError if a proxy tells none."""
        address = usual_address(self.client_address[0])
        forwarded = self.headers.get_all("X-Forwarded-For")
        if forwarded and address == self.server.proxy:
            address = usual_address(forwarded[-1].rpartition(",")[2].strip())
        return address

    def dispatch(self):
        for methods, pattern, function in ROUTES:
            match = re.fullmatch(pattern, self.route)
            if match and (methods is None or self.command in methods):
                function(self, *match.groups())
                return
        self.reply_not_found()

    def events(self):
        try:
            event = read_event(self.body)
        except ValueError:
            return self.reply(400)
        return self.put(event)

    def phone_home(self):
        self.put({"state": "", "code": None, "message": "phoned home"})

    def put(self, event):
        key = self.headers.get("Idempotency-Key", "").strip()  # an empty one is none
        self.server.put(self.address, event, key or None)
        self.reply(200)

    def metadata(self):
        device = self.server.device(self.address)
        if self.command != "GET":
            self.reply_json(405, {"message": "method not allowed"})
        elif device is None:
            self.reply_not_found()
        else:
            name = self.server.name(self.address)
            self.reply_json(200, document(device, self.address, name, self.own_url()))

    def own_url(self):
        """Return the address of the service as this client knows it."""
        scheme = self.server.scheme
        proxied = usual_address(self.client_address[0]) == self.server.proxy
        if proxied and self.headers.get("X-Forwarded-Proto") == "https":
            scheme = "https"
        host = self.headers.get("Host") or host_port(*self.connection.getsockname()[:2])
        return f"{scheme}://{host}"

    def devices_page(self):
        self.show_devices(ROWS, self.reply_devices_page)

    def devices_json(self):
        self.show_devices(PER_PAGE, self.reply_devices_json)

    def show_devices(self, per_page, reply):
        try:
            page, per_page = self.paging(per_page)
        except ValueError as error:
            return self.reply_error(400, str(error))
        server, now = self.server, utc_now()
        counts = counts_view(*server.store.counts(now))
        total = sum(counts.values()) - counts["quiet"]
        devices = [
            device_view(row, server.name(row["address"]), now, server.quiet_after)
            for row in server.store.devices((page - 1) * per_page, per_page)]
        return reply(devices, counts, meta_view(self.route, page, per_page, total), now)

    def reply_devices_page(self, devices, counts, meta, now):
        self.reply_html(devices_page(devices, counts, meta, self.server.names, now))

    def reply_devices_json(self, devices, counts, meta, now):
        self.reply_json(200, {"devices": devices, "counts": counts, "meta": meta})

    def paging(self, per_page):
        return numbers_of(self.query, page=(1, 1, PAGE_MOST),
                          per_page=(per_page, 1, PER_PAGE_MOST))

    def timeline_page(self, text):
        self.show_timeline(text, EVENTS, self.reply_timeline_page)

    def timeline_json(self, text):
        self.show_timeline(text, PER_PAGE, self.reply_timeline_json)

    def show_timeline(self, text, per_page, reply):
        try:
            page, per_page = self.paging(per_page)
        except ValueError as error:
            return self.reply_error(400, str(error))
        try:
            device = device_named(text)
        except ValueError:
            return self.reply_not_found()
        store = self.server.store
        row = store.device(device)
        if row is None:
            if device != self.server.device(self.address):
                return self.reply_not_found()
            row = {"address": self.address, "events": 0}  # it asks for its own
        address = row["address"]
        numbers = store.numbers(address, (page - 1) * per_page, per_page)
        meta = meta_view(self.route, page, per_page, row["events"])
        return reply(address, map(store.event, numbers), meta)

    def reply_timeline_page(self, address, rows, meta):
        events = ((event_view(row), self.begun(row)) for row in rows)
        name = self.server.names.get(address, "")
        self.reply_html(timeline_page(events, meta, address, name))

    def begun(self, row):
        return self.server.store.begun(row) if row["state"] in ENDS else None

    def reply_timeline_json(self, address, rows, meta):
        """Reply without a length: a thousand events of 4 MiB do not fit in memory."""
        self.close_connection = True
        self.start_reply(200, "application/json")
        if self.command == "HEAD":
            return
        self.wfile.write(f'{{"meta": {json.dumps(meta)},\n"events": ['.encode())
        separator = ""
        with contextlib.suppress(StoreError):  # what is cut short is no JSON
            for row in rows:
                self.wfile.write(f"{separator}\n{json.dumps(event_view(row))}".encode())
                separator = ","
            self.wfile.write(b"]}\n")

    def wait(self, text):
        try:
            device = device_named(text)
            code, timeout, since = wait_options(self.query)
        except ValueError as error:
            return self.reply_error(400, str(error))
        ends = time.monotonic() + timeout

        def awaited(row):
            return code in (None, row["code"]) and row["created_at"] > since
        with self.server.store.listen(device) as arrivals:
            row = self.server.store.outcome(device, code, since)
            if row is None:
                self.close_connection = True
                if not self.server.let_wait(self.connection):
                    return self.reply_error(503, "too many clients wait",
                                            "Retry-After: 10")
                row = self.next_of(arrivals, awaited, ends)
                self.server.watch(self.connection)
        if row is None:
            return self.reply_error(504, f"nothing has ended within {timeout:g} s")
        status = 200 if row["state"] == "succeeded" else 409
        return self.reply_json(status, event_view(row))

    def next_of(self, arrivals, awaited, ends):
        """Return the next row of arrivals that is awaited, or None when time ends.

        Raises OSError if the client has gone or the service ends.
        """
        left = ends - time.monotonic()
        while left > 0:
            try:
                row = arrivals.get(timeout=min(left, LOOK_EVERY))
            except queue.Empty:
                self.check_client()
            else:
                if row is None:
                    raise OSError("the service ends")
                if awaited(row):
                    return row
            left = ends - time.monotonic()
        return None

    def check_client(self):
        """Raise OSError if the client has gone; what else it says is lost."""
        self.connection.setblocking(False)
        try:
            if not self.connection.recv(1):
                raise OSError("the client has gone")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        self.connection.setblocking(True)

    def reply_not_found(self):
        self.reply_json(404, {"message": "resource not found"})

    def reply_error(self, status, reason, *headers):
        self.reply_json(status, {"errors": [reason]}, *headers)

    def reply_json(self, status, value, *headers):
        self.reply(status, json.dumps(value, indent=2).encode(), "application/json",
                   *headers)

    def reply_html(self, page):
        self.reply(200, page, "text/html; charset=utf-8",
                   "Content-Security-Policy: default-src 'none'; "
                   "frame-ancestors 'none'; style-src 'unsafe-inline'")

    def reply(self, status, body=b"", kind=None, *headers):
        self.start_reply(status, kind, f"Content-Length: {len(body)}", *headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def start_reply(self, status, kind, *headers):
        self.send_response(status)
        for header in headers:
            self.send_header(*header.split(": ", 1))
        if kind:
            self.send_header("Content-Type", kind)
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


READ = ("GET", "HEAD")
ROUTES = (  # methods (None: any), path, what answers
    (None, "/events", Handler.events),
    (None, "/metadata", Handler.metadata),
    (("POST",), "/phone-home", Handler.phone_home),
    (READ, "/", Handler.devices_page),
    (READ, "/devices", Handler.devices_json),
    (READ, "/devices/([^/]+)", Handler.timeline_page),
    (None, "/devices/([^/]+)/events", Handler.timeline_json),
    (READ, "/devices/([^/]+)/wait", Handler.wait),
)
WRITING = ("/events", "/phone-home")  # not for pages of other sites


def host_port(host, port):
    """Return host and port as an address of the web has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Service(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """The service at (host, port), port 0 for a free one; serve with serve_forever().

    data: the file of the database, None for one in memory; only: the addresses that are
    known, None for all; names: {address: name}; quiet_after: seconds; host_names: more
    names by which it may be asked; proxy: an address whose X-Forwarded-For is believed;
    tls: an ssl.SSLContext. Raises StartError, OSError, OverflowError (a port).
    """

    daemon_threads = True
    request_queue_size = 1024  # clients not yet let in; the system may allow less

    def __init__(self, host="127.0.0.1", port=0, data=None, only=None, names=None,
                 quiet_after=QUIET_AFTER, host_names=(), proxy=None, tls=None):
        self.only = None if only is None else frozenset(only)
        self.names, self.quiet_after = names or {}, quiet_after
        own = socket.gethostname()
        self.host_names = {name.lower().rstrip(".") for name in (
            "localhost", own, own.partition(".")[0], *host_names)}
        self.proxy, self.tls = proxy, tls
        self.scheme = "http" if tls is None else "https"
        self.clients = queue.SimpleQueue()  # (connection, address), each for a thread
        self.idle = threading.Semaphore(0)  # how many threads have none
        self.serving = {}  # connection: when its request began, of those with a thread
        self.waiting = set()  # connections of those that wait for a machine
        self.entering = threading.Lock()  # of waiting
        self.large = threading.BoundedSemaphore(LARGE_MOST)
        self.crowded_at = self.swept_at = -math.inf
        self.warned = {}  # line: when it was said, of the last WARN_EVERY seconds
        self.warning = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.store = Store(data, quiet_after)
        super().__init__((host, port), Handler)  # which closes all if it fails

    @property
    def url(self):
        """The address of the service, without a slash at its end."""
        return f"{self.scheme}://{host_port(*self.server_address[:2])}"

    def device(self, address):
        """Return the id of the device at address, or None if it is not known."""
        if self.only is not None and address not in self.only:
            return None
        return device_id(address)

    def name(self, address):
        """Return what the device at address is called."""
        return self.names.get(address, f"practice-{device_id(address)[:8]}")

    def put(self, address, event, key=None):
        """Put event on the timeline of the device at address, if that is known.

        key: a str, which the device uses once for an event and again for a repetition.
        Raises OSError, and keeps nothing of the event, if the database cannot take it.
        """
        if self.device(address) is None:
            self.warn(f"an event of {address} was dropped: it is not in --only")
        else:
            self.store.put(address, event, key)

    def timeline(self, device):
        """Return the events of device, newest first."""
        row = self.store.device(device)
        numbers = self.store.numbers(row["address"], 0, row["events"]) if row else []
        return [event_view(self.store.event(number)) for number in numbers]

    def knows_host(self, host):
        """Return whether host, of a header, is an address or a name of this service."""
        match = re.fullmatch(r"(?:\[([^]]+)\]|([^:]+))(?::[0-9]{1,5})?", host)
        if not match:
            return False
        try:
            usual_address(match.group(1) or match.group(2))
        except ValueError:
            return host.partition(":")[0].lower().rstrip(".") in self.host_names
        return True

    def server_bind(self):
        # HTTPServer's asks DNS for the name of the host, which can take long.
        socketserver.TCPServer.server_bind(self)

    def get_request(self):
        """Let a client in; raise OSError if there is no thread or descriptor for it."""
        if len(self.serving) >= THREADS_MOST:
            self.be_crowded(f"all {THREADS_MOST} threads are taken; more clients wait")
            raise OSError("no thread")
        try:
            connection, address = super().get_request()
        except OSError as error:
            self.be_crowded(f"cannot let clients in: {error.strerror}")
            raise
        if self.tls is not None:  # the handshake is for its thread
            connection = self.tls.wrap_socket(connection, server_side=True,
                                              do_handshake_on_connect=False)
        self.watch(connection)
        return connection, address

    def be_crowded(self, line):
        self.warn(line)
        self.crowded_at = time.monotonic()
        time.sleep(FULL_PAUSE)  # as the client that cannot get in stays ready

    def process_request(self, request, client_address):
        """Give a client to a thread that is idle, or to a new one."""
        # A new thread for each client would halve the events per second, as
        # Thread.start waits until it runs.
        if not self.idle.acquire(blocking=False):
            threading.Thread(target=self.work, daemon=True).start()
        self.clients.put((request, client_address))

    def work(self):
        """Serve clients until none comes for a while, or None for the end."""
        while True:
            try:
                client = self.clients.get(timeout=IDLE_MOST)
            except queue.Empty:
                if self.idle.acquire(blocking=False):
                    return
                continue  # one is on its way
            if client is None:
                self.clients.put(None)  # for the next thread
                return
            self.process_request_thread(*client)
            self.idle.release()

    def watch(self, connection):
        """Start the time for a request on connection, and for its answer."""
        self.serving[connection] = time.monotonic()
        with self.entering:
            self.waiting.discard(connection)

    def let_wait(self, connection):
        """Return whether connection may wait for a machine, now without a time."""
        most = waiting_most()
        with self.entering:
            if len(self.waiting) >= most:
                self.warn(f"{most} clients wait for machines; more are refused")
                return False
            self.waiting.add(connection)
        del self.serving[connection]
        return True

    def service_actions(self):
        """Cut off clients whose time is over; called by serve_forever all the time."""
        now = time.monotonic()
        if now - self.swept_at < SWEEP:
            return
        self.swept_at = now
        most = CROWDED_MOST if now - self.crowded_at < 4 * SWEEP else REQUEST_MOST
        for connection, since in list(self.serving.items()):
            if now - since > most:
                cut_off(connection)

    def room_for(self, length):
        """Return a context manager that holds room in memory for an event of length."""
        return self.large if length > LARGE else contextlib.nullcontext()

    def shutdown_request(self, request):
        super().shutdown_request(request)
        self.serving.pop(request, None)
        with self.entering:
            self.waiting.discard(request)

    def server_close(self):
        super().server_close()
        self.store.close()
        self.clients.put(None)
        for connection in list(self.serving):
            cut_off(connection)

    def handle_error(self, request, client_address):
        """Say nothing of a client that went away."""
        kind, error, _ = sys.exc_info()
        if not issubclass(kind, OSError):
            self.warn(f"cannot answer: {kind.__name__}", f": {str(error)!a}")

    def warn(self, line, more=""):
        """Say line, and more, on stderr, unless line was said a short time ago."""
        now = time.monotonic()
        with self.warning:
            self.warned = {said: at for said, at in self.warned.items()
                           if now - at <= WARN_EVERY}
            if line in self.warned or len(self.warned) >= WARN_MOST:
                return
            self.warned[line] = now
        say(line + more)


def cut_off(connection, how=socket.SHUT_RDWR):
    """Wake the thread that reads or writes connection: there is nothing more."""
    with contextlib.suppress(OSError):
        # Not SSLSocket's, which would take the TLS away from its thread.
        socket.socket.shutdown(connection, how)


def say(line):
    print(f"service: {line}", file=sys.stderr, flush=True)


def read_names(path):
    """Return {address: name} of a file in the form of hosts(5); raise StartError."""
    names = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):  # noqa: B007 (the last is told below)
                words = line.partition("#")[0].split()
                if words:
                    names.setdefault(usual_address(words[0]), words[1])
    except OSError as error:
        raise StartError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise StartError(f"cannot read {path}: it is not UTF-8") from None
    except (ValueError, IndexError):
        raise StartError(f"{path}, line {number}: must be an address and a name"
                         ) from None
    return names


def read_tls(certificate, key):
    """Return the context for https, or None without a certificate; raise StartError."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise StartError("--tls-cert and --tls-key belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password, as OpenSSL would ask the terminal for it.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise StartError(f"cannot use {certificate} and {key}: {error}") from None
    return context


def seconds(text):
    """Return text as a number of seconds; raise ValueError for what is none."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text) or float(text) == 0:
        raise ValueError(text)
    return float(text)


def allow_descriptors():
    """Allow as many descriptors as there may be clients, if the system lets us."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not in every system
        least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = THREADS_MOST + WAITING_MOST + 100  # files and what the system needs
        if most != resource.RLIM_INFINITY:
            wanted = min(wanted, most)
        if least != resource.RLIM_INFINITY and least < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def waiting_most():
    """Return how many clients may wait: others have half of the descriptors."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most != resource.RLIM_INFINITY:
            return min(WAITING_MOST, most // 2)
    return WAITING_MOST


def parse(argv):
    """Return the options in argv."""
    parser = argparse.ArgumentParser(
        description="A receiver of user state events: metadata, events, timelines.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="the address to listen on (127.0.0.1); who reaches it can post and read")
    add("--port", type=int, default=8000, metavar="N",
        help="the port, 0 for a free one (8000)")
    add("--data", metavar="FILE",
        help="keep the events in this file, a database of SQLite; else in memory")
    add("--only", nargs="+", type=usual_address, metavar="ADDRESS",
        help="the devices that are known; without it every address is one")
    add("--names", metavar="FILE",
        help="names of devices, as in /etc/hosts: an address and a name on each line")
    add("--quiet-after", type=seconds, default=QUIET_AFTER, metavar="SECONDS",
        help="mark a device that is running as quiet when it has said nothing for so "
             "long; the next event begins a new run (3600)")
    add("--host-name", action="append", default=[], metavar="NAME",
        help="a name by which this service is asked, besides its addresses, localhost "
             "and the name of this machine; may be given again")
    add("--tls-cert", metavar="FILE", help="serve https with this certificate (PEM)")
    add("--tls-key", metavar="FILE", help="and its key (PEM, without a password)")
    add("--trust-proxy", type=usual_address, metavar="ADDRESS",
        help="a proxy in front of this service: from there the last entry of "
             "X-Forwarded-For is the device, and X-Forwarded-Proto is believed; it has "
             "to pass on Host")
    return parser.parse_args(argv)


def start(options):
    """Return the Service of options, started; raise StartError."""
    names = read_names(options.names) if options.names is not None else None
    tls = read_tls(options.tls_cert, options.tls_key)
    try:
        return Service(
            options.host, options.port, options.data, options.only, names=names,
            quiet_after=options.quiet_after, host_names=options.host_name,
            proxy=options.trust_proxy, tls=tls)
    except (OSError, OverflowError, UnicodeError) as error:
        raise StartError(f"cannot start on {options.host} port {options.port}: {error}"
                         ) from None


def announce(service):
    """Say on stdout where service is; raise StartError if that cannot be written."""
    try:
        print(f"# the timeline: {service.url}/\n"
              f"export USERSTATE_METADATA_URL={service.url}/metadata", flush=True)
    except OSError as error:
        # Python would try again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StartError(f"cannot write to stdout: {error.strerror}") from None


def serve(options):
    """Serve until KeyboardInterrupt; raise StartError."""
    service = start(options)
    try:
        host = service.server_address[0].partition("%")[0]
        if not ipaddress.ip_address(host).is_loopback:
            say(f"whoever reaches {service.url} can post and read")
        announce(service)
        service.serve_forever()
    finally:
        # A second one ends it at once.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        service.server_close()


def main(argv=None):
    """Serve until Ctrl-C or SIGTERM; return the exit status."""
    options = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        allow_descriptors()
        try:
            serve(options)
        except StartError as error:
            say(error)
            return 1
    except KeyboardInterrupt:  # during the start, too
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
