"""Standard streams that block, as nobody reads them: they hold up nothing for long."""
import itertools
import signal
import sys

import pytest

import userstate
from support.files import SOURCE
from support.peers import ACCEPTED, DEAD, Peer, answer, part
from support.processes import EVENT_WORDS, ended, run, run_code, start
from support.terminals import BLOCKED, full_pipe
from support.waiting import at_most, wait_for

# Answers of the peer, words, status, number of events that arrive at least.
SAYING = {
    "event": ([ACCEPTED], ["-v", *EVENT_WORDS], 0, 1),
    "retry": ([answer(503), ACCEPTED], EVENT_WORDS, 0, 2),
    "refusal": ([answer(403)], EVENT_WORDS, 1, 1),
    "deadline": ([answer(503)], ["--deadline=0.4", *EVENT_WORDS], 75, 1),
    "usage error": ([ACCEPTED], ["bogus", "1000", "x"], 2, 0),
    "unknown option": ([ACCEPTED], ["--nope", *EVENT_WORDS], 2, 0),
    "run": ([ACCEPTED], ["-v", "run", "1000", "x", "sh", "-c", "exit 3"], 3, 2),
    "run and refusals": ([answer(403)], ["run", "1000", "x", "sh", "-c", "exit 3"], 3, 2),
    "run of nothing": ([ACCEPTED], ["run", "1000", "x", "/nowhere/x"], 127, 1),
    "run without a log": ([ACCEPTED], ["run", "--log=/", "1000", "x", "true"], 0, 2),
}
UNLIKE = ["full pipe", "stopped terminal"]
ALIKE = [stream for stream in BLOCKED if stream not in UNLIKE]


@pytest.mark.parametrize("stream, name", [
    *itertools.product(UNLIKE, SAYING),
    *itertools.product(ALIKE, ["event", "refusal", "run"])])
def test_stderr_that_blocks_loses_lines_and_nothing_else(stream, name):
    answers, words, status, events = SAYING[name]
    with Peer(*answers) as peer, BLOCKED[stream]() as stderr:
        with at_most(5):
            done = run(*words, url=peer.url, stderr=stderr, seconds=8)
        assert done.status == status
        assert len(peer.events) >= events


def test_no_line_waits_for_a_stderr_that_blocks(monkeypatch):
    with full_pipe() as stderr, open(stderr, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with at_most(5):
            for _ in range(10):
                assert userstate.main(["--nope", *EVENT_WORDS]) == 2


@pytest.mark.parametrize("stream", UNLIKE)
def test_ctrl_c_ends_it_with_a_stderr_that_blocks(stream, edge_python):
    with Peer(part(b"")) as peer, BLOCKED[stream]() as stderr:
        process = start(*EVENT_WORDS, url=peer.url, stderr=stderr, python=edge_python)
        wait_for(lambda: peer.requests)
        process.send_signal(signal.SIGINT)
        assert ended(process, 5).status == -signal.SIGINT


@pytest.mark.parametrize("stream", UNLIKE)
def test_half_a_download_ends_with_a_stderr_that_blocks(stream, edge_python):
    half = SOURCE[:SOURCE.index(b"\nclass ")]
    with BLOCKED[stream]() as stderr:
        done = run_code(half, python=edge_python, stderr=stderr, seconds=5)
        assert done.status == 1


# Words, and variables that belong to them.
PRINTING = {
    "url": (["--deadline=0.2", "url"], {}),
    "url, with a variable": (["url"], {"USERSTATE_DEADLINE": "0.2"}),
    "dry run": (["--deadline=0.2", "-n", *EVENT_WORDS], {}),
    "dry run of run": (["--deadline=0.2", "-n", "run", "1000", "x", "true"], {}),
}


@pytest.mark.parametrize("stream, name", [
    *itertools.product(["full pipe"], PRINTING),
    *itertools.product([stream for stream in BLOCKED if stream != "full pipe"], ["url"])])
def test_stdout_that_blocks_is_an_error_at_the_deadline(stream, name):
    words, variables = PRINTING[name]
    with BLOCKED[stream]() as stdout:
        with at_most(3):
            done = run(*words, url=DEAD, stdout=stdout, env=variables, seconds=8)
    assert done.status == 1
    assert done.err == "userstate: cannot print: nobody reads it\n"
