"""The log of run, and the reason of a failure that is found in it."""
import os
import re
import signal
import time

import pytest

from support.peers import ACCEPTED, WELL, Peer, reported
from support.processes import run

LAST_LINES = {  # what the command writes, by printf's escapes; what the message says
    "E: Unable to locate package nginx\\n": "E: Unable to locate package nginx",
    "a\\nb": "b", "a\\nb\\n\\n  \\n\\t\\n": "b", "10%%\\r50%%\\rno space\\r\\n": "no space",
    "\\033[31mred\\033[0m\\n": "red", "a\\tb\\001c\\007\\n": "a b c",
    "\\377\\376x\\n": "\ufffd\ufffdx",
    "\\303\\274ber\\n": "\xfcber", "": "", "\\n \\n": "", "\\033[31m\\n": "",
    "a\\n\\000\\n": "a",
    "\\342\\200\\256evil\\n": "evil", "x" * 500 + "\\n": "x" * 200, "y" * 100000: "y" * 200,
    "first\\n" + "z" * 70000 + "\\nlast": "last"}


@pytest.mark.parametrize("text", LAST_LINES, ids=lambda text: text[:20])
def test_a_failure_tells_the_last_line_that_is_not_empty(text, tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    with Peer(ACCEPTED) as peer:
        done = run("run", "--log", str(log), "1010", "m", "sh", "-c",
                      'printf "$0" >&2; exit 100', text, url=peer.url)
        assert done == (100, "", "")
        _, end = peer.events
        why = LAST_LINES[text]
        assert re.sub(r"\d+ s", "0 s", end["message"]) == (
            "m: exit status 100 after 0 s" + (": " + why if why else ""))
        assert end["message"].isprintable()
    assert log.read_bytes().startswith(b"before\n")


def test_a_log_holds_both_streams_behind_what_was_there(tmp_path, edge_python):
    log, old = tmp_path / "log", os.umask(0)
    command = ["sh", "-c", "echo out; echo err >&2; exit $0"]
    try:
        with Peer(ACCEPTED) as peer:
            for status in (0, 3):
                assert run("run", f"--log={log}", "1010", "m", *command, str(status),
                              url=peer.url, python=edge_python) == (status, "", "")
            assert reported(peer) == WELL + [
                WELL[0], ("failed", "m: exit status 3 after 0 s: err")]
    finally:
        os.umask(old)
    assert log.read_text() == "out\nerr\n" * 2
    assert log.stat().st_mode & 0o7777 == 0o600


def test_an_old_line_of_the_log_is_no_reason(tmp_path):
    log = tmp_path / "log"
    log.write_text("an old error\n")
    with Peer(ACCEPTED) as peer:
        assert run("run", f"--log={log}", "1010", "m", "false", url=peer.url).status == 1
        assert reported(peer)[1] == ("failed", "m: exit status 1 after 0 s")


@pytest.mark.parametrize("signal_name", ["KILL", "TERM"])
def test_a_killed_command_has_its_last_line_told(signal_name, tmp_path):
    with Peer(ACCEPTED) as peer:
        run("run", "--log", str(tmp_path / "log"), "1010", "m", "sh", "-c",
               f"echo why; kill -{signal_name} $$", url=peer.url)
        assert reported(peer)[1][1] == f"m: killed by SIG{signal_name} after 0 s: why"


def test_a_grandchild_that_keeps_the_log_holds_nothing_up(tmp_path):
    log = tmp_path / "log"
    with Peer(ACCEPTED) as peer:
        begun = time.monotonic()
        assert run("run", "--log", str(log), "1010", "m", "sh", "-c",
                      "sleep 30 & echo $!; exit 4", url=peer.url).status == 4
        assert time.monotonic() - begun < 5 and len(peer.events) == 2
    os.kill(int(log.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("path", ["/", "/nowhere/log", "", "/proc/version/x"])
def test_a_log_that_cannot_be_opened_runs_nothing(path, tmp_path):
    with Peer(ACCEPTED) as peer:
        done = run("run", "--log", path, "1010", "m", "touch", str(tmp_path / "ran"),
                      url=peer.url)
        assert peer.requests == [] and os.listdir(str(tmp_path)) == []
    assert done.status == 2 and re.fullmatch("userstate: log .*\n", done.err)


@pytest.mark.parametrize("path", ["/dev/null", "FIFO"])
def test_a_log_that_is_no_regular_file_does_no_harm(path, tmp_path):
    if path == "FIFO":
        path = str(tmp_path / "fifo")
        os.mkfifo(path)
    with Peer(ACCEPTED) as peer:
        done = run("run", "--log", path, "1010", "m", "sh", "-c", "echo x; exit 3",
                      url=peer.url)
        assert done == (3, "", "") and reported(peer)[1][1].startswith("m: exit status 3 after 0 s")
