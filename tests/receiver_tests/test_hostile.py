"""Large and hostile bodies, and a stderr that nobody reads: what they cost others."""
import fcntl
import os
import resource
import time
from contextlib import ExitStack

import pytest

from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    connect,
    in_threads,
    post,
    read_to_end,
)
from support.waiting import at_most, wait_for

BEGUN = b"POST /events HTTP/1.1\r\nContent-Length: 70000\r\n\r\n{"
LARGE = b'{"message":"' + b"x" * 70000 + b'"}'
MIB = 1 << 20


def begin_large(receiver):
    """Return a connection on which a large body has been begun."""
    connection = connect(receiver)
    connection.sendall(BEGUN)
    return connection


@pytest.mark.parametrize("number", [16, 40])
def test_large_bodies_that_trickle_keep_no_large_one_out(settings, number):
    settings(LARGE_PATIENCE=0.2)
    with Receiver() as receiver, ExitStack() as stack:
        for _ in range(number):
            stack.enter_context(begin_large(receiver))
        wait_for(lambda: len(receiver.serving) >= number)
        with at_most(10):  # half of the time that each of them has
            assert [post(receiver, LARGE) for _ in range(3)] == [TAKEN] * 3
        assert len(receiver.shown()) == 3


def test_of_large_bodies_the_one_that_takes_longest_makes_room(settings):
    settings(LARGE_PATIENCE=0.05, LARGE_MOST=2)
    with Receiver() as receiver, begin_large(receiver) as first:
        wait_for(lambda: len(receiver.room._begun_at) == 1)
        with begin_large(receiver) as second:
            wait_for(lambda: len(receiver.room._begun_at) == 2)
            assert post(receiver, LARGE) == TAKEN
            assert read_to_end(first) == b""
            second.sendall(b" " * 69997 + b"}}")  # no JSON, but all of it
            assert second.recv(100).startswith(b"HTTP/1.1 400 ")


def test_large_bodies_that_are_quick_all_come_in(settings):
    settings(LARGE_MOST=2, LARGE_PATIENCE=20)
    with Receiver() as receiver:
        assert in_threads(20, lambda number: post(receiver, LARGE)) == [TAKEN] * 20
        assert len(receiver.shown()) == 20
        assert receiver.room._begun_at == {}


def test_small_bodies_need_no_room(receiver):
    with ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(begin_large(receiver))
        with at_most(1):
            assert post(receiver) == TAKEN


@pytest.mark.parametrize("body", [
    b'{"a":[' + b"{}," * 10000 + b"{}]}", b"[" * 10001 + b"]" * 10001,
    b"{" + b'"a":1,' * 10001 + b'"a":1}', b"[" + b'"",' * 30000 + b'""]'],
    ids=["objects", "depth", "names", "texts"])
def test_too_many_values_are_no_event(receiver, body):
    assert post(receiver, body) == (400, b"")


def test_as_many_values_as_are_allowed_are_an_event(receiver):
    values = b"1," * 9990 + b"1"
    assert post(receiver, b'{"a":[' + values + b'],"state":"running"}') == TAKEN
    text = rb'[{,\"' * 100000  # these are no values, but text
    assert post(receiver, b'{"message":"' + text + b'"}') == TAKEN
    assert len(receiver.shown()) == 2


HOSTILE = {
    "objects": b'{"a":[' + b"{}," * (4 * MIB // 3 - 9) + b"{}]}",
    "lists": b"[" * (2 * MIB - 9) + b"]" * (2 * MIB - 9),
    "names": b"{" + b'"":0,' * (4 * MIB // 5 - 9) + b'"":0}',
    "digits": b'{"code":' + b"9" * (4 * MIB - 99) + b"}",
    "not UTF-8": b'{"message":"' + b"\xff" * (4 * MIB - 99) + b'"}',
    "surrogates": b'{"message":"' + rb"\ud800" * (4 * MIB // 6 - 99) + b'"}',
    "white space": b" " * 4 * MIB,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_of_4_mib_takes_little_memory(body, tmp_path):
    assert len(body) <= 4 * MIB
    with ReceiverProcess("--data", str(tmp_path / "events")) as receiver:
        assert post(receiver) == TAKEN
        before = receiver.memory()
        statuses = in_threads(4, lambda number: post(receiver, body)[0])
        assert set(statuses) <= {200, 400}
        assert len(set(statuses)) == 1
        assert receiver.memory() - before < 4 * 30


def test_others_are_served_beside_hostile_bodies(receiver):
    def one(number):
        if number < 4:
            return post(receiver, HOSTILE["objects"])[0]
        begun = time.monotonic()
        assert ask(receiver, "GET", "/metadata")[0] == 200
        assert time.monotonic() - begun < 5
        return 200
    assert in_threads(12, one) == [400] * 4 + [200] * 8


@pytest.fixture
def full_pipe():
    """The end for writing of a pipe that is full, and that nobody reads."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, 1031, 4096)  # F_SETPIPE_SZ, the least
    os.set_blocking(writing, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writing, b"x" * 512)
    os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


def test_a_stderr_that_nobody_reads_stops_nothing(full_pipe):
    with ReceiverProcess(stderr=full_pipe) as receiver:
        for number in range(5):
            with at_most(5):
                assert ask(receiver, "GET", f"/?x{number}=1")[0] == 400
        assert post(receiver) == TAKEN
        receiver.process.terminate()
        assert receiver.process.wait(10) == 0


def test_the_thread_that_lets_clients_in_is_not_stopped_either(full_pipe):
    with ReceiverProcess(stderr=full_pipe, limit=(resource.RLIMIT_NOFILE, 60)) as receiver:
        with ExitStack() as stack:
            for _ in range(100):  # more than it has descriptors for
                stack.enter_context(connect(receiver))
            with at_most(15):
                assert post(receiver) == TAKEN
        assert post(receiver) == TAKEN
        receiver.process.terminate()
        assert receiver.process.wait(10) == 0


def test_a_stderr_that_is_closed_stops_nothing():
    reading, writing = os.pipe()
    os.close(reading)  # a write there is an error
    with ReceiverProcess(stderr=writing) as receiver:
        os.close(writing)
        assert ask(receiver, "GET", "/?x=1")[0] == 400
        assert post(receiver) == TAKEN
