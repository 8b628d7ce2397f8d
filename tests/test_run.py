"""run and step: reports around a command or a block, which never harm it."""
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import pytest
from conftest import ACCEPTED, DEAD, NEWEST, OLDEST, SCRIPT, SOURCE, TOP, Peer, answer, run
from test_delivery import NO_THREAD, part, wait_for

import userstate

EVENT_LOGGED = [("running", "m"), ("succeeded", "m: done after 0 s")]


def start(*words, url, env=None, python=sys.executable, **options):
    """Start run in a process of its own."""
    return subprocess.Popen([python, "-B", SCRIPT, "--url", url, *words],
                            env=dict({"PATH": os.environ["PATH"]}, **env or {}), **options)


def said(peer):
    """Return (state, message) of the events that peer got, seconds as 0."""
    return [(e["state"], re.sub(r"\d+ s$", "0 s", e["message"])) for e in peer.events]


@pytest.mark.parametrize("command, status, what", [
    ("true", 0, "done"), ("exit 100", 100, "exit status 100"), ("exit 2", 2, "exit status 2"),
    ("kill -KILL $$", 137, "killed by SIGKILL"), ("kill -TERM $$", 143, "killed by SIGTERM"),
    ("kill -36 $$", 164, "killed by 36")])
def test_the_status_is_the_commands_and_both_events_go_out(command, status, what,
                                                          edge_python, platform):
    ended = run("run", "1010", "m", "--", "sh", "-c", command, env=platform.env,
                python=edge_python)
    assert ended == (status, "", "")
    assert platform.shown() == [
        ("user.1010", "running", "m"),
        ("user.1010", "failed" if status else "succeeded", f"m: {what} after 0 s")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_main_returns_the_status_of_a_shell_for_a_signal(number):
    words = "run", "1010", "m", "sh", "-c", f"kill -{int(number)} $$"
    with Peer(ACCEPTED) as peer:
        assert userstate.main(["--url", peer.url, *words]) == 128 + number
        assert said(peer)[-1] == ("failed", f"m: killed by {number.name} after 0 s")


def test_every_python_runs_a_command_from_a_pipe(python, platform):
    assert run("run", "1010", "m", "true", how="pipe", env=platform.env,
               python=python) == (0, "", "")
    assert [state for _, state, _ in platform.shown()] == ["running", "succeeded"]


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_shells_pipe_it(shell, platform):
    script = f'cat "{SCRIPT}" | {sys.executable} - run 1010 m -- sh -c "exit 7"'
    try:
        ended = subprocess.run([shell, "-c", script], env=dict(os.environ, **platform.env))
    except FileNotFoundError:
        pytest.skip(f"no {shell} here")
    assert ended.returncode == 7 and len(platform.shown()) == 2


@pytest.mark.parametrize("command, status, what", [
    ("/nowhere/x", 127, "No such file or directory"), ("nowhere-x", 127, "No such file"),
    ("/", 126, "Permission denied")])
def test_a_command_that_cannot_run_is_reported(command, status, what, platform):
    ended = run("run", "1010", "m", command, env=platform.env)
    assert ended.status == status and ended.out == ""
    assert ended.err.startswith(f"userstate: cannot run {command}: {what}")
    (_, state, message), = platform.shown()
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


def test_operands_of_the_command_are_its_own(platform):
    ended = run("run", "--", "1010", "--", "--", "printf", "%s|", "--", "-h", b"\xff",
                env=platform.env)
    assert ended.out == "--|-h|\ufffd|" and platform.shown()[0][2] == "--"


def test_a_dry_run_prints_the_event_of_the_start_and_sends_and_runs_nothing(tmp_path):
    with Peer(ACCEPTED) as peer:
        ended = run("-n", "--url", peer.url, "run", "1010", "m", "sh", "-c",
                    f"touch {tmp_path}/ran; exit 4")
        assert peer.requests == [] and ended.status == 0 and ended.err == ""
    assert ended.out == '{"state": "running", "code": 1010, "message": "m"}\n'
    assert os.listdir(str(tmp_path)) == []


SERVICES = {
    "down": None, "500": answer(500), "403": answer(403), "hangs": part(b""),
    "drips": part(b"HTTP/1.1 200", b" "), "redirect": answer(302, b"", "Location: /x")}


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_delays_or_changes_the_command(name):
    with Peer(SERVICES[name] or ACCEPTED) as peer:
        begun = time.monotonic()
        with start("--deadline=0.5", "run", "1010", "m", "sh", "-c", "echo began; exit 3",
                   url=peer.url if SERVICES[name] else DEAD, stdout=subprocess.PIPE,
                   stderr=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"began\n"
            assert process.wait(20) == 3
            lines = process.stderr.read().decode().splitlines()
    assert time.monotonic() - begun < 4
    assert lines and all(line.startswith("userstate: ") for line in lines)


def test_the_command_starts_before_any_request(tmp_path):
    started = tmp_path / "started"

    def accept_if_started(connection, peer):
        peer.read(connection)
        wait_for(started.exists)  # or the first report would never be answered
        connection.sendall(ACCEPTED)
    with Peer(accept_if_started) as peer:
        assert start("run", "1010", "m", "touch", str(started), url=peer.url).wait(20) == 0
        assert said(peer) == EVENT_LOGGED


def test_a_service_that_comes_back_gets_both_in_order():
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/events"
        with start("run", "1010", "m", "true", url=url, stderr=subprocess.PIPE) as process:
            assert b"refused" in process.stderr.readline()
            reserved.listen(5)
            got = []
            for _ in range(2):
                connection, _ = reserved.accept()
                with connection:
                    got.append(json.loads(connection.recv(65536).split(b"\r\n\r\n")[1]
                                          or connection.recv(65536))["state"])
                    connection.sendall(ACCEPTED)
            assert process.wait(20) == 0 and got == ["running", "succeeded"]


def test_a_first_report_that_hangs_gets_ten_seconds_and_never_arrives_late():
    begun = time.monotonic()
    with Peer(part(b""), ACCEPTED) as peer:
        process = start("--timeout=60", "run", "1010", "m", "true", url=peer.url,
                        stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0 and 9 < time.monotonic() - begun < 14
        assert said(peer) == [("running", "m"), ("succeeded", "m: done after 0 s")]
    assert b"timed out" in err


def test_a_grandchild_that_keeps_stdout_holds_nothing_up(platform):
    begun = time.monotonic()
    with start("run", "1010", "m", "sh", "-c", "sleep 30 & echo $!",
               url=platform.url + "/events", stdout=subprocess.PIPE) as process:
        grandchild = int(process.stdout.readline())
        assert process.wait(10) == 0 and time.monotonic() - begun < 5
        os.kill(grandchild, signal.SIGKILL)
    assert len(platform.shown()) == 2


def test_256_mib_go_through_unchanged(platform):
    with start("run", "1010", "m", "head", "-c", str(256 << 20), "/dev/zero",
               url=platform.url + "/events", stdout=subprocess.PIPE) as process:
        size = 0
        for block in iter(lambda: process.stdout.read(1 << 20), b""):
            assert not block.strip(b"\0")
            size += len(block)
        assert size == 256 << 20 and process.wait(10) == 0


STATE = r"""
import json, os, resource, signal, sys
names = sorted(n for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n))
print(json.dumps({
    "env": sorted(open("/proc/self/environ").read().split("\0")), "cwd": os.getcwd(),
    "group": os.getpgrp(), "session": os.getsid(0), "umask": os.umask(0), "fds": names,
    "limits": [resource.getrlimit(n) for n in range(10)],
    "signals": [int(line.split()[1], 16) & 0x7fffffff  # not those of the C library
                for line in open("/proc/self/status")
                if line.startswith(("SigBlk", "SigIgn"))]}))
"""


@pytest.mark.parametrize("python", [OLDEST, NEWEST])
@pytest.mark.parametrize("env", [{}, {"LC_ALL": "C", "A": "b"}, {"LC_CTYPE": "C.UTF-8"},
                                 {"LC_CTYPE": "C"}, {"LC_CTYPE": ""},
                                 {"MY_LC_CTYPE": "x"}], ids=str)
def test_the_command_finds_all_as_it_was(python, env, platform, tmp_path):
    if not os.path.exists("/proc/self/environ"):
        pytest.skip("no /proc here")
    command = ["/bin/sh", "-c", f'exec {sys.executable} -c "$0"', STATE]
    options = dict(env=env, cwd=str(tmp_path), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                   preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))
    as_it_was = subprocess.run(command, **options)
    reported = subprocess.run([python, "-B", SCRIPT, "--url", platform.url + "/events", "run",
                               "1010", "m", *command], **options)
    assert json.loads(reported.stdout.decode()) == json.loads(as_it_was.stdout.decode())


@pytest.mark.parametrize("value", ["C.UTF-8", "C.utf8", "UTF-8"])
def test_what_python_takes_for_its_own_locale_is_not_the_commands(value, platform):
    """Which of them it sets, in a locale of C, depends on what the system has: PEP 538."""
    if not os.path.exists("/proc/self/environ"):
        pytest.skip("no /proc here")
    code = f"import os; os.environ['LC_CTYPE'] = '{value}'\n" + SOURCE.decode()
    words = ["--url", platform.url + "/events", "run", "1010", "m", "sh", "-c",
             'echo "<${LC_CTYPE-none}>"']
    for env, given in (({}, "none"), ({"LC_CTYPE": "C"}, "C")):
        done = subprocess.run([sys.executable, "-B", "-c", code, *words], env=dict(
            {"PATH": os.environ["PATH"]}, **env), stdout=subprocess.PIPE)
        assert done.stdout.decode() == f"<{given}>\n"


def test_sigpipe_ends_the_command_quietly(platform):
    ended = subprocess.run(
        ["sh", "-c", f'{sys.executable} {SCRIPT} run 1010 m yes | head -n 1'],
        env=dict(os.environ, **platform.env), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        timeout=20)
    assert (ended.stdout, ended.stderr) == (b"y\n", b"")
    wait_for(lambda: len(platform.shown()) == 2)
    assert platform.shown()[1][2].startswith("m: killed by SIGPIPE")


def test_an_ignored_sigchld_does_not_hide_the_status(platform):
    ended = subprocess.run(
        [sys.executable, SCRIPT, "run", "1010", "m", "sh", "-c", "exit 5"], env=platform.env,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN))
    assert ended.returncode == 5


COUNT = r"""
import signal, sys, time
seen = []
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, lambda number, frame: seen.append(number))
print("ready", flush=True)
end = time.monotonic() + 20
while not seen and time.monotonic() < end:
    time.sleep(0.01)
time.sleep(0.3)  # a second one would come within it
print(len(seen), flush=True)
sys.exit(6)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on_once(number, edge_python, platform):
    with start("run", "1010", "m", sys.executable, "-c", COUNT, url=platform.url + "/events",
               stdout=subprocess.PIPE, python=edge_python) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == b"1\n" and process.wait(20) == 6
    assert [state for _, state, _ in platform.shown()] == ["running", "failed"]


def test_ctrl_c_at_a_terminal_reaches_the_command_once_and_it_has_the_terminal(platform):
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-B", SCRIPT, "--url",
                                  platform.url + "/events", "run", "1010", "m", "sh", "-c",
                                  '[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && exec "$0" -c "$1"',
                                  sys.executable, COUNT])
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    while b"1\r\n" not in shown:
        shown += os.read(terminal, 1000)
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.WEXITSTATUS(status) == 6 and b"2\r\n" not in shown
    assert len(platform.shown()) == 2


def test_ctrl_c_reaches_a_command_in_a_group_of_its_own(platform):
    """The terminal sends it to the group of the reporter only."""
    pid, terminal = pty.fork()
    if not pid:
        code = ("import os, sys; os.setpgid(0, 0); print('ready', flush=True);"
                "__import__('time').sleep(30)")
        os.execv(sys.executable, [sys.executable, "-B", SCRIPT, "--url",
                                  platform.url + "/events", "run", "1010", "m",
                                  sys.executable, "-c", code])
    shown = b""
    while b"ready" not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"\x03")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT
    assert platform.shown()[-1][2].startswith("m: killed by SIGINT")


def test_a_signal_as_the_command_starts_is_passed_on(platform):
    for _ in range(20):
        with start("run", "1010", "m", "sh", "-c", "kill -TERM $PPID; exec sleep 20",
                   url=platform.url + "/events") as process:
            assert process.wait(20) == 143
    assert [state for _, state, _ in platform.shown()] == ["running", "failed"] * 20


def test_a_signal_that_may_not_be_passed_on_is_harmless(platform):
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
                 platform.url + "/events", "run", "1010", "m", become_root, "--reuid=0", "sh",
                 "-c",
                 "echo ready; sleep 1"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0 and process.stderr.read() == b""
    assert len(platform.shown()) == 2


def test_term_before_the_first_report_is_out():
    with Peer(part(b"")) as peer:
        with start("--deadline=1", "run", "1010", "m", "sleep", "30", url=peer.url,
                   stderr=subprocess.PIPE) as process:
            wait_for(lambda: peer.requests)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 143
        assert any("killed by SIGTERM" in message for _, message in said(peer))


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


def test_heartbeats_tell_how_long_and_stop_at_the_end():
    with Peer(ACCEPTED) as peer:
        with start("run", "--every", "0.3", "1010", "m", "cat", url=peer.url,
                   stdin=subprocess.PIPE) as process:
            begun = time.monotonic()
            wait_for(lambda: len(peer.events) >= 4)
            process.stdin.close()
            assert process.wait(20) == 0
            most = (time.monotonic() - begun) / 0.3
        first, *beats, last = said(peer)
        assert (first, last) == (("running", "m"), ("succeeded", "m: done after 0 s"))
        assert 3 <= beats.count(("running", "m: running for 0 s")) == len(beats) <= most


def test_a_heartbeat_that_cannot_get_out_is_skipped():
    with Peer(ACCEPTED, *[answer(503)] * 2, ACCEPTED) as peer:
        with start("run", "--every=0.5", "1010", "m", "sleep", "1.8", url=peer.url,
                   stderr=subprocess.PIPE) as process:
            assert process.wait(20) == 0
        assert len(peer.events) <= 6 and peer.events[-1]["state"] == "succeeded"


def test_the_address_is_asked_for_and_the_last_event_has_its_own_deadline():
    with Peer(answer(503)) as peer:
        begun = time.monotonic()
        ended = run("--deadline=1", "--metadata-url", peer.url, "run", "1010", "m", "sleep",
                    "2")
        assert ended.status == 0 and time.monotonic() - begun > 2.4
    assert ended.err.count("trying again") == 1 and ended.err.count("gave up") == 2


def test_what_only_run_needs_is_not_imported_for_an_event():
    code = ("import sys, userstate; userstate.main(['-n', 'running', '1000', 'x']);"
            "assert not {'subprocess', 'logging'} & set(sys.modules)")
    ended = subprocess.run([sys.executable, "-S", "-c", code], cwd=TOP,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert ended.returncode == 0, ended.stdout


# step, in this process.

def states(platform):
    return [(state, re.sub(r"\d+ s$", "0 s", body)) for _, state, body in platform.shown()]


def test_a_block_that_ends_well(platform):
    with userstate.step(1010, "m", metadata_url=platform.metadata_url):
        pass
    assert states(platform) == EVENT_LOGGED


@pytest.mark.parametrize("error", [ValueError("s3cret"), KeyboardInterrupt(), SystemExit(3)],
                         ids=repr)
def test_a_block_that_fails_is_reported_and_its_exception_untouched(error, platform):
    with pytest.raises(type(error)) as caught:
        with userstate.step(1010, "m", metadata_url=platform.metadata_url):
            raise error
    assert caught.value is error and error.__context__ is None
    assert [entry.name for entry in caught.traceback] == [
        "test_a_block_that_fails_is_reported_and_its_exception_untouched"]
    assert states(platform)[1] == ("failed", f"m: {type(error).__name__} after 0 s")


def test_steps_nest_and_work_in_any_thread(platform):
    def work():
        with userstate.step(1010, "outer", metadata_url=platform.metadata_url):
            with userstate.step(1011, "inner", metadata_url=platform.metadata_url):
                pass
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert [message.split(":")[0] for _, message in states(platform)].count("inner") == 2
    assert states(platform)[-1] == ("succeeded", "outer: done after 0 s")


@pytest.mark.parametrize("script", [answer(403), answer(500)], ids=["403", "500"])
def test_a_report_that_fails_is_a_warning_and_nothing_else(script, caplog):
    with Peer(script) as peer:
        with userstate.step(1010, "m", url=peer.url, deadline=0.4):
            pass
    assert {(r.name, r.levelname) for r in caplog.records} == {("userstate", "WARNING")}
    assert "HTTP" in caplog.text


@pytest.mark.parametrize("words, options", [
    ((999, "m"), {}), ((1000, None), {}), ((1000, "m"), {"every": "x"}),
    ((1000, "m"), {"every": 0}), ((1000, "m"), {"timeout": -1}),
    ((1000, "m"), {"url": "ftp://h"})])
def test_an_invalid_step_raises_before_the_block(words, options):
    with pytest.raises(userstate.EventError):
        with userstate.step(*words, **options):
            raise AssertionError("the block ran")


def test_a_step_without_a_thread_still_reports_its_end(platform, edge_python):
    """The report of its start is left out, with a line; it would hold the block up."""
    code = NO_THREAD + f"""
with userstate.step(1010, "m", metadata_url="{platform.metadata_url}", say=print):
    print("the block")
"""
    ended = subprocess.run([edge_python, "-B", "-c", code], cwd=TOP, timeout=60,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (0, b"")
    line, block = ended.stdout.decode().splitlines()
    assert "thread" in line and "left out" in line and block == "the block"
    assert states(platform) == EVENT_LOGGED[1:]


@pytest.mark.parametrize("seconds, text", [
    (0.9, "0 s"), (42, "42 s"), (120, "120 s"), (200, "3 min 20 s"), (3599, "59 min 59 s"),
    (3600, "1 h 0 min"), (3900, "1 h 5 min"), (100000, "27 h 46 min")])
def test_durations_are_readable(seconds, text, said):
    with Peer(ACCEPTED) as peer:
        with userstate.step(1000, "m", url=peer.url, **said.options):
            wait_for(lambda: peer.events)
            said.time.now += seconds
        assert peer.events[1]["message"] == f"m: done after {text}"



def test_help_is_there_behind_run_as_well(capsys):
    for words in (["run", "-h"], ["run", "--help"], ["run", "--every=5", "-h", "1010"]):
        assert userstate.main(words) == 0
        assert capsys.readouterr().out.startswith("usage: ")


def test_a_first_report_pauses_between_its_tries_while_the_command_runs():
    with Peer(answer(503)) as peer:
        with start("--deadline=1", "run", "1010", "m", "sleep", "0.9", url=peer.url,
                   stderr=subprocess.DEVNULL) as process:
            assert process.wait(20) == 0
        assert 2 <= len([e for e in peer.events if e["state"] == "running"]) <= 4
