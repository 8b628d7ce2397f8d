"""Who may DELETE a machine, and what is left of it."""
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
    post,
    read_json,
)

PROXIED = {"X-Forwarded-For": "10.0.0.7"}


def delete(receiver, machine, headers=(), source=None):
    return ask(receiver, "DELETE", f"/devices/{machine}", None, headers, source)[0]


@pytest.fixture
def told(receiver):
    """A receiver that knows three machines with two events each."""
    for machine in ("10.0.0.1", "10.0.0.2", "web-01"):
        receiver.tell(machine, event("running"))
        receiver.tell(machine, event("failed" if machine == "web-01" else "succeeded"))
    return receiver


@pytest.mark.parametrize("name", ["10.0.0.1", "::ffff:10.0.0.1", device_id("10.0.0.1")])
def test_forgets_a_machine_and_counts_right(told, name):
    assert delete(told, name) == 204
    answer = read_json(told, "/devices")
    assert [device["device"] for device in answer["devices"]] == ["web-01", "10.0.0.2"]
    assert answer["counts"]["failed"] == answer["counts"]["succeeded"] == 1
    assert answer["meta"]["total"] == 2
    assert read_json(told, "/events")["meta"]["total"] == 4
    step, = read_json(told, "/steps")["steps"]
    assert (step["succeeded"], step["failed"]) == (1, 1)
    for path in ("", "/events", "/steps"):
        assert ask(told, "GET", f"/devices/10.0.0.1{path}")[0] == 404


@pytest.mark.parametrize("count", [9, 10])
def test_forgets_a_few_events_at_a_time_so_that_others_wait_for_little(count, settings):
    settings(SWEEP_MOST=3)
    with Receiver() as receiver:
        for number in range(count):
            receiver.tell("10.0.0.1", event("running", 1000 + number))
            receiver.tell("10.0.0.2", event("running", 1000 + number))
        deleted = []
        delete_events = receiver.store._delete_events
        receiver.store._delete_events = lambda writer, batch, numbers: (
            deleted.append(len(numbers)), delete_events(writer, batch, numbers))
        assert delete(receiver, "10.0.0.1") == 204
        assert delete(receiver, "10.0.0.1") == 404
        assert deleted == [3, 3, 3]  # the last one goes with the machine
        assert receiver.shown("10.0.0.1") == []
        assert len(receiver.shown("10.0.0.2")) == count
        assert receiver.execute("SELECT count(*) FROM steps") == [(count,)]


def test_forgets_a_name_and_takes_it_again(told):
    assert delete(told, "WEB-01") == 204
    assert ask(told, "POST", "/devices/web-01/events", b'{"state":"running"}') == TAKEN
    assert told.shown("web-01") == [("user.0", "running", "")]
    assert read_json(told, "/devices")["counts"]["failed"] == 0


@pytest.mark.parametrize("name", ["10.0.0.3", "nobody", "a+b", device_id("10.0.0.3")])
def test_a_machine_that_is_not_there_is_a_404(told, name):
    assert delete(told, name) == 404
    assert read_json(told, "/devices")["meta"]["total"] == 3


def test_an_id_that_has_never_reported_is_a_404_twice(told):
    assert [delete(told, "10.0.0.2") for _ in range(2)] == [204, 404]


def test_deletes_for_any_address_of_its_own_host(told):
    assert delete(told, "10.0.0.1", source="127.0.0.9") == 204


def test_a_parameter_is_refused_and_nothing_deleted(told):
    assert ask(told, "DELETE", "/devices/10.0.0.1?force=1")[0] == 400
    assert len(told.shown("10.0.0.1")) == 2


@pytest.mark.parametrize("allow, status", [(False, 403), (True, 204)])
def test_another_host_may_not_delete_unless_that_is_allowed(allow, status, capsys):
    with Receiver(proxy="127.0.0.1", allow_delete=allow) as receiver:
        assert post(receiver) == TAKEN
        assert delete(receiver, "127.0.0.1", PROXIED) == status
        assert len(receiver.shown()) == (0 if allow else 1)
    assert ("--allow-delete" in capsys.readouterr().err) == (not allow)


@pytest.mark.parametrize("headers", [
    {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
    {"Host": "evil.example"}, {"Host": "evil.example", "Origin": "http://evil.example"}],
    ids=str)
def test_a_page_of_another_site_cannot_delete(told, headers):
    assert delete(told, "10.0.0.1", headers) == 403
    assert len(told.shown("10.0.0.1")) == 2


def test_the_option_allows_it_and_its_own_address_is_its_own_host():
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            own = probe.getsockname()[0]
    except OSError:
        pytest.skip("this host has no address but the loopback")
    with ReceiverProcess("--host", own) as receiver:
        assert post(receiver) == TAKEN
        assert delete(receiver, own) == 204
    with ReceiverProcess("--allow-delete", "--trust-proxy", "127.0.0.1") as receiver:
        assert post(receiver) == TAKEN
        assert delete(receiver, "127.0.0.1", PROXIED) == 204
        assert receiver.end(signal.SIGTERM) == (0, "", "")
