"""A try that is given up: the kernel delivers nothing of it later."""
import signal
import socket
import subprocess
import threading

import pytest

import userstate
from support.authority import tls_peer, trusting
from support.interpreters import HIDDEN_DNS
from support.peers import ACCEPTED, Peer, reported
from support.processes import ended, run, run_code, start
from support.waiting import wait_for

LARGE = 100000  # bytes of a message, as large as an operand can be
HUGE = 8 << 20


def test_an_abandoned_try_delivers_nothing_when_its_name_is_found_later():
    code = HIDDEN_DNS + """
import _thread, sys, time, userstate
try:
    userstate.post_event({}, sys.argv[1], timeout=0.2, deadline=0.2)
except userstate.DeadlineError:
    print("gave up")
answered.set()
while _thread._count():
    time.sleep(0.01)
"""
    with Peer(ACCEPTED) as peer:
        done = run_code(code, f"http://slow.example:{peer.port}/")
        assert done.status == 0, done.err
        assert done.out == "gave up\n"
        userstate.post_event({"later": True}, peer.url)
        assert peer.events == [{"later": True}]  # and nothing before it


class Unread:
    """A script that reads nothing until it is told to, and then all that is there to read."""

    def __init__(self):
        self.accepted, self.gate, self.over = (threading.Event() for _ in range(3))
        self.got, self.cut = 0, False

    def __call__(self, connection, peer):
        self.accepted.set()
        self.gate.wait(30)
        connection.settimeout(10)
        try:
            for data in iter(lambda: connection.recv(65536), b""):
                self.got += len(data)
        except OSError:  # a reset; TLS may take it for an end
            self.cut = True
        self.over.set()

    def read_the_rest(self):
        """Have it read what has arrived; return how many bytes that are in all."""
        self.gate.set()
        assert self.over.wait(20)
        return self.got


def with_small_buffer(peer):
    """Return peer, whose kernel takes little of what nobody reads."""
    peer.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    return peer


def unread_peer(scheme, unread, authority):
    if scheme == "https":
        return with_small_buffer(tls_peer(authority, "good", unread))
    return with_small_buffer(Peer(unread))


def start_large(peer, authority, *options):
    """Start to send a large event, trusting the authority."""
    return start(*options, "running", "1000", "x" * LARGE, url=peer.url,
                 stderr=subprocess.PIPE, env=trusting(authority))


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_try_that_the_deadline_ends_never_arrives_whole(scheme, authority):
    unread = Unread()
    with unread_peer(scheme, unread, authority) as peer:
        with start_large(peer, authority, "--deadline=0.6") as process:
            assert unread.accepted.wait(20)
            assert ended(process).status == 75
        assert unread.read_the_rest() < LARGE
    if scheme == "http":
        assert unread.cut


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL],
                         ids=["INT", "TERM", "KILL"])
def test_a_try_that_a_signal_ends_never_arrives_whole(number, scheme, authority):
    unread = Unread()
    with unread_peer(scheme, unread, authority) as peer:
        with start_large(peer, authority) as process:
            assert unread.accepted.wait(20)
            wait_for(lambda: sent_to(peer.port) > 0)
            process.send_signal(number)
            assert ended(process).status == -number
        assert unread.read_the_rest() < LARGE
    if scheme == "http":
        assert unread.cut


def sent_to(port):
    """Return how many bytes wait in the send queues of connections to port."""
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(int(row[4].split(":")[0], 16) for row in rows
               if row[2].endswith(f":{port:04X}"))


def test_a_try_of_some_mib_that_the_deadline_ends_never_arrives_whole():
    unread = Unread()
    with with_small_buffer(Peer(unread)) as peer:
        with pytest.raises(userstate.DeadlineError):
            userstate.post_event({"message": "x" * HUGE}, peer.url, deadline=0.4)
        assert unread.read_the_rest() < HUGE
    assert unread.cut


def test_the_first_report_of_a_run_never_arrives_after_its_end():
    unread = Unread()
    with with_small_buffer(Peer(unread, ACCEPTED)) as peer:
        done = run("--timeout=0.4", "--deadline=0.5", "run", "1000", "x" * LARGE, "true",
                   url=peer.url)
        assert done.status == 0
        assert reported(peer)[-1][0] == "succeeded"
        assert unread.read_the_rest() < LARGE
    assert unread.cut


def test_what_is_queued_behind_an_early_answer_still_arrives():
    """A service may answer before it reads the body: this try is over, and not given up."""
    returned, arrived = threading.Event(), threading.Event()
    got = bytearray()

    def answer_first(connection, peer):
        connection.sendall(ACCEPTED)
        returned.wait(20)
        for data in iter(lambda: connection.recv(65536), b""):
            got.extend(data)
        arrived.set()
    with Peer(answer_first) as peer:
        userstate.post_event({"message": "x" * LARGE}, peer.url)
        returned.set()
        assert arrived.wait(20)
    assert got.endswith(b"x" * LARGE + b'"}')
