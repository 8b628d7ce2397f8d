"""The reports of run: their order, their time, heartbeats, and a service that fails."""
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from support.files import TOP
from support.peers import ACCEPTED, DEAD, Peer, answer, document, part, reported
from support.processes import run, start
from support.waiting import wait_for

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
        assert reported(peer) == [("running", "m"), ("succeeded", "m: done after 0 s")]
    assert b"timed out" in err


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


def test_a_first_report_pauses_between_its_tries_while_the_command_runs():
    with Peer(answer(503)) as peer:
        with start("--deadline=1", "run", "1010", "m", "sleep", "0.9", url=peer.url,
                   stderr=subprocess.DEVNULL) as process:
            assert process.wait(20) == 0
        assert 2 <= len([e for e in peer.events if e["state"] == "running"]) <= 4


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
    "run": lambda url, _: start("--timeout=60", "run", "1010", "m", "true", url=url,
                                  stderr=subprocess.DEVNULL),
    "run with heartbeats": lambda url, _: start(
        "--timeout=60", "run", "--every=1", "1010", "m", "true", url=url,
        stderr=subprocess.DEVNULL),
    "run whose thread starts late": lambda url, _: start(
        "--timeout=60", "run", "1010", "m", "true", url=url, before=SLOW_THREAD,
        stderr=subprocess.DEVNULL),
    "run that asks for the address": lambda url, metadata: start(
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
                results[name] = status, time.monotonic() - begun, reported(peer)
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


def test_repeats_that_cannot_get_out_are_told_once():
    done = run("--deadline=0.2", "run", "--every=0.2", "1010", "m", "sleep", "1", url=DEAD)
    assert done.status == 0 and 3 <= done.err.count("gave up") <= 4
