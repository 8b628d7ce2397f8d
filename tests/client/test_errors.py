"""What an error tells a program: its cause, the address, the status, the number of tries."""
import enum
import inspect
import re
import socket
import ssl

import pytest

import userstate
from support.authority import tls_peer
from support.peers import ACCEPTED, DEAD, Peer, answer, document
from support.processes import EVENT_WORDS, run_code


def causes(error):
    """Return the types of the chain of causes of error, without itself."""
    types = []
    while error.__cause__ is not None:
        error = error.__cause__
        types.append(type(error))
    return types


def test_the_cause_is_the_exception_of_the_socket(said):
    with pytest.raises(userstate.DeadlineError) as caught:
        userstate.post_event({}, DEAD + "?token=s3cret", deadline=5, **said.options)
    assert causes(caught.value)[-1] is ConnectionRefusedError
    assert caught.value.url == DEAD
    assert caught.value.http_status is None
    assert caught.value.tries == len(said.time.pauses) + 1


@pytest.mark.parametrize("scripts, http_status, tries", [
    ([answer(403)], 403, 1), ([answer(400)], 400, 4), ([answer(503), answer(401)], 401, 2)],
    ids=["403", "400", "503, 401"])
def test_a_refusal_has_the_last_status_and_the_number_of_tries(scripts, http_status, tries,
                                                               said):
    with Peer(*scripts) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.post_event({}, peer.url, **said.options)
    assert caught.value.http_status == http_status
    assert caught.value.tries == tries
    assert caught.value.url == peer.url


def test_the_metadata_has_an_error_with_the_address_of_the_metadata(said):
    with Peer(document()) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.user_state_url(metadata_url=peer.url, **said.options)
    assert (caught.value.url, caught.value.tries) == (peer.url, 4)


def test_the_cause_of_a_certificate_is_that_of_ssl(authority, said, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with tls_peer(authority, "good") as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.post_event({}, peer.url, **said.options)
    assert causes(caught.value)[-1] is ssl.SSLCertVerificationError


def test_the_cause_of_a_name_is_that_of_dns(said, monkeypatch):
    def find(*args, **options):
        raise socket.gaierror(-2, "no such name")
    monkeypatch.setattr(socket, "getaddrinfo", find)
    with pytest.raises(userstate.DeadlineError) as caught:
        userstate.post_event({}, "http://h/", deadline=2, **said.options)
    assert causes(caught.value)[-1] is socket.gaierror


def test_what_json_does_not_take_is_the_cause():
    with pytest.raises(userstate.EventError) as caught:
        userstate.post_event({"a": {1}}, DEAD)
    assert causes(caught.value) == [TypeError]


class Codes(enum.IntEnum):
    """The codes of an installation."""

    UNPACK = 1010
    ODD = 5


def test_a_code_may_be_of_an_enumeration():
    with Peer(ACCEPTED) as peer:
        userstate.send_user_state_event("running", Codes.UNPACK, "x", url=peer.url)
        assert peer.bodies == [b'{"state": "running", "code": 1010, "message": "x"}']
    with pytest.raises(userstate.EventError, match="must be an int, 1000 to 1099"):
        userstate.build_event("running", Codes.ODD, "x")


OPTIONS = {"metadata_url": None, "url": None, "timeout": None, "deadline": None,
           "dry_run": False, "verbose": False}


@pytest.mark.parametrize("name", [
    "send_user_state_event", "fetch_metadata", "user_state_url", "post_event", "step"])
def test_the_options_are_keywords_with_names_and_defaults(name):
    parameters = inspect.signature(getattr(userstate, name)).parameters
    options = {option: default for option, default in OPTIONS.items()
               if not (name == "post_event" and option == "url")}
    assert {option: parameters[option].default for option in options} == options
    assert {parameters[option].kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_public_names_are_those_of_all():
    assert all(hasattr(userstate, name) for name in userstate.__all__)
    made_here = [name for name, value in vars(userstate).items()
                 if getattr(value, "__module__", "") == "userstate"]
    public = {name for name in made_here if not name.startswith("_")}
    assert public <= set(userstate.__all__)
    assert [name for name in dir(userstate.step) if not name.startswith("_")] == []


@pytest.mark.parametrize("variable", ["USERSTATE_URL", "USERSTATE_METADATA_URL"])
def test_a_variable_that_a_call_does_not_use_is_not_looked_at(variable, monkeypatch):
    monkeypatch.setenv(variable, "garbage")
    with Peer(ACCEPTED) as peer:
        userstate.post_event({}, peer.url)
        userstate.send_user_state_event("running", 1000, "x", url=peer.url)
        assert len(peer.events) == 2
    with Peer(document(a=1)) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url)["a"] == 1


def test_an_option_that_a_call_does_not_use_is_not_looked_at():
    with Peer(document(a=1)) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url, url="garbage")["a"] == 1
    with Peer(ACCEPTED) as peer:
        userstate.post_event({}, peer.url, metadata_url="garbage")
        assert len(peer.events) == 1


@pytest.mark.parametrize("name, value", [
    ("URL", "garbage"), ("METADATA_URL", "garbage"), ("TIMEOUT", "soon"), ("DEADLINE", "-1")])
def test_a_wrong_variable_is_named(name, value, monkeypatch, capsys):
    monkeypatch.setenv("USERSTATE_" + name, value)
    assert userstate.main(EVENT_WORDS) == 2
    line = f"userstate: USERSTATE_{name} '{value}': must be "
    assert capsys.readouterr().err.startswith(line)


@pytest.mark.parametrize("digits, value", [
    ("9" * 999, int("9" * 999)), ("9" * 1500, float("inf"))], ids=["999", "1500"])
def test_a_large_number_of_a_document_is_itself_or_infinite(digits, value):
    body = b'{"a": ' + digits.encode() + b"}"
    with Peer(answer(200, body)) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url) == {"a": value}


IN_A_REQUEST = """
import socket, sys, userstate
def find(*args, **options):
    raise TypeError("\\x1b[31mboom\\nuserstate: forged")
socket.getaddrinfo = find
sys.exit(userstate.main(sys.argv[1:]))
"""
IN_MAIN = """
import sys, userstate
def find(*args, **options):
    raise TypeError("\\x1b[31mboom\\nuserstate: forged")
userstate.build_event = find
sys.exit(userstate.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("code", [IN_A_REQUEST, IN_MAIN], ids=["in a request", "in main"])
def test_a_bug_is_told_by_its_type_and_with_v_by_its_traceback(code, edge_python):
    words = ["--url", "http://h.example/", *EVENT_WORDS]
    done = run_code(code, *words, python=edge_python)
    assert done.status == 1
    assert re.fullmatch(r"userstate: .*bug: TypeError: \[31mboom .*\n", done.err)
    done = run_code(code, "-v", *words, python=edge_python, traces=True)
    assert done.status == 1
    lines = done.err.splitlines()
    assert "userstate: Traceback (most recent call last):" in lines
    assert any(re.search(r'File "<string>", line 4, in find', line) for line in lines)
    for line in lines:
        assert re.fullmatch("userstate: [ -~]*", line)
