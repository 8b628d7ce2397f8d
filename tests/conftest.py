"""The fixtures that more than one room uses."""
import os
import signal
import sys
import tempfile

import pytest

sys.dont_write_bytecode = True
pytest.register_assert_rewrite("support")

from support import surroundings
from support.files import SCRIPT, TOP

surroundings.forget()
sys.path.insert(0, TOP)

import userstate
from support.authority import make_authority
from support.clocks import Said, Time
from support.debians import Debians
from support.fuzzing import FUZZ_TIMES
from support.interpreters import EDGES, PYTHONS
from support.processes import end_all
from support.receivers import Receiver
from support.tools import needs

pytest_plugins = ["support.plugin"]
assert userstate.__file__ == SCRIPT


@pytest.fixture(autouse=True)
def no_test_hangs():
    """End a test that waits for ever, as a fault in the program may make it do."""
    def give_up(number, frame):
        pytest.fail("the test does not end")  # no Exception, which the program may take
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300 * FUZZ_TIMES + (900 if os.environ.get("SLOW") else 0))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def no_process_stays():
    """End what a test has started and, as it failed, has not waited for."""
    yield
    end_all()


@pytest.fixture(params=PYTHONS.values(), ids=PYTHONS.keys())
def python(request):
    """Each interpreter that is installed."""
    return request.param


@pytest.fixture(params=EDGES.values(), ids=EDGES.keys())
def edge_python(request):
    """The oldest and the newest interpreter that is installed."""
    return request.param


@pytest.fixture
def receiver():
    """A receiver in this process, which knows every machine."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def said():
    """What a call said; pass **said.options to it, and time passes only by its pauses."""
    lines, time = [], Time()
    return Said(lines, time, {"say": lambda line: lines.append(str(line)),
                              "clock": time.clock, "sleep": time.sleep})


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A folder with ca.pem, and certificates with their keys, each in one file."""
    needs("openssl")
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder)
    return folder


@pytest.fixture(scope="session")
def debians():
    """The trees of a Debian stable."""
    with tempfile.TemporaryDirectory(prefix="debian") as folder:
        yield Debians(folder)


@pytest.fixture
def debian(debians):
    """Return a function of packages that returns a Debian with them, for one test."""
    with tempfile.TemporaryDirectory(prefix="debian") as folder:
        yield lambda *packages: debians.copy(folder, *packages)
