"""The log of run: what it holds, the reason of a failure in it, and a log on a full disk."""
import os
import re
import resource
import signal

import pytest

from support.peers import ACCEPTED, WELL, Peer, reported
from support.processes import fresh, run
from support.waiting import at_most


def test_a_log_holds_both_streams_behind_what_was_there(tmp_path, edge_python):
    log = tmp_path / "log"

    def without_umask():
        fresh()
        os.umask(0)

    def run_it(status):
        return run("run", f"--log={log}", "1010", "m", "sh", "-c",
                   "echo out; echo err >&2; exit $0", str(status), url=peer.url,
                   python=edge_python, first=without_umask)
    with Peer(ACCEPTED) as peer:
        assert run_it(0) == (0, "", "")
        assert run_it(3) == (3, "", "")
        assert reported(peer) == [*WELL, WELL[0], ("failed", "m: exit status 3 after 0 s: err")]
    assert log.read_text() == "out\nerr\n" * 2
    assert log.stat().st_mode & 0o7777 == 0o600


LAST_LINES = {  # what the command writes, by printf's escapes; what the message ends with
    "one line": (r"E: Unable to locate package nginx\n",
                 ": E: Unable to locate package nginx"),
    "two lines": (r"a\nb", ": b"),
    "empty lines at the end": (r"a\nb\n\n  \n\t\n", ": b"),
    "a progress in one line": (r"10%%\r50%%\rno space\r\n", ": no space"),
    "a colour": (r"\033[31mred\033[0m\n", ": red"),
    "control characters": (r"a\tb\001c\007\n", ": a b c"),
    "not UTF-8": (r"\377\376x\n", ": \ufffd\ufffdx"),
    "not ASCII": (r"\303\274ber\n", ": \xfcber"),
    "nothing": ("", ""),
    "spaces": (r"\n \n", ""),
    "only a colour": (r"\033[31m\n", ""),
    "a NUL": (r"a\n\000\n", ": a"),
    "text from right to left": (r"\342\200\256evil\n", ": evil"),
    "a long line": ("x" * 500 + r"\n", ": " + "x" * 200),
    "a line longer than what is read": ("y" * 100000, ": " + "y" * 200),
    "a line after a long one": (r"first\n" + "z" * 70000 + r"\nlast", ": last")}


@pytest.mark.parametrize("text, told", LAST_LINES.values(), ids=LAST_LINES.keys())
def test_a_failure_tells_the_last_line_that_is_not_empty(text, told, tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", str(log), "1010", "m", "sh", "-c",
                   'printf "$0" >&2; exit 100', text, url=peer.url) == (100, "", "")
        assert reported(peer) == [WELL[0], ("failed", f"m: exit status 100 after 0 s{told}")]
        assert peer.events[1]["message"].isprintable()
    assert log.read_bytes().startswith(b"before\n")


def test_an_old_line_of_the_log_is_no_reason(tmp_path):
    log = tmp_path / "log"
    log.write_text("an old error\n")
    with Peer(ACCEPTED) as peer:
        assert run("run", f"--log={log}", "1010", "m", "false", url=peer.url).status == 1
        assert reported(peer)[1] == ("failed", "m: exit status 1 after 0 s")


@pytest.mark.parametrize("name", ["KILL", "TERM"])
def test_a_killed_command_has_its_last_line_told(name, tmp_path):
    with Peer(ACCEPTED) as peer:
        run("run", "--log", str(tmp_path / "log"), "1010", "m", "sh", "-c",
            f"echo why; kill -{name} $$", url=peer.url)
        assert reported(peer)[1] == ("failed", f"m: killed by SIG{name} after 0 s: why")


def test_a_grandchild_that_keeps_the_log_holds_nothing_up(tmp_path):
    log = tmp_path / "log"
    with Peer(ACCEPTED) as peer:
        with at_most(5):
            done = run("run", "--log", str(log), "1010", "m", "sh", "-c",
                       "sleep 30 & echo $!; exit 4", url=peer.url)
        os.kill(int(log.read_text()), signal.SIGKILL)
        assert done.status == 4
        assert len(peer.events) == 2


@pytest.mark.parametrize("path", ["/", "/nowhere/log", "", "/proc/version/x"])
def test_a_log_that_cannot_be_opened_runs_nothing(path, tmp_path):
    with Peer(ACCEPTED) as peer:
        done = run("run", "--log", path, "1010", "m", "touch", str(tmp_path / "ran"),
                   url=peer.url)
        assert peer.requests == []
    assert os.listdir(str(tmp_path)) == []
    assert done.status == 2
    assert re.fullmatch("userstate: log .*\n", done.err)


@pytest.mark.parametrize("path", ["/dev/null", "FOLDER/fifo"])
def test_a_log_that_is_no_regular_file_does_no_harm(path, tmp_path):
    os.mkfifo(str(tmp_path / "fifo"))
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", path.replace("FOLDER", str(tmp_path)), "1010", "m", "sh",
                   "-c", "echo x; exit 3", url=peer.url) == (3, "", "")
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 3 after 0 s")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("command, status, end", [
    ("echo lost; touch ran", 0, WELL[1]),
    ("echo lost; touch ran; exit 3", 3, ("failed", "m: exit status 3 after 0 s")),
    ("touch ran; exec cat /etc/passwd", 1, ("failed", "m: exit status 1 after 0 s"))])
def test_a_log_on_a_full_disk_leaves_the_command_its_own_status(command, status, end, tmp_path):
    """Each of its writes fails, and it alone says whether that is a failure."""
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", "/dev/full", "1010", "m", "sh", "-c", command,
                   url=peer.url, cwd=str(tmp_path)) == (status, "", "")
        assert reported(peer) == [WELL[0], end]
    assert os.listdir(str(tmp_path)) == ["ran"]


def test_a_log_whose_disk_fills_up_tells_the_last_line_that_it_holds(tmp_path):
    """A limit of the size of a file stands in for the disk."""
    log = tmp_path / "log"

    def with_room_for_one_line():
        fresh()
        most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (len("why\n"), most))
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", str(log), "1010", "m", "sh", "-c",
                   "trap '' XFSZ; echo why; echo lost; exit 3", url=peer.url,
                   first=with_room_for_one_line) == (3, "", "")
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 3 after 0 s: why")]
    assert log.read_text() == "why\n"
