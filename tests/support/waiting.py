"""Time in tests: to wait for something, and to say how long it may take."""
import time
from contextlib import contextmanager

PATIENCE = 20  # seconds that a busy machine may need for what takes a moment


def wait_for(condition):
    """Return when condition() is true; fail if that takes too long."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "what was waited for did not come"
        time.sleep(0.005)


@contextmanager
def at_most(seconds, least=0):
    """Fail if the block takes more than these seconds, or less than `least`."""
    begun = time.monotonic()
    yield
    taken = time.monotonic() - begun
    assert least <= taken < seconds, f"took {taken:.2f} s, not {least} to {seconds} s"
