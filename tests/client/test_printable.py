"""No line carries what could move a cursor, hide itself or pass for another line."""
import json
import re

import pytest

import userstate
from support.peers import DEAD, Peer, answer, document
from support.processes import EVENT_WORDS

FIT_FOR_VARIABLES = ["\x1b[31mred", "\x9b31m", "\x07\x08\x7f", "\rforged",
                     "\nuserstate: forged", "\u202eevil", "\u2028userstate: forged"]
EVIL = [*FIT_FOR_VARIABLES, "\x00", "\ud800"]


def in_a_line(text):
    """Return the bytes of text as they may be in one line of a head."""
    return text.replace("\n", " ").replace("\r", "\x0b").encode("utf-8", "replace")


ANSWERS = {
    "status line": lambda text: in_a_line(text) + b"\r\n\r\n",
    "reason phrase": lambda text: b"HTTP/1.1 403 " + in_a_line(text) + b"\r\n\r\n",
    "redirect": lambda text: (
        b"HTTP/1.1 302 Found\r\nLocation: http://h/" + in_a_line(text) + b"\r\n\r\n"),
    "errors": lambda text: answer(403, json.dumps({"errors": [text]}).encode()),
    "phone_home_url": lambda text: document(phone_home_url=f"http://h/{text}/phone-home"),
    "user_state_url": lambda text: document(user_state_url=f"http://h/{text}/phone-home"),
}


def check_line(line):
    assert re.fullmatch("[ -~]+", line)
    assert not line.startswith("userstate: forged")


def check_shown(err):
    """Check the lines on the standard error of main(), and return how many they are."""
    *lines, rest = err.split("\n")
    assert rest == ""
    for line in lines:
        assert line.startswith("userstate: ")
        check_line(line)
    return len(lines)


@pytest.mark.parametrize("where", ANSWERS)
@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_nothing_from_outside_reaches_the_terminal_raw(where, text, capfd):
    with Peer(ANSWERS[where](text)) as peer:
        words = ["-v", "--deadline=0.05", "--metadata-url", peer.url]
        assert userstate.main([*words, "url"]) in (1, 75)
        assert userstate.main([*words, "run", "1000", "x", "true"]) == 0
    assert check_shown(capfd.readouterr().err) >= 6  # an answer and an end of each call


@pytest.mark.parametrize("where", ANSWERS)
@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_nothing_from_outside_reaches_the_log_or_an_error_raw(where, text, said, caplog):
    with Peer(ANSWERS[where](text)) as peer:
        with userstate.step(1000, "x", metadata_url=peer.url, deadline=0.05):
            pass
        with pytest.raises(userstate.UserStateError) as caught:
            userstate.user_state_url(metadata_url=peer.url, **said.options)
    logged = [record.getMessage() for record in caplog.records]
    assert len(logged) >= 2  # of two reports
    for line in [*logged, *said.lines, str(caught.value)]:
        check_line(line)


PLACES = {
    "state": ["TEXT", "1000", "x"],
    "code": ["running", "TEXT", "x"],
    "option": ["--TEXT", *EVENT_WORDS],
    "timeout": ["--timeout=TEXT", *EVENT_WORDS],
    "address": ["--url", "TEXT", *EVENT_WORDS],
    "command of run": ["run", "1000", "x", "/nowhere/TEXT"],
    "log of run": ["run", "--log", "/nowhere/TEXT", "1000", "x", "/nowhere/x"],
    "seconds of run": ["run", "--every", "TEXT", "1000", "x", "true"],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("text", EVIL, ids=ascii)
def test_nothing_of_options_and_operands_is_shown_raw(text, place, capfd):
    words = [word.replace("TEXT", text) for word in PLACES[place]]
    assert userstate.main(["--deadline=0.05", "--url", DEAD, *words]) in (2, 126, 127)
    out, err = capfd.readouterr()
    assert out == ""
    assert check_shown(err) >= 1


@pytest.mark.parametrize("text", FIT_FOR_VARIABLES, ids=ascii)
def test_nothing_of_a_variable_is_shown_raw(text, capfd, monkeypatch):
    monkeypatch.setenv("USERSTATE_TIMEOUT", text)
    assert userstate.main(EVENT_WORDS) == 2
    assert check_shown(capfd.readouterr().err) == 1
