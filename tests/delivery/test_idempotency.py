"""The headers by which a receiver tells a repetition from a new event."""
import re

import pytest

import userstate
from support.peers import ACCEPTED, Peer, answer, document, hang_up
from support.processes import run, run_code


def headers(request):
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    names = [line.partition(": ")[0].lower() for line in lines]
    assert len(set(names)) == len(names)
    return {name: line.partition(": ")[2] for name, line in zip(names, lines)}


def test_every_try_of_an_event_has_one_key_and_each_event_its_own(said):
    with Peer(answer(503), hang_up, answer(400), ACCEPTED) as peer:
        userstate.post_event({}, peer.url, **said.options)
        userstate.post_event({}, peer.url, **said.options)
        keys = [headers(request)["idempotency-key"] for request in peer.requests]
    assert len(keys) == 5 and len(set(keys)) == 2 and keys[0] == keys[3] != keys[4]
    assert all(re.fullmatch(r'"[!#-\[\]-~]{20,}"', key) for key in keys)


def test_every_request_has_a_name_and_only_the_post_a_type_and_a_key(edge_python):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        done = run("--metadata-url", metadata.url, "run", "1010", "m", "true",
                      python=edge_python)
        assert done == (0, "", "")
        posts, gets = map(headers, peer.requests), [headers(r) for r in metadata.requests]
    posts = list(posts)
    assert len(posts) == 2 and gets
    assert all(h["user-agent"] == "userstate/2.0" for h in posts + gets)
    assert all(h["content-type"] == "application/json" for h in posts)
    assert not any({"content-type", "idempotency-key", "content-length"} & set(h) for h in gets)
    assert posts[0]["idempotency-key"] != posts[1]["idempotency-key"]


@pytest.mark.parametrize("code", [
    "import random, userstate\nrandom.seed(1)\npost()", "import random\nrandom.seed(1)\npost()",
    "import os, userstate\nif os.fork(): os.wait()\npost()", "post()\npost()"],
    ids=["seeded", "seeded before", "forked", "one process"])
def test_no_two_events_have_the_same_key_whatever_the_program_does(code, edge_python):
    code = ("import sys\ndef post():\n    import userstate\n"
            "    userstate.post_event({}, sys.argv[1])\n" + code)
    with Peer(ACCEPTED) as peer:
        for _ in range(2):
            assert run_code(code, peer.url, python=edge_python).status == 0
        keys = [headers(request)["idempotency-key"] for request in peer.requests]
    assert len(keys) >= 2 and len(set(keys)) == len(keys)
