"""The headers by which a receiver tells a repetition from a new event."""
import re

import pytest

import userstate
from support.peers import ACCEPTED, Peer, answer, document, hang_up
from support.processes import run, run_code


def headers(request):
    """Return the headers of a request by their names in small letters, each there once."""
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    names = [line.partition(": ")[0].lower() for line in lines]
    assert len(set(names)) == len(names)
    return {name: line.partition(": ")[2] for name, line in zip(names, lines)}


def keys(peer):
    return [headers(request)["idempotency-key"] for request in peer.requests]


def test_every_try_of_an_event_has_one_key_and_each_event_its_own(said):
    with Peer(answer(503), hang_up, answer(400), ACCEPTED) as peer:
        userstate.post_event({}, peer.url, **said.options)
        userstate.post_event({}, peer.url, **said.options)
        *tries_of_one, other = keys(peer)
    assert len(tries_of_one) == 4
    one, = set(tries_of_one)
    assert one != other
    for key in (one, other):
        assert re.fullmatch(r'"[!#-\[\]-~]{20,}"', key)


def test_every_request_has_a_name_and_only_the_post_a_type_and_a_key(edge_python):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        done = run("--metadata-url", metadata.url, "run", "1010", "m", "true",
                   python=edge_python)
        assert done == (0, "", "")
        posts = [headers(request) for request in peer.requests]
        gets = [headers(request) for request in metadata.requests]
    assert len(posts) == 2
    assert gets
    for names in posts + gets:
        assert names["user-agent"] == "userstate/2.1"
    for names in posts:
        assert names["content-type"] == "application/json"
    for names in gets:
        assert not {"content-type", "idempotency-key", "content-length"} & set(names)
    assert posts[0]["idempotency-key"] != posts[1]["idempotency-key"]


# Programs that post an event or two.
PROGRAMS = {
    "seeded": "import random, userstate\nrandom.seed(1)\npost()",
    "seeded before": "import random\nrandom.seed(1)\npost()",
    "forked": "import os, userstate\nif os.fork(): os.wait()\npost()",
    "one process": "post()\npost()",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_two_events_have_the_same_key_whatever_the_program_does(name, python):
    code = """
import sys
def post():
    import userstate
    userstate.post_event({}, sys.argv[1])
""" + PROGRAMS[name]
    with Peer(ACCEPTED) as peer:
        for _ in range(2):
            assert run_code(code, peer.url, python=python).status == 0
        all_keys = keys(peer)
    assert len(all_keys) >= 2
    assert len(set(all_keys)) == len(all_keys)
