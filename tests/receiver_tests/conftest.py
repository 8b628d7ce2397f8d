"""The fixtures of the receiver's tests."""
import pytest

import service
from support.browser import CHROMIUM, Browser
from support.tools import needs


@pytest.fixture
def settings(monkeypatch):
    """Return a function that sets constants of the receiver for the time of a test."""
    def change(**values):
        for name, value in values.items():
            monkeypatch.setattr(service, name, value)
    return change


@pytest.fixture(scope="session")
def browser():
    """A Chromium, which all tests share."""
    needs("chromedriver", CHROMIUM or "chromium")
    with Browser() as browser:
        yield browser
