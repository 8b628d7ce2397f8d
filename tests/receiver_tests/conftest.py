"""The fixtures of the receiver's tests."""
import pytest

from receiver import events, handler, lines, notify, parameters, server, store, views
from support.browser import CHROMIUM, Browser
from support.tools import needs

ROOMS = (events, handler, lines, notify, parameters, server, store, views)


@pytest.fixture
def settings(monkeypatch):
    """Return a function that sets constants of the receiver for the time of a test."""
    def change(**values):
        for name, value in values.items():
            rooms = [room for room in ROOMS if hasattr(room, name)]
            assert rooms, f"there is no {name}"
            for room in rooms:
                monkeypatch.setattr(room, name, value)
    return change


@pytest.fixture(scope="session")
def browser():
    """A Chromium, which all tests share."""
    needs("chromedriver", CHROMIUM or "chromium")
    with Browser() as browser:
        yield browser
