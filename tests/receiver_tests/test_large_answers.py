"""Answers that hold a large event: how much memory they take, and who makes room."""
import json
import socket

import pytest

from receiver.handler import SHOWN_MOST
from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    clients,
    connect,
    event,
    in_threads,
    post,
    read_to_end,
)
from support.tools import slow
from support.waiting import at_most, wait_for

MESSAGE = "\u00e9" * (2 * 2**20 - 50)
LARGE = json.dumps(event("failed", 1000, MESSAGE), ensure_ascii=False).encode()
PATHS = ["/devices/127.0.0.1/wait", "/events", "/events.csv"]


def asking(path):
    """Return a function that asks for path, and reads nothing."""
    def begin(receiver):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(receiver.server_address[:2])
        connection.settimeout(20)
        connection.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
        return connection
    return begin


def message_of(path, body):
    """Return the message of an event in the answer to path."""
    if path.endswith("csv"):
        return body.decode().rstrip("\r\n").rpartition(",")[2]
    answer = json.loads(body.decode())
    return answer.get("events", [answer])[0]["message"]


@pytest.mark.parametrize("path", [PATHS[0], *(pytest.param(path, marks=slow)
                                              for path in PATHS[1:])])
def test_many_that_do_not_read_take_little_memory_and_hold_up_nobody(path):
    with ReceiverProcess() as receiver:
        assert post(receiver, LARGE) == TAKEN
        with clients(20, asking(path), receiver):
            wait_for(lambda: receiver.memory() > 40)  # for one of them
            with at_most(5):
                for _ in range(20):
                    assert ask(receiver, "GET", "/devices")[0] == 200
        assert receiver.memory() < 350


@pytest.mark.parametrize("path", PATHS)
def test_one_that_does_not_read_makes_room_for_another(path, settings):
    settings(SHOWN_MOST=1, SHOWN_PATIENCE=0.05)
    with Receiver() as receiver:
        for _ in range(3):  # more than the sockets hold
            assert post(receiver, LARGE) == TAKEN
        with asking(path)(receiver) as slow:
            wait_for(lambda: receiver.large_answers._begun_at)
            assert message_of(path, ask(receiver, "GET", path)[1]) == MESSAGE
            assert len(read_to_end(slow)) < 2 * len(LARGE)
        wait_for(lambda: not receiver.large_answers._begun_at)


def test_no_more_than_are_allowed_are_in_answers_at_once(settings):
    settings(SHOWN_PATIENCE=60)
    with Receiver() as receiver:
        assert post(receiver, LARGE) == TAKEN
        with clients(6, asking(PATHS[0]), receiver):
            wait_for(lambda: len(receiver.large_answers._begun_at) == SHOWN_MOST)
            wait_for(lambda: len(receiver.answering) == 6)
            assert len(receiver.large_answers._begun_at) == SHOWN_MOST


@slow
def test_who_waits_for_the_next_large_event_holds_none():
    with ReceiverProcess() as receiver:
        for _ in range(4):
            assert post(receiver, LARGE) == TAKEN
        with clients(16, connect, receiver) as reading:
            for connection in reading:
                connection.settimeout(60)
                connection.sendall(b"GET /events HTTP/1.0\r\n\r\n")
            in_threads(16, lambda number: read_to_end(reading[number]))
        assert receiver.memory() < 400


def test_a_page_shows_the_beginning_of_a_large_message(receiver):
    receiver.tell("10.0.0.1", event("failed", 1000, "x" * 10000))
    receiver.tell("10.0.0.1", event("failed", 1000, "y" * 10001))
    page = ask(receiver, "GET", "/devices/10.0.0.1")[1].decode()
    assert "x" * 10000 + "<" in page
    assert "y" * 10000 + " [the rest of it is in the JSON]" in page
    assert "y" * 10001 not in page
