"""Which machine it is: a name in the address, a name of --names, or the source address."""
import json
import uuid

import pytest

from receiver.machines import device_id
from support.processes import run
from support.receivers import TAKEN, Receiver, ask, event, post, read_json

SERIAL = "cz-3.2_j:7"
OTHERS = ["127.0.0.2", "127.0.0.3"]  # more source addresses of the loopback


def machines(receiver):
    """Return {machine: (address, number of events)} of all that have reported."""
    return {device["device"]: (device["ip"], device["events"])
            for device in read_json(receiver, "/devices")["devices"] if device["events"]}


def document(receiver, path, headers=(), source=None):
    status, body = ask(receiver, "GET", path, None, headers, source)
    assert status == 200
    return json.loads(body.decode())


def post_by_name(receiver, name, source=None, body=b"{}"):
    return ask(receiver, "POST", f"/devices/{name}/events", body, source=source)[0]


def test_the_document_of_a_name_leads_to_the_addresses_of_that_name(receiver):
    found = document(receiver, f"/devices/{SERIAL}/metadata", {"Host": "metadata.example:81"})
    base = f"http://metadata.example:81/devices/{SERIAL}"
    assert found["user_state_url"] == base + "/events"
    assert found["phone_home_url"] == base + "/phone-home"
    assert found["hostname"] == SERIAL
    assert found["id"] == device_id(SERIAL)
    assert found["network"]["addresses"][0]["address"] == "127.0.0.1"
    assert document(receiver, "/metadata")["id"] != found["id"]


@pytest.mark.parametrize("name", [
    "a", "0", SERIAL, "x" * 63, "web-01.example.com", "-", "...", "_",
    "4c4c4544-0050-4b10-8032-b9c04f583532", "52:54:00:12:34:56", "52-54-00-12-34-56",
    "%77eb%2D01"])
def test_takes_names_of_letters_digits_and_four_marks(receiver, name):
    for path in ("events", "phone-home"):
        assert ask(receiver, "POST", f"/devices/{name}/{path}", b"{}") == TAKEN
    machine = name.replace("%77eb%2D01", "web-01")
    assert machines(receiver) == {machine: ("127.0.0.1", 2)}
    assert receiver.shown(machine) == [("user.0", "", ""), ("phone_home", "", "phoned home")]


@pytest.mark.parametrize("name", [
    "x" * 64, "", ".", "..", "a+b", "a%20b", "a%0a", "n%C3%A4", "%ff", "a%2Fb", "a%00",
    "%3Cb%3E", "a@b", "a,b", "%D9%A1", "a;b", "~"])
@pytest.mark.parametrize("method, path", [
    ("POST", "events"), ("POST", "phone-home"), ("GET", "metadata"), ("GET", "user-data"),
    ("GET", "events"), ("GET", "steps"), ("DELETE", "")])
def test_another_name_is_a_404(receiver, name, method, path):
    status, _ = ask(receiver, method, f"/devices/{name}/{path}".rstrip("/"), b"{}")
    assert status == 404
    assert machines(receiver) == {}


def test_a_name_is_lower_cased_everywhere(receiver):
    assert post_by_name(receiver, "WEB-01") == 200
    assert post_by_name(receiver, "Web-01") == 200
    assert machines(receiver) == {"web-01": ("127.0.0.1", 2)}
    found = document(receiver, "/devices/WEB-01/metadata")
    assert found["user_state_url"].endswith("/devices/web-01/events")
    assert found["id"] == document(receiver, "/devices/web-01/metadata")["id"]
    assert len(read_json(receiver, "/devices/wEB-01/events")["events"]) == 2


def test_a_machine_that_changes_its_address_stays_one(receiver):
    for state, source in (("running", None), ("running", OTHERS[0]), ("succeeded", OTHERS[1])):
        body = json.dumps(event(state)).encode()
        assert post_by_name(receiver, SERIAL, source, body) == 200
    assert machines(receiver) == {SERIAL: (OTHERS[1], 3)}
    device, = read_json(receiver, "/devices")["devices"]
    assert device["state"] == "succeeded"
    assert [event["ip"] for event in read_json(receiver, f"/devices/{SERIAL}/events")["events"]
            ] == [OTHERS[1], OTHERS[0], "127.0.0.1"]


def test_two_machines_behind_one_address_are_two(receiver):
    assert post_by_name(receiver, "a", body=b'{"state":"failed"}') == 200
    assert post_by_name(receiver, "b", body=b'{"state":"succeeded"}') == 200
    assert post(receiver, b'{"state":"running"}') == TAKEN
    assert {device["device"]: device["state"]
            for device in read_json(receiver, "/devices")["devices"]} == {
                "a": "failed", "b": "succeeded", "127.0.0.1": "running"}


def test_a_uuid_is_a_name_as_another(receiver):
    product = "4C4C4544-0050-4B10-8032-B9C04F583532"
    assert post_by_name(receiver, product) == 200
    assert machines(receiver) == {product.lower(): ("127.0.0.1", 1)}
    own = read_json(receiver, f"/devices/{product}/metadata")
    assert own["id"] == device_id(product.lower())
    assert uuid.UUID(own["id"]) != uuid.UUID(product)
    assert post_by_name(receiver, own["id"]) == 200  # by which it is known, too
    assert machines(receiver) == {product.lower(): ("127.0.0.1", 2)}


def test_only_an_address_itself_may_post_as_that_address(receiver, capsys):
    for name in ("10.0.0.1", "::FFFF:10.0.0.1", OTHERS[0], "2001:DB8::1"):
        for path in ("events", "phone-home"):
            status, body = ask(receiver, "POST", f"/devices/{name}/{path}", b"{}")
            assert status == 403
            assert "itself may post there" in body.decode()
    assert machines(receiver) == {}
    assert capsys.readouterr().err.count("\n") == 3  # each address once
    assert post_by_name(receiver, "127.0.0.1") == 200
    assert post_by_name(receiver, "::ffff:127.0.0.1") == 200
    assert post_by_name(receiver, OTHERS[0], OTHERS[0]) == 200
    assert machines(receiver) == {"127.0.0.1": ("127.0.0.1", 2), OTHERS[0]: (OTHERS[0], 1)}


def test_the_id_of_an_address_is_that_address(receiver):
    receiver.tell("10.0.0.1", event("running"))
    assert post_by_name(receiver, device_id("10.0.0.1")) == 403
    assert post(receiver) == TAKEN
    assert post_by_name(receiver, device_id("127.0.0.1")) == 200
    assert machines(receiver)["127.0.0.1"] == ("127.0.0.1", 2)


def test_the_document_of_an_address_is_for_all_and_events_from_there_only(receiver):
    found = document(receiver, "/devices/10.0.0.1/metadata")
    assert found["id"] == device_id("10.0.0.1")
    assert found["user_state_url"] == receiver.url + "/devices/10.0.0.1/events"


def test_behind_a_proxy_the_forwarded_address_decides_who_may_post():
    with Receiver(proxy="127.0.0.1") as receiver:
        for forwarded, status in (("10.0.0.7", 200), ("10.0.0.8", 403)):
            assert ask(receiver, "POST", "/devices/10.0.0.7/events", b"{}",
                       {"X-Forwarded-For": forwarded})[0] == status
        assert machines(receiver) == {"10.0.0.7": ("10.0.0.7", 1)}


def test_a_name_of_the_file_does_what_its_address_does():
    with Receiver(names={"127.0.0.1": "Web-01", "10.0.0.2": "web-02"}) as receiver:
        assert post(receiver) == TAKEN
        assert post_by_name(receiver, "web-01") == 200
        assert post_by_name(receiver, "web-02") == 403
        assert machines(receiver) == {"127.0.0.1": ("127.0.0.1", 2)}
        for name in ("web-01", "WEB-01", "127.0.0.1", device_id("127.0.0.1")):
            assert len(read_json(receiver, f"/devices/{name}/events")["events"]) == 2
            assert document(receiver, f"/devices/{name}/metadata")["hostname"] == "Web-01"
            for path in ("", "/steps", "/user-data"):
                assert ask(receiver, "GET", f"/devices/{name}{path}")[0] == 200
            assert ask(receiver, "GET", f"/devices/{name}/wait?timeout=0")[0] == 504
        assert ask(receiver, "DELETE", "/devices/web-01")[0] == 204
        assert machines(receiver) == {}


def test_a_machine_without_a_name_has_none(receiver):
    assert post(receiver) == TAKEN
    assert post_by_name(receiver, "web-01") == 200
    assert {device["device"]: device["hostname"]
            for device in read_json(receiver, "/devices")["devices"]} == {
                "127.0.0.1": None, "web-01": "web-01"}


def test_the_program_reports_by_the_name_in_the_address(receiver):
    url = f"{receiver.url}/devices/{SERIAL.upper()}/metadata"
    done = run("--metadata-url", url, "running", "1000", "partitioning")
    assert done.status == 0, done
    done = run("succeeded", "1000", "done", env={"USERSTATE_METADATA_URL": url})
    assert done.status == 0, done
    assert receiver.shown(SERIAL) == [("user.1000", "running", "partitioning"),
                                      ("user.1000", "succeeded", "done")]
    assert machines(receiver) == {SERIAL: ("127.0.0.1", 2)}
