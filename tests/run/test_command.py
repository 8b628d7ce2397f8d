"""The command of run: how it is started, its status, its streams."""
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import userstate
from support.files import SCRIPT
from support.interpreters import NEWEST, OLDEST
from support.peers import ACCEPTED, DEAD, WELL, Peer, reported
from support.processes import run, start
from support.waiting import wait_for


@pytest.mark.parametrize("command, status, what", [
    ("true", 0, "done"), ("exit 100", 100, "exit status 100"), ("exit 2", 2, "exit status 2"),
    ("kill -KILL $$", 137, "killed by SIGKILL"), ("kill -TERM $$", 143, "killed by SIGTERM"),
    ("kill -36 $$", 164, "killed by 36")])
def test_the_status_is_the_commands_and_both_events_go_out(command, status, what,
                                                          edge_python, receiver):
    ended = run("run", "1010", "m", "--", "sh", "-c", command, env=receiver.env,
                python=edge_python)
    assert ended == (status, "", "")
    assert receiver.shown() == [
        ("user.1010", "running", "m"),
        ("user.1010", "failed" if status else "succeeded", f"m: {what} after 0 s")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_main_returns_the_status_of_a_shell_for_a_signal(number):
    words = "run", "1010", "m", "sh", "-c", f"kill -{int(number)} $$"
    with Peer(ACCEPTED) as peer:
        assert userstate.main(["--url", peer.url, *words]) == 128 + number
        assert reported(peer)[-1] == ("failed", f"m: killed by {number.name} after 0 s")


def test_every_python_runs_a_command_from_a_pipe(python, receiver):
    assert run("run", "1010", "m", "true", how="pipe", env=receiver.env,
               python=python) == (0, "", "")
    assert [state for _, state, _ in receiver.shown()] == ["running", "succeeded"]


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_shells_pipe_it(shell, receiver):
    script = f'cat "{SCRIPT}" | {sys.executable} - run 1010 m -- sh -c "exit 7"'
    try:
        ended = subprocess.run([shell, "-c", script], env=dict(os.environ, **receiver.env))
    except FileNotFoundError:
        pytest.skip(f"no {shell} here")
    assert ended.returncode == 7 and len(receiver.shown()) == 2


@pytest.mark.parametrize("command, status, what", [
    ("/nowhere/x", 127, "No such file or directory"), ("nowhere-x", 127, "No such file"),
    ("/", 126, "Permission denied")])
def test_a_command_that_cannot_run_is_reported(command, status, what, receiver):
    ended = run("run", "1010", "m", command, env=receiver.env)
    assert ended.status == status and ended.out == ""
    assert ended.err.startswith(f"userstate: cannot run {command}: {what}")
    (_, state, message), = receiver.shown()
    assert state == "failed" and message.startswith(f"m: cannot run {command}: {what}")


@pytest.mark.parametrize("words", [
    [], ["1010"], ["1010", "m"], ["1010", "m", "--"], ["999", "m", "true"],
    ["--every", "x", "1010", "m", "true"], ["--every=0", "1010", "m", "true"],
    ["--nope", "1010", "m", "true"], ["--every"], ["--every", "", "1010", "m", "true"]])
def test_invalid_operands_run_nothing(words, capsys, tmp_path):
    words = [str(tmp_path / "ran") if w == "true" else w for w in words]
    assert userstate.main(["--url", DEAD, "run", *words]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch("userstate: .*\n", err)
    assert "--help" in err or not err.startswith("userstate: operands")


def test_operands_of_the_command_are_its_own(receiver):
    ended = run("run", "--", "1010", "--", "--", "printf", "%s|", "--", "-h", b"\xff",
                env=receiver.env)
    assert ended.out == "--|-h|\ufffd|" and receiver.shown()[0][2] == "--"


def test_a_dry_run_prints_the_event_of_the_start_and_sends_and_runs_nothing(tmp_path):
    with Peer(ACCEPTED) as peer:
        ended = run("-n", "--url", peer.url, "run", "1010", "m", "sh", "-c",
                    f"touch {tmp_path}/ran; exit 4")
        assert peer.requests == [] and ended.status == 0 and ended.err == ""
    assert ended.out == '{"state": "running", "code": 1010, "message": "m"}\n'
    assert os.listdir(str(tmp_path)) == []


def test_the_command_starts_before_any_request(tmp_path):
    started = tmp_path / "started"

    def accept_if_started(connection, peer):
        peer.read(connection)
        wait_for(started.exists)  # or the first report would never be answered
        connection.sendall(ACCEPTED)
    with Peer(accept_if_started) as peer:
        assert start("run", "1010", "m", "touch", str(started), url=peer.url).wait(20) == 0
        assert reported(peer) == WELL


def test_a_grandchild_that_keeps_stdout_holds_nothing_up(receiver):
    begun = time.monotonic()
    with start("run", "1010", "m", "sh", "-c", "sleep 30 & echo $!",
               url=receiver.url + "/events", stdout=subprocess.PIPE) as process:
        grandchild = int(process.stdout.readline())
        assert process.wait(10) == 0 and time.monotonic() - begun < 5
        os.kill(grandchild, signal.SIGKILL)
    assert len(receiver.shown()) == 2


def test_256_mib_go_through_unchanged(receiver):
    with start("run", "1010", "m", "head", "-c", str(256 << 20), "/dev/zero",
               url=receiver.url + "/events", stdout=subprocess.PIPE) as process:
        size = 0
        for block in iter(lambda: process.stdout.read(1 << 20), b""):
            assert not block.strip(b"\0")
            size += len(block)
        assert size == 256 << 20 and process.wait(10) == 0


def test_sigpipe_ends_the_command_quietly(receiver):
    ended = subprocess.run(
        ["sh", "-c", f'{sys.executable} {SCRIPT} run 1010 m yes | head -n 1'],
        env=dict(os.environ, **receiver.env), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=20)
    assert (ended.stdout, ended.stderr) == (b"y\n", b"")
    wait_for(lambda: len(receiver.shown()) == 2)
    assert receiver.shown()[1][2].startswith("m: killed by SIGPIPE")


@pytest.mark.parametrize("words", [
    ["1010", "m"], ["--every", "0.01", "1010", "m"], ["--log", "LOG", "1010", "m", "--"]])
def test_a_dry_run_runs_nothing_and_makes_no_file(words, tmp_path, edge_python):
    words = [str(tmp_path / "log") if word == "LOG" else word for word in words]
    with Peer(ACCEPTED) as peer:
        done = run("-n", "run", *words, "touch", str(tmp_path / "ran"), url=peer.url,
                      python=edge_python)
        assert peer.requests == [] and os.listdir(str(tmp_path)) == []
    assert done == (0, '{"state": "running", "code": 1010, "message": "m"}\n', "")


def test_a_dry_run_with_invalid_operands_is_status_2(tmp_path):
    for words in (["999", "m"], ["--every=x", "1010", "m"]):
        done = run("-n", "run", *words, "touch", str(tmp_path / "ran"), url=DEAD)
        assert done.status == 2 and done.out == "" and os.listdir(str(tmp_path)) == []


SCRIPTS = {  # content, status
    "with arguments": ('echo "$# $1|$2"; exit 5\n', "2 a b|-h\n", 5), "empty": ("", "", 0),
    "a comment": ("# no interpreter\necho y\n", "y\n", 0), "no newline": ("echo z", "z\n", 0)}


@pytest.mark.parametrize("place", ["path", "name", "relative"])
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_without_an_interpreter_line_is_run(name, place, tmp_path):
    text, out, status = SCRIPTS[name]
    script = tmp_path / "my-script"
    script.write_text(text)
    script.chmod(0o755)
    word = {"path": str(script), "name": "my-script", "relative": "./my-script"}[place]
    with Peer(ACCEPTED) as peer:
        done = run("run", "1010", "m", "--", word, "a b", "-h", url=peer.url,
                      python=OLDEST if place == "path" else NEWEST, cwd=str(tmp_path),
                      env={"PATH": f"/nowhere:{tmp_path}:" + os.environ["PATH"]})
        assert done == (status, out, "") and len(peer.events) == 2


@pytest.mark.parametrize("content, mode, status", [
    ("echo x\n", 0o644, 126), ("#!/nowhere/interpreter\n", 0o755, 127)])
def test_a_script_that_no_shell_would_run_is_none(content, mode, status, tmp_path):
    script = tmp_path / "my-script"
    script.write_text(content)
    script.chmod(mode)
    with Peer(ACCEPTED) as peer:
        done = run("run", "1010", "m", str(script), url=peer.url)
        assert (done.status, done.out) == (status, "")
        assert [state for state, _ in reported(peer)] == ["failed"]


@pytest.mark.parametrize("command", [["a\0b"], ["true", "a\0b"], ["\ud800"], ["true", "\ud800"],
                                     [""]], ids=lambda words: ascii(words)[:20])
def test_a_command_that_no_system_can_start_is_reported(command, capfd):
    with Peer(ACCEPTED) as peer:
        status = userstate.main(["--url", peer.url, "run", "1010", "m", "--", *command])
        assert status == 126 or command == [""] and status == 127
        (state, message), = reported(peer)
        assert state == "failed" and message.startswith("m: cannot run ")
    assert re.fullmatch("userstate: cannot run .*\n", capfd.readouterr().err)
