"""A wall clock that is wrong or is set changes no wait."""
import subprocess
import time

import pytest

from support.interpreters import NEWEST, OLDEST
from support.peers import ACCEPTED, WELL, Peer, part, reported
from support.processes import EVENT_WORDS, ended, run, start
from support.tools import needs
from support.waiting import at_most, wait_for

JUMP = """
import time
real, begun = time.time, time.monotonic()
time.time = lambda: real() + (BY if time.monotonic() - begun > 0.2 else 0)
"""
BACK, AHEAD = JUMP.replace("BY", "-3600"), JUMP.replace("BY", "3600")
jumps = pytest.mark.parametrize("jump, python", [(BACK, OLDEST), (AHEAD, NEWEST)],
                                ids=["back", "ahead"])


@jumps
def test_a_wall_clock_that_is_set_changes_no_deadline(jump, python):
    with Peer(part(b"")) as peer:
        with at_most(2.5, least=0.4):
            done = run("--deadline=0.6", *EVENT_WORDS, url=peer.url, python=python, before=jump)
    assert done.status == 75


@jumps
def test_a_wall_clock_that_is_set_stops_no_heartbeats(jump, python):
    with Peer(ACCEPTED) as peer:
        with start("run", "--every=0.2", "1010", "m", "cat", url=peer.url, python=python,
                   before=jump, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            begun = time.monotonic()
            wait_for(lambda: len(peer.events) >= 5)
            assert ended(process) == (0, "", "")
            most = (time.monotonic() - begun) / 0.2
        first, *beats, last = reported(peer)
        assert [first, last] == WELL
        assert set(beats) == {("running", "m: running for 0 s")}
        assert 4 <= len(beats) <= most


HOUR_LATE = r"""
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
def hour_late(tmp_path_factory):
    """A library under which all that waits by the wall clock waits for an hour more."""
    needs("cc")
    folder = tmp_path_factory.mktemp("late")
    (folder / "late.c").write_text(HOUR_LATE)
    made = subprocess.run(["cc", "-shared", "-fPIC", "-o", "late.so", "late.c", "-ldl"],
                          cwd=str(folder), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        pytest.skip(f"cc: {made.stdout.decode()}")
    return str(folder / "late.so")


@pytest.mark.parametrize("words, status", [
    (EVENT_WORDS, 75), (["run", "--every=0.2", "1010", "m", "sleep", "0.5"], 0)],
    ids=["event", "run"])
def test_no_wait_follows_the_wall_clock(words, status, hour_late):
    """The locks of Python before 3.9 do."""
    with Peer(part(b"")) as peer:
        with at_most(4):
            done = run("--timeout=0.3", "--deadline=0.6", *words, url=peer.url,
                       env={"LD_PRELOAD": hour_late}, python=OLDEST)
        assert done.status == status
        assert peer.requests
