"""The program in a process of its own: how it is started, and how it ended."""
import collections
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import suppress

from support.files import SCRIPT, SOURCE, TOP
from support.waiting import PATIENCE

Ended = collections.namedtuple("Ended", "status out err")
EVENT_WORDS = ["running", "1000", "x"]  # operands of an event
started = []  # by the test that runs now
USERSTATE = f"'{sys.executable}' -B '{SCRIPT}'"  # in a line for a shell


def fresh():
    """Before exec: signals as a login shell has them, and no core dumps."""
    for number in set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP, 32, 33}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def small_environment(env=None):
    return dict({"PATH": os.environ["PATH"]}, **env or {})


def start_command(*command, first=fresh, env=None, **options):
    """Start any command in a session of its own, in / and with a small environment.

    first: called before exec. What is left of it ends with the test.
    """
    options.setdefault("cwd", os.sep)
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("start_new_session", True)
    process = subprocess.Popen(command, preexec_fn=first, env=small_environment(env),
                               **options)
    if threading.current_thread() is threading.main_thread():  # where tests run
        started.append(process)
    return process


def kill(process):
    """Kill process and what it has started in its session, and close our ends of its pipes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(BrokenPipeError):
                pipe.close()


def end_all():
    """Kill all that was started and that still runs."""
    while started:
        kill(started.pop())


def start(*words, url=None, python=sys.executable, how="file", flags=(), before="",
          **options):
    """Start the command line in a process of its own, as start_command() does.

    how: "file", "pipe" (whose standard input the caller has to give) or "-c"; before: code
    that runs in the same Python first.
    """
    if before:
        script = ["-c", before + SOURCE.decode()]
    else:
        script = {"file": [SCRIPT], "pipe": ["-"], "-c": ["-c", SOURCE]}[how]
    if url:
        words = ["--url", url, *words]
    return start_command(python, "-B", *flags, *script, *words, **options)


def ended(process, seconds=PATIENCE, input=None, traces=False):
    """Wait for process, which is killed if that takes too long, and tell how it ended.

    traces: whether it may show a traceback, as another program than ours may do.
    """
    try:
        out, err = process.communicate(input, timeout=seconds)
    except subprocess.TimeoutExpired:
        kill(process)
        raise
    out, err = ((text or b"").decode("utf-8", "replace") for text in (out, err))
    assert traces or ("Traceback" not in err and "xception" not in err), err
    return Ended(process.returncode, out, err)


def run(*words, how="file", seconds=PATIENCE, **options):
    """Run the command line as start() does, and tell how it ended."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    if how == "pipe":
        process = start(*words, how=how, stdin=subprocess.PIPE, **options)
        return ended(process, seconds, SOURCE)
    return ended(start(*words, how=how, **options), seconds)


def run_command(*command, seconds=PATIENCE, input=None, traces=False, **options):
    """Run any command as start_command() does, and tell how it ended, as ended() does."""
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    if input is not None:
        options["stdin"] = subprocess.PIPE
    return ended(start_command(*command, **options), seconds, input, traces)


def run_code(code, *words, python=sys.executable, flags=(), **options):
    """Run code, which may import userstate, in a process, and tell how it ended."""
    return run_command(python, "-B", *flags, "-c", code, *words, cwd=TOP, **options)
