"""What a machine tells, in short, as "r1000 +10 f1010 home", and the run that it makes."""
import datetime
import re

from receiver import events

BEGIN = datetime.datetime(2026, 1, 31, 10, 0, tzinfo=datetime.timezone.utc)
QUIET_AFTER = 3600
STATES = {"r": "running", "s": "succeeded", "f": "failed", "d": "dancing", "n": ""}


def told(story, moment=BEGIN):
    """Give (moment, event) of the words of story, which begins after moment.

    A word of it is an event, which comes a second later: the first letter of its state and
    its code, and its message is the word; or "home", for a machine that phones home; or no
    event, None, but +60, -60: so many seconds pass, and the clock is set back so far.
    """
    for word in story.split():
        if re.fullmatch("[-+][0-9]+", word):
            moment += datetime.timedelta(seconds=int(word))
            yield moment, None
            continue
        moment += datetime.timedelta(seconds=1)
        state, code = ("", None) if word == "home" else (STATES[word[0]], int(word[1:]))
        yield moment, {"state": state, "code": code, "message": word}


def run_of(story):
    """Return the run that the events of story make, numbered from 1."""
    run, number = None, 0
    for moment, event in told(story):
        if event is not None:
            number += 1
            came = events.Event(number, at=events.time_text(moment), **event)
            run = events.next_run(run, came, QUIET_AFTER)
    return run


def steps_of(run):
    """Return the steps of a run in short: their codes and states."""
    return " ".join(f"{step.code}{step.state[0]}" for step in run.steps)


class Clock:
    """The clock of a receiver, which stands still: settings(utc_now=clock)."""

    def __init__(self):
        self.now = BEGIN

    def __call__(self):
        return self.now

    def tell(self, receiver, machine, story):
        """Let machine tell a story to receiver, from now on, each event at its time."""
        for moment, event in told(story, self.now):
            self.now = moment
            if event is not None:
                receiver.tell(machine, event)

    def pass_by(self, seconds):
        """Let so many seconds pass."""
        self.now += datetime.timedelta(seconds=seconds)
