"""An event from the command line to the timeline, and the bytes of its two requests."""
import json
import os
import random
import re

import pytest

import userstate
from support.peers import ACCEPTED, Peer, document
from support.processes import run
from support.receivers import Receiver


@pytest.mark.parametrize("how", ["file", "pipe", "-c"])
def test_puts_an_event_on_the_timeline(python, how, receiver):
    done = run("running", "1000", "hey im still running", python=python, how=how,
               env=receiver.env)
    assert done == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "hey im still running")]


MESSAGES = {
    "empty": "", "help": "-h", "dashes": "--", "minus one": "-1", "option": "--url=x",
    "spaces": "  a  b ", "newlines": "a\nb\r\n\tc\n", "quotes": "'\"`$(id)\\n\\", "nul": "\\0",
    "emoji": "\U0001f600 \u00fc", "separators": "\u2028\u202e", "command": "run",
    "json": '{"state": "failed"}', "long": "0123456789" * 10000, "controls": "\x1b[31m\x07",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_message_arrives_verbatim(name, edge_python, receiver):
    for how, env in (("file", {"LC_ALL": "C"}), ("pipe", {"LC_ALL": "C.UTF-8"})):
        done = run("succeeded", "1099", os.fsencode(MESSAGES[name]), how=how,
                   python=edge_python, env=dict(receiver.env, **env))
        assert done == (0, "", "")
    assert receiver.shown() == [("user.1099", "succeeded", MESSAGES[name])] * 2


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1", "nowhere"])
def test_bytes_that_are_not_utf_8_arrive_as_replacement(edge_python, locale, receiver):
    done = run("failed", "1001", b"a\xff\xc3\xa9\xf0b", python=edge_python,
               env=dict(receiver.env, LC_ALL=locale))
    assert done == (0, "", "")
    assert receiver.shown() == [("user.1001", "failed", "a\ufffd\xe9\ufffdb")]


@pytest.mark.parametrize("word, state, message", [
    ("running", "running", "m"), ("succeeded", "succeeded", "m"), ("failed", "failed", "m"),
    ("0", "succeeded", "m"), ("1", "failed", "m: exit status 1"),
    ("127", "failed", "m: exit status 127"), ("255", "failed", "m: exit status 255")])
def test_the_state_is_a_word_or_an_exit_status(word, state, message, capsys):
    assert userstate.main(["-n", word, "1000", "m"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "state": state, "code": 1000, "message": message}


def test_any_message_survives_the_wire(receiver):
    dice = random.Random(1)
    messages = []
    for size in (1, 2, 5, 30, 1000) * 5:
        points = [dice.choice([dice.randrange(1, 128), dice.randrange(0xd800),
                               dice.randrange(0xe000, 0x110000)]) for _ in range(size)]
        message = "".join(map(chr, points))
        messages.append(message)
        userstate.send_user_state_event("running", 1000, message,
                                        metadata_url=receiver.metadata_url)
    assert [body for _, _, body in receiver.shown()] == messages


def test_a_lone_surrogate_is_shown_as_a_replacement(receiver):
    userstate.send_user_state_event("running", 1000, "a\udcffb\ud83d",
                                    metadata_url=receiver.metadata_url)
    assert receiver.shown() == [("user.1000", "running", "a\ufffdb\ufffd")]


def test_an_unknown_address_is_accepted_but_never_called_delivered(capfd):
    with Receiver(only=["127.0.0.9"]) as receiver:
        words = ["-v", "--url", receiver.url + "/events", "running", "1000", "x"]
        assert userstate.main(words) == 0
        assert receiver.shown() == []
        assert "deliver" not in capfd.readouterr().err


def test_the_event_on_the_wire():
    with Peer(ACCEPTED) as peer:
        userstate.post_event(userstate.build_event("failed", 1042, "\u00fc"), peer.url)
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    request, *headers = head.decode().split("\r\n")
    assert request == "POST /events HTTP/1.1"
    assert sorted(re.sub("[0-9a-f]{32}", "32 DIGITS", header) for header in headers) == [
        "Accept-Encoding: identity", f"Content-Length: {len(body)}",
        "Content-Type: application/json", f"Host: 127.0.0.1:{peer.port}",
        'Idempotency-Key: "32 DIGITS"', "User-Agent: userstate/2.1"]
    assert body == b'{"state": "failed", "code": 1042, "message": "\\u00fc"}'


def test_the_metadata_request_asks_for_no_vendor_type():
    with Peer(document(a=1)) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url)["a"] == 1
    request, *headers = peer.requests[0].decode().strip().split("\r\n")
    assert request == "GET /events HTTP/1.1"
    assert sorted(headers) == ["Accept-Encoding: identity", f"Host: 127.0.0.1:{peer.port}",
                               "User-Agent: userstate/2.1"]
