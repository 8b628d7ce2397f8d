"""Who may do what: origins, hosts, proxies, --only, TLS."""
import http.client
import json
import re
import signal
import socket
import ssl
import urllib.request

import pytest

import service
from support.receivers import Process, Receiver, ask, get
from support.waiting import wait_for


def test_drops_the_events_of_unknown_addresses_and_says_200():
    with Receiver(only=["127.0.0.9"]) as receiver:
        assert ask(receiver, "POST", "/events", b"{}") == (200, b"")
        assert ask(receiver, "POST", "/events", b"[]") == (400, b"")
        status, body = ask(receiver, "GET", "/metadata")
        assert (status, json.loads(body.decode())) == (
            404, {"message": "resource not found"})
        assert "No event yet" in get(receiver.url).decode()


def test_says_now_and_then_whose_events_are_dropped(monkeypatch, capsys):
    monkeypatch.setattr(service, "WARN_MOST", 2)
    with Receiver(only=["127.0.0.9"]) as receiver:
        for address in ("127.0.0.1", "::1", "127.0.0.1", "127.0.0.9", "10.0.0.1"):
            receiver.put(address, {"state": "", "code": 0, "message": ""})
        assert capsys.readouterr().err == "".join(
            f"service: an event of {address} was dropped: it is not in --only\n"
            for address in ("127.0.0.1", "::1"))
        monkeypatch.setattr(service, "WARN_EVERY", -1)
        assert ask(receiver, "POST", "/events", b"{}") == (200, b"")
        assert "of 127.0.0.1 was dropped" in capsys.readouterr().err


@pytest.mark.parametrize("headers, status", [
    ({"Origin": "http://evil.example"}, 403), ({"Origin": "null"}, 403),
    ({"Origin": "http://{host}.evil.example"}, 403), ({"Origin": "http://127.0.0.1:1"}, 403),
    ({"Origin": ""}, 403), ({"Origin": "http://{host}"}, 200),
    ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-origin"}, 200),
    ({"Sec-Fetch-Site": "none"}, 200)], ids=str)
def test_a_page_of_another_site_cannot_write(receiver, headers, status):
    host = "{}:{}".format(*receiver.server_address)
    headers = {name: value.replace("{host}", host) for name, value in headers.items()}
    for path in ("/events", "/phone-home"):
        for method in ("POST", "PUT") if path == "/events" else ("POST",):
            receiver.store.writer.execute("DELETE FROM events")
            assert ask(receiver, method, path, b"{}", headers)[0] == status
            assert len(receiver.shown()) == (status == 200)
    assert ask(receiver, "GET", "/", None, headers)[0] == 200


def test_no_answer_lets_a_page_of_another_site_read_it(receiver):
    for method, path in (("GET", "/"), ("GET", "/devices"), ("OPTIONS", "/events"),
                         ("GET", "/metadata"), ("GET", "/devices/127.0.0.1/events")):
        request = urllib.request.Request(receiver.url + path, method=method,
                                         headers={"Origin": "http://evil.example"})
        try:
            with urllib.request.urlopen(request) as reply:
                headers = reply.headers
        except urllib.error.HTTPError as error:
            headers = error.headers
            error.close()
        assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("host, status", [
    ("evil.example", 403), ("evil.example:80", 403), ("127.0.0.1.evil.example", 403),
    ("localhost.evil.example", 403), ("[::1", 403), ("a:b", 403), ("localhost", 200),
    ("LOCALHOST.:8000", 200), ("127.0.0.1", 200), ("[::1]:8000", 200), ("192.0.2.1", 200),
    ("metadata.example", 200), ("Metadata.Example:1", 200), ("", 200)])
def test_answers_only_to_its_own_names(host, status):
    with Receiver(host_names=["metadata.example"]) as receiver:
        for method, path in (("GET", "/metadata"), ("POST", "/events"), ("GET", "/"),
                             ("GET", "/devices")):
            assert ask(receiver, method, path, b"{}", {"Host": host})[0] == status


def test_answers_to_the_name_of_the_machine(receiver):
    assert ask(receiver, "GET", "/", None, {"Host": socket.gethostname()})[0] == 200


@pytest.mark.parametrize("proxy, forwarded, device", [
    ("127.0.0.1", "10.0.0.7", "10.0.0.7"), ("127.0.0.1", "6.6.6.6, 10.0.0.7", "10.0.0.7"),
    ("127.0.0.1", "::ffff:10.0.0.7", "10.0.0.7"), ("127.0.0.1", "2001:DB8::1", "2001:db8::1"),
    ("127.0.0.1", None, "127.0.0.1"), ("10.0.0.1", "10.0.0.7", "127.0.0.1"),
    (None, "10.0.0.7", "127.0.0.1")])
def test_believes_a_proxy_that_is_trusted(proxy, forwarded, device):
    headers = {"X-Forwarded-For": forwarded} if forwarded else {}
    with Receiver(proxy=proxy) as receiver:
        assert ask(receiver, "POST", "/events", b"{}", headers) == (200, b"")
        assert len(receiver.shown(device)) == 1
        _, body = ask(receiver, "GET", "/metadata", None,
                      dict(headers, **{"X-Forwarded-Proto": "https", "Host": "localhost"}))
        document = json.loads(body.decode())
        assert document["id"] == receiver.device(device)
        assert document["user_state_url"].partition(":")[0] == (
            "https" if proxy == "127.0.0.1" else "http")


def test_a_proxy_that_names_no_device_is_a_400():
    with Receiver(proxy="127.0.0.1") as receiver:
        for forwarded in ("unknown", "10.0.0.7, ", ""):
            assert ask(receiver, "POST", "/events", b"{}",
                       {"X-Forwarded-For": forwarded})[0] == 400


def test_serves_https_beside_a_client_that_hangs_in_the_handshake(certificate, monkeypatch):
    monkeypatch.setattr(service, "LOOK_EVERY", 0.05)
    context = ssl.create_default_context(cafile=certificate[0])
    with Receiver(tls=service.read_tls(*certificate)) as receiver, \
            socket.create_connection(receiver.server_address) as hanging:
        assert receiver.url.startswith("https://")
        hanging.sendall(b"\x16\x03\x01")
        connection = http.client.HTTPSConnection(*receiver.server_address, context=context)
        connection.request("GET", "/metadata")
        document = json.loads(connection.getresponse().read().decode())
        assert document["user_state_url"] == receiver.url + "/events"
        connection.request("POST", "/events", b'{"code":1000}')
        assert connection.getresponse().status == 200
        assert receiver.shown() == [("user.1000", "", "")]
        connection.request("GET", "/devices/10.0.0.1/wait")
        wait_for(lambda: receiver.waiting)
        connection.close()
        wait_for(lambda: not receiver.waiting)


def test_says_that_whoever_reaches_it_can_post_and_read():
    with Process("--host", "0.0.0.0") as own:
        own.end(signal.SIGTERM)
        assert re.fullmatch(r"service: whoever reaches http://0.0.0.0:\d+ can post and read\n",
                            own.errors())
