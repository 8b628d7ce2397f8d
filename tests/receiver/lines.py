"""Lines on stderr for the one who runs the receiver: never waited for."""
import io
import os
import select
import sys
import threading
import time

WARN_EVERY = 60  # seconds between two equal lines
WARN_MOST = 100  # different lines in that time that clients have brought about
WARN_CLIENT_MOST = 10  # of these, by one client

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
        except (OSError, ValueError, TypeError, AttributeError):  # it is closed
            pass


class Warnings:
    """What has been said a short time ago, and is not said again."""

    def __init__(self):
        self._lock, self._said = threading.Lock(), {}  # line: (when, the client or None)

    def warn(self, line, more="", client=None):
        """Say line, and more, unless line was said a short time ago.

        client: the address of who brought it about; of each one only some lines are
        said, and of all of them some more, so that no other line is lost by them.
        """
        now = time.monotonic()
        with self._lock:
            self._said = {line: (at, who) for line, (at, who) in self._said.items()
                          if now - at <= WARN_EVERY}
            if line in self._said:
                return
            if client is not None:
                clients = [who for _, who in self._said.values() if who is not None]
                if len(clients) >= WARN_MOST or clients.count(client) >= WARN_CLIENT_MOST:
                    return
            self._said[line] = now, client
        say(line + more)
