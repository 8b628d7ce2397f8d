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
from support.receivers import read_to_end
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


CANNOT_CLOSE = """
import os, subprocess
poll = subprocess.Popen.poll
def close_first(process):  # so that the program's own close() fails, as on a full disk
    status = poll(process)
    if status is not None:
        for number in os.listdir("/proc/self/fd"):
            path = f"/proc/self/fd/{number}"
            if os.path.islink(path) and os.readlink(path) == LOG:
                os.close(int(number))
    return status
subprocess.Popen.poll = close_first
"""


def test_a_log_that_cannot_be_closed_does_not_change_the_status(tmp_path):
    log = tmp_path / "log"
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", str(log), "1010", "m", "true", url=peer.url,
                   before=CANNOT_CLOSE.replace("LOG", repr(str(log)))) == (0, "", "")
        assert reported(peer) == WELL


def test_the_mode_of_an_old_log_stays(tmp_path):
    log = tmp_path / "log"
    log.touch()
    log.chmod(0o640)
    with Peer(ACCEPTED) as peer:
        assert run("run", f"--log={log}", "1010", "m", "true", url=peer.url).status == 0
    assert log.stat().st_mode & 0o7777 == 0o640


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
    "what a report of the command says": (r"why\nuserstate: interrupted\n", ": why"),
    "only a colour": (r"\033[31m\n", ""),
    "a NUL": (r"a\n\000\n", ": a"),
    "only NULs": (r"\000\000\000", ""),
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


@pytest.mark.parametrize("text, told", [("z", ": " + "z" * 200), (r"\0", "")],
                         ids=["a line", "NULs"])
def test_a_mib_without_an_end_of_line_holds_nothing_up(text, told, tmp_path):
    with Peer(ACCEPTED) as peer, at_most(5):
        assert run("run", "--log", str(tmp_path / "log"), "1010", "m", "sh", "-c",
                   'head -c 1048576 /dev/zero | tr "\\0" "$0"; exit 3', text,
                   url=peer.url) == (3, "", "")
        assert reported(peer)[1] == ("failed", f"m: exit status 3 after 0 s{told}")


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


@pytest.mark.parametrize("before, status, more, events", [
    (["-n"], 0, "", []),
    ([], 3, "err\n", [WELL[0], ("failed", "m: exit status 3 after 0 s")])],
    ids=["dry run", "run"])
def test_a_socket_that_is_stderr_is_a_line_there(before, status, more, events, edge_python):
    """As in a unit of systemd, whose stderr is one of the journal."""
    why = "No such device or address"
    line = f"userstate: running 1010: log '/dev/stderr': {why}; it is not written\n"
    ours, journal = socket.socketpair()
    with Peer(ACCEPTED) as peer, ours:
        with journal:
            done = run(*before, "run", "--log", "/dev/stderr", "1010", "m", "sh", "-c",
                       "echo err >&2; exit 3", url=peer.url, python=edge_python,
                       stderr=journal)
        assert done.status == status
        assert read_to_end(ours) == (line + more).encode()
        assert reported(peer) == events


def test_a_nul_in_the_name_of_a_log_is_a_line(capfd):
    line = "userstate: running 1010: log .*null byte; it is not written\n"
    with Peer(ACCEPTED) as peer:
        words = ["--url", peer.url, "run", "--log", "a\0b", "1010", "m", "echo", "out"]
        assert userstate.main(["-n", *words]) == 0
        assert peer.requests == []
        assert re.fullmatch(line, capfd.readouterr().err)
        assert userstate.main(words) == 0
        assert reported(peer) == WELL
    out, err = capfd.readouterr()
    assert out == "out\n"
    assert re.fullmatch(line, err)


def run_without_privileges(python, url, *words, **options):
    """Run the command line as one for whom the mode of a file counts, which root is not."""
    drop = []
    if os.getuid() == 0:
        needs("setpriv")
        drop = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]
    return run_command(*drop, python, "-B", SCRIPT, "--url", url, *words, **options)


def test_a_log_that_may_not_be_written_is_a_line(tmp_path, edge_python):
    log = tmp_path / "log"
    log.write_text("kept\n")
    log.chmod(0o400)
    words = ["run", "--log", str(log), "1010", "m", "sh", "-c", "echo out; exit 3"]
    why = "Permission denied; it is not written"
    line = f"userstate: running 1010: log {str(log)!r}: {why}\n"
    with Peer(ACCEPTED) as peer:
        dry = run_without_privileges(edge_python, peer.url, "-n", *words)
        assert (dry.status, dry.err) == (0, line)
        assert peer.requests == []
        assert run_without_privileges(edge_python, peer.url, *words) == (3, "out\n", line)
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 3 after 0 s")]
    assert log.read_text() == "kept\n"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount")
def test_a_read_only_file_system_is_a_line(tmp_path):
    needs("unshare", "mount")
    with Peer(ACCEPTED) as peer:
        def run_there(*before):
            return run_command(
                "unshare", "--mount", "sh", "-ec", 'mount -t tmpfs -o ro none "$0"; exec "$@"',
                str(tmp_path), sys.executable, "-B", SCRIPT, "--url", peer.url, *before, "run",
                "--log", str(tmp_path / "log"), "1010", "m", "echo", "out")
        dry = run_there("-n")
        assert dry.status == 0
        assert peer.requests == []
        done = run_there()
        assert (done.status, done.out) == (0, "out\n")
        assert "Read-only file system; it is not written\n" in done.err
        assert dry.err == done.err
        assert reported(peer) == WELL


def test_a_dry_run_makes_no_log_and_leaves_one_as_it_is(tmp_path):
    words = ["-n", "run", "--log", str(tmp_path / "log"), "1010", "m", "true"]
    assert run(*words, url=DEAD).status == 0
    assert os.listdir(str(tmp_path)) == []
    (tmp_path / "log").write_text("kept\n")
    assert run(*words, url=DEAD).status == 0
    assert (tmp_path / "log").read_text() == "kept\n"


def test_a_dry_run_makes_no_log_behind_a_link_and_leaves_the_link(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("log")
    assert run("-n", "run", "--log", str(link), "1010", "m", "true", url=DEAD).status == 0
    assert os.listdir(str(tmp_path)) == ["link"]
    with Peer(ACCEPTED) as peer:
        run("run", "--log", str(link), "1010", "m", "echo", "out", url=peer.url)
    assert (tmp_path / "log").read_text() == "out\n"


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


def test_a_log_is_opened_as_no_controlling_terminal(tmp_path, monkeypatch):
    """A kernel of before 2016 makes one also of what is opened to be written alone."""
    opened, open_file = [], os.open

    def note(path, flags, *mode):
        opened.append(flags & (os.O_ACCMODE | os.O_NOCTTY))
        return open_file(path, flags, *mode)
    monkeypatch.setattr(os, "open", note)
    words = ["-n", "run", "--log", str(tmp_path / "log"), "1010", "m", "true"]
    assert userstate.main(["--url", DEAD, *words]) == 0
    assert opened == [os.O_WRONLY | os.O_NOCTTY]


def test_a_log_that_is_no_file_and_takes_all_does_no_harm():
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", "/dev/null", "1010", "m", "sh", "-c", "echo x; exit 3",
                   url=peer.url) == (3, "", "")
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 3 after 0 s")]


OLD = "an old line\n" * 400
# What the command does to its log; what it holds then.
MEANWHILE = {
    "cut": ": > LOG; echo why", "cut to something": "truncate -s 48 LOG; echo why",
    "cut and then longer than before": ": > LOG; seq 5000; echo why",
    "removed": "rm LOG; echo why", "renamed": "mv LOG LOG.1; echo why",
    "replaced": "mv LOG LOG.1; echo another > LOG; echo why"}


@pytest.mark.parametrize("command", MEANWHILE.values(), ids=MEANWHILE.keys())
def test_the_reason_is_found_though_the_log_is(command, tmp_path, edge_python):
    needs("truncate", "seq")
    log = tmp_path / "log"
    log.write_text(OLD)
    command = command.replace("LOG", str(log))
    with Peer(ACCEPTED) as peer:
        assert run("run", "--log", str(log), "1010", "m", "sh", "-c", f"{command}; exit 5",
                   url=peer.url, python=edge_python) == (5, "", "")
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s: why")


def test_a_log_of_gigabytes_takes_neither_time_nor_memory(tmp_path):
    log = tmp_path / "log"

    def with_little_memory():
        fresh()
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, most))
    with open(str(log), "wb") as file:
        file.truncate(10 << 30)  # with a hole in it
    with Peer(ACCEPTED) as peer, at_most(5):
        assert run("run", "--log", str(log), "1010", "m", "sh", "-c", "echo why; exit 5",
                   url=peer.url, first=with_little_memory) == (5, "", "")
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s: why")


def test_lines_of_ours_go_to_stderr_and_not_into_the_log(tmp_path, edge_python):
    log = tmp_path / "log"
    with Peer(answer(403)) as peer:
        done = run("run", "--log", str(log), "1010", "m", "sh", "-c", "echo why; exit 5",
                   url=peer.url, python=edge_python)
    assert (done.status, done.out) == (5, "")
    refused = re.findall("userstate: (.*?): .*refused", done.err)
    assert refused == ["running 1010", "failed 1010"]
    assert log.read_text() == "why\n"


@pytest.mark.parametrize("name", ["FOLDER/log", "/dev/stderr"])
def test_lines_of_ours_overwrite_nothing_of_a_log_that_is_stderr_too(name, tmp_path,
                                                                     edge_python):
    log = tmp_path / "log"
    name = name.replace("FOLDER", str(tmp_path))
    with Peer(answer(403)) as peer, open(str(log), "wb") as stderr:
        done = run("run", "--log", name, "1010", "m", "sh", "-c",
                   "echo the first line; echo why; exit 5", url=peer.url, stderr=stderr,
                   python=edge_python)
        assert done.status == 5
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s: why")
    lines = log.read_text().splitlines()
    own = [line for line in lines if line.startswith("userstate: ")]
    assert len(own) == 2
    assert [line for line in lines if line not in own] == ["the first line", "why"]


def test_a_line_of_ours_within_one_of_the_command_is_no_reason(tmp_path, edge_python):
    """Its stderr is the log, too; it has no end of line yet when the first report fails."""
    log = tmp_path / "log"
    command = 'printf "the "; until grep -q refused "$0"; do sleep 0.01; done; END; exit 5'

    def refuse_in_the_line(connection, peer):
        peer.read(connection)
        wait_for(log.read_bytes)
        connection.sendall(answer(403))

    for end, reason in [("echo reason", "the reason"), (":", "the")]:
        with Peer(refuse_in_the_line, ACCEPTED) as peer, open(str(log), "wb") as stderr:
            done = run("run", "--log", str(log), "1010", "m", "sh", "-c",
                       command.replace("END", end), str(log), url=peer.url, stderr=stderr,
                       python=edge_python)
            assert done.status == 5
            assert reported(peer)[1] == ("failed", f"m: exit status 5 after 0 s: {reason}")
        assert log.read_text().startswith("the userstate: running 1010: ")


def test_a_log_that_may_not_be_read_tells_no_reason_and_is_written(tmp_path, edge_python):
    """Nor is a line of ours written over it, if it is stderr, too."""
    log = tmp_path / "log"
    log.touch()
    log.chmod(0o200)
    with Peer(answer(403), ACCEPTED) as peer, open(str(log), "wb") as stderr:
        done = run_without_privileges(
            edge_python, peer.url, "run", "--log", str(log), "1010", "m", "sh", "-c",
            "echo the first line; echo why; exit 5", stderr=stderr)
        assert done.status == 5
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s")
    log.chmod(0o600)
    lines = log.read_text().splitlines()
    own = [line for line in lines if line.startswith("userstate: ")]
    assert len(own) == 1
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
import fcntl, os
for number in sorted(map(int, os.listdir("/proc/self/fd"))):
    try:
        flags = fcntl.fcntl(number, fcntl.F_GETFL)
    except OSError:  # of the listing
        continue
    print(number, "access", flags & os.O_ACCMODE, "append", bool(flags & os.O_APPEND),
          "non-blocking", bool(flags & os.O_NONBLOCK), flush=True)
"""


@pytest.mark.parametrize("closed", ["", "0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_the_command_has_its_log_as_a_shell_would_have_opened_it(closed, tmp_path,
                                                                 edge_python):
    """And no descriptor more, whichever were closed before."""
    ours, shells = tmp_path / "ours", tmp_path / "shells"
    command = [sys.executable, "-I", "-S", "-c", FLAGS]
    with Peer(ACCEPTED) as peer:
        run_command("sh", "-c", f'exec {closed}\nexec "$@"', "sh", edge_python, "-B", SCRIPT,
                    "--url", peer.url, "run", "--log", str(ours), "1010", "m", *command)
        assert reported(peer) == WELL
    run_command("sh", "-c", f'exec {closed}\nexec >> "$0" 2>&1; exec "$@"', str(shells),
                *command)
    assert ours.read_text() == shells.read_text()
    assert "1 access 1 append True non-blocking False\n" in ours.read_text()


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
