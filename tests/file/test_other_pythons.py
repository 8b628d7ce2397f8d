"""A Python that is not CPython on Linux, as PyPy, or macOS: all works there but `run`.

That `run` is refused before its command starts is in run/test_command.py.
"""
import pytest

from support.authority import tls_peer, trusting
from support.peers import ACCEPTED, DEAD, WELL, Peer, reported
from support.processes import EVENT_WORDS, run, run_code

OTHER = """
import gc, signal
for module, name in ((gc, "set_threshold"), (signal, "sigtimedwait")):
    delattr(module, name)
"""
BLOCK = """
import sys, userstate
with userstate.step(1010, "m", every=60, url=sys.argv[1]):
    pass
"""


def test_an_event_by_https(authority, edge_python):
    with tls_peer(authority, "good") as peer:
        done = run(*EVENT_WORDS, url=peer.url, env=trusting(authority), before=OTHER,
                   python=edge_python)
        assert done == (0, "", "")
        assert reported(peer) == [("running", "x")]


def test_an_event_by_way_of_the_metadata(receiver, edge_python):
    done = run(*EVENT_WORDS, env=receiver.env, before=OTHER, python=edge_python)
    assert done == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_a_step(edge_python):
    with Peer(ACCEPTED) as peer:
        done = run_code(OTHER + BLOCK, peer.url, python=edge_python)
        assert done == (0, "", "")
        assert reported(peer) == WELL


@pytest.mark.parametrize("words, out", [
    (["-n", *EVENT_WORDS], '{"state": "running", "code": 1000, "message": "x"}\n'),
    (["--url", DEAD, "url"], DEAD + "\n"), (["--version"], "userstate 2.1\n")], ids=str)
def test_what_is_printed(words, out, edge_python):
    done = run(*words, before=OTHER, python=edge_python)
    assert done == (0, out, "")


@pytest.mark.parametrize("words", [
    ["run", "--every", "5", "1010", "m", "--", "touch", "RAN"],
    ["-n", "run", "1010", "m", "touch", "RAN"]], ids=["run", "dry run"])
def test_a_command_is_not_started(words, edge_python, tmp_path):
    ran = tmp_path / "ran"
    words = [word.replace("RAN", str(ran)) for word in words]
    with Peer(ACCEPTED) as peer:
        done = run(*words, url=peer.url, before=OTHER, python=edge_python)
        assert peer.requests == []
    line = "run: needs signal.sigtimedwait, as Linux has it"
    assert done == (2, "", f"userstate: {line}\n")
    assert not ran.exists()
