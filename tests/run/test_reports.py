"""The reports of run: their order, their time, heartbeats, and a service that fails."""
import concurrent.futures
import re
import signal
import socket
import subprocess
import threading
import time

import pytest

from support.files import TOP
from support.peers import ACCEPTED, DEAD, WELL, Peer, answer, document, part, reported
from support.processes import ended, run, run_code, start, start_command
from support.waiting import PATIENCE, at_most, wait_for

HANGING = part(b"")


def run_while_reports_fail(url):
    """Run a command while each report to url fails, which neither delays nor changes it."""
    with at_most(4):
        with start("--deadline=0.5", "run", "1010", "m", "sh", "-c", "echo began; exit 3",
                   url=url, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"began\n"
            done = ended(process)
    assert done.status == 3
    assert done.err
    for line in done.err.splitlines():
        assert line.startswith("userstate: ")


def test_a_service_that_is_down_neither_delays_nor_changes_the_command():
    run_while_reports_fail(DEAD)


@pytest.mark.parametrize("script", [
    answer(500), answer(403), HANGING, part(b"HTTP/1.1 200", b" "),
    answer(302, b"", "Location: /x")], ids=["500", "403", "hangs", "drips", "redirect"])
def test_a_service_that_fails_neither_delays_nor_changes_the_command(script):
    with Peer(script) as peer:
        run_while_reports_fail(peer.url)


def test_a_service_that_comes_back_gets_both_in_order():
    with Peer(ACCEPTED) as peer, socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # nobody listens there yet
        reserved.settimeout(PATIENCE)
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/events"
        with start("run", "1010", "m", "true", url=url, stderr=subprocess.PIPE) as process:
            assert b"refused" in process.stderr.readline()
            reserved.listen(5)
            for _ in range(2):
                connection, _ = reserved.accept()
                peer.answer(connection, ACCEPTED)
            assert process.wait(20) == 0
        assert reported(peer) == WELL


FROZEN = """
import sys, time, userstate
userstate.GRACE = 3
sleep = time.sleep
def wake_last(seconds):
    sleep(seconds)
    sleep(0.3)
time.sleep = wake_last
with userstate.step(1010, "m", url=sys.argv[1], say=lambda line: print(line, flush=True)):
    print("the block", flush=True)
"""


def test_a_machine_that_is_frozen_at_the_end_keeps_the_order_of_the_reports(edge_python):
    """The first one is in a pause, and is thawed after the last one's time has come.

    It is the second pause, as the end of the block cuts the first one short.
    """
    block_is_over, frozen = threading.Event(), threading.Event()

    def refuse_later(connection, peer):
        peer.read(connection)
        block_is_over.wait(PATIENCE)
        connection.sendall(answer(503, b"", "Retry-After: 1"))
    with Peer(refuse_later, answer(502, b"", "Retry-After: 1"), ACCEPTED) as peer:
        process = start_command(edge_python, "-B", "-c", FROZEN, peer.url, cwd=TOP,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout.readline() == b"the block\n"
        block_is_over.set()
        for status in (b"503", b"502"):
            assert status in process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        frozen.wait(4.5)  # more than it has, in which nothing can be waited for
        process.send_signal(signal.SIGCONT)
        assert ended(process) == (0, "", "")
        assert reported(peer) == [WELL[0], WELL[0], *WELL]


def test_a_first_report_pauses_between_its_tries_while_the_command_runs():
    with Peer(answer(503)) as peer:
        done = run("--deadline=1", "run", "1010", "m", "sleep", "0.9", url=peer.url)
        assert done.status == 0
        assert 2 <= reported(peer).count(("running", "m")) <= 4


def test_the_end_cuts_a_pause_of_the_first_report_short():
    with Peer(answer(503, b"", "Retry-After: 20"), ACCEPTED) as peer:
        with start("run", "1010", "m", "cat", url=peer.url, stdin=subprocess.PIPE,
                   stderr=subprocess.PIPE) as process, at_most(9):
            assert b"trying again in 20.0 s" in process.stderr.readline()
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        assert reported(peer) == [WELL[0], *WELL]


def test_the_address_is_asked_for_and_the_last_event_has_its_own_deadline():
    with Peer(answer(503)) as peer:
        with at_most(20, least=2.4):
            done = run("--deadline=1", "--metadata-url", peer.url, "run", "1010", "m", "sleep",
                       "2")
    assert done.status == 0
    assert re.findall("userstate: (.*): http.*; trying again", done.err) == [
        "running 1010", "succeeded 1010"]
    assert done.err.count("gave up") == 2


def test_the_end_gives_the_first_report_no_more_time_than_its_deadline():
    with Peer(answer(503)) as peer:
        done = run("--deadline=2", "run", "1010", "m", "sleep", "1.5", url=peer.url)
    assert done.status == 0
    first, last = re.findall("gave up at try [0-9]+ after ([0-9.]+) s", done.err)
    assert float(first) < 2.9  # not 1.5 and 2
    assert float(last) < 2.9


def test_heartbeats_tell_how_long_and_stop_at_the_end():
    with Peer(ACCEPTED) as peer:
        with start("run", "--every", "0.3", "1010", "m", "cat", url=peer.url,
                   stdin=subprocess.PIPE) as process:
            begun = time.monotonic()
            wait_for(lambda: len(peer.events) >= 4)
            process.stdin.close()
            assert process.wait(20) == 0
            most = (time.monotonic() - begun) / 0.3
        first, *beats, last = reported(peer)
        assert [first, last] == WELL
        assert set(beats) == {("running", "m: running for 0 s")}
        assert 3 <= len(beats) <= most


def test_a_first_report_that_takes_long_delays_no_heartbeat():
    def accept_late(connection, peer):
        peer.read(connection)
        peer.over.wait(1.5)
        connection.sendall(ACCEPTED)
    with Peer(accept_late, ACCEPTED) as peer:
        with start("run", "--every=2", "1010", "m", "cat", url=peer.url,
                   stdin=subprocess.PIPE) as process:
            wait_for(lambda: len(peer.events) == 2)
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        assert peer.events[1]["message"] == "m: running for 2 s"


def test_a_heartbeat_that_cannot_get_out_is_skipped():
    """It has the time until the next one is due: this service wants to be left alone longer."""
    with Peer(ACCEPTED, answer(503, b"", "Retry-After: 9"), ACCEPTED) as peer:
        begun = time.monotonic()
        with start("run", "--every=0.5", "1010", "m", "cat", url=peer.url,
                   stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            with at_most(7):  # the pause that was asked for is 9 s
                wait_for(lambda: len(peer.events) >= 4)
            process.stdin.close()
            assert process.wait(20) == 0
            most = (time.monotonic() - begun) / 0.5
        first, *beats, last = reported(peer)
        assert [first, last] == WELL
        assert set(beats) == {("running", "m: running for 0 s")}
        assert 3 <= len(beats) <= most


def test_repeats_that_cannot_get_out_are_told_once():
    done = run("--deadline=0.2", "run", "--every=0.2", "1010", "m", "sleep", "1", url=DEAD)
    assert done.status == 0
    assert 3 <= done.err.count("gave up") <= 4


THREAD_STARTS_LATE = """
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
def say(line):
    print(line, file=sys.stderr)
with userstate.step(1010, "m", url=sys.argv[1], timeout=60, say=say):
    pass
"""


def run_true(url, *words, before=""):
    return run("--timeout=60", "run", *words, "1010", "m", "true", url=url, before=before,
               seconds=40)


def run_with_heartbeats(url):
    return run_true(url, "--every=1")


def run_whose_thread_starts_late(url):
    return run_true(url, before=THREAD_STARTS_LATE)


def run_that_asks_for_the_address(url):
    with Peer(HANGING, document(user_state_url=url)) as metadata:
        return run("--timeout=60", "--metadata-url", metadata.url, "run", "1010", "m", "true",
                   seconds=40)


def step_of_nothing(url):
    return run_code(BLOCK, url, seconds=40)


# What ends at once while its first report hangs, how the events are answered, which come.
AT_ONCE = [
    (run_true, [HANGING, ACCEPTED], WELL),
    (run_with_heartbeats, [HANGING, ACCEPTED], WELL),
    (run_whose_thread_starts_late, [HANGING, ACCEPTED], WELL),
    (run_that_asks_for_the_address, [ACCEPTED], WELL[1:]),
    (step_of_nothing, [HANGING, ACCEPTED], WELL)]


@pytest.fixture(scope="session", autouse=True)  # once, also if ORDER mixes the files
def first_reports(request):
    """Begin all of AT_ONCE beside the other tests, as each takes ten seconds."""
    if not any("test_a_first_report_gets" in item.name for item in request.session.items):
        yield {}
        return

    def measure(act, scripts):
        with Peer(*scripts) as peer:
            begun = time.monotonic()
            done = act(peer.url)
            return done, time.monotonic() - begun, reported(peer)
    with concurrent.futures.ThreadPoolExecutor(len(AT_ONCE)) as pool:
        yield {act: pool.submit(measure, act, scripts) for act, scripts, _ in AT_ONCE}


@pytest.mark.parametrize("act, events", [(act, events) for act, _, events in AT_ONCE],
                         ids=[act.__name__ for act, _, _ in AT_ONCE])
def test_a_first_report_gets_ten_seconds_at_most_and_never_arrives_late(act, events,
                                                                        first_reports):
    done, seconds, came = first_reports[act].result(60)
    assert done.status == 0
    assert "timed out" in done.err
    assert 9 < seconds < 14
    assert came == events
