"""Databases as the receiver of 2.0 wrote them."""
import sqlite3
import uuid
from contextlib import closing

from receiver.events import time_text
from receiver.machines import device_id, place
from support.stories import told

SCHEMA = """
BEGIN;
PRAGMA application_id = 1970500468;
CREATE TABLE events (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, address TEXT NOT NULL, state TEXT NOT NULL,
    code INTEGER, message TEXT NOT NULL, created_at TEXT NOT NULL, key TEXT
);
CREATE INDEX timeline ON events (address);
CREATE INDEX outcome ON events (address, code, state);
CREATE UNIQUE INDEX once ON events (address, key) WHERE key IS NOT NULL;
CREATE TABLE devices (
    address TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, place BLOB NOT NULL,
    events INTEGER NOT NULL, run_at TEXT NOT NULL, last_at TEXT NOT NULL, state TEXT NOT NULL,
    code INTEGER, message TEXT NOT NULL
);
COMMIT;
"""
INSERT = """
INSERT INTO events (id, address, state, code, message, created_at, key)
VALUES (?, ?, ?, ?, ?, ?, ?)
"""
MANY = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < :most - 1),
of_machine(m, k) AS (SELECT i % :machines, i / :machines FROM n)
INSERT INTO events (id, address, state, code, message, created_at)
SELECT hex(randomblob(16)), '10.0.' || (m / 256) || '.' || (m % 256),
    CASE k % 2 WHEN 0 THEN 'running' ELSE 'succeeded' END,
    1000 + k % 20 / 2, 'step ' || (k % 20 / 2),
    strftime('%Y-%m-%dT%H:%M:%S.000000Z', '2026-01-31', k || ' seconds')
FROM of_machine
"""


def make_old(path, stories):
    """Make a database of {address: story}; return the ids of the events."""
    ids = []
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(SCHEMA)
        for address, story in stories.items():
            events = [(moment, event) for moment, event in told(story) if event]
            for moment, event in events:
                ids.append(str(uuid.uuid4()))
                connection.execute(INSERT, [
                    ids[-1], address, event["state"], event["code"], event["message"],
                    time_text(moment), f'"{ids[-1]}"'])
            last_at = time_text(events[-1][0])
            connection.execute("INSERT INTO devices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", [
                address, device_id(address), place(address), len(events), last_at, last_at,
                event["state"], event["code"], event["message"]])
        connection.commit()
    return ids


def make_large(path, most, machines):
    """Make a database of so many events of so many machines, in runs of ten steps."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;"
                                 + SCHEMA)
        connection.execute(MANY, {"most": most, "machines": machines})
        connection.commit()
