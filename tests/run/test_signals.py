"""Signals that somebody sends to run, while the command runs or during the last report."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile

import pytest

from support.files import SCRIPT
from support.peers import ACCEPTED, WELL, Peer, gated, part, reported
from support.processes import (
    EVENT_WORDS,
    USERSTATE,
    ended,
    fresh,
    run,
    run_code,
    run_command,
    start,
    start_command,
)
from support.signals import COUNT_SIGNALS, SIGNAL_NAMES, number_of
from support.tools import needs
from support.waiting import at_most, wait_for

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
SLEEPING = ["sh", "-c", "echo ready; exec sleep 30"]
ENDING = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM",
          "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGXCPU", "SIGRTMIN+3", "SIGRTMAX"]


def status_after(number):
    """Return how run ends if this signal has ended the command: as a shell tells it."""
    by_itself = number == signal.SIGINT  # so that a script that called it ends, too
    return -number if by_itself else 128 + number


def with_signals(ignored=(), blocked=()):
    """Return what to call before exec, so that a process has these ignored and blocked."""
    def first():
        fresh()
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return first


def does_not_end(process):
    """Prove that process runs on for more than the moment in which two signals are one."""
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)


# While the command runs.

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_once(number, edge_python):
    with Peer(ACCEPTED) as peer:
        process = start("run", "1010", "m", sys.executable, "-c", COUNT_SIGNALS, url=peer.url,
                        python=edge_python, **PIPES)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert ended(process) == (6, "1\n", "")
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 6 after 0 s")]


WAIT_FOR_ONE = """
import signal, sys, time
got = []
signal.signal(int(sys.argv[1]), lambda number, frame: got.append(number))
print("ready", flush=True)
end = time.monotonic() + 20
while not got and time.monotonic() < end:
    time.sleep(0.005)
print("got it" if got else "got none", flush=True)
sys.exit(6)
"""


@pytest.mark.parametrize("name", ENDING)
def test_a_signal_is_passed_on_waited_for_and_reported(name):
    number = number_of(name)
    with Peer(ACCEPTED) as peer:
        process = start("run", "1010", "m", sys.executable, "-S", "-c", WAIT_FOR_ONE,
                        str(number), url=peer.url, **PIPES)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert ended(process) == (6, "got it\n", "")
        assert reported(peer) == [WELL[0], ("failed", "m: exit status 6 after 0 s")]


@pytest.mark.parametrize("name", ENDING)
def test_a_signal_that_ends_the_command_is_reported(name):
    number = number_of(name)
    shown = SIGNAL_NAMES.get(number, number)
    with Peer(ACCEPTED) as peer:
        process = start("run", "1010", "m", *SLEEPING, url=peer.url, **PIPES)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert ended(process) == (status_after(number), "", "")
        assert reported(peer)[1] == ("failed", f"m: killed by {shown} after 0 s")


def test_a_signal_as_the_command_starts_is_passed_on():
    with Peer(ACCEPTED) as peer:
        for _ in range(20):
            done = run("run", "1010", "m", "sh", "-c", "kill -TERM $PPID; exec sleep 20",
                       url=peer.url)
            assert done == (143, "", "")
        assert [state for state, _ in reported(peer)] == ["running", "failed"] * 20


def test_term_before_the_first_report_is_out():
    with Peer(part(b"")) as peer:
        process = start("--deadline=1", "run", "1010", "m", "sleep", "30", url=peer.url,
                        **PIPES)
        wait_for(lambda: peer.requests)
        process.terminate()
        assert ended(process).status == 143
        assert ("failed", "m: killed by SIGTERM after 0 s") in reported(peer)


def test_a_signal_that_may_not_be_passed_on_is_harmless():
    needs("setpriv")
    python = "/usr/bin/python3"
    if os.getuid() or not os.path.exists(python):
        pytest.skip("needs root, and a Python that everybody may run")
    with Peer(ACCEPTED) as peer, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        become_root = shutil.copy(shutil.which("setpriv"), folder)
        os.chmod(become_root, 0o4755)
        script = shutil.copy(SCRIPT, folder)
        os.chmod(script, 0o755)  # whatever the umask of the checkout was
        process = start_command(
            "setpriv", "--reuid=65534", "--clear-groups", python, "-B", script, "--url",
            peer.url, "run", "1010", "m", become_root, "--reuid=0", "sh", "-c",
            "echo ready; sleep 1", **PIPES)
        assert process.stdout.readline() == b"ready\n"
        process.terminate()
        assert ended(process) == (0, "", "")
        assert len(peer.events) == 2


def test_a_time_out_that_tells_all_twice_does_not_lose_the_end():
    """timeout(1) that gets TERM does as at its end: it tells the child, then the group."""
    needs("timeout")
    with Peer(ACCEPTED) as peer:
        every = [start_command("timeout", "60", sys.executable, "-B", SCRIPT, "run", "1010",
                               "m", "sleep", "30", env={"USERSTATE_URL": peer.url}, **PIPES)
                 for _ in range(5)]
        wait_for(lambda: len(peer.events) == 5)
        for process in every:
            process.terminate()
        for process in every:
            assert ended(process).status == 128 + signal.SIGTERM
        assert reported(peer) == [WELL[0]] * 5 + [
            ("failed", "m: killed by SIGTERM after 0 s")] * 5


# During the last report.

TELL = """
import os, signal
set_handler = signal.signal
def tell(number, handler):
    def told(*words):
        try:
            handler(*words)
        finally:
            os.write(1, b"counted\\n")
    return set_handler(number, told if callable(handler) else handler)
signal.signal = tell
"""
ALL_IN_ONE_MOMENT = TELL + """
import time
now = time.monotonic()
time.monotonic = lambda: now
"""
INTERRUPTED = "userstate: failed 1010: interrupted: it is not reported\n"
LAST = ["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2"]


@pytest.mark.parametrize("name", LAST)
def test_a_first_signal_does_not_end_the_last_report(name):
    last = gated()
    with Peer(ACCEPTED, last) as peer:
        process = start("run", "1010", "m", "sh", "-c", "exit 3", url=peer.url, **PIPES)
        wait_for(lambda: len(peer.requests) == 2)
        process.send_signal(number_of(name))
        does_not_end(process)
        last.gate.set()
        assert ended(process) == (3, "", "")
        assert reported(peer)[1] == ("failed", "m: exit status 3 after 0 s")


def test_more_signals_at_once_do_not_change_the_status():
    with Peer(ACCEPTED, part(b"")) as peer:
        process = start("run", "1010", "m", "sh", "-c", "exit 3", url=peer.url, **PIPES)
        wait_for(lambda: len(peer.requests) == 2)
        process.send_signal(signal.SIGSTOP)  # so that they all come at once
        for name in ("SIGHUP", "SIGINT", "SIGTERM", "SIGUSR1", "SIGCONT"):
            process.send_signal(number_of(name))
        assert ended(process) == (3, "", INTERRUPTED)


@pytest.mark.parametrize("name", LAST)
def test_a_second_signal_ends_the_last_report(name):
    with Peer(ACCEPTED, part(b"")) as peer:
        process = start("run", "1010", "m", "sh", "-c", "exit 3", url=peer.url, before=TELL,
                        **PIPES)
        wait_for(lambda: len(peer.requests) == 2)
        process.send_signal(number_of(name))
        assert process.stdout.readline() == b"counted\n"
        does_not_end(process)
        with at_most(5):
            process.send_signal(number_of(name))
            assert ended(process) == (3, "counted\n", INTERRUPTED)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_that_comes_twice_does_not_lose_the_end(name):
    number, last = number_of(name), gated()
    with Peer(ACCEPTED, last) as peer:
        process = start("run", "1010", "m", *SLEEPING, url=peer.url, **PIPES)
        assert process.stdout.readline() == b"ready\n"
        wait_for(lambda: len(peer.requests) == 1)
        process.send_signal(number)
        wait_for(lambda: len(peer.requests) == 2)
        for _ in range(2):  # within a moment, after the command has ended
            process.send_signal(number)
        does_not_end(process)
        last.gate.set()
        assert ended(process) == (status_after(number), "", "")
        assert reported(peer)[1] == ("failed", f"m: killed by {name} after 0 s")


def begin_the_last_report(peer):
    """Return a run whose command TERM has ended, and whose last report waits for its answer."""
    process = start("run", "1010", "m", *SLEEPING, url=peer.url, before=ALL_IN_ONE_MOMENT,
                    **PIPES)
    assert process.stdout.readline() == b"ready\n"
    wait_for(lambda: len(peer.requests) == 1)
    process.terminate()
    wait_for(lambda: len(peer.requests) == 2)
    return process


def test_the_signals_of_one_kind_in_a_moment_are_one():
    last = gated()
    with Peer(ACCEPTED, last) as peer:
        process = begin_the_last_report(peer)
        for _ in range(3):
            process.terminate()
            assert process.stdout.readline() == b"counted\n"
        last.gate.set()
        assert ended(process) == (128 + signal.SIGTERM, "", "")
        assert reported(peer)[1] == ("failed", "m: killed by SIGTERM after 0 s")


def test_the_signals_of_two_kinds_in_a_moment_are_two():
    with Peer(ACCEPTED, part(b"")) as peer:
        process = begin_the_last_report(peer)
        for number in (signal.SIGHUP, signal.SIGINT):
            process.send_signal(number)
            assert process.stdout.readline() == b"counted\n"
        assert ended(process) == (128 + signal.SIGTERM, "", INTERRUPTED)


# What the command and the caller find of them.

SHOW_SIGNALS = "grep -E 'Sig(Blk|Ign)' /proc/self/status"


def signal_sets(text):
    return {line[:6]: int(line.split()[1], 16) & 0x7fffffff for line in text.splitlines()
            if line.startswith("Sig")}  # without those of the C library


def bits(*numbers):
    return sum(1 << (number - 1) for number in numbers)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT], ids=["HUP", "INT"])
def test_an_ignored_signal_stays_ignored_and_does_not_end_the_last_report(number):
    last = gated()
    with Peer(ACCEPTED, last) as peer:
        process = start("run", "1010", "m", "sh", "-c", SHOW_SIGNALS, url=peer.url,
                        first=with_signals(ignored=[number]), **PIPES)
        wait_for(lambda: len(peer.events) == 2)
        for _ in range(2):
            process.send_signal(number)
            does_not_end(process)
        process.send_signal(number)
        last.gate.set()
        done = ended(process)
        assert done.status == 0
        assert done.err == ""
        ignored = signal_sets(done.out)["SigIgn"]
        assert ignored & bits(signal.SIGHUP, signal.SIGINT) == bits(number)
        assert reported(peer) == WELL


@pytest.mark.parametrize("script, ignored", [
    ("nohup COMMAND", [signal.SIGHUP]), ("COMMAND & wait $!", [signal.SIGINT, signal.SIGQUIT]),
    ("trap '' USR1 TERM; COMMAND", [signal.SIGUSR1, signal.SIGTERM]), ("COMMAND", [])])
@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_command_ignores_what_its_shell_ignores(shell, script, ignored):
    needs(shell, "nohup")
    asked = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTERM]
    line = script.replace("COMMAND", f'{USERSTATE} run 1010 m -- sh -c "$0"')
    with Peer(ACCEPTED) as peer:
        done = run_command(shell, "-c", line, SHOW_SIGNALS, env={"USERSTATE_URL": peer.url})
        assert done.status == 0
        assert signal_sets(done.out)["SigIgn"] & bits(*asked) == bits(*ignored)
        assert len(peer.events) == 2


@pytest.mark.parametrize("blocked", [[], [signal.SIGTERM, signal.SIGUSR1], [signal.SIGCHLD],
                                     [signal.SIGINT, signal.SIGHUP, signal.SIGRTMIN]], ids=str)
def test_the_command_gets_the_signal_mask_that_we_got(blocked, edge_python):
    with Peer(ACCEPTED) as peer:
        done = run("run", "1010", "m", "grep", "Sig[BI]", "/proc/self/status", url=peer.url,
                   first=with_signals(blocked=blocked),  # which dash would unblock
                   python=edge_python)
        assert done.status == 0
        assert done.err == ""
        assert signal_sets(done.out)["SigBlk"] == bits(*blocked) & 0x7fffffff
        assert len(peer.events) == 2


def test_an_ignored_sigchld_does_not_hide_the_status():
    with Peer(ACCEPTED) as peer:
        assert run("run", "1010", "m", "sh", "-c", "exit 5", url=peer.url,
                   first=with_signals(ignored=[signal.SIGCHLD])) == (5, "", "")
        assert reported(peer)[1] == ("failed", "m: exit status 5 after 0 s")


KEPT = """
import signal, sys, userstate
def handler(number, frame): pass
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD, signal.SIGRTMIN):
    signal.signal(number, handler)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2, signal.SIGTERM})
def handlers_and_mask():
    numbers = set(range(1, signal.NSIG)) - {32, 33}
    return [signal.getsignal(n) for n in numbers], signal.pthread_sigmask(signal.SIG_BLOCK, [])
before = handlers_and_mask()
status = userstate.main(sys.argv[1:])
assert handlers_and_mask() == before, (before, handlers_and_mask())
sys.exit(status)
"""


@pytest.mark.parametrize("words, status", [
    (["run", "1010", "m", "sh", "-c", "exit 5"], 5), (["run", "1010", "m", "/nowhere/x"], 127),
    (["run", "--every=0.01", "1010", "m", "true"], 0), (["run", "1010", "m"], 2),
    (["run", "--log=/", "1010", "m", "true"], 0), (EVENT_WORDS, 0)], ids=str)
def test_main_leaves_handlers_and_mask_as_they_were(words, status, edge_python):
    with Peer(ACCEPTED) as peer:
        done = run_code(KEPT, "--url", peer.url, *words, python=edge_python)
        assert done.status == status, done
