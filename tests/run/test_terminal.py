"""Ctrl-C and hang-ups: what a terminal tells the whole group, and the shell that waits."""
import os
import pty
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from support.files import SCRIPT, SOURCE
from support.peers import ACCEPTED, DEAD, Peer, part, reported
from support.processes import ended, fresh, run, start
from support.signals import COUNT_SIGNALS
from support.terminals import at_terminal, read_until
from support.waiting import wait_for


def test_ctrl_c_at_a_terminal_reaches_the_command_once_and_it_has_the_terminal(receiver):
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-B", SCRIPT, "--url",
                                  receiver.url + "/events", "run", "1010", "m", "sh", "-c",
                                  '[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && exec "$0" -c "$1"',
                                  sys.executable, COUNT_SIGNALS])
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while b"1\r\n" not in shown:
        shown += os.read(terminal, 1000)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.WEXITSTATUS(status) == 6 and b"2\r\n" not in shown
    assert len(receiver.shown()) == 2


def test_ctrl_c_reaches_a_command_in_a_group_of_its_own(receiver):
    """The terminal sends it to the group of the reporter only."""
    pid, terminal = pty.fork()
    if not pid:
        code = ("import os, sys; os.setpgid(0, 0); print('ready', flush=True);"
                "__import__('time').sleep(30)")
        os.execv(sys.executable, [sys.executable, "-B", SCRIPT, "--url",
                                  receiver.url + "/events", "run", "1010", "m",
                                  sys.executable, "-c", code])
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT
    assert receiver.shown()[-1][2].startswith("m: killed by SIGINT")


LINES = {"run": 'USERSTATE run 1010 m -- sh -c "echo ready; exec sleep 30"',
         "an event": "USERSTATE running 1000 x",
         "in a pause": "USERSTATE --url DEAD running 1000 x"}


@pytest.mark.parametrize("name", ["run", "an event", "in a pause"])
@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell_script_ends_with_ctrl_c(shell, name, tmp_path):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    script = tmp_path / "script"
    script.write_text(LINES[name].replace("USERSTATE", f"'{sys.executable}' -B '{SCRIPT}'")
                      .replace("DEAD", DEAD) + "\necho went on\n")
    with Peer(ACCEPTED if name == "run" else part(b"")) as peer:
        pid, terminal = at_terminal(shell, str(script), env={"USERSTATE_URL": peer.url})
        if name == "an event":
            wait_for(lambda: peer.requests)
        else:
            read_until(terminal, b"ready" if name == "run" else b"trying again")
        os.write(terminal, b"\x03")
        shown = read_until(terminal, None)
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT
        assert b"went on" not in shown and b"Traceback" not in shown
        if name == "run":
            assert reported(peer)[-1] == ("failed", "m: killed by SIGINT after 0 s")


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_a_shell_script_ends_with_a_sigint_to_its_group(shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell} here")
    with Peer(ACCEPTED) as peer:
        line = LINES["run"].replace("USERSTATE", f"'{sys.executable}' -B '{SCRIPT}'")
        process = subprocess.Popen([shell, "-c", line + "\necho went on"], preexec_fn=fresh,
                                   env={"PATH": os.environ["PATH"], "USERSTATE_URL": peer.url},
                                   stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGINT)
        assert ended(process)[:2] == (-signal.SIGINT, "")
        wait_for(lambda: len(peer.events) == 2)


def test_a_shell_sees_130_of_a_command_that_sigint_killed(edge_python):
    with Peer(ACCEPTED) as peer:
        line = f"""'{edge_python}' -B '{SCRIPT}' run 1010 m -- sh -c 'kill -INT $$'; echo $?"""
        process = subprocess.Popen(["sh", "-c", line], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, preexec_fn=fresh,
                                   env={"PATH": os.environ["PATH"], "USERSTATE_URL": peer.url})
        assert ended(process) == (0, "130\n", "")
        assert reported(peer)[-1] == ("failed", "m: killed by SIGINT after 0 s")


@pytest.mark.parametrize("leader", ["itself", "bash", "bash -i"])
def test_a_terminal_that_goes_away_does_not_lose_the_end(leader):
    """A hang-up is told by the kernel, and again by the shell that leads the session."""
    if leader != "itself" and not shutil.which("bash"):
        pytest.skip("no bash here")
    command = [sys.executable, "-B", SCRIPT, "run", "1010", "m", "sh", "-c",
               "echo re''ady; exec sleep 30"]
    line = " ".join(f'"{word}"' for word in command)
    for _ in range(4):
        with Peer(ACCEPTED) as peer:
            env = {"USERSTATE_URL": peer.url, "HOME": "/nowhere"}
            if leader == "itself":
                pid, terminal = at_terminal(*command, env=env)
            elif leader == "bash":
                pid, terminal = at_terminal("bash", "-c", line + "; true", env=env)
            else:
                pid, terminal = at_terminal("bash", "--norc", "-i", env=env)
                os.write(terminal, line.encode() + b"\n")
            read_until(terminal, b"ready")
            os.close(terminal)
            os.waitpid(pid, 0)
            wait_for(lambda: len(peer.events) == 2)
            assert reported(peer)[1] == ("failed", "m: killed by SIGHUP after 0 s")


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


@pytest.mark.parametrize("when", BETWEEN)
def test_ctrl_c_between_fork_and_exec_reaches_the_command(when, edge_python):
    with Peer(ACCEPTED) as peer:
        done = run("run", "1010", "m", "sleep", "30", url=peer.url, python=edge_python,
                      before=AROUND_EXEC.replace("WHEN", BETWEEN[when]), start_new_session=True)
        assert done == (-signal.SIGINT, "", "")
        assert reported(peer)[-1] == ("failed", "m: killed by SIGINT after 0 s")


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
        assert [message for state, message in reported(peer) if state == "failed"] == [
            "m: killed by SIGINT after 0 s"] * 50


AT_CTRL_C = AT_START.replace("        super()", """
        end = time.monotonic() + 10
        while signal.SIGINT not in signal.sigpending() and time.monotonic() < end:
            pass
        super()""".lstrip("\n")).replace("import os", "import signal, time, os")


def test_ctrl_c_at_a_terminal_right_before_the_fork_reaches_the_command():
    with Peer(ACCEPTED) as peer:
        pid, terminal = at_terminal(sys.executable, "-B", "-c", AT_CTRL_C + SOURCE.decode(),
                                    "--url", peer.url, "run", "1010", "m", "sleep", "3")
        read_until(terminal, b"now")
        os.write(terminal, b"\x03")
        read_until(terminal, None)
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT
        assert [m for _, m in reported(peer) if m != "m"] in (
            [], ["m: killed by SIGINT after 0 s"])


COUNT_EACH = """
import os, signal
got = []
def count(*_):
    got.append(1)
    os.write(1, b"got %d" % len(got))
def end(*_):
    os.write(1, b"in all %d" % len(got))
    raise SystemExit(3)
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, count)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
while True:
    signal.pause()
"""


def test_ctrl_c_after_one_before_the_fork_reaches_the_command_once():
    gate, opens = os.pipe()
    os.set_inheritable(gate, True)
    before = AT_CTRL_C + f"""
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGINT}})  # also in the command
wait, waits = signal.sigtimedwait, []
def late(*words):
    got = wait(*words)
    if got is not None and got.si_signo == signal.SIGINT:
        waits.append(got)
        if len(waits) == 2:
            os.read({gate}, 1)  # until the command has got its own
    return got
signal.sigtimedwait = late
"""
    with Peer(ACCEPTED) as peer:
        pid, terminal = at_terminal(sys.executable, "-B", "-c", before + SOURCE.decode(),
                                    "--url", peer.url, "run", "1010", "m", sys.executable,
                                    "-c", COUNT_EACH)
        read_until(terminal, b"now")
        try:
            os.write(terminal, b"\x03")
            read_until(terminal, b"got 1")
            os.write(terminal, b"\x03")
            read_until(terminal, b"got 2")
            os.kill(pid, signal.SIGTERM)
        finally:
            os.close(opens)
        shown = read_until(terminal, None)
        _, status = os.waitpid(pid, 0)
        os.close(terminal)
        os.close(gate)
        assert b"in all 2" in shown and os.WEXITSTATUS(status) == 3
