"""Answers that hold a large event: how much memory they take, and who makes room."""
import json
import socket

import pytest

from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    clients,
    connect,
    event,
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
    """Return the message of the one event in the answer to path."""
    if path.endswith("csv"):
        return body.decode().rstrip("\r\n").rpartition(",")[2]
    answer = json.loads(body.decode())
    return answer.get("events", [answer])[0]["message"]


@pytest.mark.parametrize("path", [PATHS[0], *(pytest.param(path, marks=slow)
                                              for path in PATHS[1:])])
def test_many_that_do_not_read_take_little_memory_and_hold_up_nobody(path):
    with ReceiverProcess() as receiver:
        assert post(receiver, LARGE) == TAKEN
        with clients(20, asking(path), receiver), connect(receiver) as reading:
            with at_most(5):
                assert ask(receiver, "GET", "/devices")[0] == 200
            reading.settimeout(40)
            reading.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert len(read_to_end(reading)) > len(LARGE)  # at its turn
        assert receiver.memory() < 350


@pytest.mark.parametrize("path", PATHS)
def test_one_that_does_not_read_makes_room_for_another(path, settings):
    settings(SHOWN_MOST=1, LARGE_PATIENCE=0.05)
    with Receiver() as receiver:
        assert post(receiver, LARGE) == TAKEN
        with asking(path)(receiver) as slow:
            wait_for(lambda: receiver.answers._begun_at)
            assert message_of(path, ask(receiver, "GET", path)[1]) == MESSAGE
            assert len(read_to_end(slow)) < len(LARGE)


def test_a_page_shows_the_beginning_of_a_large_message(receiver):
    receiver.tell("10.0.0.1", event("failed", 1000, "x" * 10000))
    receiver.tell("10.0.0.1", event("failed", 1000, "y" * 10001))
    page = ask(receiver, "GET", "/devices/10.0.0.1")[1].decode()
    assert "x" * 10000 + "<" in page
    assert "y" * 10000 + " [the rest of it is in the JSON]" in page
    assert "y" * 10001 not in page
