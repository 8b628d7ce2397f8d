"""What has hurt the users of such programs: each fault once, and the others of its kind."""
import fcntl
import json
import os
import pty
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from contextlib import contextmanager

import pytest
from conftest import (ACCEPTED, DEAD, DEAD_PORT, NEWEST, OLDEST, PYTHONS, SCRIPT, SOURCE, TOP,
                      Ended, Peer, answer, document, tls_peer)
from test_delivery import NO_THREAD, part, wait_for

import userstate

EVENT = ["running", "1000", "x"]
NAMES = {number: number.name for number in signal.Signals}


def fresh():
    """Before exec: signals as a login shell has them, and no core dumps."""
    for number in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def started(*words, url=None, python=sys.executable, before="", first=fresh, env=None,
            **options):
    """Start the command line in a process of its own, `before` it in the same Python."""
    script = ["-c", before + SOURCE.decode()] if before else [SCRIPT]
    options.setdefault("cwd", os.sep)
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(
        [python, "-B", *script, *(["--url", url] if url else []), *words], preexec_fn=first,
        env=dict({"PATH": os.environ["PATH"]}, **env or {}), **options)


def ended(process, seconds=20):
    """Wait for process, which is killed if that takes too long, and tell how it ended."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    err = (err or b"").decode("utf-8", "replace")
    assert "Traceback" not in err and "xception" not in err, err
    return Ended(process.returncode, (out or b"").decode("utf-8", "replace"), err)


def finish(*words, seconds=20, **options):
    """Run the command line as started() does, and tell how it ended."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return ended(started(*words, **options), seconds)


def program(code, *words, python=sys.executable, env=None, seconds=20):
    """Run code, which imports userstate, in a process of its own, and tell how it ended."""
    return ended(subprocess.Popen(
        [python, "-B", "-c", code, *words], cwd=TOP, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=fresh,
        env=dict({"PATH": os.environ["PATH"]}, **env or {})), seconds)


def told(peer):
    """Return (state, message) of the events that peer got, seconds as 0."""
    return [(e["state"], re.sub(r"\d+ s\b", "0 s", e["message"])) for e in peer.events]


def gated():
    """Return a script that answers when the event that is its `gate` is set."""
    def script(connection, peer):
        peer.read(connection)
        script.gate.wait(20)
        connection.sendall(ACCEPTED)
    script.gate = threading.Event()
    return script


# Output that blocks.

@contextmanager
def full_pipe(blocking=True, room=0):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(writer, b"x" * size)
        except BlockingIOError:
            pass
    if room:  # in the last page of it
        os.read(reader, 4096)
        os.write(writer, b"x" * (4096 - room))
    os.set_blocking(writer, blocking)
    yield writer
    os.close(reader)
    os.close(writer)


@contextmanager
def full_socket():
    reader, writer = socket.socketpair()  # as the journal of systemd
    with reader, writer:
        writer.setblocking(False)
        try:
            while True:
                writer.send(b"x" * 512)
        except BlockingIOError:
            writer.setblocking(True)
        yield writer.fileno()


@contextmanager
def stopped_terminal():
    master, slave = pty.openpty()
    os.write(master, b"\x13")  # Ctrl-S
    termios.tcflow(slave, termios.TCOOFF)
    yield slave
    os.close(master)
    os.close(slave)


BLOCKED = {"full pipe": full_pipe, "full pipe with room for 10": lambda: full_pipe(room=10),
           "full pipe that does not block": lambda: full_pipe(blocking=False),
           "full socket": full_socket, "stopped terminal": stopped_terminal}
SAYING = {  # answers of the peer, words, status, number of events that arrive at least
    "event": ([ACCEPTED], ["-v", *EVENT], 0, 1),
    "retry": ([answer(503), ACCEPTED], EVENT, 0, 2),
    "refusal": ([answer(403)], EVENT, 1, 1),
    "deadline": ([answer(503)], ["--deadline=0.4", *EVENT], 75, 1),
    "usage error": ([ACCEPTED], ["bogus", "1000", "x"], 2, 0),
    "unknown option": ([ACCEPTED], ["--nope", *EVENT], 2, 0),
    "run": ([ACCEPTED], ["-v", "run", "1000", "x", "sh", "-c", "exit 3"], 3, 2),
    "run and refusals": ([answer(403)], ["run", "1000", "x", "sh", "-c", "exit 3"], 3, 2),
    "run of nothing": ([ACCEPTED], ["run", "1000", "x", "/nowhere/x"], 127, 1),
    "run without a log": ([ACCEPTED], ["run", "--log=/", "1000", "x", "true"], 2, 0),
}


@pytest.mark.parametrize("stream, name", [
    (stream, name) for stream in BLOCKED for name in SAYING
    if stream in ("full pipe", "stopped terminal") or name in ("event", "refusal", "run")])
def test_stderr_that_blocks_loses_lines_and_nothing_else(stream, name):
    scripts, words, status, events = SAYING[name]
    with Peer(*scripts) as peer, BLOCKED[stream]() as stderr:
        begun = time.monotonic()
        assert finish(*words, url=peer.url, stderr=stderr, seconds=8).status == status
        assert time.monotonic() - begun < 5 and len(peer.events) >= events


def test_no_line_waits_for_a_stderr_that_blocks(monkeypatch):
    with full_pipe() as stderr, open(stderr, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        begun = time.monotonic()
        for _ in range(10):
            assert userstate.main(["--nope", *EVENT]) == 2
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("stream", ["full pipe", "stopped terminal"])
def test_ctrl_c_and_half_a_download_end_with_a_stderr_that_blocks(stream, edge_python):
    with Peer(part(b"")) as peer, BLOCKED[stream]() as stderr:
        process = started(*EVENT, url=peer.url, stderr=stderr, python=edge_python)
        wait_for(lambda: peer.requests)
        process.send_signal(signal.SIGINT)
        assert ended(process, 5).status == -signal.SIGINT
    with BLOCKED[stream]() as stderr:
        half = SOURCE[:SOURCE.index(b"\nclass ")]
        done = subprocess.run([edge_python, "-c", half], stderr=stderr, timeout=5)
        assert done.returncode == 1


PRINTING = {"url": ["url"], "dry run": ["-n", *EVENT], "dry run of run": ["-n", "run", "1000",
                                                                       "x", "true"],
            "url, with a variable": ["url"]}


@pytest.mark.parametrize("stream, name", [
    (stream, name) for stream in BLOCKED for name in PRINTING
    if stream == "full pipe" or name == "url"])
def test_stdout_that_blocks_is_an_error_at_the_deadline(stream, name):
    options, env = ["--deadline=0.2"], None
    if "variable" in name:
        options, env = [], {"USERSTATE_DEADLINE": "0.2"}
    with BLOCKED[stream]() as stdout:
        begun = time.monotonic()
        status, _, err = finish(*options, *PRINTING[name], url=DEAD, stdout=stdout, env=env,
                                seconds=8)
        assert time.monotonic() - begun < 3
    assert status == 1 and err == "userstate: cannot print: nobody reads it\n"


def test_stdout_that_is_read_slowly_gets_all_of_it():
    message = "x" * 100000
    process = started("-n", "running", "1000", message, stdout=subprocess.PIPE)
    fcntl.fcntl(process.stdout, 1031, 4096)  # F_SETPIPE_SZ
    assert json.loads(ended(process).out)["message"] == message and process.returncode == 0


# Interim answers.

INTERIM = {
    "100": [100], "102": [102], "103": [103], "three of 103": [103] * 3, "100, 103": [100, 103],
    "103, 100, 102": [103, 100, 102], "fifty": [103] * 50}


@pytest.mark.parametrize("cut", [0, 10], ids=["at once", "in pieces"])
@pytest.mark.parametrize("name", INTERIM)
def test_interim_answers_are_skipped(name, cut, said):
    interim = b"".join(f"HTTP/1.1 {status} Wait\r\nLink: </x>; rel=preload\r\n\r\n".encode()
                       for status in INTERIM[name])

    def after(final):
        def script(connection, peer):
            peer.read(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = interim + final
            for start in range(0, len(data), cut or len(data)):
                connection.sendall(data[start:start + (cut or len(data))])
        return script
    with Peer(after(ACCEPTED)) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.requests) == 1
    with Peer(after(document(a=5))) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url, **said.options)["a"] == 5
        assert len(peer.requests) == 1
    assert said.lines == [] and said.time.pauses == []
    with Peer(after(answer(404))) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 404 .*refused at try 1 "):
            userstate.post_event({}, peer.url, **said.options)
    with Peer(after(answer(404))) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 404 .*refused at try 4 "):
            userstate.fetch_metadata(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == 4


# A name with several addresses, and time for TLS.

@contextmanager
def black_hole():
    """Yield the port of a listener whose backlog is full: who connects gets no answer."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        waiting = [socket.socket() for _ in range(3)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(dead.getsockname())
        yield dead.getsockname()[1]
        for client in waiting:
            client.close()


def found(*ports):
    """Return code after which every name has these ports of 127.0.0.1 as its addresses."""
    return f"""
import socket
socket.getaddrinfo = lambda *args, **options: [
    (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in {ports}]
"""


NAMES_OF = {"1 address": "g", "2": "dg", "3": "ddg", "4": "dddg", "refused ones": "rrrg",
            "both kinds": "drg", "a good one first": "gdd"}


@pytest.mark.parametrize("name, python", [
    *[(name, NEWEST) for name in NAMES_OF], ("4", OLDEST)],
    ids=lambda text: text.split(os.sep)[-3:][0])
def test_every_address_of_a_name_gets_a_chance_within_a_try(name, python):
    with black_hole() as dead, Peer(ACCEPTED) as peer:
        ports = {"g": peer.port, "d": dead, "r": 9}
        assert finish("--timeout=0.6", "--deadline=0.6", *EVENT, url="http://h.example/",
                      before=found(*[ports[kind] for kind in NAMES_OF[name]]),
                      python=python) == (0, "", "")
        assert len(peer.events) == 1


@pytest.mark.parametrize("kinds", ["rg", "gg"])
def test_a_slow_handshake_may_take_what_is_left_of_the_try(kinds, authority):
    with tls_peer(authority, "named") as peer:
        wrap = peer.wrap

        def slowly(connection):
            peer.over.wait(0.6)  # of 1.0
            return wrap(connection)
        peer.wrap = slowly
        ports = {"g": peer.port, "r": 9}
        assert finish("--timeout=1.0", "--deadline=1.0", *EVENT, url="https://good.example/",
                      before=found(*[ports[kind] for kind in kinds]),
                      env={"SSL_CERT_FILE": str(authority / "ca.pem")}) == (0, "", "")
        assert len(peer.events) == 1


# No thread to be had.

@pytest.mark.parametrize("words, status, out, events", [
    (EVENT, 0, "", ["running"]), (["url"], 0, "URL\n", []),
    (["run", "1010", "m", "sh", "-c", "echo y; exit 3"], 3, "y\n", ["failed"]),
    (["run", "1010", "m", "--", "true"], 0, "", ["succeeded"])], ids=str)
def test_without_a_thread_the_request_is_made_all_the_same(words, status, out, events,
                                                           edge_python):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        done = finish("--metadata-url", metadata.url, *words, python=edge_python,
                      before=NO_THREAD)
        assert done[:2] == (status, out.replace("URL", peer.url))
        assert [event["state"] for event in peer.events] == events
    if words[0] == "run":
        assert re.fullmatch("userstate: .*thread.*left out.*\n", done.err)
    else:
        assert done.err == ""


def test_without_a_thread_the_sockets_time_out_bounds_a_try(edge_python):
    with Peer(part(b"")) as peer:
        begun = time.monotonic()
        done = finish("--deadline=0.5", *EVENT, url=peer.url, python=edge_python,
                      before=NO_THREAD)
        assert done.status == 75 and "timed out; gave up" in done.err
        assert time.monotonic() - begun < 3


def test_a_user_who_may_have_no_more_processes_delivers():
    def poor():
        fresh()
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
    if not os.path.exists("/usr/bin/python3"):
        pytest.skip("no Python that everybody may run")
    with Peer(ACCEPTED) as peer:
        assert finish(*EVENT, url=peer.url, python="/usr/bin/python3", before="import os\n",
                      first=poor) == (0, "", "")
        assert len(peer.events) == 1


def test_an_event_at_the_exit_of_a_program_is_delivered(python):
    """Python 3.12 and later start no thread by then."""
    code = """
import atexit, sys, userstate
def last():
    userstate.send_user_state_event("running", 1000, "last", url=sys.argv[1])
    with userstate.step(1000, "m", url=sys.argv[1], say=str):
        pass
atexit.register(last)
"""
    with Peer(ACCEPTED) as peer:
        assert program(code, peer.url, python=python) == (0, "", "")
        assert [message for _, message in told(peer) if message != "m"] == [
            "last", "m: done after 0 s"]


# Signals.

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


def number_of(name):
    base, _, more = name.partition("+")
    return int(getattr(signal, base)) + int(more or 0)


@pytest.mark.parametrize("name", ENDING)
def test_a_signal_is_passed_on_waited_for_and_reported(name):
    number = number_of(name)
    with Peer(ACCEPTED) as peer:
        process = started("run", "1010", "m", sys.executable, "-S", "-c", WAIT_FOR_ONE,
                          str(number), url=peer.url, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert ended(process) == (6, "got it\n", "")
        assert told(peer) == [("running", "m"), ("failed", "m: exit status 6 after 0 s")]


@pytest.mark.parametrize("name", ENDING)
def test_a_signal_that_ends_the_command_is_reported(name):
    number = number_of(name)
    shown = NAMES.get(number, number)
    with Peer(ACCEPTED) as peer:
        process = started("run", "1010", "m", "sh", "-c", "echo ready; exec sleep 30",
                          url=peer.url, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        status = -2 if number == signal.SIGINT else 128 + number
        assert ended(process) == (status, "", "")
        assert told(peer)[1] == ("failed", f"m: killed by {shown} after 0 s")


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
        process = started("run", "1010", "m", "sh", "-c", SHOW_SIGNALS, url=peer.url,
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
        assert told(peer)[1] == ("succeeded", "m: done after 0 s")


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
        status, out, err = finish(  # dash would unblock them
            "run", "1010", "m", "grep", "Sig[BI]", "/proc/self/status", url=peer.url,
            first=blocking, python=edge_python)
        assert (status, err) == (0, "") and len(peer.events) == 2
        assert signal_sets(out)["SigBlk"] == bits(*blocked) & 0x7fffffff


# Ctrl-C in a shell script.

def at_terminal(*command, env=None):
    """Start command as the leader of a session at a terminal; return both."""
    pid, terminal = pty.fork()
    if not pid:
        try:
            fresh()
            os.execvpe(command[0], command, dict({"PATH": os.environ["PATH"]}, **env or {}))
        finally:
            os._exit(99)
    return pid, terminal


def read_until(terminal, word):
    """Return what the terminal shows until word, or until the end."""
    shown = b""
    while word is None or word not in shown:
        try:
            part_of_it = os.read(terminal, 1000)
        except OSError:
            part_of_it = b""
        if not part_of_it:
            assert word is None, shown
            return shown
        shown += part_of_it
    return shown


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
            assert told(peer)[-1] == ("failed", "m: killed by SIGINT after 0 s")


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
        assert told(peer)[-1] == ("failed", "m: killed by SIGINT after 0 s")


# step: ends that are none, and one object that is used again.

@pytest.mark.parametrize("code, status, end", [
    ("sys.exit()", 0, "done"), ("sys.exit(0)", 0, "done"), ("sys.exit(None)", 0, "done"),
    ("sys.exit(False)", 0, "done"), ("raise SystemExit", 0, "done"),
    ("sys.exit(3)", 3, "SystemExit"), ("sys.exit('why')", 1, "SystemExit"),
    ("sys.exit(256)", 0, "SystemExit"), ("pass", 0, "done"), ("1 / 0", 1, "ZeroDivisionError"),
    ("raise KeyboardInterrupt", -2, "KeyboardInterrupt")])
def test_an_exit_with_status_0_is_a_success(code, status, end, edge_python):
    with Peer(ACCEPTED) as peer:
        process = subprocess.Popen(
            [edge_python, "-B", "-c", "import sys, userstate\n"
             f"with userstate.step(1010, 'm', url=sys.argv[1]): {code}", peer.url], cwd=TOP,
            stderr=subprocess.DEVNULL, preexec_fn=fresh)
        process.wait(20)
        if (status, edge_python) != (-2, PYTHONS.get("3.6")):  # ends with status 1
            assert process.returncode == status
        assert told(peer)[-1] == ("succeeded" if end == "done" else "failed",
                                  f"m: {end} after 0 s")


USE = [("running", "m"), ("succeeded", "m: done after 0 s")]


def test_a_step_may_be_used_again(caplog):
    with Peer(ACCEPTED) as peer:
        step = userstate.step(1010, "m", url=peer.url)
        for _ in range(3):
            with step as entered:
                assert entered is step
                wait_for(lambda: len(peer.events) % 2)
        with pytest.raises(KeyError):
            with step:
                raise KeyError
        with step:
            pass
        assert told(peer) == USE * 3 + [USE[0], ("failed", "m: KeyError after 0 s")] + USE
    assert caplog.records == []


def test_a_step_tells_the_time_of_each_use(said):
    with Peer(ACCEPTED) as peer:
        step = userstate.step(1010, "m", url=peer.url, **said.options)
        for seconds in (42, 7):
            before = len(peer.events)
            with step:
                wait_for(lambda: len(peer.events) > before)
                said.time.now += seconds
        assert [e["message"] for e in peer.events][1::2] == ["m: done after 42 s",
                                                             "m: done after 7 s"]


def test_a_step_within_itself_is_refused_and_the_outer_use_reported():
    with Peer(ACCEPTED) as peer:
        step = userstate.step(1010, "m", url=peer.url)
        with step:
            with pytest.raises(RuntimeError):
                with step:
                    raise AssertionError("the block ran")
        assert told(peer) == USE
        with step:
            pass
        assert told(peer) == USE * 2


def test_a_step_that_another_thread_uses_is_refused():
    with Peer(ACCEPTED) as peer:
        step, inside, over = userstate.step(1010, "m", url=peer.url), *[
            threading.Event() for _ in range(2)]

        def use():
            with step:
                inside.set()
                over.wait(20)
        thread = threading.Thread(target=use)
        thread.start()
        assert inside.wait(20)
        with pytest.raises(RuntimeError, match="^this step is in use: make another one$"):
            with step:
                raise AssertionError("the block ran")
        over.set()
        thread.join(20)
        assert told(peer) == USE


def test_a_step_decorates_functions_and_each_call_reports():
    with Peer(ACCEPTED) as peer:
        @userstate.step(1010, "m", url=peer.url)
        def factorial(n, *, more=0):
            """Return n!"""
            return n * factorial(n - 1) if n else 1 + more
        assert (factorial.__name__, factorial.__doc__) == ("factorial", "Return n!")
        assert peer.events == []  # to decorate is not to call
        assert factorial(0, more=4) == 5 and told(peer) == USE
        assert factorial(3) == 6 and len(peer.events) == 10  # within itself
        threads = [threading.Thread(target=factorial, args=(0,)) for _ in range(4)]
        [thread.start() for thread in threads]
        [thread.join(20) for thread in threads]
        assert sorted(told(peer)) == sorted(USE * 9)
        with pytest.raises(TypeError):
            factorial("x")
        assert told(peer)[-1] == ("failed", "m: TypeError after 0 s")


# A dry run that acts, the reason that is not told, files that shells can run.

@pytest.mark.parametrize("words", [
    ["1010", "m"], ["--every", "0.01", "1010", "m"], ["--log", "LOG", "1010", "m", "--"]])
def test_a_dry_run_runs_nothing_and_makes_no_file(words, tmp_path, edge_python):
    words = [str(tmp_path / "log") if word == "LOG" else word for word in words]
    with Peer(ACCEPTED) as peer:
        done = finish("-n", "run", *words, "touch", str(tmp_path / "ran"), url=peer.url,
                      python=edge_python)
        assert peer.requests == [] and os.listdir(str(tmp_path)) == []
    assert done == (0, '{"state": "running", "code": 1010, "message": "m"}\n', "")


def test_a_dry_run_with_invalid_operands_is_status_2(tmp_path):
    for words in (["999", "m"], ["--every=x", "1010", "m"]):
        done = finish("-n", "run", *words, "touch", str(tmp_path / "ran"), url=DEAD)
        assert done.status == 2 and done.out == "" and os.listdir(str(tmp_path)) == []


LAST_LINES = {  # what the command writes, by printf's escapes; what the message says
    "E: Unable to locate package nginx\\n": "E: Unable to locate package nginx",
    "a\\nb": "b", "a\\nb\\n\\n  \\n\\t\\n": "b", "10%%\\r50%%\\rno space\\r\\n": "no space",
    "\\033[31mred\\033[0m\\n": "red", "a\\tb\\001c\\007\\n": "a b c",
    "\\377\\376x\\n": "\ufffd\ufffdx",
    "\\303\\274ber\\n": "\xfcber", "": "", "\\n \\n": "", "\\033[31m\\n": "",
    "a\\n\\000\\n": "a",
    "\\342\\200\\256evil\\n": "evil", "x" * 500 + "\\n": "x" * 200, "y" * 100000: "y" * 200,
    "first\\n" + "z" * 70000 + "\\nlast": "last"}


@pytest.mark.parametrize("text", LAST_LINES, ids=lambda text: text[:20])
def test_a_failure_tells_the_last_line_that_is_not_empty(text, tmp_path):
    log = tmp_path / "log"
    log.write_text("before\n")
    with Peer(ACCEPTED) as peer:
        done = finish("run", "--log", str(log), "1010", "m", "sh", "-c",
                      'printf "$0" >&2; exit 100', text, url=peer.url)
        assert done == (100, "", "")
        _, end = peer.events
        why = LAST_LINES[text]
        assert re.sub(r"\d+ s", "0 s", end["message"]) == (
            "m: exit status 100 after 0 s" + (": " + why if why else ""))
        assert end["message"].isprintable()
    assert log.read_bytes().startswith(b"before\n")


def test_a_log_holds_both_streams_behind_what_was_there(tmp_path, edge_python):
    log, old = tmp_path / "log", os.umask(0)
    command = ["sh", "-c", "echo out; echo err >&2; exit $0"]
    try:
        with Peer(ACCEPTED) as peer:
            for status in (0, 3):
                assert finish("run", f"--log={log}", "1010", "m", *command, str(status),
                              url=peer.url, python=edge_python) == (status, "", "")
            assert told(peer) == USE + [
                USE[0], ("failed", "m: exit status 3 after 0 s: err")]
    finally:
        os.umask(old)
    assert log.read_text() == "out\nerr\n" * 2
    assert log.stat().st_mode & 0o7777 == 0o600


def test_an_old_line_of_the_log_is_no_reason(tmp_path):
    log = tmp_path / "log"
    log.write_text("an old error\n")
    with Peer(ACCEPTED) as peer:
        assert finish("run", f"--log={log}", "1010", "m", "false", url=peer.url).status == 1
        assert told(peer)[1] == ("failed", "m: exit status 1 after 0 s")


@pytest.mark.parametrize("signal_name", ["KILL", "TERM"])
def test_a_killed_command_has_its_last_line_told(signal_name, tmp_path):
    with Peer(ACCEPTED) as peer:
        finish("run", "--log", str(tmp_path / "log"), "1010", "m", "sh", "-c",
               f"echo why; kill -{signal_name} $$", url=peer.url)
        assert told(peer)[1][1] == f"m: killed by SIG{signal_name} after 0 s: why"


def test_a_grandchild_that_keeps_the_log_holds_nothing_up(tmp_path):
    log = tmp_path / "log"
    with Peer(ACCEPTED) as peer:
        begun = time.monotonic()
        assert finish("run", "--log", str(log), "1010", "m", "sh", "-c",
                      "sleep 30 & echo $!; exit 4", url=peer.url).status == 4
        assert time.monotonic() - begun < 5 and len(peer.events) == 2
    os.kill(int(log.read_text()), signal.SIGKILL)


@pytest.mark.parametrize("path", ["/", "/nowhere/log", "", "/proc/version/x"])
def test_a_log_that_cannot_be_opened_runs_nothing(path, tmp_path):
    with Peer(ACCEPTED) as peer:
        done = finish("run", "--log", path, "1010", "m", "touch", str(tmp_path / "ran"),
                      url=peer.url)
        assert peer.requests == [] and os.listdir(str(tmp_path)) == []
    assert done.status == 2 and re.fullmatch("userstate: log .*\n", done.err)


@pytest.mark.parametrize("path", ["/dev/null", "FIFO"])
def test_a_log_that_is_no_regular_file_does_no_harm(path, tmp_path):
    if path == "FIFO":
        path = str(tmp_path / "fifo")
        os.mkfifo(path)
    with Peer(ACCEPTED) as peer:
        done = finish("run", "--log", path, "1010", "m", "sh", "-c", "echo x; exit 3",
                      url=peer.url)
        assert done == (3, "", "") and told(peer)[1][1].startswith("m: exit status 3 after 0 s")


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
        done = finish("run", "1010", "m", "--", word, "a b", "-h", url=peer.url,
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
        done = finish("run", "1010", "m", str(script), url=peer.url)
        assert (done.status, done.out) == (status, "")
        assert [state for state, _ in told(peer)] == ["failed"]


# Addresses as people write them.

@pytest.mark.parametrize("path, target", [
    ("//events", "//events"), ("///a//b", "///a//b"), ("//e?x=//y&z", "//e?x=//y&z"),
    ("", "/"), ("?a=b", "/?a=b"), ("/a%2Fb;c", "/a%2Fb;c"), ("/e#fragment", "/e"),
    ("/~x/../y", "/~x/../y")])
def test_a_path_is_sent_as_it_stands(path, target):
    code = "import sys, userstate; userstate.post_event({}, sys.argv[1])"
    with Peer(ACCEPTED) as peer:
        url = peer.url.replace("/events", path)
        for python in PYTHONS.values() if path == "//events" else [NEWEST]:
            assert program(code, url, python=python) == (0, "", "")
    assert {r.split(b"\r\n")[0] for r in peer.requests} == {f"POST {target} HTTP/1.1".encode()}


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_zone_of_an_address_may_be_written_either_way(percent, edge_python):
    try:
        peer = Peer(ACCEPTED, host="::1")
        zone = percent + str(socket.if_nametoindex("lo"))  # its name is for fe80:: alone
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with peer:
        done = finish("--deadline=0.9", *EVENT, url=peer.url.replace("::1", "::1" + zone),
                      python=edge_python)
        assert done == (0, "", "")
        assert f"\r\nHost: [::1]:{peer.port}\r\n".encode() in peer.requests[0]


@pytest.mark.parametrize("host", ["[2001:db8::abcd]", "[::]", "[::ffff:192.0.2.1]", "[::FFFF]",
                                  "192.0.2.1", "x_y.example"])
def test_any_kind_of_host_is_asked_and_named(host):
    with Peer(ACCEPTED) as peer:
        assert finish("--deadline=0.9", *EVENT, url=f"http://{host}:8080/",
                      before=found(peer.port)) == (0, "", "")
        assert f"\r\nHost: {host}:8080\r\n".lower().encode() in peer.requests[0].lower()


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_zone_that_is_a_name_is_asked_for(percent, edge_python):
    with Peer(ACCEPTED) as peer:
        check = found(peer.port) + """
answer_all = socket.getaddrinfo
def getaddrinfo(host, *args, **options):
    assert host in (b"fe80::1%eth0", "fe80::1%eth0"), host
    return answer_all()
socket.getaddrinfo = getaddrinfo
"""
        assert finish("--deadline=0.9", *EVENT, url=f"http://[fe80::1{percent}eth0]:80/",
                      before=check, python=edge_python) == (0, "", "")
        assert re.search(rb"\r\nHost: \[fe80::1\](:80)?\r\n", peer.requests[0])


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_certificate_is_of_an_address_without_its_zone(percent, authority, edge_python):
    with tls_peer(authority, "zoned") as peer:
        done = finish("--deadline=2", *EVENT, url=f"https://[fe80::1{percent}eth0]/",
                      before=found(peer.port), python=edge_python,
                      env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert done == (0, "", "") and len(peer.events) == 1


@pytest.mark.parametrize("name", ["good.example", "good.example.", "GOOD.example."])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_ends_in_a_dot_is_the_same_name(scheme, name, authority, edge_python):
    with (tls_peer(authority, "named") if scheme == "https" else Peer(ACCEPTED)) as peer:
        done = finish("--deadline=0.9", *EVENT, url=f"{scheme}://{name}/x", python=edge_python,
                      before=found(peer.port), env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert done == (0, "", "") and len(peer.events) == 1


@pytest.mark.parametrize("end", ["\r", " ", "\n", "\t", "\r\n"], ids=ascii)
@pytest.mark.parametrize("variable", ["URL", "METADATA_URL"])
def test_white_space_around_a_variable_does_not_count(variable, end):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        value = {"URL": peer.url, "METADATA_URL": metadata.url}[variable]
        done = finish(*EVENT, env={"USERSTATE_" + variable: end + value + end,
                                   "USERSTATE_TIMEOUT": "5" + end,
                                   "USERSTATE_DEADLINE": end + "9" + end})
        assert done == (0, "", "") and len(peer.events) == 1


def test_a_variable_of_white_space_is_unset():
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        names = "USERSTATE_URL", "USERSTATE_TIMEOUT", "USERSTATE_DEADLINE"
        blank = dict.fromkeys(names, " \r")
        done = finish(*EVENT, env=dict(blank, USERSTATE_METADATA_URL=metadata.url))
        assert done == (0, "", "") and len(peer.events) == 1


# The environment, thin Pythons, hints.

@pytest.mark.parametrize("variables", [
    {"SSLKEYLOGFILE": "/nowhere/keys"}, {"SSLKEYLOGFILE": "/"}, {"SSL_CERT_DIR": "/nowhere"},
    {"OPENSSL_CONF": "/nowhere"}, {"TMPDIR": "/nowhere"}, {"HOME": "/nowhere"},
    {"TZ": "Nowhere/Else"}, {"LC_ALL": "nowhere"}, {"PYTHONWARNINGS": "error"},
    {"PYTHONIOENCODING": "ascii:strict"}, {"PYTHONDEVMODE": "1"}], ids=str)
def test_no_variable_makes_delivery_impossible(variables, authority, edge_python):
    with tls_peer(authority, "good") as peer:
        done = finish("--deadline=5", *EVENT, url=peer.url, python=edge_python,
                      env=dict(variables, SSL_CERT_FILE=str(authority / "ca.pem")))
        assert done == (0, "", "") and len(peer.events) == 1


THIN = """
import sys
for name in ("encodings.idna", "stringprep", "unicodedata"):
    sys.modules[name] = None
try:
    "x.example".encode("idna")
except LookupError:
    pass
else:
    sys.exit("the codec is there")
"""


@pytest.mark.parametrize("url", ["http://127.0.0.1:PORT/", "http://localhost:PORT/",
                                 "http://good.example:PORT/", "https://good.example:PORT/",
                                 "https://127.0.0.1:PORT/"])
def test_a_python_without_the_idna_codec_delivers(url, authority, edge_python):
    if url[4] == "s" and edge_python == PYTHONS.get("3.6"):
        pytest.skip("Python 3.6 itself needs the codec for the name in a certificate")
    kind = "good" if "127" in url else "named"
    with (tls_peer(authority, kind) if url[4] == "s" else Peer(ACCEPTED)) as peer:
        before = THIN + (found(peer.port) if "example" in url else "")
        done = finish("--deadline=2", *EVENT, url=url.replace("PORT", str(peer.port)),
                      before=before, python=edge_python,
                      env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert done == (0, "", "") and len(peer.events) == 1


def test_a_step_in_a_python_without_the_idna_codec_raises_nothing(edge_python):
    code = THIN + """
import userstate
with userstate.step(1010, "m", url=sys.argv[1]):
    pass
"""
    with Peer(ACCEPTED) as peer:
        url = peer.url.replace("127.0.0.1", "localhost")
        assert program(code, url, python=edge_python) == (0, "", "")
        assert told(peer) == USE


def test_any_address_raises_documented_errors_only(said, monkeypatch):
    def refuse(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dice = random.Random(7)
    parts = ["http", "https", "HTTP", "://", "h", ".", "..", "[", "]", "::1", "%25", "%", ":",
             "80", "0", "99999", "-", "_", "a" * 63, "a" * 64, "xn--", "xn--a", "/", "?", "#",
             "\xfc", "\u3002", "\udcff", "\0", " ", "@", "127.1", "*", "\\", "1" * 300]
    for _ in range(2000):
        url = dice.choice(["http://", "https://", ""]) + "".join(
            dice.choice(parts) for _ in range(dice.randrange(1, 6)))
        with pytest.raises(userstate.UserStateError):
            userstate.post_event({}, url, **dict(said.options, deadline=2))
        assert all(line.isprintable() for line in said.lines)


HINTS = {  # certificate of the peer, SSL_CERT_FILE, what the line says, and what not
    "unknown authority": ("good", None, "set SSL_CERT_FILE", "clock"),
    "unknown authority, empty variable": ("good", "", "set SSL_CERT_FILE", "clock"),
    "unknown authority, variable set": ("good", "other.pem", r"other\.pem",
                                        "set SSL_CERT_FILE"),
    "variable of no file": ("good", "none.pem", r"none\.pem", "set SSL_CERT_FILE"),
    "another name": ("other", "ca.pem", "127.0.0.1", "SSL_CERT_FILE|ca-certificates|clock"),
    "expired": ("expired", "ca.pem", "clock", "SSL_CERT_FILE|ca-certificates"),
    "not yet valid": ("future", "ca.pem", "clock", "SSL_CERT_FILE|ca-certificates")}


@pytest.mark.parametrize("name", HINTS)
def test_the_hint_of_a_certificate_follows_the_reason(name, authority):
    """But Python 3.6 does not tell it."""
    certificate, file, right, wrong = HINTS[name]
    if not (authority / "other.pem").exists():
        words = ("openssl req -x509 -config config -newkey rsa:2048 -nodes -keyout other.key "
                 "-out other.pem -subj /CN=elsewhere").split()
        made = subprocess.run(words, cwd=str(authority), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        assert made.returncode == 0, made.stderr
    env = {} if file is None else {"SSL_CERT_FILE": file and str(authority / file)}
    with tls_peer(authority, certificate) as peer:
        done = finish("--deadline=0.6", *EVENT, url=peer.url, python=NEWEST, env=env)
        assert peer.events == []
    assert done.status == (75 if right == "clock" else 1)
    assert re.search(right, done.err) and not re.search(wrong, done.err), done.err


# Errors of ours.

CALLS = {
    "send_user_state_event": ("running", 1000, "x"), "fetch_metadata": (), "user_state_url": (),
    "post_event": ({}, DEAD), "step": (1000, "x")}


@pytest.mark.parametrize("option", ["timout", "metadata", "retries"])
@pytest.mark.parametrize("name", CALLS)
def test_a_mistyped_keyword_is_an_event_error_that_names_it(name, option):
    with pytest.raises(userstate.EventError, match=option):
        getattr(userstate, name)(*CALLS[name], **{option: 5})


@pytest.mark.parametrize("words", [["1000", "x"], ["1000"], [], ["1000", "x", "--"]], ids=str)
def test_a_run_of_nothing_speaks_of_the_command(words, capsys):
    assert userstate.main(["--url", DEAD, "run", *words]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch("userstate: .*CODE MESSAGE COMMAND.*\n", err) and "STATE" not in err


BUGS = [TypeError("boom"), AttributeError("boom"), KeyError("boom"), ZeroDivisionError("boom"),
        RuntimeError("boom"), AssertionError("boom"), RecursionError("boom"),
        UnicodeError("boom"), StopIteration("boom"), LookupError("boom")]


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_bug_is_refused_at_once_with_its_type(error, said, monkeypatch):
    def fail(*args, **options):
        raise error
    monkeypatch.setattr(socket, "getaddrinfo", fail)
    for call in (lambda: userstate.post_event({}, DEAD, **said.options),
                 lambda: userstate.fetch_metadata(metadata_url=DEAD, **said.options)):
        with pytest.raises(userstate.RefusedError,
                           match=f"{type(error).__name__}.*refused at try 1 "):
            call()
    assert said.lines == [] and said.time.pauses == []


@pytest.mark.parametrize("error", [
    MemoryError(), OSError(24, "Too many open files"), socket.gaierror(-3, "Temporary failure"),
    socket.timeout("timed out"), ConnectionError("gone"), OSError()], ids=repr)
def test_a_fault_of_network_or_resources_is_tried_again(error, said, monkeypatch):
    find, faults = socket.getaddrinfo, [error, error]

    def fail_twice(*args, **options):
        if faults:
            raise faults.pop()
        return find(*args, **options)
    monkeypatch.setattr(socket, "getaddrinfo", fail_twice)
    with Peer(ACCEPTED) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 1
    assert len(said.time.pauses) == 2 and len(said.lines) == 1


CYCLE = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("event", [object(), {"a": {1}}, {"a": float("nan")}, CYCLE, b"x",
                                   {(1, 2): 3}], ids=lambda event: repr(event)[:9])
def test_an_event_that_is_not_json_is_an_event_error(event):
    with pytest.raises(userstate.EventError):
        userstate.post_event(event, DEAD)


# Nobody is told.

DEFAULTS = ["https://metadata.packet.net/metadata",
            "https://metadata.platformequinix.com/metadata"]
FAILING = {
    "no such name": "def getaddrinfo(*a, **o): raise socket.gaierror(-2, 'No such name')",
    "nobody listens":
        f"def getaddrinfo(*a, **o): return all('127.0.0.1', {DEAD_PORT}, type=1)",
    "no TLS": "def getaddrinfo(*a, **o): return all('127.0.0.1', PORT, type=1)"}


@pytest.mark.parametrize("name, words", [
    *[(name, EVENT) for name in FAILING], ("no such name", ["url"]),
    ("nobody listens", ["run", "1000", "x", "true"])], ids=str)
def test_a_default_address_that_fails_is_said_to_be_switched_off(name, words):
    def plain(connection, peer):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with Peer(plain) as peer:
        before = ("import socket; all = socket.getaddrinfo\n"
                  + FAILING[name].replace("PORT", str(peer.port))
                  + "\nsocket.getaddrinfo = getaddrinfo\n")
        done = finish("--deadline=0.3", *words, before=before)
    assert done.status == (0 if words[0] == "run" else 75)
    lines = [line for line in done.err.splitlines() if "metadata" in line]
    for url in DEFAULTS:
        assert any(line.startswith(f"userstate: {url}: ") for line in lines)
    for line in lines:
        assert re.search(r"\(this default was switched off on 2026-06-30: "
                         r"set USERSTATE_METADATA_URL\); (gave up|trying again)", line)


def test_an_address_that_was_given_is_not_said_to_be_switched_off():
    done = finish("--deadline=0.3", "--metadata-url", DEAD, *EVENT)
    assert done.status == 75 and "switched off" not in done.err


def test_a_document_without_the_key_names_the_option(said):
    with Peer(document()) as peer:
        with pytest.raises(userstate.RefusedError, match="--url"):
            userstate.user_state_url(metadata_url=peer.url, **said.options)
    assert "--url" in said.lines[0]


# Late on the timeline.

class Unread:
    """A script that reads nothing until `gate` is set, and then all that is there to read."""

    def __init__(self, size):
        self.size, self.accepted, self.over = size, threading.Event(), threading.Event()
        self.gate, self.got, self.reset = threading.Event(), 0, False

    def __call__(self, connection, peer):
        self.accepted.set()
        self.gate.wait(30)
        connection.settimeout(10)
        try:
            for data in iter(lambda: connection.recv(65536), b""):
                self.got += len(data)
        except ConnectionResetError:
            self.reset = True
        except OSError:  # TLS that is cut
            self.reset = True
        self.over.set()

    def check(self, scheme="http"):
        self.gate.set()
        assert self.over.wait(20) and self.got < self.size
        assert self.reset or scheme == "https"  # which takes it for an end


def with_small_buffer(peer):
    peer.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    return peer


LARGE = 100000  # bytes of a message, as large as an operand can be


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("end", ["deadline", "INT", "TERM", "KILL"])
def test_a_try_that_is_abandoned_never_arrives_whole(end, scheme, authority):
    late = Unread(LARGE)
    make = Peer(late) if scheme == "http" else tls_peer(authority, "good", late)
    with with_small_buffer(make) as peer:
        process = started(*(["--deadline=0.6"] if end == "deadline" else []), "running", "1000",
                          "x" * LARGE, url=peer.url, stderr=subprocess.PIPE,
                          env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert late.accepted.wait(20)
        if end != "deadline":
            wait_for(lambda: sent_to(peer.port) > 0)
            process.send_signal(getattr(signal, "SIG" + end))
        assert ended(process).status == {"deadline": 75}.get(end) or -number_of("SIG" + end)
        late.check(scheme)


def sent_to(port):
    """Return how many bytes wait in the send queues of connections to port."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(int(row[4].split(":")[0], 16) for row in rows
               if row[2].endswith(f":{port:04X}"))


def test_a_try_of_some_mib_that_is_abandoned_never_arrives_whole():
    late = Unread(8 << 20)
    with with_small_buffer(Peer(late)) as peer:
        with pytest.raises(userstate.DeadlineError):
            userstate.post_event({"message": "x" * (8 << 20)}, peer.url, deadline=0.4)
        late.check()


def test_the_first_report_of_a_run_never_arrives_after_its_end():
    late = Unread(LARGE)
    with with_small_buffer(Peer(late, ACCEPTED)) as peer:
        done = finish("--timeout=0.4", "--deadline=0.5", "run", "1000", "x" * LARGE, "true",
                      url=peer.url)
        assert done.status == 0 and told(peer)[-1][0] == "succeeded"
        late.check()


def test_what_is_queued_behind_an_early_answer_still_arrives():
    """A service may answer before it reads the body: this try is over, and not given up."""
    called, arrived = threading.Event(), threading.Semaphore(0)
    got = bytearray()

    def answers_first(connection, peer):
        connection.sendall(ACCEPTED)
        called.wait(20)
        part_of_it = connection.recv(65536)
        while part_of_it:
            got.extend(part_of_it)
            part_of_it = connection.recv(65536)
        arrived.release()
    with Peer(answers_first) as peer:
        userstate.post_event({"message": "x" * 100000}, peer.url)
        called.set()
        assert arrived.acquire(timeout=20) and got.endswith(b"x" * 100000 + b'"}')


# The end is lost.

@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_that_comes_twice_does_not_lose_the_end(name):
    number, last = number_of(name), gated()
    with Peer(ACCEPTED, last) as peer:
        process = started("run", "1010", "m", "sh", "-c", "echo ready; exec sleep 30",
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
        assert told(peer)[1] == ("failed", f"m: killed by {name} after 0 s")


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
        process = started("run", "1010", "m", "sh", "-c", "echo ready; exec sleep 30",
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
            assert told(peer)[1] == ("failed", "m: killed by SIGHUP after 0 s")


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
        assert [state for state, _ in told(peer)] == ["running"] * 5 + ["failed"] * 5
        for _, message in told(peer)[5:]:
            assert re.fullmatch(r"m: killed by SIGTERM after \d+ s", message)


# Between fork and exec.

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
        done = finish("run", "1010", "m", "sleep", "30", url=peer.url, python=edge_python,
                      before=AROUND_EXEC.replace("WHEN", BETWEEN[when]), start_new_session=True)
        assert done == (-signal.SIGINT, "", "")
        assert told(peer)[-1] == ("failed", "m: killed by SIGINT after 0 s")


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
            process = started("run", "1010", "m", "sleep", "30", url=peer.url, before=AT_START,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              start_new_session=True)
            assert process.stdout.readline() == b"now\n"
            end = time.monotonic() + dice.choice([0, 0.001, 0.003, 0.01]) * dice.random()
            while time.monotonic() < end:
                pass  # a moment within those that fork and exec take
            os.killpg(process.pid, signal.SIGINT)
            assert ended(process) == (-signal.SIGINT, "", "")
        assert [message for state, message in told(peer) if state == "failed"] == [
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
        assert [m for _, m in told(peer) if m != "m"] in (
            [], ["m: killed by SIGINT after 0 s"])


COUNT = """
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
                                    "-c", COUNT)
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


# From outside to the terminal.

EVIL = ["\x1b[31mred", "\x9b31m", "\x07\x08\x7f", "\rforged", "\nuserstate: forged",
        "\u202eevil",
        "\u2028userstate: forged", "\x00", "\ud800"]


def evil_answer(where, text):
    raw = text.replace("\n", " ").replace("\r", "\x0b").encode("utf-8", "replace")
    if where == "reason phrase":
        return b"HTTP/1.1 403 " + raw + b"\r\n\r\n"
    if where == "redirect":
        return b"HTTP/1.1 302 Found\r\nLocation: http://h/" + raw + b"\r\n\r\n"
    if where == "errors":
        return answer(403, json.dumps({"errors": [text]}).encode())
    if where == "status line":
        return raw + b"\r\n\r\n"
    return document(**{where: f"http://h/{text}/phone-home"})


@pytest.mark.parametrize("where", ["reason phrase", "redirect", "errors", "status line",
                                   "phone_home_url", "user_state_url"])
def test_nothing_from_outside_reaches_the_terminal_or_the_log_raw(where, said, caplog, capfd):
    for text in EVIL:
        with Peer(evil_answer(where, text)) as peer:
            words = ["-v", "--deadline=0.05", "--metadata-url", peer.url]
            assert userstate.main([*words, "url"]) in (1, 75)
            assert userstate.main([*words, "run", "1000", "x", "true"]) == 0
            with userstate.step(1000, "x", metadata_url=peer.url, deadline=0.05):
                pass
            with pytest.raises(userstate.UserStateError) as caught:
                userstate.user_state_url(metadata_url=peer.url, **said.options)
        err = capfd.readouterr().err
        lines = [line for line in err.split("\n")[:-1] if "WARNING" not in line]
        lines += [record.getMessage() for record in caplog.records]
        lines += said.lines + [str(caught.value)]
        assert len(lines) > 3
        for line in lines:
            assert re.fullmatch("[ -~]+", line) and "userstate: forged" not in line[11:20], line
        assert all(line.startswith("userstate: ") for line in err.split("\n")[:-1])
        assert not re.search("(?m)^userstate: forged", err)


@pytest.mark.parametrize("text", EVIL[:6], ids=ascii)
def test_nothing_of_operands_and_variables_is_shown_raw(text, tmp_path, capfd):
    for words in ([text, "1000", "x"], ["running", text, "x"], ["--" + text, *EVENT],
                  ["--timeout=" + text, *EVENT], ["run", "1000", "x", "/nowhere/" + text],
                  ["run", "--log", f"/nowhere/{text}", "1000", "x", "true"],
                  ["run", "--every", text, "1000", "x", "true"], ["--url", text, *EVENT]):
        assert userstate.main(["--deadline=0.05", "--url", DEAD, *words]) in (2, 127)
        out, err = capfd.readouterr()
        assert out == "" and err
        for line in err.split("\n")[:-1]:
            assert re.fullmatch("userstate: [ -~]+", line), err


# Secrets.

SECRETS = ["http://user:s3cret@h/?token=s3cret", "https://h/?token=s3cret", "user:s3cret@h",
           "ftp://s3cret@h/", "x" * 73 + ":s3cret@h/", "HTTP://u:s3cret@h",
           " http://u:s3cret@h/",
           "u" * 70 + "http://s3cret@h/", "http://u:s3cret@h:x/#s3cret"]
PLACES = {
    "behind the operands": ["running", "1000", "hi", "--url", "SECRET"],
    "in place of the state": ["SECRET", "1000", "x"], "as the code": ["running", "SECRET", "x"],
    "as seconds": ["--timeout", "SECRET", *EVENT], "deadline": ["--deadline=SECRET", *EVENT],
    "as an option": ["--SECRET", *EVENT], "as letters": ["-SECRET", *EVENT],
    "value of a flag": ["--verbose=SECRET", *EVENT], "mistyped": ["--ulr=SECRET", *EVENT],
    "an only operand": ["SECRET"], "as metadata": ["--metadata-url=SECRET bogus",
                                                   "url"],
    "code of run": ["run", "SECRET", "m", "true"], "message of run": ["run", "SECRET"],
    "command": ["run", "1000", "m", "SECRET"], "every": ["run", "--every=SECRET", "1000", "m",
                                                         "true"],
    "log": ["run", "--log", "/nowhere/SECRET", "1000", "m", "true"],
    "option of run": ["run", "--SECRET", "1000", "m", "true"],
    "url": ["--url", "SECRET", "bogus", "1000", "x"]}


@pytest.mark.parametrize("place", PLACES)
def test_no_error_shows_what_looks_like_an_address(place, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(str(tmp_path))
    with Peer(ACCEPTED) as peer:
        for secret in SECRETS:
            words = [word.replace("SECRET", secret) for word in PLACES[place]]
            first = [] if place == "as metadata" else ["--deadline=0.05", "--url", peer.url]
            assert userstate.main([*first, *words]) in (2, 127), words
            err = capfd.readouterr().err
            assert err and not re.search("s3c|token", err), err
        assert not any("s3c" in message for _, message in told(peer))


@pytest.mark.parametrize("secret", SECRETS)
def test_no_error_of_a_call_shows_what_looks_like_an_address(secret):
    for call in (lambda: userstate.build_event(secret, 1000, "x"),
                 lambda: userstate.build_event("running", secret, "x"),
                 lambda: userstate.build_event("running", 1000, secret.encode()),
                 lambda: userstate.step(secret, "x"),
                 lambda: userstate.step(1000, "x", every=secret),
                 lambda: userstate.fetch_metadata(timeout=secret),
                 lambda: userstate.fetch_metadata(**{secret: 1}),
                 lambda: userstate.fetch_metadata(deadline=[secret])):
        with pytest.raises(userstate.EventError) as caught:
            call()
        assert not re.search("s3c|token", str(caught.value))


# The clock.

JUMP = """
import time
real, begun = time.time, time.monotonic()
time.time = lambda: real() + (BY if time.monotonic() - begun > 0.2 else 0)
"""


@pytest.mark.parametrize("by, python", [(-3600, OLDEST), (3600, NEWEST)], ids=["back", "ahead"])
def test_a_wall_clock_that_is_set_changes_no_deadline(by, python):
    with Peer(part(b"")) as peer:
        begun = time.monotonic()
        done = finish("--deadline=0.6", *EVENT, url=peer.url, python=python,
                      before=JUMP.replace("BY", str(by)))
        assert done.status == 75 and 0.4 < time.monotonic() - begun < 2.5


@pytest.mark.parametrize("by, python", [(-3600, OLDEST), (3600, NEWEST)], ids=["back", "ahead"])
def test_a_wall_clock_that_is_set_stops_no_heartbeats(by, python):
    with Peer(ACCEPTED) as peer:
        process = started("run", "--every=0.2", "1010", "m", "cat", url=peer.url, python=python,
                          before=JUMP.replace("BY", str(by)), stdin=subprocess.PIPE,
                          stderr=subprocess.PIPE)
        begun = time.monotonic()
        wait_for(lambda: len(peer.events) >= 5)
        assert ended(process) == (0, "", "")
        most = (time.monotonic() - begun) / 0.2
        assert told(peer)[0] == ("running", "m")
        assert 4 <= told(peer).count(("running", "m: running for 0 s")) <= most
        assert told(peer)[-1] == ("succeeded", "m: done after 0 s")


AHEAD = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>
/* What a process computes from it is an hour late for the kernel: as if set back just now. */
int gettimeofday(struct timeval *now, void *zone) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    struct timespec exact;
    real(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec + 3600;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
int clock_gettime(clockid_t which, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(which, now);
    if (which == CLOCK_REALTIME) now->tv_sec += 3600;
    return result;
}
"""


@pytest.fixture(scope="session")
def ahead(tmp_path_factory):
    """A library under which all that waits by the wall clock waits for an hour more."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("ahead")
    (folder / "ahead.c").write_text(AHEAD)
    made = subprocess.run(["cc", "-shared", "-fPIC", "-o", "ahead.so", "ahead.c", "-ldl"],
                          cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        pytest.skip(f"cc: {made.stdout.decode()}")
    return str(folder / "ahead.so")


@pytest.mark.parametrize("words, status", [
    (EVENT, 75), (["run", "--every=0.2", "1010", "m", "sleep", "0.5"], 0)], ids=str)
def test_no_wait_follows_the_wall_clock(words, status, ahead):
    """The locks of Python before 3.9 do."""
    with Peer(part(b"")) as peer:
        begun = time.monotonic()
        done = finish("--timeout=0.3", "--deadline=0.6", *words, url=peer.url,
                      env={"LD_PRELOAD": ahead}, python=OLDEST)
        assert done.status == status and time.monotonic() - begun < 4
        assert peer.requests


# 10 s that become 20.

SLOW_THREAD = """
import _thread, time
start = _thread.start_new_thread
def start_late(function, words):
    def late():
        time.sleep(0.3)
        function(*words)
    return start(late, ())
_thread.start_new_thread = start_late
"""
BLOCK = """
import sys, userstate
with userstate.step(1010, "m", url=sys.argv[1], timeout=60, say=str):
    pass
"""
AT_THE_END = {  # what ends at once while its first report hangs
    "run": lambda url, _: started("--timeout=60", "run", "1010", "m", "true", url=url,
                                  stderr=subprocess.DEVNULL),
    "run with heartbeats": lambda url, _: started(
        "--timeout=60", "run", "--every=1", "1010", "m", "true", url=url,
        stderr=subprocess.DEVNULL),
    "run whose thread starts late": lambda url, _: started(
        "--timeout=60", "run", "1010", "m", "true", url=url, before=SLOW_THREAD,
        stderr=subprocess.DEVNULL),
    "run that asks for the address": lambda url, metadata: started(
        "--timeout=60", "--metadata-url", metadata, "run", "1010", "m", "true",
        stderr=subprocess.DEVNULL),
    "step": lambda url, _: subprocess.Popen([sys.executable, "-B", "-c", BLOCK, url], cwd=TOP)}


@pytest.fixture(scope="session", autouse=True)
def first_reports():
    """Start them all beside the other tests, as each takes ten seconds."""
    results, threads = {}, []

    def measure(name):
        asks = "asks" in name
        with Peer(*[part(b"")] * (not asks), ACCEPTED) as peer:
            with Peer(part(b""), document(user_state_url=peer.url)) as metadata:
                begun = time.monotonic()
                process = AT_THE_END[name](peer.url, metadata.url)
                try:
                    status = process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    status = process.wait()
                results[name] = status, time.monotonic() - begun, told(peer)
    for name in AT_THE_END:
        threads.append(threading.Thread(target=measure, args=(name,), daemon=True))
        threads[-1].start()

    def result(name):
        threads[list(AT_THE_END).index(name)].join(60)
        return results[name]
    yield result
    [thread.join(60) for thread in threads]


@pytest.mark.parametrize("name", AT_THE_END)
def test_a_first_report_gets_ten_seconds_at_most_whoever_comes_first(name, first_reports):
    status, seconds, events = first_reports(name)
    assert status == 0 and 9 < seconds < 14
    assert events[-1] == ("succeeded", "m: done after 0 s")
    assert [message for _, message in events if "running for" in message] == []


# The edges of the API.

def test_blank_metadata_beside_a_url_does_not_matter():
    with Peer(ACCEPTED) as peer:
        userstate.send_user_state_event(*EVENT[:1], 1000, "x", url=peer.url, metadata_url=" ")
        assert len(peer.events) == 1
    for value in (" ", "", "\r\n"):
        with pytest.raises(userstate.EventError):
            userstate.user_state_url(metadata_url=value)


@pytest.mark.parametrize("command", [["a\0b"], ["true", "a\0b"], ["\ud800"], ["true", "\ud800"],
                                     [""]], ids=lambda words: ascii(words)[:20])
def test_a_command_that_no_system_can_start_is_reported(command, capfd):
    with Peer(ACCEPTED) as peer:
        status = userstate.main(["--url", peer.url, "run", "1010", "m", "--", *command])
        assert status == 126 or command == [""] and status == 127
        (state, message), = told(peer)
        assert state == "failed" and message.startswith("m: cannot run ")
    assert re.fullmatch("userstate: cannot run .*\n", capfd.readouterr().err)


def test_a_command_and_an_option_of_any_length_take_no_time(edge_python):
    code = """
import sys, userstate
print(userstate.main(["--url", sys.argv[1], "run", "1010", "m", "true" * 40000]))
print(userstate.main(["--" + "x" * 100000, "running", "1000", "m"]))
"""
    with Peer(ACCEPTED) as peer:
        done = program(code, peer.url, python=edge_python, seconds=3)
        assert done.out == "126\n2\n" and len(done.err) < 1000 and len(peer.events) == 1
    assert len(peer.events[0]["message"]) < 400


def test_operands_with_nul_or_surrogates_are_invalid_or_sent(capfd):
    assert userstate.main(["--url", DEAD, "run", "--log", "a\0b", "1010", "m", "true"]) == 2
    assert userstate.main(["--url", "http://h/\0", *EVENT]) == 2
    assert userstate.main(["-n", "running", "1000", "a\0\ud800"]) == 0
    assert json.loads(capfd.readouterr().out)["message"] == "a\0\ud800"


@pytest.mark.parametrize("words", [
    ["run", "1010", "m", "--", "true"], ["run", "--every=5", "1010", "m", "true"],
    ["running", "1000", "x"], ["run", "1010"], ["-n", "running", "1000", "x"]], ids=str)
def test_main_leaves_its_list_as_it_was(words, capfd):
    with Peer(ACCEPTED) as peer:
        argv = ["--url", peer.url, *words]
        copy = list(argv)
        userstate.main(argv)
        assert argv == copy
        assert userstate.main(tuple(argv)) == userstate.main(argv)


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
    (["run", "--log=/", "1010", "m", "true"], 2), (EVENT, 0)], ids=str)
def test_main_leaves_handlers_and_mask_as_they_were(words, status, edge_python):
    with Peer(ACCEPTED) as peer:
        done = program(KEPT, "--url", peer.url, *words, python=edge_python)
        assert done.status == status, done


@pytest.mark.parametrize("words, status", [
    (EVENT, 0), (["-n", *EVENT], 0), (["bogus"], 2),
    (["run", "1010", "m", "--", "sh", "-c", "exit 4"], 2)], ids=str)
def test_main_in_another_thread_does_all_but_run(words, status, edge_python):
    code = """
import sys, threading, userstate
got = []
thread = threading.Thread(target=lambda: got.append(userstate.main(sys.argv[1:])))
thread.start()
thread.join(20)
print(got)
"""
    with Peer(ACCEPTED) as peer:
        done = program(code, "--url", peer.url, *words, python=edge_python)
        assert done.out.endswith(f"[{status}]\n") and bool(done.err) == (status == 2)
        if "run" in words:
            assert done.err == ("userstate: run: must be in the main thread, which gets the "
                                "signals\n")
        assert len(peer.requests) == (words == EVENT)


# Twice on the timeline.

def headers(request):
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    names = [line.partition(": ")[0].lower() for line in lines]
    assert len(set(names)) == len(names)
    return {name: line.partition(": ")[2] for name, line in zip(names, lines)}


def hang_up(connection, peer):
    peer.read(connection)


def test_every_try_of_an_event_has_one_key_and_each_event_its_own(said):
    with Peer(answer(503), hang_up, answer(400), ACCEPTED) as peer:
        userstate.post_event({}, peer.url, **said.options)
        userstate.post_event({}, peer.url, **said.options)
        keys = [headers(request)["idempotency-key"] for request in peer.requests]
    assert len(keys) == 5 and len(set(keys)) == 2 and keys[0] == keys[3] != keys[4]
    assert all(re.fullmatch(r'"[!#-\[\]-~]{20,}"', key) for key in keys)


def test_every_request_has_a_name_and_only_the_post_a_type_and_a_key(edge_python):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        done = finish("--metadata-url", metadata.url, "run", "1010", "m", "true",
                      python=edge_python)
        assert done == (0, "", "")
        posts, gets = map(headers, peer.requests), [headers(r) for r in metadata.requests]
    posts = list(posts)
    assert len(posts) == 2 and gets
    assert all(h["user-agent"] == "userstate/2.0" for h in posts + gets)
    assert all(h["content-type"] == "application/json" for h in posts)
    assert not any({"content-type", "idempotency-key", "content-length"} & set(h) for h in gets)
    assert posts[0]["idempotency-key"] != posts[1]["idempotency-key"]


@pytest.mark.parametrize("code", [
    "import random, userstate\nrandom.seed(1)\npost()", "import random\nrandom.seed(1)\npost()",
    "import os, userstate\nif os.fork(): os.wait()\npost()", "post()\npost()"],
    ids=["seeded", "seeded before", "forked", "one process"])
def test_no_two_events_have_the_same_key_whatever_the_program_does(code, edge_python):
    code = ("import sys\ndef post():\n    import userstate\n"
            "    userstate.post_event({}, sys.argv[1])\n" + code)
    with Peer(ACCEPTED) as peer:
        for _ in range(2):
            assert program(code, peer.url, python=edge_python).status == 0
        keys = [headers(request)["idempotency-key"] for request in peer.requests]
    assert len(keys) >= 2 and len(set(keys)) == len(keys)


# What else an attack has found.

@pytest.mark.parametrize("body", [b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\n",
                                  b"HTTP/1.1 200 OK\r\nContent-Le",
                                  b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n"])
def test_an_answer_that_is_cut_within_its_headers_is_none(body, said):
    with Peer(body, body, ACCEPTED) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 3
    assert len(said.lines) == 1 and "broken answer (IncompleteRead)" in said.lines[0]


def test_an_answer_before_the_end_of_the_body_is_read(said):
    def refuse_early(connection, peer):
        connection.recv(1000)
        connection.sendall(answer(413))
        connection.shutdown(socket.SHUT_WR)
        peer.over.wait(0.2)  # the client sends on, into a queue that nobody reads
    with Peer(refuse_early) as peer:
        with pytest.raises(userstate.RefusedError, match="HTTP 413 Reason; refused at try 1"):
            userstate.post_event({"m": "x" * 9000000}, peer.url, timeout=5, **said.options)


NO_DESCRIPTOR = """
import os, resource, sys, userstate
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
"""


def test_no_descriptor_left_is_told_by_documented_errors_only(edge_python):
    code = NO_DESCRIPTOR + """
with userstate.step(1050, "x", url=sys.argv[1], deadline=0.5):
    print("in the block")
try:
    userstate.send_user_state_event("running", 1000, "x", url=sys.argv[1], deadline=0.5)
except userstate.DeadlineError as error:
    print(error)
"""
    done = program(code, DEAD, python=edge_python)
    assert done.status == 0 and done.out.startswith("in the block\n")
    assert "Too many open files" in done.out and "Traceback" not in done.err


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_step_whose_block_forks_does_not_wait_for_the_child(edge_python):
    code = """
import os, sys, time, userstate, warnings
warnings.simplefilter("ignore")  # 3.12 warns of threads
begun = time.monotonic()
with userstate.step(1061, "m", url=sys.argv[1], every=60):
    child = os.fork()
    if not child:
        time.sleep(30)
        os._exit(0)
assert time.monotonic() - begun < 5
os.kill(child, 9)
"""
    with Peer(ACCEPTED) as peer:
        assert program(code, peer.url, python=edge_python) == (0, "", "")
        assert told(peer) == USE


def test_repeats_that_cannot_get_out_are_told_once():
    done = finish("--deadline=0.2", "run", "--every=0.2", "1010", "m", "sleep", "1", url=DEAD)
    assert done.status == 0 and 3 <= done.err.count("gave up") <= 4


def test_a_flood_of_interim_answers_ends_as_a_time_out(said):
    def flood(connection, peer):
        peer.read(connection)
        while not peer.over.is_set():
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000)
    with Peer(flood, ACCEPTED) as peer:
        userstate.post_event({}, peer.url, timeout=0.3, **said.options)
        assert len(peer.events) == 2
    assert len(said.lines) == 1 and "/events: timed out; trying again" in said.lines[0]
