"""Who may do what: addresses that are known, pages of other sites, host names, proxies."""
import json
import signal
import socket

import pytest

from receiver.machines import device_id
from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    event,
    exchange,
    post,
    read_json,
    requested,
)


def test_drops_the_events_of_unknown_addresses_and_says_200():
    with Receiver(only=["127.0.0.9"]) as receiver:
        assert post(receiver) == TAKEN
        assert post(receiver, b"[]") == (400, b"")
        status, body = ask(receiver, "GET", "/metadata")
        assert status == 404
        assert json.loads(body.decode()) == {"message": "resource not found"}
        assert read_json(receiver, "/events")["events"] == []


def test_says_now_and_then_whose_events_are_dropped(settings, capsys):
    settings(WARN_MOST=2)
    with Receiver(only=["127.0.0.9"]) as receiver:
        for address in ("127.0.0.1", "::1", "127.0.0.1", "127.0.0.9", "10.0.0.1"):
            receiver.tell(address, event("", 0))
        assert capsys.readouterr().err == (
            "receiver: an event of 127.0.0.1 was dropped: it is not in --only\n"
            "receiver: an event of ::1 was dropped: it is not in --only\n")
        settings(WARN_EVERY=-1)
        assert post(receiver) == TAKEN
        assert capsys.readouterr().err == (
            "receiver: an event of 127.0.0.1 was dropped: it is not in --only\n")


def test_says_that_whoever_reaches_it_can_post_and_read():
    with ReceiverProcess("--host", "0.0.0.0") as receiver:
        done = receiver.end(signal.SIGTERM)
        assert done.err == f"receiver: whoever reaches {receiver.url} can post and read\n"


def with_host(headers, receiver):
    """Return headers with the host and port of the receiver in place of HOST."""
    host = "{}:{}".format(*receiver.server_address)
    return {name: value.replace("HOST", host) for name, value in headers.items()}


WRITES = [("POST", "/events"), ("PUT", "/events"), ("POST", "/phone-home"),
          ("POST", "/devices/127.0.0.1/events"), ("PUT", "/devices/127.0.0.1/events"),
          ("POST", "/devices/127.0.0.1/phone-home")]
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


FOR_MACHINES = [("GET", "/metadata"), ("GET", "/devices/web-01/metadata"),
                ("POST", "/events"), ("POST", "/devices/web-01/events"),
                ("POST", "/phone-home"), ("POST", "/devices/web-01/phone-home"),
                ("GET", "/userstate.py"), ("GET", "/user-data"),
                ("GET", "/devices/web-01/user-data"), ("GET", "/healthz")]
FOR_PEOPLE = [("GET", "/"), ("GET", "/devices"), ("GET", "/devices/web-01"), ("GET", "/steps"),
              ("GET", "/devices/web-01/events"), ("GET", "/devices/web-01/steps"),
              ("GET", "/devices/web-01/wait?timeout=0"), ("GET", "/events"),
              ("GET", "/install"), ("GET", "/events.csv"), ("GET", "/devices.csv"),
              ("GET", "/metrics"), ("DELETE", "/devices/web-01"), ("GET", "/nothing")]
OWN_HOSTS = ["localhost", "LOCALHOST.:8000", "127.0.0.1", "[::1]:8000", "192.0.2.1",
             "[fe80::1%eth0]", "metadata.example", "Metadata.Example:1", ""]
FOREIGN_HOSTS = ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "1.2.3.4.5",
                 "localhost.evil.example", "metadata.example.evil.example", "[1.2]"]
MALFORMED_HOSTS = ["[::1", "a:b", "a:123456", "a b", "a/b", "user@localhost", "localhost, b",
                   "[evil.example]", "<b>", "http://localhost", "\xff"]


@pytest.fixture
def named_receiver():
    with Receiver(host_names=["metadata.example"]) as receiver:
        yield receiver


def answers(receiver, requests, headers):
    """Return the statuses of these requests, each with a body."""
    return {ask(receiver, method, path, b"{}", headers)[0] for method, path in requests}


@pytest.mark.parametrize("host", OWN_HOSTS + FOREIGN_HOSTS)
def test_a_machine_may_ask_by_any_name(named_receiver, host):
    assert answers(named_receiver, FOR_MACHINES, {"Host": host}) == {200}


@pytest.mark.parametrize("host", OWN_HOSTS)
def test_people_may_ask_by_the_names_of_the_receiver(named_receiver, host):
    ask(named_receiver, "POST", "/devices/web-01/events", b"{}")
    assert 403 not in answers(named_receiver, FOR_PEOPLE, {"Host": host})


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_what_a_browser_could_read_is_for_the_names_of_the_receiver(named_receiver, host):
    ask(named_receiver, "POST", "/devices/web-01/events", b"{}")
    assert answers(named_receiver, FOR_PEOPLE, {"Host": host}) == {403}
    assert len(named_receiver.shown("web-01")) == 1  # nothing was deleted


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_page_by_a_foreign_name_cannot_write_though_it_is_its_own(named_receiver, host):
    headers = {"Host": host, "Origin": f"http://{host}"}
    writing = [("POST", path) for method, path in FOR_MACHINES if method == "POST"]
    assert answers(named_receiver, writing, headers) == {403}
    assert named_receiver.store.last() == 0


@pytest.mark.parametrize("host", MALFORMED_HOSTS)
def test_a_malformed_host_is_a_400_for_all(named_receiver, host):
    assert answers(named_receiver, FOR_MACHINES + FOR_PEOPLE, {"Host": host}) == {400}
    assert named_receiver.store.last() == 0


def test_two_hosts_are_a_400(receiver):
    answer = exchange(receiver, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: a.example\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")


def test_the_refusal_of_a_page_says_which_option_to_give(receiver):
    status, body = ask(receiver, "GET", "/", headers={"Host": "boot.example:8000"})
    assert status == 403
    assert json.loads(body.decode()) == {"errors": [
        "Host: if boot.example:8000 is this receiver, start it with --host-name"]}


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
        assert document["id"] == device_id(device)
        assert document["user_state_url"] == f"{scheme}://localhost/events"


@pytest.mark.parametrize("forwarded", ["unknown", "10.0.0.7, ", ""])
def test_a_proxy_that_names_no_device_is_a_400(forwarded):
    with Receiver(proxy="127.0.0.1") as receiver:
        assert post(receiver, b"{}", {"X-Forwarded-For": forwarded})[0] == 400
