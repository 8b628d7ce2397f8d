"""Images whose Python lacks modules, and the smallest of Debian."""
import re

import pytest

from support.files import SOURCE
from support.interpreters import hide
from support.processes import EVENT_WORDS, run
from support.tools import slow

PACKAGES = "install python3 (Alpine, Debian, Fedora, OpenWrt), python3-modules (Yocto)"


@pytest.mark.parametrize("module", ["json", "http", "email", "socket", "getopt", "random",
                                    "urllib", "contextlib"])
def test_a_module_that_is_missing_is_named_with_its_package(module, edge_python):
    """As in python3-minimal, python3-light and python3-core."""
    done = run(*EVENT_WORDS, python=edge_python, flags=["-S"], before=hide(module))
    assert done.status == 1
    error = f"ModuleNotFoundError: No module named '{module}'"
    assert done.err == f"userstate: {error}; {PACKAGES}\n"


@pytest.mark.parametrize("error, status, line", [
    ("MemoryError('all is taken')", 1, "MemoryError: all is taken"),
    ("OSError(5, 'EIO')", 1, "OSError: [Errno 5] EIO"),
    ("KeyboardInterrupt()", -2, "interrupted")])
def test_a_module_that_cannot_be_read_is_told_of_in_one_line(error, status, line, edge_python):
    done = run(*EVENT_WORDS, python=edge_python, flags=["-S"], before=hide("getopt", error))
    assert done.status == status
    assert done.err == f"userstate: {line}\n"


@slow
def test_a_debian_with_its_whole_python_and_nothing_else(debian, receiver):
    done = debian("python3").run(["python3", "-I", "-", *EVENT_WORDS], SOURCE, **receiver.env)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert receiver.shown() == [("user.1000", "running", "x")]


@slow
def test_a_debian_with_the_least_of_its_python_says_what_to_install(debian, receiver):
    """It has python3-minimal alone."""
    done = debian().run(["python3", "-I", "-", *EVENT_WORDS], SOURCE, **receiver.env)
    assert done.returncode == 1
    error = rb"ModuleNotFoundError: No module named .*"
    assert re.fullmatch(rb"userstate: " + error + rb"; install python3 .*\n", done.stderr)
