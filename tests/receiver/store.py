"""The events and what is kept of machines, in a SQLite database; one thread writes it."""
import concurrent.futures
import contextlib
import datetime
import json
import os
import queue
import sqlite3
import threading
import time
import uuid

from receiver import events, machines
from receiver.lines import say

BATCH_MOST = 500  # events of one commit
LOCKED_MOST = 5  # seconds to wait for another process that holds the database
COMMIT_MOST = 15  # seconds to wait for a commit: less than REQUEST_MOST, to say 500
READERS = 4  # connections that search at once; one more finds machines by their names
QUERY_MOST = 5  # seconds to wait for a connection, and for a search: two less than REQUEST_MOST
STEPS_BETWEEN = 1000  # of SQLite's virtual machine, between two looks at the time
LINE = 200  # characters of a message that one line shows
WORD = 20  # characters of a state that are shown: it may be anything
SWEEP_EVERY = 3600  # seconds between two looks for events that are older than --keep
SWEEP_MOST = 500  # events that are deleted in one transaction

APPLICATION = 0x75737374  # PRAGMA application_id, by which a database is known as ours
VERSION = 3  # PRAGMA user_version; 2.0 wrote 0
SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order in which they came
    id TEXT NOT NULL,
    machine TEXT NOT NULL,       -- its address, or its NAME
    address TEXT NOT NULL,       -- where it came from
    state TEXT NOT NULL,
    code INTEGER,                -- NULL: the machine has phoned home
    message TEXT NOT NULL,
    created_at TEXT NOT NULL,    -- UTC
    key TEXT                     -- the Idempotency-Key, if there was one
);
CREATE INDEX timeline ON events (machine);
CREATE INDEX ends ON events (machine, code) WHERE state IN ('succeeded', 'failed');
CREATE UNIQUE INDEX once ON events (machine, key) WHERE key IS NOT NULL;
CREATE TABLE devices (
    machine TEXT PRIMARY KEY,    -- its address, or its NAME
    id TEXT NOT NULL UNIQUE,
    place BLOB NOT NULL,         -- by which machines are sorted, addresses as numbers
    address TEXT NOT NULL,       -- where its latest event came from
    events INTEGER NOT NULL,     -- how many it has
    run INTEGER NOT NULL,        -- the number of the first event of its latest run
    run_at TEXT NOT NULL,        -- and its time
    last INTEGER NOT NULL,       -- the number of its latest event
    last_at TEXT NOT NULL,       -- and its time
    state TEXT NOT NULL,
    state_at TEXT NOT NULL,      -- since when it is in that state
    telling INTEGER NOT NULL,    -- the number of the event that tells why
    code INTEGER,                -- of that event
    message TEXT NOT NULL,       -- the beginning of that event's, in one line
    failed INTEGER NOT NULL,     -- steps of its run that have failed on the way
    ended INTEGER,               -- as in events.Run
    kept TEXT NOT NULL           -- JSON: events.Run's last and failures
);
CREATE INDEX states ON devices (state);
CREATE TABLE steps (             -- of the latest run of each machine
    machine TEXT NOT NULL,
    number INTEGER NOT NULL,     -- of the event that opened it
    code INTEGER NOT NULL,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    began_at TEXT NOT NULL,
    ended_at TEXT,
    seconds REAL,                -- between these
    outcome TEXT NOT NULL,       -- the message of its end
    has_failed INTEGER NOT NULL, -- 1 if it has failed, also if it has succeeded since
    PRIMARY KEY (machine, number)
) WITHOUT ROWID;
CREATE INDEX took ON steps (code, message, seconds);
CREATE TABLE totals (            -- how many steps there are of each kind
    code INTEGER NOT NULL,
    message TEXT NOT NULL,
    state TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (code, message, state)
) WITHOUT ROWID;
CREATE TABLE checks (number INTEGER PRIMARY KEY, count INTEGER NOT NULL);
INSERT INTO checks VALUES (1, 0);
CREATE TABLE told (quiet_at TEXT);  -- who has said nothing since then is not told again
INSERT INTO told VALUES (NULL);
-- Triggers, so that all counts stay right when rows are deleted by hand, too.
CREATE TRIGGER step_opens AFTER INSERT ON steps BEGIN
    INSERT INTO totals VALUES (new.code, new.message, new.state, 1)
    ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER step_changes AFTER UPDATE OF state ON steps BEGIN
    UPDATE totals SET count = count - 1
    WHERE code = old.code AND message = old.message AND state = old.state;
    INSERT INTO totals VALUES (new.code, new.message, new.state, 1)
    ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER step_goes AFTER DELETE ON steps BEGIN
    UPDATE totals SET count = count - 1
    WHERE code = old.code AND message = old.message AND state = old.state;
    DELETE FROM totals WHERE code = old.code AND message = old.message AND count = 0;
END;
CREATE TRIGGER event_goes AFTER DELETE ON events BEGIN
    UPDATE devices SET events = events - 1 WHERE machine = old.machine;
    DELETE FROM devices WHERE machine = old.machine AND events = 0  -- nor a new one
        AND NOT EXISTS (SELECT 1 FROM events WHERE machine = old.machine);
END;
CREATE TRIGGER device_goes AFTER DELETE ON devices BEGIN
    DELETE FROM steps WHERE machine = old.machine;
    DELETE FROM events WHERE machine = old.machine;
END;
"""
OLD_AWAY = """
DROP INDEX timeline;
DROP INDEX outcome;
DROP INDEX once;
DROP TABLE devices;
ALTER TABLE events RENAME TO old_events;
"""
MOVE_EVENTS = """
INSERT INTO events (number, id, machine, address, state, code, message, created_at, key)
SELECT number, id, address, address, state, code, message, created_at, key
FROM old_events ORDER BY number
"""
# Two statements, as ON CONFLICT DO NOTHING would use up a number for a repetition, and
# INSERT ... SELECT copies a large message twice more.
FIND_KEY = "SELECT 1 FROM events WHERE machine = :machine AND key = :key"
INSERT_EVENT = """
INSERT INTO events (id, machine, address, state, code, message, created_at, key)
VALUES (:id, :machine, :address, :state, :code, :message, :created_at, :key)
"""
KEEP_DEVICE = """
INSERT INTO devices VALUES (:machine, :id, :place, :address, :events, :run, :run_at,
    :last, :last_at, :state, :state_at, :telling, :code, :message, :failed, :ended, :kept)
ON CONFLICT (machine) DO UPDATE SET address = :address, events = events + :events, run = :run,
    run_at = :run_at, last = :last, last_at = :last_at, state = :state,
    state_at = :state_at, telling = :telling, code = :code, message = :message,
    failed = :failed, ended = :ended, kept = :kept
"""
KEEP_STEP = """
INSERT INTO steps VALUES (:machine, :number, :code, :message, :state, :began_at,
    :ended_at, :seconds, :outcome, :has_failed)
ON CONFLICT (machine, number) DO UPDATE SET state = :state, ended_at = :ended_at,
    seconds = :seconds, outcome = :outcome, has_failed = :has_failed
"""
# What a machine is now, which depends on the time.
SHOWN = """CASE WHEN state = 'running' AND last_at < :quiet_at THEN 'quiet'
    WHEN state IN ('quiet', 'never') THEN 'other' ELSE state END"""  # as it may say so
KNOWN = "('failed', 'quiet', 'running', 'succeeded')"
# Failed first, then running, the one that is silent for the longest time first.
LIST_DEVICES = f"""
SELECT {{columns}}, {SHOWN} AS shown FROM devices WHERE {{where}} ORDER BY
    CASE state WHEN 'failed' THEN 0 WHEN 'running' THEN 1 ELSE 2 END,
    CASE state WHEN 'running' THEN last_at END, place
LIMIT :limit OFFSET :offset
"""
FLEET = """
SELECT code, message, sum(count * (state = 'running')) AS running,
    sum(count * (state = 'failed')) AS failed,
    sum(count * (state = 'succeeded')) AS succeeded
FROM totals GROUP BY code, message ORDER BY code, message LIMIT :limit OFFSET :offset
"""
EVENT = """
SELECT number, id, machine, address, state, code, created_at, {message} AS message
FROM events WHERE number = :number
"""
WHOLE_EVENT = EVENT.format(message="message")
CUT_EVENT = EVENT.format(message="substr(message, 1, :most)")
END_OF_CODE = """
SELECT max(number) AS number FROM events
WHERE machine = :machine AND code = :code AND state IN ('succeeded', 'failed')
"""
TOOK = """
SELECT machine, seconds FROM steps
WHERE code = :code AND message = :message AND seconds IS NOT NULL
ORDER BY seconds DESC LIMIT 1 OFFSET :offset
"""


class StartError(Exception):
    """What prevents a start, as one line."""


class StoreError(OSError):
    """The database cannot take or give what it is asked for."""


class TooManyError(StoreError):
    """A machine that no option names, beyond MACHINES_MOST."""


def one_line(message):
    """Return the beginning of message, as one line of at most LINE characters."""
    return " ".join(message[:LINE * 2].split())[:LINE]


class Store:
    """The events, in the SQLite database at path, or in memory if that is None.

    quiet_after: seconds of silence that end a run; keep: days after which events go, or
    None; name: a function of a machine that returns what it is called, or "". Raises
    StartError if path cannot be used.
    """

    def __init__(self, path, quiet_after, keep=None, name=str):
        self.quiet_after, self.keep, self.name = quiet_after, keep, name
        self.path, self.holder = path, None
        self.observers = []  # functions of a Change that has been committed
        readers = []
        try:
            with contextlib.ExitStack() as undo:
                if path is not None:
                    _check_file(path)
                    self.holder = _Holder(path)
                    undo.callback(self.holder.undo)
                writer = _connect(path)
                undo.callback(writer.close)
                _prepare(writer, quiet_after)
                self.identity = None if path is None else _identity(path)
                for _ in range(READERS + 1 if path is not None else 0):
                    readers.append(_connect(path))
                    undo.callback(readers[-1].close)
                undo.pop_all()  # all is well
        except (OSError, sqlite3.Error) as error:
            raise StartError(f"cannot use {path}: {error}") from None
        self.writers = queue.SimpleQueue()  # connections that nobody uses now
        self.readers = self.finders = self.writers  # in memory there is no other one
        if readers:
            self.readers, self.finders = queue.SimpleQueue(), queue.SimpleQueue()
        pools = [self.writers, self.finders, *[self.readers] * READERS]
        self.connections = list(zip(pools, [writer, *readers]))
        for pool, connection in self.connections:
            pool.put(connection)
        for connection in readers or [writer]:
            connection.create_function("name_of", 1, lambda machine: self.name(machine))
            connection.create_function("folded", 1, str.lower, deterministic=True)
        self.queue = queue.SimpleQueue()  # (function, arguments, future): see _write
        self.listening = threading.Lock()
        self.listeners = {}  # machine: the queues of those who wait for it
        self.thread = threading.Thread(target=self._write, daemon=True)
        self.thread.start()

    def put(self, machine, address, event, key=None, most=None):
        """Keep event, a dict, of machine; return when it is committed.

        address: where it came from; key: a str, which the machine uses once for an
        event and again for a repetition, which is not kept; most: of how many machines
        a new one may be the last, or None. Raises TooManyError; StoreError: nothing of
        it is kept, unless it says that the database takes too long.
        """
        row = dict(event, machine=machine, address=address, key=key,
                   id=str(uuid.uuid4()), created_at=events.time_text(events.utc_now()))
        self._do(self._insert, row, most)

    def forget(self, machine):
        """Delete all that machine has told; return whether there was anything.

        The oldest events go first, a few at a time, as others wait meanwhile.
        """
        has_told = False
        while True:
            rows = self._read("SELECT number FROM events WHERE machine = ? "
                              "ORDER BY number LIMIT ?", [machine, SWEEP_MOST])
            if len(rows) < SWEEP_MOST:
                return self._do(self._delete, machine) or has_told
            self._do(self._delete_events, [[row["number"]] for row in rows])
            has_told = True

    def check(self):
        """Raise StoreError unless an event could be committed now."""
        self._do(lambda writer, batch: writer.execute("UPDATE checks SET count = count + 1"))

    def sweep(self):
        """Delete the events that are older than the days to keep, a few at a time."""
        before = events.utc_now() - datetime.timedelta(days=self.keep)
        while True:
            rows = self._read("SELECT number FROM events WHERE created_at < ? LIMIT ?",
                              [events.time_text(before), SWEEP_MOST])
            if not rows:
                return
            self._do(self._delete_events, [[row["number"]] for row in rows])

    def _do(self, function, *arguments):
        future = concurrent.futures.Future()
        self.queue.put((function, arguments, future))
        try:
            return future.result(COMMIT_MOST)
        except concurrent.futures.TimeoutError:
            future.cancel()  # unless its transaction has begun
            raise StoreError("the database takes too long") from None

    def _write(self):
        """Do and commit what has come in since the last commit, until None comes in."""
        closing = False
        while not closing:
            jobs = [self.queue.get()]
            while len(jobs) < BATCH_MOST and not self.queue.empty():
                jobs.append(self.queue.get())
            closing = None in jobs
            self._commit([job for job in jobs if job is not None
                          and job[-1].set_running_or_notify_cancel()])
            del jobs  # while the next one is waited for, they would take memory

    def _commit(self, jobs):
        """Do jobs in one transaction, answer each of them, and tell who waits."""
        batch, results = {}, []  # machine: Change
        try:
            with self._connection(self.writers) as writer, self._transaction(writer):
                for function, arguments, _ in jobs:
                    try:
                        results.append((function(writer, batch, *arguments), None))
                    except TooManyError as error:  # the others of the batch go on
                        results.append((None, error))
                for device in batch.values():
                    device.keep(writer)
        except Exception as error:  # of whatever kind: the writer has to go on
            for _, _, future in jobs:
                future.set_exception(StoreError(str(error)))
            return
        for (_, _, future), (result, error) in zip(jobs, results):
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)
        for device in batch.values():
            self._tell(device)

    @contextlib.contextmanager
    def _transaction(self, writer):
        try:
            self._check_identity(writer)
            writer.execute("BEGIN IMMEDIATE")
            yield
            writer.execute("COMMIT")
            self._check_identity(writer)
        finally:
            writer.rollback()  # nothing, after the commit

    def _check_identity(self, writer):
        """Raise StoreError if the file is no longer at its path."""
        if self.path is not None:
            try:
                is_there = _identity(self.path) == self.identity
            except OSError:
                is_there = False
            if not is_there:
                _finish(writer)
                raise StoreError(f"{self.path} has been removed, renamed or replaced")

    def _insert(self, writer, batch, row, most):
        machine = row["machine"]
        if machine not in batch:
            found = Change.read(writer, machine)
            if found.run is None and most is not None:
                count = writer.execute("SELECT count(*) FROM devices").fetchone()[0]
                new = sum(change.run_before is None for change in batch.values())
                if count + new >= most:
                    raise TooManyError(f"{most} machines are known already")
            batch[machine] = found
        if writer.execute(FIND_KEY, row).fetchone() is None:
            number = writer.execute(INSERT_EVENT, row).lastrowid
            batch[machine].take(number, row, self.quiet_after)

    def _delete(self, writer, batch, machine):
        batch.pop(machine, None)
        device = writer.execute("DELETE FROM devices WHERE machine = ?", [machine])
        events_of_batch = writer.execute("DELETE FROM events WHERE machine = ?", [machine])
        return device.rowcount + events_of_batch.rowcount > 0

    def _tell_quiet(self, writer, batch, quiet_at, most):
        before = writer.execute("SELECT quiet_at FROM told").fetchone()["quiet_at"]
        rows = writer.execute(
            "SELECT machine, code, message, last_at FROM devices WHERE state = 'running' "
            "AND last_at >= ? AND last_at < ? ORDER BY last_at LIMIT ?",
            [before, quiet_at, most]).fetchall()
        if rows and len(rows) == most:
            latest = events.time_of(rows[-1]["last_at"])
            quiet_at = events.time_text(latest + datetime.timedelta(microseconds=1))
        # quiet_at < before: the clock was set back, or --quiet-after is longer now.
        if before is None or rows or quiet_at < before:
            writer.execute("UPDATE told SET quiet_at = ?", [quiet_at])
        return [row for row in rows if row["machine"] not in batch]  # it speaks now

    def _delete_events(self, writer, batch, numbers):
        writer.executemany("DELETE FROM events WHERE number = ?", numbers)

    def _tell(self, change):
        """Tell those who wait for a machine, and the observers, what is committed."""
        with self.listening:
            for name in (change.machine, machines.device_id(change.machine)):
                for arrivals in self.listeners.get(name, ()):
                    arrivals.put(True)
        for observe in self.observers:
            try:
                observe(change)
            except Exception as error:  # of whatever kind: the writer has to go on
                say(f"bug: {type(error).__name__}: {error}")

    @contextlib.contextmanager
    def listen(self, machine):
        """Give a queue: True in it is news of machine, False that the receiver ends.

        machine: its address or NAME, or its id.
        """
        arrivals = queue.SimpleQueue()
        with self.listening:
            self.listeners.setdefault(machine, []).append(arrivals)
        try:
            yield arrivals
        finally:
            with self.listening:
                self.listeners[machine].remove(arrivals)
                if not self.listeners[machine]:
                    del self.listeners[machine]

    def let_go(self):
        """Tell all who wait that the receiver ends."""
        with self.listening:
            for arrivals in sum(self.listeners.values(), []):
                arrivals.put(False)

    @contextlib.contextmanager
    def _connection(self, connections):
        try:
            connection = connections.get(timeout=QUERY_MOST)
        except queue.Empty:
            raise StoreError("too many search the database") from None
        try:
            yield connection
        finally:
            connections.put(connection)

    def _read(self, statement, values=(), connections=None):
        """Return the rows that statement selects, as dicts."""
        try:
            with self._connection(connections or self.readers) as reader, _limit(reader):
                return [dict(row) for row in reader.execute(statement, values)]
        except sqlite3.Error as error:
            raise StoreError(str(error)) from None

    def _first(self, statement, values=(), connections=None):
        rows = self._read(statement, values, connections)
        return rows[0] if rows else None

    def last(self):
        """Return the number of the latest event that there has been, 0 for none."""
        row = self._first("SELECT seq FROM sqlite_sequence WHERE name = 'events'")
        return row["seq"] if row else 0

    def size(self):
        """Return the bytes of the database."""
        pages = self._first("PRAGMA page_count")["page_count"]
        return pages * self._first("PRAGMA page_size")["page_size"]

    def _quiet_at(self, now):
        return events.time_text(now - datetime.timedelta(seconds=self.quiet_after))

    def counts(self, now):
        """Return {state: how many machines}; quiet is a state of its own."""
        rows = self._read(f"SELECT {SHOWN} AS shown, count(*) AS count FROM devices "
                          "GROUP BY shown", {"quiet_at": self._quiet_at(now)})
        return {row["shown"]: row["count"] for row in rows}

    def devices(self, now, offset, limit, state=None, text=""):
        """Return how many machines are in state and have text; and some of their rows.

        state: None for all, "other" for what is none of ours; text: part of the name,
        the address or the message. Those to look after come first.
        """
        where, values = self._devices_wanted(now, state, text)
        values.update(offset=offset, limit=limit)
        total = self._first(f"SELECT count(*) AS count FROM devices WHERE {where}", values)
        rows = self._read(LIST_DEVICES.format(columns="*", where=where), values)
        return total["count"], [self._since_quiet(row) for row in rows]

    def devices_in_order(self, now, state=None, text=""):
        """Return the machines that devices() lists, all of them."""
        where, values = self._devices_wanted(now, state, text)
        values.update(offset=0, limit=-1)
        statement = LIST_DEVICES.format(columns="machine", where=where)
        return [row["machine"] for row in self._read(statement, values)]

    def _devices_wanted(self, now, state, text):
        conditions, values = ["1"], {"quiet_at": self._quiet_at(now), "state": state,
                                     "text": text}
        if state is not None:
            is_in = f"NOT IN {KNOWN}" if state == "other" else "= :state"
            conditions.append(f"{SHOWN} {is_in}")
        if text:
            conditions.append("instr(folded(name_of(machine) || char(10) || machine || "
                              "char(10) || address || char(10) || message), folded(:text))")
        return " AND ".join(conditions), values

    def _since_quiet(self, row):
        """Return row, of a machine that is quiet with the time since when it is."""
        if row["shown"] == "quiet":
            since = datetime.timedelta(seconds=self.quiet_after)
            row["state_at"] = events.time_text(events.time_of(row["last_at"]) + since)
        return row

    def machines(self):
        """Return all machines that have told something, a set."""
        return {row["machine"] for row in self._read("SELECT machine FROM devices")}

    def device(self, machine, now=None):
        """Return the row of a machine, by its name or id, or None if it has no event."""
        values = {"machine": machine, "quiet_at": self._quiet_at(now or events.utc_now())}
        row = self._first(f"SELECT *, {SHOWN} AS shown FROM devices WHERE machine = :machine "
                          "OR id = :machine ORDER BY id = :machine DESC", values,
                          self.finders)  # as events need it
        return row and self._since_quiet(row)

    def became_quiet(self, now, most):
        """Return the rows of machines that have become quiet since this was last asked.

        Nothing the first time; later, also those of the time when no receiver was there.
        most: how many rows; the others are for the next time.
        """
        return self._do(self._tell_quiet, self._quiet_at(now), most)

    def steps(self, machine):
        """Return the steps of the latest run of a machine, as they were opened."""
        return self._read("SELECT * FROM steps WHERE machine = ? ORDER BY number", [machine])

    def fleet(self, offset, limit):
        """Return how many kinds of steps there are; and some of them.

        Each with code, message, the counts running, failed and succeeded, the seconds
        median and longest (None if none has ended), and slowest, a machine or None.
        """
        total = self._first("SELECT count(*) AS count FROM "
                            "(SELECT 1 FROM totals GROUP BY code, message)")["count"]
        rows = self._read(FLEET, {"offset": offset, "limit": limit})
        for row in rows:
            ended = row["failed"] + row["succeeded"]
            longest = self._first(TOOK, dict(row, offset=0)) or {}
            median = self._first(TOOK, dict(row, offset=ended // 2)) or {}
            row.update(median=median.get("seconds"), longest=longest.get("seconds"),
                       slowest=longest.get("machine"))
        return total, rows

    def numbers(self, wanted, offset, limit):
        """Return how many events there are as wanted, and the numbers of some of them.

        wanted: a dict of machine, state, code, after (a number), since, until (of
        time_text) and q (part of the message), all optional. The newest comes first.
        """
        where, values = _where(wanted)
        if not where:
            total = self._first("SELECT total(events) AS count FROM devices")
        elif list(wanted) == ["machine"]:
            total = self._first("SELECT total(events) AS count FROM devices "
                                "WHERE machine = :machine", values)
        else:
            total = self._first(f"SELECT count(*) AS count FROM events {where}", values)
        rows = self._read(f"SELECT number FROM events {where} ORDER BY number DESC "
                          "LIMIT :limit OFFSET :offset",
                          dict(values, limit=limit, offset=offset))
        return int(total["count"]), [row["number"] for row in rows]

    def numbers_before(self, number, wanted, limit):
        """Return the numbers of some events before number, as numbers() does."""
        where, values = _where(dict(wanted, before=number))
        return [row["number"] for row in self._read(
            f"SELECT number FROM events {where} ORDER BY number DESC LIMIT :limit",
            dict(values, limit=limit))]

    def event(self, number, most=None):
        """Return an event as a row, or None if it has been deleted.

        most: how many characters of its message, None for all.
        """
        statement = WHOLE_EVENT if most is None else CUT_EVENT
        return self._first(statement, {"number": number, "most": most})

    def outcome(self, machine, most, code=None, after=0, since=""):
        """Return the event that tells how machine, or its code, has ended, or None.

        most: characters of its message. code: an int, or None for the machine as a
        whole. after: the number of an event, since: a time of time_text; an end that is
        not newer than both does not count. Nor, with since, does one that is in the
        future: the clock was wrong.
        """
        if code is None:
            end, telling = self._end_of_all(machine, most, after)
        else:
            found = self._first(END_OF_CODE, {"machine": machine, "code": code})["number"]
            is_new = found is not None and found > after
            end = telling = self.event(found, most) if is_new else None
        if end is None or since and not since < end["created_at"] <= events.time_text(
                events.utc_now()):
            return None
        return telling

    def _end_of_all(self, machine, most, after):  # and the event that tells why
        row = self._first("SELECT * FROM devices WHERE machine = ? AND state "
                          "IN ('succeeded', 'failed') AND ended > ?", [machine, after])
        if row is None:
            return None, None
        # As an event, if that has been deleted.
        kept = {**row, "number": row["telling"], "created_at": row["state_at"]}
        return (self.event(row["ended"], most) or kept,
                self.event(row["telling"], most) or kept)

    def close(self):
        """Write what has come in, and close the database; once is enough."""
        if not self.thread.is_alive():
            return
        self.queue.put(None)
        self.thread.join()
        self.let_go()
        for _, connection in self.connections[1:]:
            connection.interrupt()  # a search
        for pool, _ in reversed(self.connections):
            pool.get().close()  # the writer last, as it can empty the -wal file
        if self.holder is not None:
            self.holder.close()


@contextlib.contextmanager
def _limit(connection):
    """Interrupt what is executed meanwhile if it takes longer than QUERY_MOST."""
    ends_at = time.monotonic() + QUERY_MOST
    connection.set_progress_handler(lambda: time.monotonic() > ends_at, STEPS_BETWEEN)
    try:
        yield
    except sqlite3.OperationalError:
        if time.monotonic() > ends_at:
            raise StoreError("the search takes too long") from None
        raise
    finally:
        connection.set_progress_handler(None, 0)


def _where(wanted):
    """Return the condition for events that are as wanted, and its values."""
    conditions = {"machine": "machine = :machine", "state": "state = :state",
                  "code": "code = :code", "after": "number > :after",
                  "before": "number < :before",
                  "since": "created_at > :since", "until": "created_at <= :until",
                  "q": "instr(lower(message), lower(:q))"}
    if not wanted.get("q", "").isascii():  # SQLite's lower() is, and faster
        conditions["q"] = "instr(folded(message), folded(:q))"
    where = " AND ".join(conditions[name] for name in wanted)
    return f"WHERE {where}" if where else "", wanted


class Change:
    """What a transaction changes of a machine: run, a Run, and what made it so."""

    def __init__(self, machine, run=None):
        self.machine, self.run, self.run_before = machine, run, run
        self.states = []  # of the events that were taken
        self.ended = []  # (code, seconds) of the steps that ended
        self.last = self.address = None  # the number of the latest event, its address

    @classmethod
    def read(cls, connection, machine):
        """Return the machine as it is kept, with nothing changed."""
        row = connection.execute("SELECT * FROM devices WHERE machine = ?", [machine]
                                 ).fetchone()
        if row is None:
            return cls(machine)
        steps = connection.execute(
            "SELECT number, code, message, began_at, state, ended_at, outcome, has_failed "
            "FROM steps WHERE machine = ? ORDER BY number", [machine])
        kept = json.loads(row["kept"])
        run = events.Run(
            row["run"], row["run_at"], events.Event(*kept["last"]), row["last_at"],
            tuple(events.Step(*step) for step in steps),
            tuple(events.Event(*failure) for failure in kept["failures"]),
            row["state"], row["state_at"], kept["has_forgotten"], row["ended"])
        return cls(machine, run)

    def take(self, number, row, quiet_after):
        """Take the event of row, a dict, whose number is known now."""
        event = events.Event(number, row["state"][:WORD], row["code"],
                             one_line(row["message"]), row["created_at"])
        self.run = events.next_run(self.run, event, quiet_after)
        self.states.append(event.state)
        self.last, self.address = number, row["address"]

    def keep(self, writer):
        """Write what has changed."""
        if not self.states:
            return
        run, telling = self.run, events.telling_event(self.run)
        writer.execute(KEEP_DEVICE, {
            "machine": self.machine, "id": machines.device_id(self.machine),
            "place": machines.place(self.machine), "address": self.address,
            "events": len(self.states), "run": run.number, "run_at": run.began_at,
            "last": self.last, "last_at": run.last_at, "state": run.state,
            "state_at": run.state_at, "telling": telling.number, "code": telling.code,
            "message": telling.message, "failed": events.failed_steps(run),
            "ended": run.ended,
            "kept": json.dumps({"last": run.last, "failures": run.failures,
                                "has_forgotten": run.has_forgotten})})
        self._keep_steps(writer)

    def _keep_steps(self, writer):
        steps_before = () if self.run_before is None else self.run_before.steps
        before = {step.number: step for step in steps_before}
        for step in self.run.steps:
            known = before.pop(step.number, None)
            if step != known:
                self._keep_step(writer, step, known)
        writer.executemany("DELETE FROM steps WHERE machine = ? AND number = ?",
                           [(self.machine, number) for number in before])

    def _keep_step(self, writer, step, known):
        seconds = _seconds(step)
        writer.execute(KEEP_STEP, dict(step._asdict(), machine=self.machine,
                                       seconds=seconds))
        if seconds is not None and (known is None or known.ended_at is None):
            self.ended.append((step.code, seconds))


def _seconds(step):
    if step.ended_at is None:
        return None
    return events.seconds_between(step.began_at, step.ended_at)


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


def _identity(path):
    status = os.stat(path)
    return status.st_dev, status.st_ino


class _Holder:
    """Keeps a second receiver away from path until it is closed.

    It locks a file of its own, so that sqlite3 can read and back up the database; by
    whatever symbolic link: a hard link of the database is refused. Raises OSError or
    sqlite3.Error if it cannot.
    """

    def __init__(self, path):
        if os.path.exists(path) and os.stat(path).st_nlink > 1:
            raise OSError("it has a second name, a hard link, by which another receiver "
                          "might hold it")
        self.path = f"{os.path.realpath(path)}-lock"
        self.is_new = not os.path.lexists(self.path)
        self.connection = sqlite3.connect(self.path, timeout=0, isolation_level=None,
                                          check_same_thread=False)
        try:
            self.connection.execute("BEGIN EXCLUSIVE")
        except BaseException as error:  # a signal, too
            if isinstance(error, sqlite3.Error) and "locked" in str(error):
                self.close()  # sqlite3 tells no code before Python 3.11
                raise OSError(f"another receiver holds it ({error})") from None
            self.undo()
            raise

    def close(self):
        self.connection.close()

    def undo(self):
        """Close it and leave no file that was not there before."""
        if self.is_new:
            with contextlib.suppress(OSError):
                os.unlink(self.path)
        self.close()


def _connect(path):
    # The absolute path, as SQLite takes the name :memory: for no file.
    name = ":memory:" if path is None else os.path.abspath(path)
    connection = sqlite3.connect(name, timeout=LOCKED_MOST, isolation_level=None,
                                 check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def _finish(writer):
    """Write all that is committed to the database itself, wherever it is now.

    If it has another name, SQLite does not do so at the end; and who opens another file
    in its place would find there what is in the -wal file, which has kept its name.
    """
    with contextlib.suppress(sqlite3.Error):
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _prepare(connection, quiet_after):
    """Make the tables, or take over those of 2.0."""
    known = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if known != APPLICATION and tables:
        raise sqlite3.DatabaseError("it is the database of another program")
    if version > VERSION:
        raise sqlite3.DatabaseError(f"a newer receiver wrote it (version {version}, and "
                                    f"this one knows {VERSION})")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if version == VERSION:  # changes nothing, but fails if nothing can be written
        connection.execute(f"PRAGMA application_id = {APPLICATION}")
        return
    connection.execute("BEGIN IMMEDIATE")  # all of it or nothing
    try:
        if tables:
            _take_over(connection, quiet_after)
        else:
            _execute_all(connection, SCHEMA)
        connection.execute("COMMIT")
    finally:
        connection.rollback()


def _execute_all(connection, script):
    """Execute the statements of script, without the commit of executescript()."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            connection.execute(statement)
            statement = ""


def _take_over(connection, quiet_after):
    """Make the tables of today from those of 2.0."""
    _execute_all(connection, OLD_AWAY)
    _execute_all(connection, SCHEMA)
    connection.execute(MOVE_EVENTS)
    connection.execute("DROP TABLE old_events")
    device = None
    for row in connection.execute(
            "SELECT number, machine, address, state, code, created_at, substr(message, 1, "
            f"{LINE * 2}) AS message FROM events ORDER BY machine, number"):
        if device is None or device.machine != row["machine"]:
            if device is not None:
                device.keep(connection)
            device = Change(row["machine"])
        device.take(row["number"], row, quiet_after)
    if device is not None:
        device.keep(connection)
