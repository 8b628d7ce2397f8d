"""Signals that somebody sends to run: passed on, waited for, reported."""
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import pytest

from support.files import SCRIPT
from support.peers import ACCEPTED, Peer, gated, part, reported
from support.processes import EVENT_WORDS, ended, fresh, run, run_code, start
from support.signals import COUNT_SIGNALS, SIGNAL_NAMES, number_of
from support.waiting import wait_for


def test_an_ignored_sigchld_does_not_hide_the_status(receiver):
    ended = subprocess.run(
        [sys.executable, SCRIPT, "run", "1010", "m", "sh", "-c", "exit 5"], env=receiver.env,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert ended.returncode == 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_once(number, edge_python, receiver):
    with start("run", "1010", "m", sys.executable, "-c", COUNT_SIGNALS, url=receiver.url + "/events",
               stdout=subprocess.PIPE, python=edge_python) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"1\n" and process.wait(20) == 6
    assert [state for _, state, _ in receiver.shown()] == ["running", "failed"]


def test_a_signal_as_the_command_starts_is_passed_on(receiver):
    for _ in range(20):
        with start("run", "1010", "m", "sh", "-c", "kill -TERM $PPID; exec sleep 20",
                   url=receiver.url + "/events") as process:
            assert process.wait(20) == 143
    assert [state for _, state, _ in receiver.shown()] == ["running", "failed"] * 20


def test_a_signal_that_may_not_be_passed_on_is_harmless(receiver):
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        become_root = shutil.copy(shutil.which("setpriv"), folder)
        os.chmod(become_root, 0o4755)
        script = shutil.copy(SCRIPT, folder)
        os.chmod(script, 0o755)  # whatever the umask of the checkout was
        python = "/usr/bin/python3"
        if not os.path.exists(python):
            pytest.skip("no Python that everybody may run")
        with subprocess.Popen(
                ["setpriv", "--reuid=65534", "--clear-groups", python, "-B", script, "--url",
                 receiver.url + "/events", "run", "1010", "m", become_root, "--reuid=0", "sh",
                 "-c",
                 "echo ready; sleep 1"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0 and process.stderr.read() == b""
    assert len(receiver.shown()) == 2


def test_term_before_the_first_report_is_out():
    with Peer(part(b"")) as peer:
        with start("--deadline=1", "run", "1010", "m", "sleep", "30", url=peer.url,
                   stderr=subprocess.PIPE) as process:
            wait_for(lambda: peer.requests)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143
        assert any("killed by SIGTERM" in message for _, message in reported(peer))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_only_a_second_signal_ends_the_last_report(number):
    with Peer(ACCEPTED, part(b"")) as peer:
        with start("run", "1010", "m", "sh", "-c", "exit 3", url=peer.url,
                   stderr=subprocess.PIPE) as process:
            wait_for(lambda: len(peer.requests) == 2)
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            begun = time.monotonic()
            process.send_signal(number)
            assert process.wait(10) == 3 and time.monotonic() - begun < 5


ENDING = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGALRM",
          "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGXCPU", "SIGRTMIN+3", "SIGRTMAX"]
WAIT_FOR_ONE = """
import signal, sys, time
got = []
signal.signal(int(sys.argv[1]), lambda number, frame: got.append(number))
print("ready", flush=True)
while not got:
    time.sleep(0.005)
print("got it", flush=True)
sys.exit(6)
"""


@pytest.mark.parametrize("name", ENDING)
def test_a_signal_is_passed_on_waited_for_and_reported(name):
    number = number_of(name)
    with Peer(ACCEPTED) as peer:
        process = start("run", "1010", "m", sys.executable, "-S", "-c", WAIT_FOR_ONE,
                          str(number), url=peer.url, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert ended(process) == (6, "got it\n", "")
        assert reported(peer) == [("running", "m"), ("failed", "m: exit status 6 after 0 s")]


@pytest.mark.parametrize("name", ENDING)
def test_a_signal_that_ends_the_command_is_reported(name):
    number = number_of(name)
    shown = SIGNAL_NAMES.get(number, number)
    with Peer(ACCEPTED) as peer:
        process = start("run", "1010", "m", "sh", "-c", "echo ready; exec sleep 30",
                          url=peer.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        status = -2 if number == signal.SIGINT else 128 + number
        assert ended(process) == (status, "", "")
        assert reported(peer)[1] == ("failed", f"m: killed by {shown} after 0 s")


SHOW_SIGNALS = "grep -E 'Sig(Blk|Ign)' /proc/self/status"


def signal_sets(text):
    return {line[:6]: int(line.split()[1], 16) & 0x7fffffff for line in text.splitlines()
            if line.startswith("Sig")}  # without those of the C library


def bits(*numbers):
    return sum(1 << (number - 1) for number in numbers)


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT], ids=["HUP", "INT"])
def test_an_ignored_signal_stays_ignored_and_does_not_end_the_last_report(number):
    def ignoring():
        fresh()
        signal.signal(number, signal.SIG_IGN)
    last = gated()
    with Peer(ACCEPTED, last) as peer:
        process = start("run", "1010", "m", "sh", "-c", SHOW_SIGNALS, url=peer.url,
                          first=ignoring, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_for(lambda: len(peer.events) == 2)
        for _ in range(2):  # farther apart than what counts as one
            process.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
        process.send_signal(number)
        last.gate.set()
        status, out, err = ended(process)
        assert (status, err) == (0, "")
        assert signal_sets(out)["SigIgn"] & bits(signal.SIGHUP, signal.SIGINT) == bits(number)
        assert reported(peer)[1] == ("succeeded", "m: done after 0 s")


@pytest.mark.parametrize("script, ignored", [
    ("nohup COMMAND", [signal.SIGHUP]), ("COMMAND & wait $!", [signal.SIGINT, signal.SIGQUIT]),
    ("trap '' USR1 TERM; COMMAND", [signal.SIGUSR1, signal.SIGTERM]), ("COMMAND", [])])
@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_the_command_ignores_what_its_shell_ignores(shell, script, ignored):
    if not shutil.which(shell) or "nohup" in script and not shutil.which("nohup"):
        pytest.skip("no such command here")
    asked = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGTERM]
    with Peer(ACCEPTED) as peer:
        command = f'"{sys.executable}" -B "{SCRIPT}" run 1010 m -- sh -c "$0"'
        process = subprocess.Popen(
            [shell, "-c", script.replace("COMMAND", command), SHOW_SIGNALS], preexec_fn=fresh,
            env={"PATH": os.environ["PATH"], "USERSTATE_URL": peer.url}, stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        status, out, _ = ended(process)
        assert status == 0 and len(peer.events) == 2
        assert signal_sets(out)["SigIgn"] & bits(*asked) == bits(*ignored)


@pytest.mark.parametrize("blocked", [[], [signal.SIGTERM, signal.SIGUSR1], [signal.SIGCHLD],
                                     [signal.SIGINT, signal.SIGHUP, signal.SIGRTMIN]], ids=str)
def test_the_command_gets_the_signal_mask_that_we_got(blocked, edge_python):
    def blocking():
        fresh()
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    with Peer(ACCEPTED) as peer:
        status, out, err = run(  # dash would unblock them
            "run", "1010", "m", "grep", "Sig[BI]", "/proc/self/status", url=peer.url,
            first=blocking, python=edge_python)
        assert (status, err) == (0, "") and len(peer.events) == 2
        assert signal_sets(out)["SigBlk"] == bits(*blocked) & 0x7fffffff


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_that_comes_twice_does_not_lose_the_end(name):
    number, last = number_of(name), gated()
    with Peer(ACCEPTED, last) as peer:
        process = start("run", "1010", "m", "sh", "-c", "echo ready; exec sleep 30",
                          url=peer.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        wait_for(lambda: len(peer.requests) == 1)
        process.send_signal(number)
        wait_for(lambda: len(peer.requests) == 2)
        for _ in range(2):  # within a moment, after the command has ended
            process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        last.gate.set()
        status = -2 if name == "SIGINT" else 128 + number
        assert ended(process) == (status, "", "")
        assert reported(peer)[1] == ("failed", f"m: killed by {name} after 0 s")


ONE_MOMENT = """
import os, signal, time
now, set_handler = time.monotonic(), signal.signal
time.monotonic = lambda: now
def tell(number, handler):
    def told(*words):
        try:
            handler(*words)
        finally:
            os.write(1, b"counted\\n")
    return set_handler(number, told if callable(handler) else handler)
signal.signal = tell
"""


@pytest.mark.parametrize("names, lost", [("TERM TERM TERM", False), ("HUP INT", True)])
def test_of_the_signals_of_a_moment_those_of_one_kind_are_one(names, lost):
    last = gated()
    with Peer(ACCEPTED, last) as peer:
        process = start("run", "1010", "m", "sh", "-c", "echo ready; exec sleep 30",
                          url=peer.url, before=ONE_MOMENT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        wait_for(lambda: len(peer.requests) == 1)
        process.terminate()
        wait_for(lambda: len(peer.requests) == 2)
        for name in names.split():
            process.send_signal(number_of("SIG" + name))
            assert process.stdout.readline() == b"counted\n"
        if not lost:
            last.gate.set()
        done = ended(process)
        last.gate.set()
        assert done.status == 128 + signal.SIGTERM
        assert done.err == "userstate: interrupted: the end is not reported\n" * lost


def test_a_time_out_that_tells_all_twice_does_not_lose_the_end():
    """timeout(1) that gets TERM does as at its end: it tells the child, then the group."""
    if not shutil.which("timeout"):
        pytest.skip("no timeout command here")
    with Peer(ACCEPTED) as peer:
        every = [subprocess.Popen(["timeout", "60", sys.executable, "-B", SCRIPT, "run",
                                   "1010", "m", "sleep", "30"], preexec_fn=fresh,
                                  env={"PATH": os.environ["PATH"], "USERSTATE_URL": peer.url},
                                  stderr=subprocess.PIPE) for _ in range(5)]
        wait_for(lambda: len(peer.events) == 5)
        for process in every:
            process.terminate()
        for process in every:
            assert ended(process).status == 128 + signal.SIGTERM
        assert [state for state, _ in reported(peer)] == ["running"] * 5 + ["failed"] * 5
        for _, message in reported(peer)[5:]:
            assert re.fullmatch(r"m: killed by SIGTERM after \d+ s", message)


KEPT = """
import json, signal, sys, userstate
def handler(number, frame): pass
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGCHLD, signal.SIGRTMIN):
    signal.signal(number, handler)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2, signal.SIGTERM})
def all():
    numbers = set(range(1, signal.NSIG)) - {32, 33}
    return [signal.getsignal(n) for n in numbers], signal.pthread_sigmask(signal.SIG_BLOCK, [])
before = all()
status = userstate.main(sys.argv[1:])
assert all() == before, (before, all())
sys.exit(status)
"""


@pytest.mark.parametrize("words, status", [
    (["run", "1010", "m", "sh", "-c", "exit 5"], 5), (["run", "1010", "m", "/nowhere/x"], 127),
    (["run", "--every=0.01", "1010", "m", "true"], 0), (["run", "1010", "m"], 2),
    (["run", "--log=/", "1010", "m", "true"], 2), (EVENT_WORDS, 0)], ids=str)
def test_main_leaves_handlers_and_mask_as_they_were(words, status, edge_python):
    with Peer(ACCEPTED) as peer:
        done = run_code(KEPT, "--url", peer.url, *words, python=edge_python)
        assert done.status == status, done
