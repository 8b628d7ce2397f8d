"""What an event is, and what a machine's events say: its steps, its run, its state.

Pure functions, which know neither a database nor a request. Times are texts of time_text.
"""
import datetime
import json
import re
from typing import NamedTuple, Optional, Tuple

FIELDS = {"state": "", "code": 0, "message": ""}  # and what Go makes of those left out
STATES = ("failed", "running", "succeeded")  # in the order of their urgency
ENDS = ("succeeded", "failed")  # those that end a step
VALUES_MOST = 10000  # values in one event: each takes some 100 bytes of memory
NOT_UTF_8 = dict.fromkeys(range(0xdc80, 0xdd00), "\ufffd")  # as surrogateescape decodes
SURROGATE = re.compile("[\ud800-\udfff]")  # alone, as JSON makes one of two
STEPS_MOST = 500  # steps of a run that are remembered
FAILURES_MOST = 100  # failures of a run that are remembered, the first ones


def read_event(body):
    """Return the event in body (bytes) as Go's encoding/json reads it into a struct.

    Raises ValueError for what that refuses: quoted, fractional, exponent or 65-bit
    codes, strings that are none, a byte-order mark, anything behind the document; and
    for more than VALUES_MOST values. It takes names in any case, the last of equal
    ones, null and nothing as the zero value, and makes U+FFFD of every byte that is not
    UTF-8.
    """
    if _has_too_many_values(body):
        raise ValueError("too many values")
    try:
        pairs = DECODER.decode(_decoded(body))
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


def _refuse(text):
    raise ValueError(text)


DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_constant=_refuse,
                           parse_int=lambda digits: int(digits[:30]))


def _decoded(body):
    try:
        return body.decode()
    except UnicodeDecodeError:  # seldom: this takes a tenth of a second for 4 MiB
        return body.decode("utf-8", "surrogateescape").translate(NOT_UTF_8)


def _has_too_many_values(body):
    body = body.replace(b"\\\\", b"").replace(b'\\"', b"")  # what is escaped in strings
    if body.count(b'"') > 4 * VALUES_MOST:  # of a name and a value
        return True
    outside = b"".join(body.split(b'"')[::2])
    return sum(map(outside.count, (b",", b"[", b"{"))) > VALUES_MOST


def _field(name, value):
    if type(value) is not type(FIELDS[name]):
        raise ValueError(name)
    if name != "code":
        if not SURROGATE.search(value):  # as the copies take memory
            return value
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if not -2**63 <= value < 2**63:
        raise ValueError(name)
    return value


def time_text(moment):
    """Return moment, an aware datetime, as the API writes it: these sort as text."""
    moment = moment.astimezone(datetime.timezone.utc)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def time_of(text):
    """Return the datetime that time_text wrote."""
    return datetime.datetime.fromisoformat(text[:-1] + "+00:00")


def utc_now():
    """Return the time of the receiver's clock, an aware datetime."""
    return datetime.datetime.now(datetime.timezone.utc)


def seconds_between(begin, end):
    """Return the seconds from begin to end, 0 if the clock was set back between them."""
    return max(0.0, (time_of(end) - time_of(begin)).total_seconds())


class Event(NamedTuple):
    """What steps are made of: an event as it came in."""
    number: int  # in the order in which all events came
    state: str
    code: Optional[int]  # None: the machine has phoned home
    message: str
    at: str


class Step(NamedTuple):
    """A part of an installation, from its running to its end."""
    number: int  # of the event that opened it
    code: int
    message: str
    began_at: str
    state: str = "running"
    ended_at: Optional[str] = None
    outcome: str = ""  # the message of its end
    has_failed: bool = False  # also if it has succeeded since


class Run(NamedTuple):
    """What a machine has told since it began to install itself, the last time."""
    number: int  # of its first event
    began_at: str
    last: Event  # the latest one of STATES, or the latest one if there is none
    last_at: str  # of the latest one of all
    steps: Tuple[Step, ...] = ()  # as they were opened
    failures: Tuple[Event, ...] = ()  # of what has not succeeded since; the cause first
    state: str = ""  # failed, running, succeeded, or else what the machine called it
    state_at: str = ""  # since when it is in that state
    has_forgotten: bool = False  # steps: an end of an unknown code may be of one of them
    ended: Optional[int] = None  # number of the latest end that left it in such a state


def next_run(run, event, quiet_after):
    """Return the run that event belongs to, with it; run is the one before, or None.

    A run is a stretch of events without a gap longer than quiet_after (seconds), but
    the end of a step belongs to the run of its beginning, and what tells no state to
    the run before it. The code that was opened first, when it is opened again after its
    end, begins another run.
    """
    if run is None or _begins(run, event, quiet_after):
        run = Run(event.number, event.at, event, event.at, state_at=event.at)
    if event.state == "running":
        run = _open(run, event)._replace(last=event)
    elif event.state in ENDS:
        run = _close(run, event)._replace(last=event)
    elif event.state and run.last.state not in STATES:
        run = run._replace(last=event)
    state = _state(run)
    if state != run.state:
        run = run._replace(state=state, state_at=event.at)
    if state in ENDS and event.state in ENDS:
        run = run._replace(ended=event.number)
    return run._replace(last_at=event.at)


def telling_event(run):
    """Return the event that tells why a machine is in its state, for its row."""
    return run.failures[0] if run.failures else run.last


def failed_steps(run):
    """Return how many steps have failed on the way, also if they succeeded later."""
    return len({step.code for step in run.steps if step.has_failed})


def _state(run):
    if run.failures:
        return "failed"
    if any(step.ended_at is None for step in run.steps):
        return "running"
    return run.last.state


def _begins(run, event, quiet_after):
    is_open = _find(run, event.code, is_open=True) is not None
    if event.state in ENDS and is_open:  # a step may take longer than quiet_after
        return False
    if not event.state:  # a machine that has succeeded may phone home days later
        return False
    if seconds_between(run.last_at, event.at) > quiet_after:
        return True
    is_first = bool(run.steps) and event.code == run.steps[0].code
    return event.state == "running" and is_first and not is_open


def _find(run, code, is_open=False):  # the index of the latest such step, or None
    for index in range(len(run.steps) - 1, -1, -1):
        step = run.steps[index]
        if step.code == code and not (is_open and step.ended_at):
            return index
    return None


def _open(run, event):
    if _find(run, event.code, is_open=True) is not None:  # a heartbeat, or a repetition
        return run
    steps = run.steps
    if len(steps) >= STEPS_MOST:  # forget the first that has ended, but not the opening
        ended = [index for index, step in enumerate(steps) if step.ended_at and index]
        well = [index for index in ended if not steps[index].has_failed]
        forgotten = (well or ended or [1])[0]
        steps = steps[:forgotten] + steps[forgotten + 1:]
        run = run._replace(has_forgotten=True)
    step = Step(event.number, event.code, event.message, event.at)
    return run._replace(steps=(*steps, step))


def _close(run, event):
    index = _find(run, event.code)
    if index is None and not run.has_forgotten:
        return _close_all(run, event)
    steps = list(run.steps)
    if index is not None and steps[index].state != event.state:  # else it comes twice
        steps[index] = _ended(steps[index], event)
    failures = run.failures
    if event.state == "succeeded":
        is_first = event.code == steps[0].code
        failures = () if is_first else tuple(
            failure for failure in failures if failure.code != event.code)
    else:
        failures = _with_failure(failures, event)
    return run._replace(steps=tuple(steps), failures=failures)


def _close_all(run, event):  # by an end whose code was never opened
    steps = tuple(step if step.ended_at else _ended(step, event) for step in run.steps)
    failures = () if event.state == "succeeded" else _with_failure(run.failures, event)
    return run._replace(steps=steps, failures=failures)


def _with_failure(failures, event):
    is_known = any(failure.code == event.code for failure in failures)
    return failures if is_known else (*failures, event)[:FAILURES_MOST]


def _ended(step, event):
    return step._replace(state=event.state, ended_at=event.at, outcome=event.message,
                         has_failed=step.has_failed or event.state == "failed")
