"""Lines on stderr for the one who runs the receiver: never waited for."""
import io
import os
import select
import sys
import threading
import time

WARN_EVERY = 60  # seconds between two equal lines
WARN_MOST = 100  # different lines in that time: there are many addresses

_writing = threading.RLock()  # as a signal's handler may say a line in the middle of another


def say(line):
    """Write line to stderr, or lose it if nobody reads there."""
    data = f"receiver: {line}".encode("ascii", "backslashreplace")
    data = data[:select.PIPE_BUF - 1] + b"\n"
    with _writing:
        try:
            if select.select([], [sys.stderr], [], 0)[1]:
                os.write(sys.stderr.fileno(), data)
        except io.UnsupportedOperation:  # in memory
            sys.stderr.write(data.decode())
        except (OSError, ValueError, AttributeError):  # it is closed
            pass


class Warnings:
    """What has been said a short time ago, and is not said again."""

    def __init__(self):
        self._lock, self._said_at = threading.Lock(), {}

    def warn(self, line, more=""):
        """Say line, and more, unless line was said a short time ago."""
        now = time.monotonic()
        with self._lock:
            self._said_at = {said: at for said, at in self._said_at.items()
                             if now - at <= WARN_EVERY}
            if line in self._said_at or len(self._said_at) >= WARN_MOST:
                return
            self._said_at[line] = now
        say(line + more)
