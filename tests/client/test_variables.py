"""The variables of the environment, whose names begin with USERSTATE_."""
import re

import pytest

import userstate
from support.peers import ACCEPTED, DEAD, Peer, document
from support.processes import EVENT_WORDS, run


def test_they_count_in_python_too(receiver, monkeypatch):
    monkeypatch.setenv("USERSTATE_METADATA_URL", receiver.metadata_url)
    userstate.send_user_state_event("running", 1000, "x")
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_the_url_spares_the_question_for_the_metadata():
    with Peer(ACCEPTED) as peer:
        env = {"USERSTATE_METADATA_URL": DEAD, "USERSTATE_URL": peer.url + "?a=b"}
        assert run("running", "1000", "x", env=env) == (0, "", "")
        assert peer.requests[0].startswith(b"POST /events?a=b HTTP/1.1\r\n")


WRONG = {"USERSTATE_URL": DEAD, "USERSTATE_METADATA_URL": DEAD, "USERSTATE_TIMEOUT": "0.5",
         "USERSTATE_DEADLINE": "0.5"}


def test_the_option_of_the_url_wins_over_them():
    with Peer(ACCEPTED) as peer:
        assert run("--url", peer.url, "running", "1000", "a", env=WRONG) == (0, "", "")
        event, = peer.events
    assert event["message"] == "a"


def test_the_option_of_the_metadata_wins_over_them(receiver):
    done = run("--metadata-url", receiver.metadata_url, "--deadline=20", "running", "1000",
               "b", env=WRONG)
    assert done.status == 0
    assert receiver.shown() == [("user.1000", "running", "b")]


def test_a_metadata_address_of_nonsense_does_not_matter_beside_a_url():
    with Peer(ACCEPTED) as peer:
        done = run("running", "1000", "x", url=peer.url,
                   env={"USERSTATE_METADATA_URL": "nonsense"})
        assert done == (0, "", "")
        assert len(peer.events) == 1


@pytest.mark.parametrize("name, value", [
    ("URL", "ftp://h/"), ("METADATA_URL", "http://h/ nonsense"), ("TIMEOUT", "x"),
    ("DEADLINE", "-1")])
def test_an_invalid_one_is_status_2_and_nothing_is_sent(name, value):
    with Peer(ACCEPTED) as peer:
        done = run("running", "1000", "x", env={
            "USERSTATE_METADATA_URL": peer.url, "USERSTATE_" + name: value})
        assert done.status == 2
        assert re.fullmatch("userstate: .*\n", done.err)
        assert peer.requests == []


OPTIONAL = ["USERSTATE_URL", "USERSTATE_TIMEOUT", "USERSTATE_DEADLINE"]


@pytest.mark.parametrize("blank", ["", " \r"], ids=ascii)
def test_a_blank_one_is_an_unset_one(blank, receiver):
    env = dict(dict.fromkeys(OPTIONAL, blank), **receiver.env)
    assert run("running", "1000", "x", env=env) == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_a_blank_metadata_address_is_an_unset_one():
    env = dict.fromkeys([*OPTIONAL, "USERSTATE_METADATA_URL"], "")
    assert run("-n", "running", "1000", "x", env=env).status == 0


@pytest.mark.parametrize("space", ["\r", " ", "\n", "\t", "\r\n"], ids=ascii)
@pytest.mark.parametrize("name", ["URL", "METADATA_URL"])
def test_white_space_around_a_value_does_not_count(name, space):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        value = {"URL": peer.url, "METADATA_URL": metadata.url}[name]
        done = run(*EVENT_WORDS, env={"USERSTATE_" + name: space + value + space,
                                      "USERSTATE_TIMEOUT": "5" + space,
                                      "USERSTATE_DEADLINE": space + "9" + space})
        assert done == (0, "", "")
        assert len(peer.events) == 1
