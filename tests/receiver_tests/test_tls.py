"""The receiver behind https."""
import http.client
import json
import ssl
from contextlib import closing

import pytest

from support.receivers import Receiver, connect
from support.waiting import wait_for


@pytest.fixture
def tls_receiver(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(authority / "good"))
    with Receiver(tls=context) as receiver:
        yield receiver


@pytest.fixture
def connection(tls_receiver, authority):
    """A connection to the receiver, as http.client has it."""
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    with closing(http.client.HTTPSConnection(*tls_receiver.server_address, context=context,
                                             timeout=10)) as connection:
        yield connection


def test_takes_events_by_https_and_points_to_it(tls_receiver, connection):
    assert tls_receiver.url.startswith("https://")
    connection.request("GET", "/metadata")
    document = json.loads(connection.getresponse().read().decode())
    assert document["user_state_url"] == tls_receiver.url + "/events"
    connection.request("POST", "/events", b'{"code":1000}')
    assert connection.getresponse().status == 200
    assert tls_receiver.shown() == [("user.1000", "", "")]


def test_serves_beside_a_client_that_hangs_in_the_handshake(tls_receiver, connection):
    with connect(tls_receiver) as hanging:
        hanging.sendall(b"\x16\x03\x01")
        wait_for(lambda: tls_receiver.serving)
        connection.request("POST", "/events", b'{"code":1000}')
        assert connection.getresponse().status == 200
        assert tls_receiver.shown() == [("user.1000", "", "")]


def test_who_waits_by_https_is_told_503_when_the_receiver_ends(authority):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(str(authority / "good"))
    context = ssl.create_default_context(cafile=str(authority / "ca.pem"))
    with Receiver(tls=tls) as receiver:
        connection = http.client.HTTPSConnection(*receiver.server_address, context=context,
                                                 timeout=10)
        connection.request("GET", "/devices/web-01/wait")
        wait_for(lambda: receiver.waiting)
    with closing(connection), connection.getresponse() as reply:
        assert (reply.status, reply.getheader("Retry-After")) == (503, "5")
        assert b"the receiver ends" in reply.read()


def test_a_machine_by_name_is_pointed_to_https(tls_receiver, connection):
    connection.request("GET", "/devices/WEB-01/metadata")
    document = json.loads(connection.getresponse().read().decode())
    assert document["user_state_url"] == tls_receiver.url + "/devices/web-01/events"
    connection.request("GET", "/user-data")
    script = connection.getresponse().read().decode()
    assert f"PROGRAM={tls_receiver.url}/userstate.py\n" in script


def test_notices_that_a_client_that_waited_has_gone(tls_receiver, connection, settings):
    settings(LOOK_EVERY=0.05)
    connection.request("GET", "/devices/10.0.0.1/wait")
    wait_for(lambda: tls_receiver.waiting)
    connection.close()
    wait_for(lambda: not tls_receiver.waiting)
