"""Faults at random: each call ends as it is documented, in time, and tells no secret."""
import _thread
import concurrent.futures
import json
import os
import random
import re
import socket
import struct
import threading
import time

import pytest

import userstate
from support.authority import server_side
from support.fuzzing import FUZZ_SEED, FUZZ_TIMES
from support.peers import Peer, document

STATUSES = [200, 201, 204, 299, 301, 302, 303, 307, 400, 401, 404, 408, 413, 425, 429, 500,
            501, 502, 503, 505, 600, 999, 99, 1000]
HEADERS = ["Content-Length: 0", "Content-Length: 5", "Content-Length: 5\r\nContent-Length: 7",
           "Content-Length: -1", "Content-Length: x", "Content-Length: 99999999999999999999",
           "Transfer-Encoding: chunked", "Connection: close", "Connection: keep-alive",
           "Location: /\x1b[31m", "Retry-After: 0", "Retry-After: soon", "X: " + "y" * 70000,
           "\r\n".join(["X: y"] * 200), "no colon", ": empty", "X: \xff\x00\x1b[31m"]
SECRET = b'{"id": "x", "message": "s3cret"}'
BODIES = [b"", b"hello", b"{", b'{"error": "\\u001b[31mno\\nno\\u2028"}',
          b'{"message": "%s"}' % (b"long " * 9999), b'{"errors": ["a", 5, null]}',
          b"5\r\nhello\r\n0\r\n\r\n", b"-1\r\nhello", b"zz\r\n", b" " * 100000,
          b"[" * 60000, SECRET, SECRET[:-1]]
RAW = [b"", b"\r\n", b"\n\n", b"SSH-2.0-x\r\n", b"hello, this is HTTP/0.9", b"HTTP/1.1",
       b"HTTP/1.1 \r\n\r\n", b"HTTP/2 200\r\n\r\n", b"HTTP/1.1 2e2 OK\r\n\r\n",
       b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", b"\x15\x03\x01\x00\x02\x02\x28",
       b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76", b"\0" * 70000, b"HTTP/1.1 " + b"2" * 70000]
INTERIM = [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 102 Processing\r\nX: y\r\n\r\n",
           b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"]


def answer_by(dice):
    """Return some bytes of an answer, and whether it begins with a 2xx."""
    if dice.random() < 0.2:
        return dice.choice(RAW), False
    status = dice.choice(STATUSES if dice.random() < 0.7 else STATUSES[:4])
    reason = dice.choice(["OK", "", "\x1b[31m"])
    head = f"HTTP/1.{dice.choice('01')} {status} {reason}\r\n"
    for _ in range(dice.choice([0, 0, 1, 2, 4])):
        head += dice.choice(HEADERS) + "\r\n"
    answer = head.encode("latin-1") + b"\r\n" + dice.choice(BODIES)
    before = b"".join(dice.choice(INTERIM) for _ in range(dice.choice([0, 0, 0, 1, 3])))
    answer = before + answer
    accepted = status in (200, 201, 204, 299)
    if dice.random() < 0.2:  # cut
        end = dice.randrange(len(answer))
        accepted = accepted and end >= len(before) + len(head) + len("\r\n")
        answer = answer[:end]
    return answer, accepted


class Faults:
    """Endless scripts of a Peer, by dice, and what happened to each connection in turn."""

    def __init__(self, seed, rude=True):
        self.dice, self.accepted, self.requests = random.Random(seed), [], {}
        self.kinds = ["whole"] * 6 + ["reset first", "reset", "deaf", "hang", "late", "drip",
                                      "chunks"]
        if rude:
            self.kinds.append("rude")

    def __len__(self):
        return 2  # a Peer takes the next one while there are more than one

    def pop(self, _):
        number, kind = len(self.accepted), self.dice.choice(self.kinds)
        answer, accepted = answer_by(self.dice)
        self.accepted.append(accepted and kind not in ("reset first", "reset", "deaf", "hang"))

        def script(connection, peer):
            if kind not in ("reset first", "deaf", "rude"):  # which read nothing
                self.requests[number] = peer.read(connection)
            if kind in ("reset first", "reset"):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                      struct.pack("ii", 1, 0))
            elif kind == "deaf":
                peer.over.wait(30)
            elif kind == "hang":
                peer.wait_closed(connection)
            elif kind == "late":
                peer.over.wait(0.05)
                connection.sendall(answer)
            elif kind == "drip":
                for position in range(min(len(answer), 200)):
                    connection.sendall(answer[position:position + 1])
                    if peer.over.wait(0.005):
                        return
                connection.sendall(answer[200:])
            elif kind == "chunks":
                for begin in range(0, len(answer), 37):
                    connection.sendall(answer[begin:begin + 37])
            else:
                connection.sendall(answer)
        return script

    def got(self):
        """Return the requests in the order of their connections."""
        return [request for _, request in sorted(self.requests.items())]


class Knowing(Faults):
    """Every other answer or so is a document with the address."""

    def __init__(self, seed, url):
        super().__init__(seed)
        self.url = url

    def pop(self, _):
        if self.dice.random() < 0.5:
            return document(user_state_url=self.url)
        return super().pop(_)


def can_still_send(port):
    """Return the state and queue of each connection to port that could carry more bytes."""
    if not os.path.exists("/proc/net/tcp"):  # Linux only
        return []
    with open("/proc/net/tcp") as file:
        found = re.findall(f":{port:04X} (0[1-9A-B]) ([0-9A-F]+):", file.read())
    established, asking, told_end, closing = "01", "02", "08", ("04", "09", "0B")
    return [(state, queue) for state, queue in found
            if state in (established, asking, told_end)
            or state in closing and int(queue, 16) > 1]


class Threads:
    """Stands in for _thread.start_new_thread, and knows the threads of each call."""

    def __init__(self):
        self.start, self.local, self.there = _thread.start_new_thread, threading.local(), []

    def __call__(self, function, words):
        call = self.local.call
        self.there.append(call)

        def run():
            self.local.call = call  # as a thread may start others
            try:
                function(*words)
            finally:
                self.there.remove(call)
        return self.start(run, ())

    def are_left(self, call):
        """Return whether a thread of call is still there after half a second."""
        end = time.monotonic() + 0.5
        while call in self.there and time.monotonic() < end:
            threading.Event().wait(0.005)
        return call in self.there


def post(event, url, seed, **options):
    userstate.post_event(event, url, **options)


def ask_and_post(event, url, seed, **options):
    metadata = Peer()
    metadata.scripts = Knowing(f"{seed} metadata", url)
    with metadata:
        userstate.send_user_state_event(*event.values(), metadata_url=metadata.url, **options)


def step(event, url, seed, **options):
    with userstate.step(event["code"], event["message"], every=0.1, url=url, **options):
        threading.Event().wait(0.15)


WAYS = {"post": (post, 1500), "post by TLS": (post, 200),
        "ask and post": (ask_and_post, 300), "step": (step, 200)}


def one_call(way, seed, wrap, threads):
    """Make one call against faults at random.

    Return what was wrong with it or None, whether it said that the event was accepted,
    and the Idempotency-Keys in the order of the requests.
    """
    dice, lines = random.Random(seed), []
    deadline, timeout = dice.choice([0.05, 0.15, 0.3]), dice.choice([0.1, 0.1, 10])
    event = {"state": "running", "code": 1000, "message": "x" * dice.choice([1, 1, 200000])}
    looks = dice.random() < 0.25  # at each end it would take too long
    # After a rude answer the kernel may still send the rest of what is answered.
    faults, peer = Faults(f"{seed} answers", rude=not looks), Peer(wrap=wrap)
    peer.scripts = faults
    with peer:
        begun, outcome, threads.local.call = time.monotonic(), None, seed
        try:
            way(event, peer.url, seed, deadline=deadline, timeout=timeout, say=lines.append,
                verbose=dice.random() < 0.5)
        except userstate.UserStateError as error:
            outcome = error
        except Exception as error:
            return f"undocumented: {error!r}", False, []
        took = time.monotonic() - begun
        later = looks and can_still_send(peer.port)
        accepted, requests = faults.accepted[-1:] == [True], faults.got()
    if way is step and lines and re.search("; (gave up|refused) at", lines[-1]):
        outcome = lines[-1]  # of the end, or of a report before an end that was accepted
    keys = [re.search(rb"Idempotency-Key: (.*)\r", request).group(1) for request in requests]
    bodies = [request.partition(b"\r\n\r\n")[2].decode() for request in requests]
    wrong = None
    if took > (2 * deadline + 0.15 if way is step else deadline) + 0.5:
        wrong = f"took {took:.2f} s of {deadline}"
    elif later:
        wrong = f"{later} may still arrive"
    elif outcome is None and not accepted:
        wrong = f"success, but {faults.accepted}"
    elif isinstance(outcome, userstate.EventError):
        wrong = f"{outcome!r}"
    elif threads.are_left(seed):
        wrong = "a thread is left"
    return (wrong or wrong_bodies(way, event, keys, bodies) or wrong_text([*lines, outcome]),
            outcome is None, keys)


def wrong_bodies(way, event, keys, bodies):
    """Each event has a key of its own, and its bodies are equal and in order."""
    events = [event]
    if way is step:
        ends = {": running for 0 s": "running", ": done after 0 s": "succeeded"}
        events += [dict(event, state=state, message=event["message"] + text)
                   for text, state in ends.items()]
        bodies = [re.sub(r"\d+ s\"", '0 s"', body) for body in bodies]
    expected = [json.dumps(event) for event in events]
    if not set(bodies) <= set(expected) or bodies != sorted(bodies, key=expected.index):
        return f"bodies {[body[-80:] for body in bodies]}"
    pairs = set(zip(keys, bodies))
    once = [body for _, body in pairs if ": running for" not in body]  # others are repeats
    if len(pairs) != len(set(keys)) or len(once) != len(set(once)):
        return f"{len(set(keys))} keys of {len(set(bodies))} bodies"
    return None


def wrong_text(texts):
    for text in map(str, texts):
        if not re.fullmatch("[ -~]*", text) or len(text) > 1500:
            return f"text {text[:200]!a}"
        if "s3cret" in text or "bug: " in text:
            return f"text {text!a}"
    return None


def end_at_once(*words):
    raise SystemExit("this call did not end")


def ended(call):
    """Return what one_call returned, or what happened instead."""
    if call.cancelled():
        return "not begun", False, []
    error = call.exception()
    return (repr(error), False, []) if error else call.result()


@pytest.mark.parametrize("name", WAYS)
def test_any_peer_gets_a_documented_end_in_time(name, request, monkeypatch):
    (way, calls), wrap, threads = WAYS[name], None, Threads()
    monkeypatch.setattr(_thread, "start_new_thread", threads)
    monkeypatch.setattr(userstate, "PAUSES", (0.001, 0.002, 0.004))  # for many tries
    if name == "post by TLS":
        authority = request.getfixturevalue("authority")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
        wrap = server_side(authority, "good")
    seeds = [FUZZ_SEED * 10000 + number for number in range(calls * FUZZ_TIMES)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        running = [pool.submit(one_call, way, seed, wrap, threads) for seed in seeds]
        _, late = concurrent.futures.wait(running, 100 * FUZZ_TIMES)
        if late:  # one tries for ever: cancel what has not begun, and end what has
            [call.cancel() for call in late]
            monkeypatch.setattr(userstate, "_request", end_at_once)
    ends = [ended(call) for call in running]
    wrong = [(seed, what) for seed, (what, _, _) in zip(seeds, ends) if what]
    assert not wrong, f"FUZZ_SEED={FUZZ_SEED}: {wrong[:5]}"
    keys = [key for _, _, keys in ends for key in set(keys)]
    assert len(keys) == len(set(keys))  # no two events share one
    assert sum(success for _, success, _ in ends) > calls * FUZZ_TIMES / 10
    assert max(len(keys) for _, _, keys in ends) >= 4  # so many tries
