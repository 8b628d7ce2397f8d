"""Ctrl-C and hang-ups: what a terminal tells the whole group, and the shell that waits."""
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from support.files import SCRIPT, SOURCE
from support.peers import ACCEPTED, DEAD, Peer, part, reported
from support.processes import USERSTATE, ended, run, run_command, start, start_command
from support.signals import COUNT_SIGNALS
from support.terminals import Terminal
from support.tools import needs
from support.waiting import wait_for

CTRL_C = b"\x03"
RUN = [sys.executable, "-B", SCRIPT, "run", "1010", "m"]
SLEEP = "echo ready; exec sleep 30"
BY_CTRL_C = ("failed", "m: killed by SIGINT after 0 s")


# Ctrl-C, which a terminal tells the whole group.

def test_ctrl_c_reaches_the_command_once_and_it_has_the_terminal():
    command = ["sh", "-c", '[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && exec "$0" -c "$1"',
               sys.executable, COUNT_SIGNALS]
    with Peer(ACCEPTED) as peer:
        with Terminal(*RUN, *command, env={"USERSTATE_URL": peer.url}) as terminal:
            terminal.read_until(b"ready")
            terminal.type(CTRL_C)
            done = terminal.ended()
        assert done.status == 6
        assert "1\r\n" in done.out
        assert "2\r\n" not in done.out
        assert len(peer.events) == 2


def test_ctrl_c_reaches_a_command_in_a_group_of_its_own():
    """The terminal sends it to the group of the reporter only."""
    command = [sys.executable, "-c", """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.setpgid(0, 0)
print("ready", flush=True)
time.sleep(30)
"""]
    with Peer(ACCEPTED) as peer:
        with Terminal(*RUN, *command, env={"USERSTATE_URL": peer.url}) as terminal:
            terminal.read_until(b"ready")
            terminal.type(CTRL_C)
            assert terminal.ended().status == -signal.SIGINT
        assert reported(peer)[-1] == BY_CTRL_C


# A shell that waits for it.

@contextmanager
def script_that_ctrl_c_ends(shell, line, url, folder):
    """Run a script of this line at a terminal; after the block Ctrl-C has to end it."""
    needs(shell)
    script = folder / "script"
    script.write_text(f"{USERSTATE} {line}\necho went on\n")
    with Terminal(shell, str(script), env={"USERSTATE_URL": url}) as terminal:
        yield terminal
        terminal.type(CTRL_C)
        done = terminal.ended()
    assert done.status == -signal.SIGINT
    assert "went on" not in done.out


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell_script_ends_with_ctrl_c_in_run(shell, tmp_path):
    line = f"run 1010 m -- sh -c '{SLEEP}'"
    with Peer(ACCEPTED) as peer:
        with script_that_ctrl_c_ends(shell, line, peer.url, tmp_path) as terminal:
            terminal.read_until(b"ready")
        assert reported(peer)[-1] == BY_CTRL_C


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell_script_ends_with_ctrl_c_in_an_event(shell, tmp_path):
    with Peer(part(b"")) as peer:
        with script_that_ctrl_c_ends(shell, "running 1000 x", peer.url, tmp_path):
            wait_for(lambda: peer.requests)


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell_script_ends_with_ctrl_c_in_a_pause(shell, tmp_path):
    with script_that_ctrl_c_ends(shell, "running 1000 x", DEAD, tmp_path) as terminal:
        terminal.read_until(b"trying again")


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell_script_ends_with_a_sigint_to_its_group(shell):
    needs(shell)
    with Peer(ACCEPTED) as peer:
        process = start_command(
            shell, "-c", f"{USERSTATE} run 1010 m -- sh -c '{SLEEP}'\necho went on",
            env={"USERSTATE_URL": peer.url}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGINT)
        done = ended(process)
        assert done.status == -signal.SIGINT
        assert done.out == ""
        wait_for(lambda: len(peer.events) == 2)


def test_a_shell_sees_130_of_a_command_that_sigint_killed(edge_python):
    line = f"'{edge_python}' -B '{SCRIPT}' run 1010 m -- sh -c 'kill -INT $$'; echo $?"
    with Peer(ACCEPTED) as peer:
        done = run_command("sh", "-c", line, env={"USERSTATE_URL": peer.url})
        assert done == (0, "130\n", "")
        assert reported(peer)[-1] == BY_CTRL_C


# A hang-up, which is told by the kernel, and again by the shell that leads the session.

@contextmanager
def terminal_that_goes_away(*command):
    """Hang up when the command, after the block, says ready; the end has to be reported."""
    with Peer(ACCEPTED) as peer:
        env = {"USERSTATE_URL": peer.url, "HOME": "/nowhere"}
        with Terminal(*command, env=env) as terminal:
            yield terminal
            terminal.read_until(b"ready")
            terminal.hang_up()
            terminal.process.wait(20)
            wait_for(lambda: len(peer.events) == 2)
        assert reported(peer)[1] == ("failed", "m: killed by SIGHUP after 0 s")


@pytest.mark.parametrize("attempt", range(4))
def test_a_terminal_that_goes_away_does_not_lose_the_end(attempt):
    with terminal_that_goes_away(*RUN, "sh", "-c", SLEEP):
        pass


@pytest.mark.parametrize("attempt", range(4))
def test_a_terminal_of_a_script_that_goes_away_does_not_lose_the_end(attempt):
    needs("bash")
    line = f"{USERSTATE} run 1010 m sh -c '{SLEEP}'; true"
    with terminal_that_goes_away("bash", "-c", line):
        pass


@pytest.mark.parametrize("attempt", range(4))
def test_a_terminal_of_a_person_that_goes_away_does_not_lose_the_end(attempt):
    needs("bash")
    not_its_echo = SLEEP.replace("ready", 're""ady')
    line = f"{USERSTATE} run 1010 m sh -c '{not_its_echo}'\n"
    with terminal_that_goes_away("bash", "--norc", "-i") as terminal:
        terminal.type(line.encode())


# Ctrl-C as the command starts.

AROUND_EXEC = """
import os, signal, subprocess
class Popen(subprocess.Popen):
    def __init__(self, *args, preexec_fn=None, **options):
        def between():
            WHEN
        super().__init__(*args, preexec_fn=between, **options)
subprocess.Popen = Popen
"""
BETWEEN = {
    "at the fork": "os.kill(0, signal.SIGINT); preexec_fn and preexec_fn()",
    "at the exec": "preexec_fn and preexec_fn(); os.kill(0, signal.SIGINT)",
    "both": "os.kill(0, signal.SIGINT); preexec_fn and preexec_fn(); os.kill(0, signal.SIGINT)"}


@pytest.mark.parametrize("when", BETWEEN.values(), ids=BETWEEN.keys())
def test_ctrl_c_between_fork_and_exec_reaches_the_command(when, edge_python):
    with Peer(ACCEPTED) as peer:
        done = run("run", "1010", "m", "sleep", "30", url=peer.url, python=edge_python,
                   before=AROUND_EXEC.replace("WHEN", when), start_new_session=True)
        assert done == (-signal.SIGINT, "", "")
        assert reported(peer)[-1] == BY_CTRL_C


AT_START = """
import os, subprocess
class Popen(subprocess.Popen):
    def __init__(self, *args, **options):
        os.write(1, b"now\\n")
        super().__init__(*args, **options)
subprocess.Popen = Popen
"""


def test_ctrl_c_as_the_command_starts_is_reported_in_50_tries():
    dice = random.Random(5)
    with Peer(ACCEPTED) as peer:
        for _ in range(50):
            process = start("run", "1010", "m", "sleep", "30", url=peer.url, before=AT_START,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            start_new_session=True)
            assert process.stdout.readline() == b"now\n"
            end = time.monotonic() + dice.choice([0, 0.001, 0.003, 0.01]) * dice.random()
            while time.monotonic() < end:
                pass  # a moment within those that fork and exec take
            os.killpg(process.pid, signal.SIGINT)
            assert ended(process) == (-signal.SIGINT, "", "")
        assert [event for event in reported(peer) if event[0] == "failed"] == [BY_CTRL_C] * 50


AFTER_CTRL_C = """
import os, signal, subprocess, time
class Popen(subprocess.Popen):
    def __init__(self, *args, **options):
        os.write(1, b"now\\n")
        end = time.monotonic() + 10
        while signal.SIGINT not in signal.sigpending() and time.monotonic() < end:
            pass
        super().__init__(*args, **options)
subprocess.Popen = Popen
"""


def run_at_terminal(*command, url, before, **options):
    """Return the Terminal of a run of command, whose Python runs the code before first."""
    return Terminal(sys.executable, "-B", "-c", before + SOURCE.decode(), "--url", url, "run",
                    "1010", "m", *command, **options)


def test_ctrl_c_right_before_the_fork_reaches_the_command():
    with Peer(ACCEPTED) as peer:
        with run_at_terminal("sleep", "3", url=peer.url, before=AFTER_CTRL_C) as terminal:
            terminal.read_until(b"now")
            terminal.type(CTRL_C)
            assert terminal.ended().status == -signal.SIGINT
        assert reported(peer)[-1] == BY_CTRL_C


COUNT_EACH = """
import os, signal, sys
numbers = {signal.SIGINT, signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)  # as a handler may come before a pause
got = 0
while signal.sigwait(numbers) == signal.SIGINT:
    got += 1
    os.write(1, b"got %d" % got)
os.write(1, b"in all %d" % got)
sys.exit(3)
"""
SECOND_WAITS = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # also in the command
wait, waits = signal.sigtimedwait, []
def late(*words):
    got = wait(*words)
    if got is not None and got.si_signo == signal.SIGINT:
        waits.append(got)
        if len(waits) == 2:
            os.read(GATE, 1)  # until the command has got its own
    return got
signal.sigtimedwait = late
"""


def test_ctrl_c_after_one_before_the_fork_reaches_the_command_once():
    gate, opens = os.pipe()
    before = AFTER_CTRL_C + SECOND_WAITS.replace("GATE", str(gate))
    with Peer(ACCEPTED) as peer, open(opens, "wb") as opens:
        with open(gate, "rb"), run_at_terminal(
                sys.executable, "-c", COUNT_EACH, url=peer.url, before=before,
                pass_fds=[gate]) as terminal:
            terminal.read_until(b"now")
            terminal.type(CTRL_C)
            terminal.read_until(b"got 1")
            terminal.type(CTRL_C)
            terminal.read_until(b"got 2")
            terminal.process.terminate()
            opens.close()
            done = terminal.ended()
        assert done.status == 3
        assert "in all 2" in done.out
