"""Clocks that a test moves."""
import collections

Said = collections.namedtuple("Said", "lines time options")


class Time:
    """A clock that only sleep moves, for userstate's clock and sleep."""

    def __init__(self):
        self.now, self.pauses = 1000.0, []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds
