"""The state of a machine is the same on pages, in JSON, CSV and metrics, and for a wait."""
import csv
import html
import io
import json
import re

import pytest

from support.receivers import Receiver, ask, read_json, read_page
from support.stories import BEGIN, QUIET_AFTER, Clock

QUIET = f"+{QUIET_AFTER + 1}"
# Of each story: the state, in words, the message of the row, the steps; what waits get.
SHOWN = {
    "the old script runs": ("r1000", "running", "running", "r1000", "1000r", 504),
    "the old script": ("r1000 s1001", "succeeded", "succeeded", "s1001", "1000s", 200),
    "the old script fails": ("r1000 f1001", "failed", "failed", "f1001", "1000f", 409),
    "an inner step succeeds": ("r1000 r1010 s1010", "running", "running", "s1010",
                               "1000r 1010s", 504),
    "an inner step fails": ("r1000 r1010 f1010", "failed", "failed", "f1010",
                            "1000r 1010f", 409),
    "the outer one fails, too": ("r1000 r1010 f1010 f1000", "failed", "failed", "f1010",
                                 "1000f 1010f", 409),
    "another step succeeds": ("r1000 r1010 f1010 r1020 s1020", "failed", "failed", "f1010",
                              "1000r 1010f 1020s", 409),
    "all succeeds": ("r1000 r1010 s1010 s1000", "succeeded", "succeeded", "s1000",
                     "1000s 1010s", 200),
    "tried again": ("r1000 r1010 f1010 r1010 s1010", "running", "running", "s1010",
                    "1000r 1010f 1010s", 504),
    "tried again, all succeeds": (
        "r1000 r1010 f1010 r1010 s1010 s1000", "succeeded", "succeeded, 1 step failed", "s1000",
        "1000s 1010f 1010s", 200),
    "two have failed, all succeeds": (
        "r1000 r1010 f1010 r1020 f1020 s1000", "succeeded", "succeeded, 2 steps failed",
        "s1000", "1000s 1010f 1020f", 200),
    "a second installation": ("r1000 s1000 r1000", "running", "running", "r1000",
                              "1000r", 504),
    "a second installation after a gap": (f"r1000 f1000 {QUIET} r1000 r1010", "running",
                                          "running", "r1010", "1000r 1010r", 504),
    "quiet in a step": (f"r1000 r1010 {QUIET}", "quiet", "quiet", "r1010", "1000r 1010r", 504),
    "quiet between two steps": (f"r1000 r1010 s1010 {QUIET}", "quiet", "quiet", "s1010",
                                "1000r 1010s", 504),
    "a gap in a step": (f"r1000 r1010 {QUIET} s1010", "running", "running", "s1010",
                        "1000r 1010s", 504),
    "failed long ago": (f"r1000 f1000 {QUIET}", "failed", "failed", "f1000", "1000f", 409),
    "an end comes twice": ("r1000 s1000 s1000", "succeeded", "succeeded", "s1000",
                           "1000s", 200),
    "phoned home later": (f"r1000 s1000 {QUIET} home", "succeeded", "succeeded", "s1000",
                          "1000s", 200),
    "phoned home": ("home", "", "no state", "home", "", 504),
    "a state of its own": ("d1000", "dancing", "dancing", "d1000", "", 504),
    "a state of its own at the end": ("r1000 s1000 d1000", "succeeded", "succeeded", "s1000",
                                      "1000s", 200),
    "the clock is set back": ("r1000 r1010 -9000 s1010 s1000 -9000", "succeeded",
                              "succeeded", "s1000", "1000s 1010s", 200),
}
MACHINE = "10.0.0.1"


@pytest.fixture
def clock(settings):
    """The clock of the receivers of a test."""
    clock = Clock()
    settings(utc_now=clock)
    return clock


def row_of_page(receiver):
    """Return the text of the one row of the page, cell by cell."""
    row, = re.findall("<tr><td.*", read_page(receiver), re.DOTALL)
    return [" ".join(html.unescape(re.sub("<[^>]*>", "", cell)).split())
            for cell in re.split("<td[^>]*>", row)]


def machines_of_metrics(receiver):
    """Return the states that machines are in, by /metrics."""
    return {state: int(count) for state, count in re.findall(
        r'^userstate_machines\{state="(\w+)"\} (\d+)$', read_page(receiver, "/metrics"),
        re.MULTILINE) if count != "0"}


def read_csv(receiver, path):
    return list(csv.DictReader(io.StringIO(read_page(receiver, path), newline="")))


@pytest.mark.parametrize("data", [None, "events"], ids=["in memory", "in a file"])
@pytest.mark.parametrize("story, state, words, message, steps, status", SHOWN.values(),
                         ids=SHOWN.keys())
def test_the_same_state_is_shown_everywhere(tmp_path, clock, story, state, words, message,
                                            steps, status, data):
    kind = state if state in ("running", "quiet", "failed", "succeeded") else "other"
    with Receiver(data=data and str(tmp_path / data), quiet_after=QUIET_AFTER) as receiver:
        clock.tell(receiver, MACHINE, story)
        device, = read_json(receiver, "/devices")["devices"]
        assert (device["state"], device["message"]) == (state, message)
        assert device["quiet"] is (state == "quiet")
        counts = read_json(receiver, "/devices")["counts"]
        assert {name: count for name, count in counts.items() if count} == {kind: 1}
        assert len(read_json(receiver, f"/devices?state={kind}")["devices"]) == 1
        assert machines_of_metrics(receiver) == {kind: 1}
        listed, = read_csv(receiver, "/devices.csv")
        assert (listed["state"], listed["message"]) == (state, message)
        row = row_of_page(receiver)
        assert row[1] == words
        assert message in row[5].split()
        assert f"{int(state == 'succeeded')} of 1 done" in read_page(receiver)
        assert words in read_page(receiver, f"/devices/{MACHINE}")
        told = read_json(receiver, f"/devices/{MACHINE}/steps")["steps"]
        assert " ".join(f"{step['code']}{step['state'][0]}" for step in told) == steps
        waited, body = ask(receiver, "GET", f"/devices/{MACHINE}/wait?timeout=0")
        assert waited == status
        if status != 504:
            assert json.loads(body.decode())["message"] == message


@pytest.mark.parametrize("story", [story for story, *_ in SHOWN.values()])
def test_it_is_the_same_after_a_restart_before_each_event(tmp_path, clock, story):
    data, shown = [str(tmp_path / "once"), str(tmp_path / "again")], []
    with Receiver(data=data[0], quiet_after=QUIET_AFTER) as receiver:
        clock.tell(receiver, MACHINE, story)
        shown.append(shown_by(receiver))
    clock.now = BEGIN
    for word in story.split():
        with Receiver(data=data[1], quiet_after=QUIET_AFTER) as receiver:
            clock.tell(receiver, MACHINE, word)
    with Receiver(data=data[1], quiet_after=QUIET_AFTER) as receiver:
        shown.append(shown_by(receiver))
    assert shown[0] == shown[1]


def shown_by(receiver):
    """Return what is shown of the machine."""
    device, = read_json(receiver, "/devices")["devices"]
    return device, read_json(receiver, f"/devices/{MACHINE}/steps"), row_of_page(receiver)


def test_one_that_waits_is_told_the_end_of_the_machine_not_of_a_step(clock):
    with Receiver(quiet_after=QUIET_AFTER) as receiver:
        clock.tell(receiver, MACHINE, "r1000 r1010 s1010")
        path = f"/devices/{MACHINE}/wait?timeout=0"
        assert ask(receiver, "GET", path)[0] == 504
        assert ask(receiver, "GET", f"{path}&code=1010")[0] == 200
        clock.tell(receiver, MACHINE, "s1000")
        assert ask(receiver, "GET", path)[0] == 200
        assert ask(receiver, "GET", f"{path}&after=3")[0] == 200
        assert ask(receiver, "GET", f"{path}&after=4")[0] == 504


def test_many_machines_are_counted_by_what_they_are_now(clock):
    with Receiver(quiet_after=QUIET_AFTER) as receiver:
        stories = [story for story, *_ in SHOWN.values() if not story.endswith(QUIET)]
        for number, story in enumerate(stories):
            clock.now = BEGIN
            clock.tell(receiver, f"10.0.0.{number}", story)
        counts = read_json(receiver, "/devices")["counts"]
        assert sum(counts.values()) == len(stories)
        assert {state: count for state, count in counts.items() if count} == (
            machines_of_metrics(receiver))
        for state, count in counts.items():
            listed = read_json(receiver, f"/devices?state={state}&per_page=1000")
            assert (len(listed["devices"]), listed["meta"]["total"]) == (count, count)
            assert len(read_csv(receiver, f"/devices.csv?state={state}")) == count
