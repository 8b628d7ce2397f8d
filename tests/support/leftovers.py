"""What a call may leave behind: its threads, and connections that still send."""
import _thread
import os
import re
import threading
import time


class Threads:
    """Stands in for _thread.start_new_thread, and knows the threads of each call."""

    def __init__(self):
        self.start, self.local, self.there = _thread.start_new_thread, threading.local(), []

    def begin(self, call):
        """Say that from now on this thread makes call."""
        self.local.call = call

    def __call__(self, function, words):
        call = self.local.call
        self.there.append(call)

        def run():
            self.begin(call)  # as a thread may start others
            try:
                function(*words)
            finally:
                self.there.remove(call)
        return self.start(run, ())

    def are_left(self, call):
        """Return whether a thread of call is still there after half a second."""
        end = time.monotonic() + 0.5
        while call in self.there and time.monotonic() < end:
            time.sleep(0.005)
        return call in self.there


def can_still_send(port):
    """Return the state and queue of each connection to port that could carry more bytes."""
    if not os.path.exists("/proc/net/tcp"):  # Linux only
        return []
    with open("/proc/net/tcp") as file:
        found = re.findall(f":{port:04X} (0[1-9A-B]) ([0-9A-F]+):", file.read())
    established, asking, told_end, closing = "01", "02", "08", ("04", "09", "0B")
    return [(state, queue) for state, queue in found
            if state in (established, asking, told_end)
            or state in closing and int(queue, 16) > 1]
