"""What is made of a metadata document: the address for events in it, or a fault."""
import json
import re
import subprocess

import pytest

import userstate
from support.files import TOP
from support.peers import Peer, answer, document

FEW = 4  # requests for what is tried three more times
USABLE = {
    "with the key": (dict(user_state_url="http://h/e"), "http://h/e"),
    "https and a deep path": (dict(user_state_url="https://da.user.state/events/1-2"),
                              "https://da.user.state/events/1-2"),
    "IPv6": (dict(user_state_url="http://[::1]:80/e"), "http://[::1]:80/e"),
    "both keys": (dict(user_state_url="http://h/e", phone_home_url="http://p/phone-home"),
                  "http://h/e"),
    "phone home only": (dict(phone_home_url="http://147.75.200.3/phone-home"),
                        "http://147.75.200.3/events"),
    "null and phone home": (dict(user_state_url=None, phone_home_url="http://p/a/phone-home"),
                            "http://p/a/events"),
}


@pytest.mark.parametrize("name", USABLE)
def test_finds_the_address_in_a_document(name, said):
    keys, url = USABLE[name]
    with Peer(document(**keys)) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == url
        assert len(peer.requests) == 1
    assert [url in line and "phone_home_url" in line for line in said.lines] == (
        [] if keys.get("user_state_url") else [True])


UNUSABLE = {
    "without": document(), "null": document(user_state_url=None),
    "empty": document(user_state_url=""), "number": document(user_state_url=5),
    "list": document(user_state_url=["http://h/"]), "object": document(user_state_url={}),
    "phone home of another form": document(phone_home_url="http://h/phone"),
    "phone home a number": document(phone_home_url=5),
    "an old error with status 200": answer(200, b'{"error":"not here yet"}'),
    "not JSON": answer(200, b"<html>login</html>"), "no body": answer(200),
    "an array": answer(200, b"[]"), "a string": answer(200, b'"http://h/"'),
    "null document": answer(200, b"null"), "deep": answer(200, b'{"a":' * 200000),
    "not UTF-8": answer(200, b'{"a": "\xff"}'), "cut JSON": answer(200, b'{"user_state_u'),
    "over 1 MiB": answer(200, json.dumps({
        "a": "x" * 2**20, "user_state_url": "http://h/"}).encode()),
    "big number": answer(200, b'{"a": ' + b"9" * 100000 + b"}"),
    "a message in a document": answer(200, b'{"id": 1, "message": "s3cret"}'),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_document_is_asked_for_three_more_times(name, said):
    with Peer(UNUSABLE[name]) as peer:
        with pytest.raises(userstate.RefusedError, match=rf"{peer.url}: .*try 4") as caught:
            userstate.user_state_url(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == FEW
    assert len(said.lines) == 1 and len(str(caught.value)) < 300
    if name == "without":
        hint = r"\(Tinkerbell of today has none: set --url or USERSTATE_URL\); refused"
        assert re.search("no user_state_url " + hint, str(caught.value))
    if name == "an old error with status 200":
        assert "not here yet" in said.lines[0]
    assert "s3cret" not in "".join(said.lines) + str(caught.value)


@pytest.mark.parametrize("url", [
    "ftp://h/e", "null", "file:///etc/passwd", "http:///e", "http://h:99999/", "http://h:x/",
    "http://h/\r\nHost: x", "http://h/a b", "http://[::1/", "javascript:x", "events"])
@pytest.mark.parametrize("key", ["user_state_url", "phone_home_url"])
def test_an_address_that_is_not_http_with_a_host_is_refused_at_once(url, key, said):
    value = url + "/phone-home" if key == "phone_home_url" else url
    with Peer(document(**{key: value})) as peer:
        with pytest.raises(userstate.RefusedError, match="address"):
            userstate.user_state_url(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == 1


def test_a_huge_number_in_the_document_takes_no_time(edge_python):
    body = b'{"a": ' + b"9" * 1000000 + b', "user_state_url": "http://h/"}'
    code = ("import sys, time, userstate; begun = time.monotonic();"
            "print(userstate.user_state_url(metadata_url=sys.argv[1]));"
            "assert time.monotonic() - begun < 3")
    with Peer(answer(200, body)) as peer:
        ended = subprocess.run([edge_python, "-B", "-c", code, peer.url], cwd=TOP,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (0, b"http://h/\n"), ended.stderr


@pytest.mark.parametrize("body", [b"hello", b"[]", b"{", b"\xff", b"[" * 60000], ids=ascii)
def test_what_is_no_json_object_is_called_not_json(body, said):
    with Peer(answer(200, body)) as peer:
        with pytest.raises(userstate.RefusedError, match=": not JSON; refused at try 4 after "):
            userstate.fetch_metadata(metadata_url=peer.url, **said.options)


def test_a_document_without_the_key_names_the_option(said):
    with Peer(document()) as peer:
        with pytest.raises(userstate.RefusedError, match="--url"):
            userstate.user_state_url(metadata_url=peer.url, **said.options)
    assert "--url" in said.lines[0]
