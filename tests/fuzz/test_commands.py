"""Signals at random: each command is reported as it ended."""
import concurrent.futures
import os
import random
import re
import select
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from support.fuzzing import FUZZ_SEED, seeds_of
from support.peers import ACCEPTED, Peer, reported
from support.processes import start

COMMANDS = {  # and how they end, if not by the signal
    "echo ready; exec sleep 0.3": ["done"],
    "echo ready; exec sleep 20": [],
    "echo ready; exit 3": ["exit status 3"],
    "echo ready; sleep 0.1": ["done"],
    "trap 'exit 9' TERM INT HUP USR1; echo ready; sleep 0.2 & wait; wait; exit 4":
        ["exit status 4", "exit status 9"],
    "trap '' TERM HUP USR1; echo ready; sleep 0.2; exit 5": ["exit status 5"],
}
SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1,
           signal.SIGUSR2, signal.SIGALRM, signal.SIGPROF]


def one_run(seed):
    """Run a command that gets a signal at random; return what was wrong, or None."""
    dice = random.Random(seed)
    command, number = dice.choice(list(COMMANDS)), dice.choice(SIGNALS)
    whom = dice.choice(["wrapper", "command", "group"])
    early = whom != "command" and dice.random() < 0.5
    told = f"{whom} {number.name}, {'early' if early else 'when ready'}: {command}"
    with Peer(ACCEPTED) as peer:
        process = start("run", "1010", "m", "sh", "-c", command, url=peer.url, first=None,
                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        with process:
            try:
                if not early and not select.select([process.stdout], [], [], 30)[0]:
                    raise subprocess.TimeoutExpired("ready", 30)
                time.sleep(dice.choice([0, 0.01, 0.1, 0.25]) * dice.random())
                send(number, whom, process)
                _, err = process.communicate(timeout=30)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)
                return f"{told}: {error}"
        events = reported(peer)
    told += f": {process.returncode} {events} {err}"
    if early and number == signal.SIGINT:  # Python itself says something while it starts
        err = b""
    if early and not events:  # the program had not begun
        statuses = [-number, 1] if number == signal.SIGINT else [-number]  # 1: by Python
        right = process.returncode in statuses
    else:
        right = is_right(events, process.returncode,
                         [*COMMANDS[command], f"killed by {number.name}"])
    return told if err or not right else None


def is_right(events, status, ends):
    """Return whether events tell of the start and of one of ends, which status confirms."""
    if len(events) != 2 or events[0] != ("running", "m"):
        return False
    state, message = events[1]
    end = re.fullmatch(r"m: (done|exit status (\d+)|killed by (\w+)) after 0 s", message)
    if not end or end.group(1) not in ends:
        return False
    expected = int(end.group(2) or 0)
    if end.group(3) == "SIGINT":
        expected = -signal.SIGINT  # by itself, so that a shell script ends
    elif end.group(3):
        expected = 128 + signal.Signals[end.group(3)]
    return status == expected and (state == "succeeded") == (status == 0)


def send(number, whom, process):
    """Send the signal to the wrapper, its command or the group, if it is still there."""
    with suppress(ProcessLookupError, FileNotFoundError):
        if whom == "wrapper":
            process.send_signal(number)
        elif whom == "group":
            os.killpg(process.pid, number)
        else:
            with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
                for child in file.read().split():
                    os.kill(int(child), number)


def test_any_signal_at_any_moment_is_reported():
    if not os.path.exists("/proc/self/task"):
        pytest.skip("no /proc here")
    seeds = seeds_of(200)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = list(pool.map(one_run, seeds))
    wrong = [(seed, result) for seed, result in zip(seeds, results) if result]
    assert not wrong, f"FUZZ_SEED={FUZZ_SEED}: {wrong[:5]}"
