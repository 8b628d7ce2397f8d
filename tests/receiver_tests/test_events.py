"""What the receiver takes for an event, and what it refuses, as the real service did."""
import http.client
import json

import pytest

from service import read_event
from support.receivers import Receiver, ask, get, read_json, state

ACCEPTED = {
    "an event": (b'{"state":"running","code":1000,"message":"x"}', "running", 1000, "x"),
    "an empty object": (b"{}", "", 0, ""),
    "null": (b"null", "", 0, ""),
    "null fields": (b'{"state":null,"code":null,"message":null}', "", 0, ""),
    "any code": (b'{"code":-7}', "", -7, ""),
    "the largest code": (b'{"code":9223372036854775807}', "", 2**63 - 1, ""),
    "the least code": (b'{"code":-9223372036854775808}', "", -2**63, ""),
    "any state": (b'{"state":"dancing"}', "dancing", 0, ""),
    "names in capitals": (b'{"STATE":"a","Code":1,"MesSage":"b"}', "a", 1, "b"),
    "the last of two": (b'{"code":1,"code":2}', "", 2, ""),
    "other names": (b'{"other":{"code":"x"},"code":3}', "", 3, ""),
    "white space": (b' \t\r\n{"code":1}\n', "", 1, ""),
    "lone surrogate": (b'{"message":"a\\udcffb"}', "", 0, "a\ufffdb"),
    "a pair of surrogates": (b'{"message":"\\ud83d\\ude00"}', "", 0, "\U0001f600"),
    "not UTF-8": (b'{"message":"a\xffb\xe2\x82"}', "", 0, "a\ufffdb\ufffd\ufffd"),
    "a long s": ('{"\u017ftate":"x"}'.encode(), "x", 0, ""),
    "a huge number elsewhere": (b'{"other":' + b"9" * 1000000 + b"}", "", 0, ""),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_takes_for_an_event(receiver, name):
    body, state, code, message = ACCEPTED[name]
    assert ask(receiver, "POST", "/events", body) == (200, b"")
    assert receiver.shown() == [(f"user.{code}", state, message)]


REFUSED = {
    "nothing": b"", "no JSON": b"running", "an array": b"[]", "a string": b'"x"',
    "a number": b"1", "quoted code": b'{"code":"1000"}', "fraction": b'{"code":1000.0}',
    "exponent": b'{"code":1e3}', "boolean code": b'{"code":true}',
    "65 bits": b'{"code":9223372036854775808}', "state a number": b'{"state":1}',
    "65 bits below 0": b'{"code":-9223372036854775809}',
    "a huge code": b'{"code":' + b"9" * 1000000 + b"}",
    "message an object": b'{"message":{}}', "NaN": b'{"code":NaN}',
    "byte-order mark": b'\xef\xbb\xbf{"code":1}', "trailing bytes": b'{"code":1} x',
    "two documents": b'{"code":1}{"code":2}', "cut": b'{"code":1000,"state":"run',
    "control character": b'{"message":"\n"}', "too deep": b'{"a":' * 100000,
    "wrong, then right": b'{"code":"1","code":1}',
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_an_empty_400(receiver, name):
    assert ask(receiver, "POST", "/events", REFUSED[name]) == (400, b"")
    assert receiver.shown() == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_takes_events_by_any_method_and_content_type(receiver, method):
    got = ask(receiver, method, "/events", b'{"code":1}', {"Content-Type": "text/x"})
    assert got == (200, b"") and receiver.shown() == [("user.1", "", "")]


def test_every_source_address_is_a_device_of_its_own(receiver):
    for address in ("127.0.0.1", "127.0.0.2"):
        connection = http.client.HTTPConnection(*receiver.server_address,
                                                source_address=(address, 0))
        try:
            connection.request("POST", "/events", json.dumps({"message": address}))
        except OSError:
            pytest.skip("this system has one loopback address")
        assert connection.getresponse().status == 200
        connection.close()
    assert receiver.shown("127.0.0.1") == [("user.0", "", "127.0.0.1")]
    assert receiver.shown("127.0.0.2") == [("user.0", "", "127.0.0.2")]
    page = get(receiver.url).decode()
    assert "127.0.0.1" in page and "127.0.0.2" in page


def test_read_event_never_raises_but_for_value_errors():
    import random
    dice = random.Random(1)
    for _ in range(3000):
        body = bytes(dice.choice(b'{}[]":,\\ucode1.-e+statmg \xff\xef\n') for _ in
                     range(dice.randrange(30)))
        try:
            event = read_event(body)
        except ValueError:
            continue
        assert set(event) == {"state", "code", "message"}


def test_an_event_with_the_same_key_is_kept_once_for_each_device(tmp_path):
    data = str(tmp_path / "events")
    key = {"Idempotency-Key": '"0123"'}
    for _ in range(2):
        with Receiver(data=data) as receiver:
            for _ in range(2):
                assert ask(receiver, "POST", "/events", b"{}", key) == (200, b"")
            receiver.put("127.0.0.2", {"state": "", "code": 1, "message": ""}, '"0123"')
    with Receiver(data=data) as receiver:
        assert (len(receiver.shown()), len(receiver.shown("127.0.0.2"))) == (1, 1)
        for _ in range(2):
            assert ask(receiver, "POST", "/events", b"{}") == (200, b"")
        assert len(receiver.shown()) == 3


@pytest.mark.parametrize("key", ["", " ", "\t "], ids=repr)
def test_an_empty_key_is_none(receiver, key):
    for _ in range(2):
        assert ask(receiver, "POST", "/events", b"{}", {"Idempotency-Key": key}) == (200, b"")
    assert len(receiver.shown()) == 2


def test_phoning_home_is_on_the_timeline_and_changes_no_state(receiver):
    home = read_json(receiver, "/metadata")["phone_home_url"]
    path = home[len(receiver.url):]
    assert ask(receiver, "POST", path, b"instance_id=i&hostname=h") == (200, b"")
    assert receiver.shown() == [("phone_home", "", "phoned home")]
    assert "phone_home" in get(receiver.url).decode()
    receiver.put("127.0.0.1", state("failed", 1020, "x"))
    assert ask(receiver, "POST", path)[0] == 200
    device, = read_json(receiver, "/devices")["devices"]
    assert (device["state"], device["type"], device["events"]) == ("failed", "user.1020", 3)
