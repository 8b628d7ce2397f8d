"""A fault of the program's own: a line names its type, and with -v its traceback follows."""
import re

import pytest

import userstate
from support.peers import ACCEPTED, DEAD, Peer
from support.processes import EVENT_WORDS, run_code

# Where a TypeError is raised whose text could move a cursor, or pass for another line.
PLACES = {"in a request": "socket.getaddrinfo", "in main": "userstate.build_event",
          "in what reads an answer": "userstate._read",
          "in what prints": "userstate._public"}
WITH_A_BUG = """
import socket, sys, userstate
def fail(*args, **options):
    raise TypeError("\\x1b[31mboom\\nuserstate: forged\\u2028")
{} = fail
sys.exit(userstate.main(sys.argv[1:]))
"""


@pytest.fixture
def metadata_url():
    """The address of a peer that answers with nothing."""
    with Peer(ACCEPTED) as peer:
        yield peer.url


@pytest.mark.parametrize("place", PLACES)
def test_a_line_names_its_type(place, edge_python, metadata_url):
    done = run_code(WITH_A_BUG.format(PLACES[place]), "--metadata-url", metadata_url,
                    *EVENT_WORDS, python=edge_python)
    assert done.status == 1
    assert re.fullmatch(
        r"userstate: ([^\n]*: )?bug: TypeError: \[31mboom userstate: forged[^\n]*\n", done.err)


@pytest.mark.parametrize("place", PLACES)
def test_with_v_its_traceback_can_be_printed(place, edge_python, metadata_url):
    done = run_code(WITH_A_BUG.format(PLACES[place]), "-v", "--metadata-url", metadata_url,
                    *EVENT_WORDS, python=edge_python, traces=True)
    assert done.status == 1
    lines = done.err.split("\n")
    assert lines.pop() == ""
    assert "userstate: Traceback (most recent call last):" in lines
    assert 'userstate: File "<string>", line 4, in fail' in lines
    for line in lines:
        assert re.fullmatch("userstate: [ -~]*", line)


def test_the_line_of_one_in_a_request_names_event_and_address():
    done = run_code(WITH_A_BUG.format("socket.getaddrinfo"), "--url", "http://h/?s3cret",
                    "failed", "1042", "x")
    assert re.fullmatch(r"userstate: failed 1042: http://h/: bug: TypeError: \[31mboom .*"
                        r"; refused at try 1 after 0.\d s\n", done.err)


def test_in_python_it_is_the_cause_of_an_error(said, monkeypatch):
    bug = TypeError("\x1b[31mboom")

    def fail(*args, **options):
        raise bug
    monkeypatch.setattr(userstate, "_connect", fail)
    with pytest.raises(userstate.RefusedError, match=r"bug: TypeError: \[31mboom") as caught:
        userstate.post_event({}, DEAD, verbose=True, **said.options)
    assert caught.value.__cause__.__cause__ is bug
    assert said.lines[0] == "Traceback (most recent call last):"
    assert "TypeError: [31mboom" in said.lines
    assert all(line.isprintable() for line in said.lines)


@pytest.mark.parametrize("options", [{}, {"verbose": True}], ids=str)
def test_a_fault_of_the_network_has_no_traceback(options, said):
    with pytest.raises(userstate.DeadlineError):
        userstate.post_event({}, DEAD, deadline=1, **options, **said.options)
    assert not any("Traceback" in line for line in said.lines)


def test_it_does_not_change_what_a_command_does(edge_python):
    code = WITH_A_BUG.format("socket.getaddrinfo")
    done = run_code(code, "--url", "http://h/", "run", "1010", "m", "sh", "-c",
                    "echo a; exit 3", python=edge_python)
    assert done.status == 3
    assert done.out == "a\n"
    running, failed = done.err.splitlines()
    assert re.match("userstate: running 1010: http://h/: bug: TypeError: ", running)
    assert re.match("userstate: failed 1010: http://h/: bug: TypeError: ", failed)
