"""The command of run: how it is started, its status, its streams, and when it is not run."""
import os
import re
import signal
import subprocess
import sys

import pytest

import userstate
from support.files import SCRIPT
from support.interpreters import NEWEST, OLDEST
from support.peers import ACCEPTED, DEAD, WELL, Peer, reported
from support.processes import EVENT_WORDS, USERSTATE, run, run_command, start
from support.tools import needs
from support.waiting import at_most, wait_for


@pytest.mark.parametrize("command, status, state, what", [
    ("true", 0, "succeeded", "done"),
    ("exit 100", 100, "failed", "exit status 100"),
    ("exit 2", 2, "failed", "exit status 2"),
    ("kill -KILL $$", 137, "failed", "killed by SIGKILL"),
    ("kill -TERM $$", 143, "failed", "killed by SIGTERM"),
    ("kill -36 $$", 164, "failed", "killed by 36")])
def test_the_status_is_the_commands_and_both_events_go_out(command, status, state, what,
                                                           edge_python, receiver):
    done = run("run", "1010", "m", "--", "sh", "-c", command, env=receiver.env,
               python=edge_python)
    assert done == (status, "", "")
    assert reported(receiver) == [("running", "m"), (state, f"m: {what} after 0 s")]
    assert {kind for kind, _, _ in receiver.shown()} == {"user.1010"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_main_returns_the_status_of_a_shell_for_a_signal(number):
    words = "run", "1010", "m", "sh", "-c", f"kill -{int(number)} $$"
    with Peer(ACCEPTED) as peer:
        assert userstate.main(["--url", peer.url, *words]) == 128 + number
        assert reported(peer)[-1] == ("failed", f"m: killed by {number.name} after 0 s")


def test_every_python_runs_a_command_from_a_pipe(python, receiver):
    assert run("run", "1010", "m", "true", how="pipe", env=receiver.env,
               python=python) == (0, "", "")
    assert reported(receiver) == WELL


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_shells_pipe_it(shell, receiver):
    needs(shell)
    line = f"cat '{SCRIPT}' | '{sys.executable}' - run 1010 m -- sh -c 'exit 7'"
    done = run_command(shell, "-c", line, env=receiver.env)
    assert done == (7, "", "")
    assert len(receiver.events) == 2


def test_operands_of_the_command_are_its_own(receiver):
    done = run("run", "--", "1010", "--", "--", "printf", "%s|", "--", "-h", b"\xff",
               env=receiver.env)
    assert done.out == "--|-h|\ufffd|"
    assert receiver.events[0]["message"] == "--"


def test_the_command_starts_before_any_request(tmp_path):
    started = tmp_path / "started"

    def accept_if_started(connection, peer):
        peer.read(connection)
        wait_for(started.exists)  # or the first report would never be answered
        connection.sendall(ACCEPTED)
    with Peer(accept_if_started) as peer:
        assert run("run", "1010", "m", "touch", str(started), url=peer.url) == (0, "", "")
        assert reported(peer) == WELL


def test_a_grandchild_that_keeps_stdout_holds_nothing_up():
    with Peer(ACCEPTED) as peer:
        with at_most(5):
            with start("run", "1010", "m", "sh", "-c", "sleep 30 & echo $!", url=peer.url,
                       stdout=subprocess.PIPE) as process:
                grandchild = int(process.stdout.readline())
                assert process.wait(10) == 0
        os.kill(grandchild, signal.SIGKILL)
        assert len(peer.events) == 2


def test_256_mib_go_through_unchanged():
    size = 0
    with Peer(ACCEPTED) as peer:
        with start("run", "1010", "m", "head", "-c", str(256 << 20), "/dev/zero", url=peer.url,
                   stdout=subprocess.PIPE) as process:
            for block in iter(lambda: process.stdout.read(1 << 20), b""):
                assert not block.strip(b"\0")
                size += len(block)
            assert process.wait(10) == 0
    assert size == 256 << 20


def test_sigpipe_ends_the_command_quietly(receiver):
    done = run_command("sh", "-c", f"{USERSTATE} run 1010 m yes | head -n 1", env=receiver.env)
    assert done == (0, "y\n", "")
    wait_for(lambda: len(receiver.events) == 2)
    assert reported(receiver)[1] == ("failed", "m: killed by SIGPIPE after 0 s")


SCRIPTS = {  # content, what it prints, status
    "with arguments": ('echo "$# $1|$2"; exit 5\n', "2 a b|-h\n", 5),
    "empty": ("", "", 0),
    "a comment": ("# no interpreter\necho y\n", "y\n", 0),
    "no newline": ("echo z", "z\n", 0)}


@pytest.mark.parametrize("word, folder, python", [
    ("FOLDER/my-script", ".", OLDEST), ("my-script", "/", NEWEST),
    ("./my-script", ".", NEWEST)],
    ids=["path", "name", "relative"])
@pytest.mark.parametrize("text, out, status", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_script_without_an_interpreter_line_is_run(text, out, status, word, folder, python,
                                                     tmp_path):
    script = tmp_path / "my-script"
    script.write_text(text)
    script.chmod(0o755)
    with Peer(ACCEPTED) as peer:
        done = run("run", "1010", "m", "--", word.replace("FOLDER", str(tmp_path)), "a b", "-h",
                   url=peer.url, python=python, cwd=str(tmp_path / folder),
                   env={"PATH": f"/nowhere:{tmp_path}:" + os.environ["PATH"]})
        assert done == (status, out, "")
        assert len(peer.events) == 2


@pytest.mark.parametrize("content, mode, status", [
    ("echo x\n", 0o644, 126), ("#!/nowhere/interpreter\n", 0o755, 127)],
    ids=["not executable", "interpreter missing"])
def test_a_script_that_no_shell_would_run_is_none(content, mode, status, tmp_path):
    script = tmp_path / "my-script"
    script.write_text(content)
    script.chmod(mode)
    with Peer(ACCEPTED) as peer:
        done = run("run", "1010", "m", str(script), url=peer.url)
        assert done.status == status
        assert done.out == ""
        assert [state for state, _ in reported(peer)] == ["failed"]


@pytest.mark.parametrize("command, status, what", [
    ("/nowhere/x", 127, "No such file or directory"), ("nowhere-x", 127, "No such file"),
    ("/", 126, "Permission denied")])
def test_a_command_that_cannot_run_is_reported(command, status, what, receiver):
    done = run("run", "1010", "m", command, env=receiver.env)
    assert done.status == status
    assert done.out == ""
    assert done.err.startswith(f"userstate: failed 1010: cannot run {command}: {what}")
    (state, message), = reported(receiver)
    assert state == "failed"
    assert message.startswith(f"m: cannot run {command}: {what}")


@pytest.mark.parametrize("command", [
    ["a\0b"], ["true", "a\0b"], ["\ud800"], ["true", "\ud800"], [""]],
    ids=["NUL", "NUL in an operand", "surrogate", "surrogate in an operand", "empty"])
def test_a_command_that_no_system_can_start_is_reported(command, capfd):
    with Peer(ACCEPTED) as peer:
        words = ["run", "1010", "m", "--", *command]
        assert userstate.main(["--url", peer.url, *words]) == 126
        (state, message), = reported(peer)
        assert state == "failed"
        assert message.startswith("m: cannot run ")
    assert re.fullmatch("userstate: failed 1010: cannot run .*\n", capfd.readouterr().err)


OPERANDS = "run: must be followed by CODE MESSAGE COMMAND; see --help"
SECONDS = "must be seconds, above 0 and below 100000, like 10 or 0.5"
KNOWN = ("there are --metadata-url= --url= --timeout= --deadline= --dry-run --verbose --help "
         "--version; behind run --every= --log= --help")


@pytest.mark.parametrize("words, told", [
    ([], OPERANDS),
    (["1010"], OPERANDS),
    (["1010", "m"], OPERANDS),
    (["1010", "m", "--"], OPERANDS),
    (["999", "m", "touch", "RAN"], "code '999': must be an int 1000 to 1099"),
    (["--every", "x", "1010", "m", "touch", "RAN"], f"every 'x': {SECONDS}"),
    (["--every=0", "1010", "m", "touch", "RAN"], f"every '0': {SECONDS}"),
    (["--every", "", "1010", "m", "touch", "RAN"], f"every '': {SECONDS}"),
    (["--every"], f"option --every requires argument; {KNOWN}"),
    (["--nope", "1010", "m", "touch", "RAN"], f"option --nope not recognized; {KNOWN}")],
    ids=str)
def test_invalid_operands_run_nothing(words, told, capsys, tmp_path):
    words = [word.replace("RAN", str(tmp_path / "ran")) for word in words]
    assert userstate.main(["--url", DEAD, "run", *words]) == 2
    assert capsys.readouterr().err == f"userstate: {told}\n"
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize("words", [
    ["1010", "m"], ["--every", "0.01", "1010", "m"], ["--log", "LOG", "1010", "m", "--"]],
    ids=str)
def test_a_dry_run_prints_the_event_of_the_start_and_runs_nothing(words, edge_python, tmp_path):
    words = [word.replace("LOG", str(tmp_path / "log")) for word in words]
    with Peer(ACCEPTED) as peer:
        done = run("-n", "run", *words, "sh", "-c", f"touch {tmp_path}/ran; exit 4",
                   url=peer.url, python=edge_python)
        assert peer.requests == []
    assert os.listdir(str(tmp_path)) == []
    assert done == (0, '{"state": "running", "code": 1010, "message": "m"}\n', "")


@pytest.mark.parametrize("words", [["999", "m"], ["--every=x", "1010", "m"]], ids=str)
def test_a_dry_run_with_invalid_operands_is_status_2(words, tmp_path):
    done = run("-n", "run", *words, "touch", str(tmp_path / "ran"), url=DEAD)
    assert done.status == 2
    assert done.out == ""
    assert os.listdir(str(tmp_path)) == []


WITHOUT_SIGTIMEDWAIT = """
import gc, signal
del signal.sigtimedwait, gc.set_threshold
"""


@pytest.mark.parametrize("before", [[], ["-n"]], ids=["run", "dry run"])
def test_a_python_without_sigtimedwait_refuses_run_before_it_starts(before, tmp_path,
                                                                    edge_python):
    """As PyPy, and Python on macOS; all else works there."""
    with Peer(ACCEPTED) as peer:
        done = run(*before, "run", "1010", "m", "touch", str(tmp_path / "ran"), url=peer.url,
                   before=WITHOUT_SIGTIMEDWAIT, python=edge_python)
        assert done == (
            2, "", "userstate: run: needs signal.sigtimedwait, as Linux has it\n")
        assert peer.requests == []
    assert os.listdir(str(tmp_path)) == []


def test_a_python_without_sigtimedwait_sends_events(edge_python):
    with Peer(ACCEPTED) as peer:
        assert run(*EVENT_WORDS, url=peer.url, before=WITHOUT_SIGTIMEDWAIT,
                   python=edge_python) == (0, "", "")
        assert len(peer.events) == 1
