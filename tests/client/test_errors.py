"""What an error tells a program: its cause, the address, the status, the number of tries."""
import json
import socket

import pytest

import userstate
from support.authority import tls_peer, trusting
from support.peers import DEAD, Peer, answer, document, hang, reset_after_request
from support.processes import run_code


def causes(error):
    """Return the chain of causes of error, without itself."""
    chain = []
    while error.__cause__ is not None:
        error = error.__cause__
        chain.append(error)
    return chain


def test_nobody_who_listens(said):
    with pytest.raises(userstate.DeadlineError) as caught:
        userstate.post_event({}, DEAD, deadline=5, **said.options)
    assert type(causes(caught.value)[-1]) is ConnectionRefusedError
    assert caught.value.url == DEAD
    assert caught.value.http_status is None
    assert len(said.time.pauses) >= 2
    assert caught.value.tries == len(said.time.pauses) + 1


def short_answer(connection, peer):
    peer.read(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")


# What answers, and the type of the last cause.
BROKEN = {"reset": (reset_after_request, "ConnectionResetError"),
          "cut": (short_answer, "IncompleteRead"),
          "silence": (hang, socket.timeout.__name__),
          "no answer": (answer("x"), "BadStatusLine")}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer(name, said):
    script, cause = BROKEN[name]
    with Peer(script) as peer:
        with pytest.raises(userstate.DeadlineError) as caught:
            userstate.post_event({}, peer.url, deadline=2, timeout=0.2, **said.options)
    assert type(causes(caught.value)[-1]).__name__ == cause
    assert caught.value.url == peer.url
    assert caught.value.http_status is None


def test_a_name_that_is_not_found(said, monkeypatch):
    fault = socket.gaierror(-2, "no such name")

    def find(*args, **options):
        raise fault
    monkeypatch.setattr(socket, "getaddrinfo", find)
    with pytest.raises(userstate.DeadlineError) as caught:
        userstate.post_event({}, "http://h/", deadline=2, **said.options)
    assert causes(caught.value)[-1] is fault
    assert caught.value.url == "http://h/"


# Answers, the status of the last of them, the number of tries.
REFUSALS = {
    "403": ([answer(403)], 403, 1), "redirect": ([answer(302)], 302, 1),
    "three more tries": ([answer(400)], 400, 4),
    "503, 401": ([answer(503), answer(401)], 401, 2)}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_has_the_last_status_and_the_number_of_tries(name, said):
    answers, http_status, tries = REFUSALS[name]
    with Peer(*answers) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.post_event({}, peer.url, **said.options)
        assert len(peer.requests) == tries
    assert caught.value.http_status == http_status
    assert caught.value.tries == tries
    assert caught.value.url == peer.url


def test_the_deadline_has_the_last_status_and_the_number_of_tries(said):
    with Peer(answer(503)) as peer:
        with pytest.raises(userstate.DeadlineError) as caught:
            userstate.post_event({}, peer.url, deadline=20, **said.options)
        assert len(peer.requests) == caught.value.tries > 1
    assert caught.value.http_status == 503
    assert caught.value.url == peer.url


# What answers for the metadata, the status, the number of tries.
DOCUMENTS = {"no address": (document(), None, 4), "no JSON": (answer(200, b"x"), None, 4),
             "403": (answer(403), 403, 1), "404": (answer(404), 404, 4)}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_metadata(name, said):
    script, http_status, tries = DOCUMENTS[name]
    with Peer(script) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.send_user_state_event("running", 1000, "x", metadata_url=peer.url,
                                            **said.options)
    assert caught.value.http_status == http_status
    assert caught.value.tries == tries
    assert caught.value.url == peer.url


def test_an_event_behind_the_metadata_has_the_tries_of_its_own(said):
    with Peer(answer(403)) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.send_user_state_event("running", 1000, "x", metadata_url=metadata.url,
                                            **said.options)
    assert caught.value.url == peer.url
    assert caught.value.tries == 1


def test_of_several_addresses_it_has_the_last(said):
    with Peer(answer(403)) as first, Peer(answer(401)) as second:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.fetch_metadata(metadata_url=f"{first.url} {second.url}", **said.options)
    assert caught.value.url == second.url
    assert caught.value.http_status == 401
    assert caught.value.tries == 2


def test_an_address_of_the_metadata_that_cannot_be_used_is_the_cause(said):
    with Peer(document(user_state_url="http://user:s3cret@h/")) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.user_state_url(metadata_url=peer.url, **said.options)
    assert type(causes(caught.value)[-1]) is userstate.EventError
    assert caught.value.url == peer.url
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("rest, shown", [
    ("?token=s3cret", "{}"), ("#s3cret", "{}"), ("/user:s3cret@h", "(hidden: @)")])
def test_the_address_is_what_may_be_shown(rest, shown, said):
    with Peer(answer(403)) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.post_event({}, peer.url + rest, **said.options)
    assert caught.value.url == shown.format(peer.url)


IN_A_PROCESS = """
import json, ssl, sys, userstate
try:
    userstate.post_event({}, sys.argv[1], deadline=1)
except userstate.UserStateError as error:
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    is_of_tls = isinstance(cause, (ssl.SSLError, ssl.CertificateError))
    print(json.dumps([type(error).__name__, error.url, error.http_status, error.tries,
                      type(cause).__name__, is_of_tls]))
"""


def test_each_python_tells_a_refused_connection(edge_python):
    done = run_code(IN_A_PROCESS, DEAD + "?s3cret", python=edge_python)
    name, url, http_status, tries, cause, _ = json.loads(done.out)
    assert (name, cause) == ("DeadlineError", "ConnectionRefusedError")
    assert (url, http_status) == (DEAD, None)
    assert tries >= 2


def test_each_python_tells_a_certificate_of_another_name(authority, edge_python):
    with tls_peer(authority, "other") as peer:
        done = run_code(IN_A_PROCESS, peer.url, python=edge_python, env=trusting(authority))
        assert peer.events == []
    name, url, http_status, tries, _, is_of_tls = json.loads(done.out)
    assert (name, url, http_status, tries) == ("RefusedError", peer.url, None, 1)
    assert is_of_tls


def test_what_json_does_not_take_is_the_cause():
    with pytest.raises(userstate.EventError) as caught:
        userstate.post_event({"a": {1}}, DEAD)
    assert type(causes(caught.value)[-1]) is TypeError


def test_what_is_invalid_was_not_tried():
    with pytest.raises(userstate.EventError) as caught:
        userstate.send_user_state_event("running", 5, "x", url=DEAD)
    assert caught.value.url is None
    assert caught.value.http_status is None
    assert caught.value.tries == 0


def test_a_step_leaves_the_exception_of_its_block_as_it_is():
    error = KeyError("x")
    with Peer(answer(403)) as peer:
        with pytest.raises(KeyError) as caught:
            with userstate.step(1000, "x", url=peer.url, say=str):
                raise error
    assert caught.value is error
    assert error.__cause__ is None
    assert error.__context__ is None
