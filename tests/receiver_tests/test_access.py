"""Who may do what: addresses that are known, pages of other sites, host names, proxies."""
import json
import re
import signal
import socket

import pytest

from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    event,
    post,
    read_page,
    requested,
)


def test_drops_the_events_of_unknown_addresses_and_says_200():
    with Receiver(only=["127.0.0.9"]) as receiver:
        assert post(receiver) == TAKEN
        assert post(receiver, b"[]") == (400, b"")
        status, body = ask(receiver, "GET", "/metadata")
        assert status == 404
        assert json.loads(body.decode()) == {"message": "resource not found"}
        assert "No event yet" in read_page(receiver)


def test_says_now_and_then_whose_events_are_dropped(settings, capsys):
    settings(WARN_MOST=2)
    with Receiver(only=["127.0.0.9"]) as receiver:
        for address in ("127.0.0.1", "::1", "127.0.0.1", "127.0.0.9", "10.0.0.1"):
            receiver.put(address, event("", 0))
        assert capsys.readouterr().err == (
            "service: an event of 127.0.0.1 was dropped: it is not in --only\n"
            "service: an event of ::1 was dropped: it is not in --only\n")
        settings(WARN_EVERY=-1)
        assert post(receiver) == TAKEN
        assert capsys.readouterr().err == (
            "service: an event of 127.0.0.1 was dropped: it is not in --only\n")


def test_says_that_whoever_reaches_it_can_post_and_read():
    with ReceiverProcess("--host", "0.0.0.0") as receiver:
        done = receiver.end(signal.SIGTERM)
        assert re.fullmatch(r"service: whoever reaches http://0.0.0.0:\d+ can post and read\n",
                            done.err)


def with_host(headers, receiver):
    """Return headers with the host and port of the receiver in place of HOST."""
    host = "{}:{}".format(*receiver.server_address)
    return {name: value.replace("HOST", host) for name, value in headers.items()}


WRITES = [("POST", "/events"), ("PUT", "/events"), ("POST", "/phone-home")]
OWN = [{"Origin": "http://HOST"}, {"Sec-Fetch-Site": "same-origin"}, {"Sec-Fetch-Site": "none"}]
FOREIGN = [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": ""},
           {"Origin": "http://HOST.evil.example"}, {"Origin": "http://127.0.0.1:1"},
           {"Sec-Fetch-Site": "cross-site"}]


@pytest.mark.parametrize("method, path", WRITES)
@pytest.mark.parametrize("headers", OWN, ids=str)
def test_a_page_of_its_own_can_write(receiver, headers, method, path):
    assert ask(receiver, method, path, b"{}", with_host(headers, receiver)) == TAKEN
    assert len(receiver.shown()) == 1


@pytest.mark.parametrize("method, path", WRITES)
@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_a_page_of_another_site_cannot_write(receiver, headers, method, path):
    assert ask(receiver, method, path, b"{}", with_host(headers, receiver))[0] == 403
    assert receiver.shown() == []


@pytest.mark.parametrize("headers", OWN + FOREIGN, ids=str)
def test_a_link_on_any_site_leads_to_the_page(receiver, headers):
    assert ask(receiver, "GET", "/", headers=with_host(headers, receiver))[0] == 200


@pytest.mark.parametrize("method, path", [
    ("GET", "/"), ("GET", "/devices"), ("OPTIONS", "/events"), ("GET", "/metadata"),
    ("GET", "/devices/127.0.0.1/events")])
def test_no_answer_lets_a_page_of_another_site_read_it(receiver, method, path):
    with requested(receiver, method, path, None, {"Origin": "http://evil.example"}) as reply:
        names = [name.lower() for name in reply.headers]
        assert "date" in names
        assert not [name for name in names if name.startswith("access-control")]


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("LOCALHOST.:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200),
    ("192.0.2.1", 200), ("metadata.example", 200), ("Metadata.Example:1", 200), ("", 200),
    ("evil.example", 403), ("evil.example:80", 403), ("127.0.0.1.evil.example", 403),
    ("localhost.evil.example", 403), ("[::1", 403), ("a:b", 403)])
def test_answers_only_to_its_own_names(host, status):
    with Receiver(host_names=["metadata.example"]) as receiver:
        for method, path in (("GET", "/metadata"), ("POST", "/events"), ("GET", "/"),
                             ("GET", "/devices")):
            assert ask(receiver, method, path, b"{}", {"Host": host})[0] == status


def test_answers_to_the_name_of_the_machine(receiver):
    assert ask(receiver, "GET", "/", headers={"Host": socket.gethostname()})[0] == 200


PROXIES = {  # the proxy that is trusted, what it forwards; the device, the scheme of its URLs
    "an address": ("127.0.0.1", {"X-Forwarded-For": "10.0.0.7"}, "10.0.0.7", "https"),
    "the last of two addresses": (
        "127.0.0.1", {"X-Forwarded-For": "6.6.6.6, 10.0.0.7"}, "10.0.0.7", "https"),
    "IPv4 in IPv6": (
        "127.0.0.1", {"X-Forwarded-For": "::ffff:10.0.0.7"}, "10.0.0.7", "https"),
    "IPv6": ("127.0.0.1", {"X-Forwarded-For": "2001:DB8::1"}, "2001:db8::1", "https"),
    "nothing": ("127.0.0.1", {}, "127.0.0.1", "https"),
    "an address, but another is trusted": (
        "10.0.0.1", {"X-Forwarded-For": "10.0.0.7"}, "127.0.0.1", "http"),
    "an address, but none is trusted": (
        None, {"X-Forwarded-For": "10.0.0.7"}, "127.0.0.1", "http"),
}


@pytest.mark.parametrize("proxy, headers, device, scheme", PROXIES.values(), ids=PROXIES.keys())
def test_believes_a_proxy_that_is_trusted(proxy, headers, device, scheme):
    with Receiver(proxy=proxy) as receiver:
        assert post(receiver, b"{}", headers) == TAKEN
        assert len(receiver.shown(device)) == 1
        _, body = ask(receiver, "GET", "/metadata", None, dict(
            headers, **{"X-Forwarded-Proto": "https", "Host": "localhost"}))
        document = json.loads(body.decode())
        assert document["id"] == receiver.device(device)
        assert document["user_state_url"] == f"{scheme}://localhost/events"


@pytest.mark.parametrize("forwarded", ["unknown", "10.0.0.7, ", ""])
def test_a_proxy_that_names_no_device_is_a_400(forwarded):
    with Receiver(proxy="127.0.0.1") as receiver:
        assert post(receiver, b"{}", {"X-Forwarded-For": forwarded})[0] == 400
