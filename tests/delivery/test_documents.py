"""What is made of a metadata document: the address for events in it, or a fault."""
import json

import pytest

import userstate
from support.peers import Peer, answer, document
from support.processes import run_code

# The keys of a document, and the address for events that is found in it.
USABLE = {
    "with the key": (dict(user_state_url="http://h/e"), "http://h/e"),
    "https and a deep path": (dict(user_state_url="https://da.user.state/events/1-2"),
                              "https://da.user.state/events/1-2"),
    "IPv6": (dict(user_state_url="http://[::1]:80/e"), "http://[::1]:80/e"),
    "both keys": (dict(user_state_url="http://h/e", phone_home_url="http://p/phone-home"),
                  "http://h/e"),
}
# The same, where the address is made from another one, of which a line tells.
DERIVED = {
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
    assert said.lines == []


@pytest.mark.parametrize("name", DERIVED)
def test_takes_the_address_to_phone_home_and_says_so(name, said):
    keys, url = DERIVED[name]
    with Peer(document(**keys)) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == url
        assert len(peer.requests) == 1
    line, = said.lines
    assert url in line
    assert "phone_home_url" in line


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


def refusal(script, said):
    """Return the verdict on a document that is asked for three more times, in vain."""
    with Peer(script) as peer:
        with pytest.raises(userstate.RefusedError, match=rf"{peer.url}: .*try 4") as caught:
            userstate.user_state_url(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == 4
    return str(caught.value)


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_document_is_asked_for_three_more_times(name, said):
    verdict = refusal(UNUSABLE[name], said)
    line, = said.lines
    assert len(verdict) < 300
    assert "s3cret" not in line + verdict


def test_a_document_without_the_key_names_the_option(said):
    verdict = refusal(document(), said)
    assert ("no user_state_url (Tinkerbell of today has none: set --url or USERSTATE_URL); "
            "refused") in verdict
    assert "--url" in said.lines[0]


def test_the_text_of_an_old_error_with_status_200_is_said(said):
    refusal(answer(200, b'{"error":"not here yet"}'), said)
    assert "not here yet" in said.lines[0]


@pytest.mark.parametrize("body", [b"hello", b"[]", b"{", b"\xff", b"[" * 60000],
                         ids=["a word", "an array", "cut", "not UTF-8", "deep"])
def test_what_is_no_json_object_is_called_not_json(body, said):
    with Peer(answer(200, body)) as peer:
        with pytest.raises(userstate.RefusedError, match=": not JSON; refused at try 4 after "):
            userstate.fetch_metadata(metadata_url=peer.url, **said.options)


BAD = ["ftp://h/e", "null", "file:///etc/passwd", "http:///e", "http://h:99999/", "http://h:x/",
       "http://h/\r\nHost: x", "http://h/a b", "http://[::1/", "javascript:x", "events"]


@pytest.mark.parametrize("url", BAD)
@pytest.mark.parametrize("key, end", [("user_state_url", ""),
                                      ("phone_home_url", "/phone-home")],
                         ids=["user_state_url", "phone_home_url"])
def test_an_address_that_is_not_http_with_a_host_is_refused_at_once(key, end, url, said):
    with Peer(document(**{key: url + end})) as peer:
        with pytest.raises(userstate.RefusedError, match="_url '.*must be http"):
            userstate.user_state_url(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == 1


def test_a_huge_number_in_the_document_takes_no_time(edge_python):
    body = b'{"a": ' + b"9" * 1000000 + b', "user_state_url": "http://h/"}'
    code = """
import sys, time, userstate
begun = time.monotonic()
print(userstate.user_state_url(metadata_url=sys.argv[1]))
assert time.monotonic() - begun < 3
"""
    with Peer(answer(200, body)) as peer:
        assert run_code(code, peer.url, python=edge_python) == (0, "http://h/\n", "")


URL = "http://h/events"


@pytest.mark.parametrize("key, value", [
    ("user_state_url", f" {URL}\n"), ("user_state_url", f"\t{URL}\r\n"),
    ("phone_home_url", " http://h/phone-home ")], ids=ascii)
def test_white_space_around_an_address_does_not_count(key, value, said):
    with Peer(document(**{key: value})) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == URL


def test_a_document_may_begin_with_a_byte_order_mark(said):
    body = b"\xef\xbb\xbf" + json.dumps({"user_state_url": URL}).encode()
    with Peer(answer(200, body)) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == URL


def of_size(size):
    """Return a document of this many bytes."""
    body = json.dumps({"user_state_url": URL, "x": ""}).encode()
    return body[:-2] + b"x" * (size - len(body)) + body[-2:]


def test_a_document_of_a_mebibyte_is_read(said):
    with Peer(answer(200, of_size(1 << 20))) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == URL


def test_a_longer_document_is_said_to_be_longer_than_what_is_read(said):
    with Peer(answer(200, of_size((1 << 20) + 1))) as peer:
        with pytest.raises(userstate.RefusedError, match="more than 1048576 bytes; .*try 4"):
            userstate.user_state_url(metadata_url=peer.url, **said.options)
