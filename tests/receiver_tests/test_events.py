"""What the receiver takes for an event, and what it refuses, as the real service did."""
import json
import random
import socket

import pytest

from receiver.events import VALUES_MOST, read_event
from support.receivers import TAKEN, Receiver, ask, event, post, read_json, read_page

TAKEN_BODIES = {  # the body; the state, code and message that it has
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


@pytest.mark.parametrize("body, state, code, message", TAKEN_BODIES.values(),
                         ids=TAKEN_BODIES.keys())
def test_takes_for_an_event(receiver, body, state, code, message):
    assert post(receiver, body) == TAKEN
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


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_refuses_with_an_empty_400(receiver, body):
    assert post(receiver, body) == (400, b"")
    assert receiver.shown() == []


def test_reads_an_event_or_raises_value_error_whatever_the_bytes():
    dice = random.Random(1)
    letters = b'{}[]":,\\ucode1.-e+statmg \xff\xef\n'
    for _ in range(3000):
        body = bytes(dice.choice(letters) for _ in range(dice.randrange(30)))
        try:
            read = read_event(body)
        except ValueError:
            continue
        assert set(read) == {"state", "code", "message"}


def test_takes_no_event_with_more_values_than_memory_allows():
    few = b'{"code":1,"other":[' + b"1," * (VALUES_MOST - 3) + b"1]}"
    assert read_event(few)["code"] == 1
    for many in (few.replace(b"[1,", b"[1,1,1,"), b'{"code":1' + b',"":0' * VALUES_MOST + b"}",
                 b"{" + b'"\\"":[' * 2 * VALUES_MOST):
        with pytest.raises(ValueError, match="too many values"):
            read_event(many)


def test_what_is_in_a_message_counts_as_no_value():
    text = '[{",' * VALUES_MOST
    assert read_event(json.dumps({"message": text}).encode())["message"] == text


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_takes_events_by_any_method_and_content_type(receiver, method):
    assert ask(receiver, method, "/events", b'{"code":1}', {"Content-Type": "text/x"}) == TAKEN
    assert receiver.shown() == [("user.1", "", "")]


def test_every_source_address_is_a_device_of_its_own(receiver):
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.2", 0))
        except OSError:
            pytest.skip("this system has one loopback address")
    assert post(receiver, b'{"message":"one"}', source="127.0.0.1") == TAKEN
    assert post(receiver, b'{"message":"two"}', source="127.0.0.2") == TAKEN
    assert receiver.shown("127.0.0.1") == [("user.0", "", "one")]
    assert receiver.shown("127.0.0.2") == [("user.0", "", "two")]
    page = read_page(receiver)
    assert "127.0.0.1" in page
    assert "127.0.0.2" in page


def test_an_event_with_the_same_key_is_kept_once_for_each_device(tmp_path):
    data = str(tmp_path / "events")
    key = '"0123"'
    for _ in range(2):
        with Receiver(data=data) as receiver:
            assert post(receiver, b"{}", {"Idempotency-Key": key}) == TAKEN
            assert post(receiver, b"{}", {"Idempotency-Key": key}) == TAKEN
            receiver.tell("127.0.0.2", event("", 1), key)
    with Receiver(data=data) as receiver:
        assert len(receiver.shown("127.0.0.1")) == 1
        assert len(receiver.shown("127.0.0.2")) == 1


def test_events_without_a_key_are_kept_beside_one_that_has_a_key(receiver):
    assert post(receiver, b"{}", {"Idempotency-Key": '"0123"'}) == TAKEN
    assert post(receiver) == TAKEN
    assert post(receiver) == TAKEN
    assert len(receiver.shown()) == 3


@pytest.mark.parametrize("key", ["", " ", "\t "], ids=repr)
def test_an_empty_key_is_none(receiver, key):
    assert post(receiver, b"{}", {"Idempotency-Key": key}) == TAKEN
    assert post(receiver, b"{}", {"Idempotency-Key": key}) == TAKEN
    assert len(receiver.shown()) == 2


def phone_home(receiver, body=None):
    home = read_json(receiver, "/metadata")["phone_home_url"]
    assert home.startswith(receiver.url + "/")
    return ask(receiver, "POST", home[len(receiver.url):], body)


def test_phoning_home_is_on_the_timeline(receiver):
    assert phone_home(receiver, b"instance_id=i&hostname=h") == TAKEN
    assert receiver.shown() == [("phone_home", "", "phoned home")]
    assert "phone_home" in read_page(receiver)


def test_phoning_home_changes_no_state(receiver):
    assert phone_home(receiver) == TAKEN
    receiver.tell("127.0.0.1", event("failed", 1020, "x"))
    assert phone_home(receiver) == TAKEN
    device, = read_json(receiver, "/devices")["devices"]
    assert (device["state"], device["type"], device["events"]) == ("failed", "user.1020", 3)


@pytest.mark.parametrize("body, reason", [
    (b"[" + b'""' * 30000 + b"]", "too many values"), (b"[" * 20000, "too many values"),
    (b"[]", "no object"), (b"3", "no object"), (b'{"code": "1"}', "code")], ids=range(5))
def test_the_reason_of_a_refusal_is_told(body, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        read_event(body)
