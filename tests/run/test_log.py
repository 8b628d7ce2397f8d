"""The log of run: what it holds, the reason of a failure in it, and a log on a full disk."""
import os
import pty
import re
import resource
import signal
import socket
import subprocess
import sys

import pytest

import userstate
from support.files import SCRIPT
from support.peers import ACCEPTED, DEAD, WELL, Peer, answer, reported
from support.processes import ended, fresh, run, run_command, start
from support.tools import needs
from support.waiting import at_most, wait_for


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


# A log that cannot be opened: the path, the reason. FOLDER: of the test.
UNOPENED = {
    "a folder": ("/", "Is a directory"),
    "no folder": ("/nowhere/log", "No such file or directory"),
    "no name": ("", "No such file or directory"),
    "a file as a folder": ("/proc/version/x", "Not a directory"),
    "a socket": ("FOLDER/socket", "No such device or address"),
    "a FIFO that nobody reads": ("FOLDER/fifo", "No such device or address"),
    "a link to nowhere": ("FOLDER/link", "No such file or directory"),
}


@pytest.fixture
def odd_files(tmp_path):
    """A folder with files that cannot be opened for writing."""
    os.mkfifo(str(tmp_path / "fifo"))
    (tmp_path / "link").symlink_to("/nowhere/log")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    return tmp_path


@pytest.mark.parametrize("path, why", UNOPENED.values(), ids=UNOPENED.keys())
def test_without_its_log_the_command_runs_with_the_output_that_it_would_have_had(
        path, why, odd_files, edge_python):
    path = path.replace("FOLDER", str(odd_files))
    words = ["run", "--log", path, "1010", "m", "sh", "-c", "echo out; exit 3"]
    line = f"userstate: running 1010: log {path!r}: {why}; it is not written\n"
    before = os.listdir(str(odd_files))
    with Peer(ACCEPTED) as peer:
        dry = run("-n", *words, url=peer.url, python=edge_python)
        assert dry == (0, '{"state": "running", "code": 1010, "message": "m"}\n', line)
        assert peer.requests == []
        assert run(*words, url=peer.url, python=edge_python) == (3, "out\n", line)
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 3 after 0 s")]
    assert os.listdir(str(odd_files)) == before


def test_a_nul_in_the_name_of_a_log_is_a_line(capfd):
    with Peer(ACCEPTED) as peer:
        words = ["--url", peer.url, "run", "--log", "a\0b", "1010", "m", "echo", "out"]
        assert userstate.main(words) == 0
        assert reported(peer) == WELL
    out, err = capfd.readouterr()
    assert out == "out\n"
    assert re.fullmatch("userstate: running 1010: log .*null byte; it is not written\n", err)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_a_read_only_file_system_is_a_line(tmp_path):
    needs("unshare", "mount")
    with Peer(ACCEPTED) as peer:
        done = run_command(
            "unshare", "--mount", "sh", "-ec", 'mount -t tmpfs -o ro none "$0"; exec "$@"',
            str(tmp_path), sys.executable, "-B", SCRIPT, "--url", peer.url, "run", "--log",
            str(tmp_path / "log"), "1010", "m", "echo", "out")
        assert (done.status, done.out) == (0, "out\n")
        assert "Read-only file system; it is not written\n" in done.err
        assert reported(peer) == WELL


def test_a_dry_run_makes_no_log_and_leaves_one_as_it_is(tmp_path):
    words = ["-n", "run", "--log", str(tmp_path / "log"), "1010", "m", "true"]
    assert run(*words, url=DEAD).status == 0
    assert os.listdir(str(tmp_path)) == []
    (tmp_path / "log").write_text("kept\n")
    assert run(*words, url=DEAD).status == 0
    assert (tmp_path / "log").read_text() == "kept\n"


# Prints until its output breaks; 9: by SIGPIPE it would end without a word.
ENDLESS = """
i=0
while [ $i -lt 20000 ]; do
  echo "line $i of the output" || exit 9
  i=$((i+1))
done
"""


def test_a_log_that_is_a_pipe_breaks_when_its_reader_has_gone(edge_python):
    with Peer(ACCEPTED) as peer, at_most(15):
        line = (f"'{edge_python}' -B '{SCRIPT}' --url {peer.url} run --log /dev/stdout 1010 m "
                f"sh -c '{ENDLESS}' | head -n 1")
        done = run_command("sh", "-c", line)
        assert done == (0, "line 0 of the output\n", "")
        wait_for(lambda: len(peer.events) == 2)
        assert reported(peer)[1] == ("failed", "m: killed by SIGPIPE after 0 s")


def test_a_log_that_is_a_fifo_breaks_when_its_reader_has_gone(tmp_path, edge_python):
    fifo = str(tmp_path / "fifo")
    os.mkfifo(fifo)
    with Peer(ACCEPTED) as peer, at_most(15):
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        process = start("run", "--log", fifo, "1010", "m", "sh", "-c", ENDLESS, url=peer.url,
                        python=edge_python)
        wait_for(lambda: peer.events)
        os.close(reader)
        assert ended(process).status == 128 + signal.SIGPIPE
        assert reported(peer)[1] == ("failed", "m: killed by SIGPIPE after 0 s")


def test_a_log_that_is_a_terminal_does_not_become_that_of_the_command(edge_python):
    """A unit of systemd is a session leader without one; its hang-up would kill the command."""
    master, slave = pty.openpty()
    with Peer(ACCEPTED) as peer:
        process = start("run", "--log", os.ttyname(slave), "1010", "m", "sh", "-c",
                        "echo begun; cat; exit 4", url=peer.url, python=edge_python,
                        stdin=subprocess.PIPE)
        assert os.read(master, 100) == b"begun\r\n"
        with open(f"/proc/{process.pid}/stat") as file:
            assert file.read().split()[6] == "0"  # no terminal
        os.close(slave)
        os.close(master)
        assert ended(process).status == 4
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 4 after 0 s")]


def test_a_log_that_is_no_file_and_takes_all_does_no_harm():
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", "/dev/null", "1010", "m", "sh", "-c", "echo x; exit 3",
                   url=peer.url) == (3, "", "")
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 3 after 0 s")]


OLD = "an old line\n" * 400
# What the command does to its log; what it holds then.
MEANWHILE = {
    "cut": ": > LOG; echo why", "cut to something": "truncate -s 48 LOG; echo why",
    "removed": "rm LOG; echo why", "renamed": "mv LOG LOG.1; echo why",
    "replaced": "mv LOG LOG.1; echo another > LOG; echo why"}


@pytest.mark.parametrize("command", MEANWHILE.values(), ids=MEANWHILE.keys())
def test_the_reason_is_found_though_the_log_is(command, tmp_path, edge_python):
    needs("truncate")
    log = tmp_path / "log"
    log.write_text(OLD)
    command = command.replace("LOG", str(log))
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", str(log), "1010", "m", "sh", "-c", f"{command}; exit 5",
                   url=peer.url, python=edge_python) == (5, "", "")
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s: why")


def test_a_log_of_gigabytes_takes_neither_time_nor_memory(tmp_path):
    log = tmp_path / "log"
    with open(str(log), "wb") as file:
        file.truncate(10 << 30)  # with a hole in it
    with Peer(ACCEPTED) as peer, at_most(5):
        assert run("run", "--log", str(log), "1010", "m", "sh", "-c", "echo why; exit 5",
                   url=peer.url) == (5, "", "")
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s: why")


def test_lines_of_ours_overwrite_nothing_of_a_log_that_is_stderr_too(tmp_path, edge_python):
    log = tmp_path / "log"
    with Peer(answer(403)) as peer, open(str(log), "wb") as stderr:
        done = run("run", "--log", str(log), "1010", "m", "sh", "-c",
                   "echo the first line; echo why; exit 5", url=peer.url, stderr=stderr,
                   python=edge_python)
        assert done.status == 5
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s: why")
    lines = log.read_text().splitlines()
    own = [line for line in lines if line.startswith("userstate: ")]
    assert len(own) == 2
    assert [line for line in lines if line not in own] == ["the first line", "why"]


def test_two_steps_may_have_one_log(tmp_path):
    log = str(tmp_path / "log")
    with Peer(ACCEPTED) as peer:
        processes = [start("run", "--log", log, "1010", "m", "sh", "-c",
                           f"for i in 1 2 3 4 5; do echo {name} $i; done; exit 3", url=peer.url)
                     for name in ("one", "two")]
        assert [ended(process).status for process in processes] == [3, 3]
        ends = [message for state, message in reported(peer) if state == "failed"]
    assert len(ends) == 2
    for end in ends:
        assert re.fullmatch("m: exit status 3 after 0 s: (one|two) [1-5]", end)
    with open(log) as file:
        assert sorted(file.read().split()) == sorted(["one", "two"] * 5 + [*"12345"] * 2)


FLAGS = """
import fcntl, os, sys
flags = fcntl.fcntl(1, fcntl.F_GETFL)
kinds = {"access": flags & os.O_ACCMODE, "append": bool(flags & os.O_APPEND),
         "non-blocking": bool(flags & os.O_NONBLOCK)}
print(sorted(kinds.items()), sorted(map(int, os.listdir("/proc/self/fd")))[:-1])
"""


def test_the_command_has_its_log_as_a_shell_would_have_opened_it(tmp_path, edge_python):
    ours, shells = tmp_path / "ours", tmp_path / "shells"
    command = [sys.executable, "-I", "-c", FLAGS]
    with Peer(ACCEPTED) as peer:
        run("run", "--log", str(ours), "1010", "m", *command, url=peer.url, python=edge_python)
    run_command("sh", "-c", 'exec >> "$0" 2>&1; exec "$@"', str(shells), *command)
    assert ours.read_text() == shells.read_text() != ""


NO_FSTAT = """
import os
def fstat(descriptor):
    raise OSError(5, "Input/output error")
os.fstat = fstat
"""


def test_a_log_that_cannot_be_read_any_more_changes_no_status(tmp_path, edge_python):
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", str(tmp_path / "log"), "1010", "m", "sh", "-c",
                   "echo why; exit 5", url=peer.url, before=NO_FSTAT,
                   python=edge_python) == (5, "", "")
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s")


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
