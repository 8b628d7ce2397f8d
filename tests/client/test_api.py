"""What the functions of the module take, return and raise."""
import json
import re

import pytest

import userstate
from support.peers import ACCEPTED, DEAD, Peer, answer, document
from support.processes import run_code


@pytest.mark.parametrize("name", [
    "send_user_state_event", "build_event", "fetch_metadata", "user_state_url",
    "post_event", "step", "main", "UserStateError", "EventError", "RefusedError",
    "DeadlineError"])
def test_public_names_are_documented(name):
    assert getattr(userstate, name).__doc__


@pytest.mark.parametrize("state", userstate.STATES)
@pytest.mark.parametrize("code", [1000, 1099])
def test_an_event_is_a_plain_dict(state, code):
    assert userstate.build_event(state, code, "") == {
        "state": state, "code": code, "message": ""}


INVALID_EVENTS = [
    ("runing", 1000, "x"), (None, 1000, "x"), (0, 1000, "x"), (["running"], 1000, "x"),
    ("running", "1000", "x"), ("running", 1000.0, "x"), ("running", True, "x"),
    ("running", 999, "x"), ("running", 1100, "x"), ("running", None, "x"),
    ("running", 1000, None), ("running", 1000, b"x"), ("running", 1000, 5)]


@pytest.mark.parametrize("state, code, message", INVALID_EVENTS)
def test_nothing_is_converted(state, code, message):
    with pytest.raises(userstate.EventError) as caught:
        userstate.build_event(state, code, message)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, userstate.UserStateError)


@pytest.mark.parametrize("state, code, message", INVALID_EVENTS)
def test_nothing_invalid_is_sent(state, code, message):
    with Peer(ACCEPTED) as peer:
        with pytest.raises(ValueError, match="must be"):
            userstate.send_user_state_event(state, code, message, url=peer.url)
        assert peer.requests == []


CODES = """
import _thread, enum, sys, userstate
class Codes(BASE):
    UNPACK = 1010
    ODD = 5
url, refusing = sys.argv[1:]
userstate.send_user_state_event("running", Codes.UNPACK, "x", url=url)
with userstate.step(Codes.UNPACK, "x", url=url):
    pass
try:
    userstate.send_user_state_event("running", Codes.UNPACK, "x", url=refusing)
except userstate.RefusedError as error:
    assert str(error).startswith("running 1010: "), error
try:
    userstate.build_event("running", Codes.ODD, "x")
except userstate.EventError:
    print("refused")
def start(*args):
    raise RuntimeError("no thread")
_thread.start_new_thread = start
with userstate.step(Codes.UNPACK, "x", url=url, say=print):
    pass
"""


@pytest.mark.parametrize("base", ["enum.IntEnum", "int, enum.Enum"])
def test_a_code_may_be_of_an_enumeration(base, edge_python):
    with Peer(ACCEPTED) as peer, Peer(answer(403)) as refusing:
        done = run_code(CODES.replace("BASE", base), peer.url, refusing.url,
                        python=edge_python)
        line = "running 1010: no thread: the report that it runs is left out"
        assert done == (0, f"refused\n{line}\n", "")
        assert len(peer.bodies) == 4
        for body in [*peer.bodies, *refusing.bodies]:
            assert b', "code": 1010, "' in body


STATE = """
import enum, sys, userstate
class S(str, enum.Enum):
    R = "running"
userstate.send_user_state_event(S.R, 1000, "x", url=sys.argv[1], verbose=True, say=print)
"""


def test_a_line_shows_the_value_of_a_state_that_is_of_an_enumeration(python):
    with Peer(ACCEPTED) as peer:
        done = run_code(STATE, peer.url, python=python)
    assert done.out.startswith(f"running 1000: POST {peer.url}: accepted, ")
    assert peer.events[0]["state"] == "running"


CYCLE = []
CYCLE.append(CYCLE)
NOT_JSON = {"an object": object(), "a set": {"a": {1}}, "not a number": {"a": float("nan")},
            "a cycle": CYCLE, "bytes": b"x", "a tuple as a key": {(1, 2): 3}}


@pytest.mark.parametrize("name", NOT_JSON)
def test_an_event_that_is_not_json_is_an_event_error(name):
    with pytest.raises(userstate.EventError):
        userstate.post_event(NOT_JSON[name], DEAD)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x", "", None, 5, "http://"])
def test_an_address_that_is_not_http_is_an_event_error_of_post_event(url, monkeypatch):
    with Peer(ACCEPTED) as peer:
        monkeypatch.setenv("USERSTATE_URL", peer.url)  # which stands in for none
        with pytest.raises(userstate.EventError, match="^url .*: must be http"):
            userstate.post_event({}, url)
        assert peer.requests == []


def test_fetch_metadata_returns_the_whole_document():
    with Peer(document(user_state_url=None, tags=["a"])) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url) == {
            "id": "x", "customdata": {"key": "s3cret"}, "user_state_url": None, "tags": ["a"]}


FETCH = """
import sys, userstate
found = userstate.fetch_metadata(metadata_url=sys.argv[1])["a"]
print(type(found).__name__, found if type(found) is float else found == int(sys.argv[2]))
"""
NUMBERS = {"0": ("0", "int True"), "999 digits": ("9" * 999, "int True"),
           "1000 digits": ("9" * 1000, "float inf"), "10**1500": (str(10**1500), "float inf"),
           "-10**1500": (str(-10**1500), "float -inf"),
           "a million digits": ("9" * 1000000, "float inf")}


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_of_the_document_is_itself_or_infinite(name, edge_python):
    """And never another one."""
    digits, told = NUMBERS[name]
    with Peer(answer(200, b'{"a": ' + digits.encode() + b"}")) as peer:
        done = run_code(FETCH, peer.url, digits[:1000], python=edge_python, seconds=5)
    assert done == (0, told + "\n", "")


@pytest.mark.parametrize("options", [
    dict(timeout=0), dict(timeout="x"), dict(timeout=True), dict(deadline=-1),
    dict(deadline=float("nan")), dict(url="ftp://h/"), dict(url=5), dict(metadata_url="x"),
    dict(metadata_url=["http://h/"])], ids=str)
def test_invalid_options_are_event_errors(options):
    with pytest.raises(userstate.EventError):
        userstate.send_user_state_event("running", 1000, "x", **options)


CALLS = {
    "send_user_state_event": ("running", 1000, "x"), "fetch_metadata": (), "user_state_url": (),
    "post_event": ({}, DEAD), "step": (1000, "x")}


@pytest.mark.parametrize("option", ["timout", "metadata", "retries"])
@pytest.mark.parametrize("name", CALLS)
def test_a_mistyped_option_is_an_event_error_that_names_it(name, option):
    function, arguments = getattr(userstate, name), CALLS[name]
    with pytest.raises(userstate.EventError, match=option):
        function(*arguments, **{option: 5})


def test_a_blank_address_of_the_metadata_does_not_matter_beside_a_url():
    with Peer(ACCEPTED) as peer:
        userstate.send_user_state_event("running", 1000, "x", url=peer.url, metadata_url=" ")
        assert len(peer.events) == 1


@pytest.mark.parametrize("blank", [" ", "", "\r\n"], ids=ascii)
def test_a_blank_address_of_the_metadata_is_an_event_error_without_a_url(blank):
    with pytest.raises(userstate.EventError):
        userstate.user_state_url(metadata_url=blank)


def test_a_dry_run_prints_the_whole_event(capsys):
    userstate.send_user_state_event("running", 1000, "x", dry_run=True)
    assert json.loads(capsys.readouterr().out) == {
        "state": "running", "code": 1000, "message": "x"}


def test_a_dry_run_of_post_event_prints_and_sends_nothing(capsys):
    with Peer(ACCEPTED) as peer:
        userstate.post_event({"a": 1}, peer.url, dry_run=True)
        assert peer.requests == []
    assert capsys.readouterr().out == '{"a": 1}\n'


@pytest.mark.parametrize("name", ["fetch_metadata", "user_state_url"])
def test_a_dry_run_never_asks_the_network(name, capsys):
    function = getattr(userstate, name)
    with Peer(ACCEPTED) as peer:
        with pytest.raises(userstate.EventError, match=(
                "^dry run: asks nobody, so --url has to say where$")):
            function(metadata_url=peer.url, dry_run=True)
        assert peer.requests == []
    assert capsys.readouterr().out == ""


def test_faults_that_pass_are_warnings_of_the_logger(caplog):
    with Peer(answer(503), ACCEPTED) as peer:
        userstate.post_event({}, peer.url, sleep=lambda seconds: None)
    record, = caplog.records
    assert record.name == "userstate"
    assert record.levelname == "WARNING"
    assert re.search(r": HTTP 503 .*; trying again in [0-9.]+ s, for [0-9.]+ s at most$",
                     record.getMessage())


def test_errors_are_one_printable_line():
    error = userstate.UserStateError("a\nb\x1b[31m \u2028c\ud800")
    assert str(error) == "a b [31m c"


@pytest.mark.parametrize("error, status", [
    (userstate.EventError, 2), (userstate.RefusedError, 1), (userstate.DeadlineError, 75)])
def test_each_error_has_its_status(error, status):
    assert error.status == status
