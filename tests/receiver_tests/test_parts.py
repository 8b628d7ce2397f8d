"""Lists that are sent in parts: what a client learns of one that breaks off."""
import http.client
import itertools

import pytest

from receiver.store import StoreError
from support.receivers import ask, event, exchange, requested


def fails_after_the_first(function):
    """Return function as it is when the database fails after its first call."""
    calls = itertools.count()

    def call(*values, **options):
        if next(calls):
            raise StoreError("the disk fails")
        return function(*values, **options)
    return call


LISTS = {"/events": "event", "/events.csv": "event", "/devices.csv": "device"}


@pytest.mark.parametrize("path", LISTS)
def test_a_list_that_breaks_off_is_not_taken_for_a_whole_one(path, receiver, monkeypatch,
                                                             capfd):
    for number in range(3):
        receiver.tell(f"10.0.0.{number}", event("running"))
    monkeypatch.setattr(receiver.store, LISTS[path],
                        fails_after_the_first(getattr(receiver.store, LISTS[path])))
    with requested(receiver, "GET", path) as reply:
        with pytest.raises(http.client.IncompleteRead) as error:
            reply.read()
    assert b"10.0.0." in error.value.partial
    assert capfd.readouterr().err == (
        "receiver: the database fails, a list is cut short: the disk fails\n")


@pytest.mark.parametrize("path", LISTS)
def test_one_who_knows_no_chunks_gets_none(path, receiver):
    receiver.tell("10.0.0.1", event("running", 1000, "a message"))
    parts = ask(receiver, "GET", path)[1]
    head, _, body = exchange(receiver, f"GET {path} HTTP/1.0\r\n\r\n".encode()
                             ).partition(b"\r\n\r\n")
    assert b"Transfer-Encoding" not in head
    assert body == parts


@pytest.mark.parametrize("path", LISTS)
def test_a_question_for_the_head_of_a_list_gets_no_body(path, receiver):
    receiver.tell("10.0.0.1", event("running", 1000, "a message"))
    answer = exchange(receiver, f"HEAD {path} HTTP/1.1\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1
