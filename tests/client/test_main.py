"""main() as a function: what it takes and returns, and what an import of it costs."""
import inspect

import pytest

import userstate
from support.peers import ACCEPTED, Peer
from support.processes import EVENT_WORDS, run_code


def test_main_returns_the_status_and_takes_the_arguments_of_the_process(monkeypatch, capsys):
    assert inspect.signature(userstate.main).parameters["argv"].default is None
    monkeypatch.setattr("sys.argv", ["userstate", "--version"])
    assert userstate.main() == 0
    assert "userstate" in capsys.readouterr().out


# A line for sh, and what main() returns, which no signal of the command ends.
COMMANDS = {"ends well": ("true", 0), "exits": ("exit 3", 3), "SIGINT": ("kill -INT $$", 130),
            "SIGTERM": ("kill -TERM $$", 143), "SIGKILL": ("kill -KILL $$", 137)}


@pytest.mark.parametrize("name", COMMANDS)
def test_main_returns_the_status_of_a_command(name):
    line, status = COMMANDS[name]
    with Peer(ACCEPTED) as peer:
        words = ["--url", peer.url, "run", "1010", "m", "sh", "-c", line]
        assert userstate.main(words) == status
        assert len(peer.events) == 2


@pytest.mark.parametrize("words", [
    EVENT_WORDS, ["-n", *EVENT_WORDS], ["run", "1010"], ["run", "1010", "m", "--", "true"],
    ["run", "--every=5", "1010", "m", "true"]], ids=" ".join)
def test_main_leaves_its_list_as_it_was(words, capfd):
    with Peer(ACCEPTED) as peer:
        argv = ["--url", peer.url, *words]
        copy = list(argv)
        status = userstate.main(argv)
        assert argv == copy
        assert userstate.main(tuple(argv)) == status


IN_A_THREAD = """
import sys, threading, userstate
got = []
thread = threading.Thread(target=lambda: got.append(userstate.main(sys.argv[1:])))
thread.start()
thread.join(20)
print(got)
"""
OPERANDS = "must be STATE CODE MESSAGE, the MESSAGE quoted and options before them; see --help"
# Words, status, standard error, events that arrive.
CALLS_IN_A_THREAD = {
    "event": (EVENT_WORDS, 0, "", 1),
    "dry run": (["-n", *EVENT_WORDS], 0, "", 0),
    "invalid": (["bogus"], 2, f"userstate: operands: 1, {OPERANDS}\n", 0),
    "run": (["run", "1010", "m", "--", "sh", "-c", "exit 4"], 2,
            "userstate: run: must be in the main thread\n", 0),
}


@pytest.mark.parametrize("name", CALLS_IN_A_THREAD)
def test_main_in_another_thread_does_all_but_run(name, edge_python):
    words, status, err, events = CALLS_IN_A_THREAD[name]
    with Peer(ACCEPTED) as peer:
        done = run_code(IN_A_THREAD, "--url", peer.url, *words, python=edge_python)
        assert done.out.endswith(f"[{status}]\n")
        assert done.err == err
        assert len(peer.requests) == events


IMPORT = """
import _thread, os, signal, sys
before = dict(os.environ), list(sys.path)
handlers = [signal.getsignal(number) for number in (1, 2, 15)]
import userstate
assert before == (dict(os.environ), sys.path)
assert handlers == [signal.getsignal(number) for number in (1, 2, 15)]
assert _thread._count() == 0
assert not {"logging", "subprocess", "argparse", "threading"} & set(sys.modules)
"""


def test_importing_does_nothing_but_define():
    assert run_code(IMPORT) == (0, "", "")


DRY_RUN = """
import sys, userstate
userstate.main(["-n", "running", "1000", "x"])
assert not {"subprocess", "logging"} & set(sys.modules)
"""


def test_what_only_run_needs_is_not_imported_for_an_event():
    done = run_code(DRY_RUN, flags=["-S"])
    assert done.status == 0
    assert done.err == ""
