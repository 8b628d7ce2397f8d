"""What Prometheus may scrape, in its text format."""
import collections
import threading

from receiver.events import STATES
from receiver.views import KINDS

SECONDS = (1, 5, 15, 60, 300, 900, 3600, 10800)  # upper bounds of the steps' histogram
CODES = range(1000, 1100)  # others are one, as anybody can make them up


class Metrics:
    """Counts since the start."""

    def __init__(self):
        self._lock = threading.Lock()
        self._replies = collections.Counter()  # by status
        self._events = collections.Counter()  # by state
        self._steps = {}  # code: [how many by bound, all, sum of their seconds]

    def count_reply(self, status):
        """Count an answer."""
        with self._lock:
            self._replies[status] += 1

    def count_change(self, change):
        """Count the events and the ended steps of a store.Change."""
        with self._lock:
            self._events.update(state if state in STATES else "other"
                                for state in change.states)
            for code, seconds in change.ended:
                code = code if code in CODES else "other"
                bounds, *_ = counts = self._steps.setdefault(
                    code, [[0] * len(SECONDS), 0, 0.0])
                for index, bound in enumerate(SECONDS):
                    bounds[index] += seconds <= bound
                counts[1] += 1
                counts[2] += seconds

    def text(self, machines, database_bytes):
        """Return all of it; machines: a counts_view."""
        with self._lock:
            lines = [
                *_family("userstate_machines", "gauge", "Machines by state.",
                         [("state", kind, machines[kind]) for kind in KINDS]),
                *_family("userstate_events_total", "counter",
                         "Events kept since the start, by state.",
                         [("state", state, self._events[state])
                          for state in (*STATES, "other")]),
                *_family("userstate_http_requests_total", "counter",
                         "Answers since the start, by status.",
                         [("status", status, count)
                          for status, count in sorted(self._replies.items())]),
                *self._histogram(),
                *_family("userstate_database_bytes", "gauge",
                         "Size of the database.", [(None, None, database_bytes)])]
        return "\n".join(lines) + "\n"

    def _histogram(self):
        name = "userstate_step_seconds"
        yield f"# HELP {name} Seconds of steps that have ended since the start, by code."
        yield f"# TYPE {name} histogram"
        for code, (bounds, count, seconds) in sorted(self._steps.items(), key=str):
            for bound, below in zip((*SECONDS, "+Inf"), (*bounds, count)):
                yield f'{name}_bucket{{code="{code}",le="{bound}"}} {below}'
            yield f'{name}_sum{{code="{code}"}} {seconds:.6f}'
            yield f'{name}_count{{code="{code}"}} {count}'


def _family(name, kind, text, values):
    yield f"# HELP {name} {text}"
    yield f"# TYPE {name} {kind}"
    for label, value, count in values:
        labels = f'{{{label}="{value}"}}' if label else ""
        yield f"{name}{labels} {count}"
