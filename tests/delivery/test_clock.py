"""A wall clock that is wrong or is set changes no wait."""
import shutil
import subprocess
import time

import pytest

from support.interpreters import NEWEST, OLDEST
from support.peers import ACCEPTED, Peer, part, reported
from support.processes import EVENT_WORDS, ended, run, start
from support.waiting import wait_for

JUMP = """
import time
real, begun = time.time, time.monotonic()
time.time = lambda: real() + (BY if time.monotonic() - begun > 0.2 else 0)
"""


@pytest.mark.parametrize("by, python", [(-3600, OLDEST), (3600, NEWEST)], ids=["back", "ahead"])
def test_a_wall_clock_that_is_set_changes_no_deadline(by, python):
    with Peer(part(b"")) as peer:
        begun = time.monotonic()
        done = run("--deadline=0.6", *EVENT_WORDS, url=peer.url, python=python,
                      before=JUMP.replace("BY", str(by)))
        assert done.status == 75 and 0.4 < time.monotonic() - begun < 2.5


@pytest.mark.parametrize("by, python", [(-3600, OLDEST), (3600, NEWEST)], ids=["back", "ahead"])
def test_a_wall_clock_that_is_set_stops_no_heartbeats(by, python):
    with Peer(ACCEPTED) as peer:
        process = start("run", "--every=0.2", "1010", "m", "cat", url=peer.url, python=python,
                          before=JUMP.replace("BY", str(by)), stdin=subprocess.PIPE,
                          stderr=subprocess.PIPE)
        begun = time.monotonic()
        wait_for(lambda: len(peer.events) >= 5)
        assert ended(process) == (0, "", "")
        most = (time.monotonic() - begun) / 0.2
        assert reported(peer)[0] == ("running", "m")
        assert 4 <= reported(peer).count(("running", "m: running for 0 s")) <= most
        assert reported(peer)[-1] == ("succeeded", "m: done after 0 s")


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
    (EVENT_WORDS, 75), (["run", "--every=0.2", "1010", "m", "sleep", "0.5"], 0)], ids=str)
def test_no_wait_follows_the_wall_clock(words, status, ahead):
    """The locks of Python before 3.9 do."""
    with Peer(part(b"")) as peer:
        begun = time.monotonic()
        done = run("--timeout=0.3", "--deadline=0.6", *words, url=peer.url,
                      env={"LD_PRELOAD": ahead}, python=OLDEST)
        assert done.status == status and time.monotonic() - begun < 4
        assert peer.requests
