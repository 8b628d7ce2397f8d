"""A try that is given up: the kernel delivers nothing of it later."""
import signal
import socket
import subprocess
import sys
import threading

import pytest

import userstate
from support.authority import tls_peer
from support.files import TOP
from support.interpreters import HIDDEN_DNS
from support.peers import ACCEPTED, Peer, reported
from support.processes import ended, run, start
from support.signals import number_of
from support.waiting import wait_for


def test_an_abandoned_try_delivers_nothing_later():
    with Peer(ACCEPTED) as peer:
        code = HIDDEN_DNS + f"""
import _thread, time, userstate
try:
    userstate.post_event({{}}, "http://slow.example:{peer.port}/", timeout=0.2, deadline=0.2)
except userstate.DeadlineError:
    answered.set()
while _thread._count():
    time.sleep(0.01)
"""
        ended = subprocess.run([sys.executable, "-B", "-c", code], cwd=TOP,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert ended.returncode == 0, ended.stderr
        assert peer.requests == []


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
        process = start(*(["--deadline=0.6"] if end == "deadline" else []), "running", "1000",
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
        done = run("--timeout=0.4", "--deadline=0.5", "run", "1000", "x" * LARGE, "true",
                      url=peer.url)
        assert done.status == 0 and reported(peer)[-1][0] == "succeeded"
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
