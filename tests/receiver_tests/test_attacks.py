"""What an attack on the receiver found, where no other file has the subject."""
import collections
import concurrent.futures
import json
import os
import signal
import subprocess
import sys

import pytest

from receiver.events import STEPS_MOST
from receiver.lines import WARN_CLIENT_MOST
from receiver.machines import device_id
from support.processes import ended, start_command
from support.receivers import (
    RECEIVER_SCRIPT,
    TAKEN,
    Receiver,
    ask,
    connect,
    event,
    exchange,
    held,
    post,
    query,
    read_json,
    read_page,
    read_to_end,
    start_receiver,
)
from support.stories import Clock, run_of
from support.waiting import wait_for

NAMES = {"127.0.0.1": "web-01"}
EVENT = json.dumps(event("running")).encode()
Address = collections.namedtuple("Address", "server_address")  # of whom ask() asks


@pytest.mark.parametrize("only", ["web-01", "WEB-01", "127.0.0.1"])
@pytest.mark.parametrize("path", ["/events", "/devices/web-01/events"])
def test_a_name_of_only_is_the_machine_that_names_says(only, path):
    with Receiver(names=NAMES, only=[only]) as receiver:
        assert ask(receiver, "GET", path.replace("events", "metadata"))[0] == 200
        assert ask(receiver, "POST", path, EVENT) == TAKEN
        assert [state for _, state, _ in receiver.shown()] == ["running"]
        assert read_json(receiver, "/devices")["counts"]["never"] == 0


def test_a_receiver_without_stderr_refuses_as_another():
    command = f"exec '{sys.executable}' -B '{RECEIVER_SCRIPT}' --port 0 2>&-"
    process = start_command("sh", "-c", command, stdout=subprocess.PIPE)
    url = process.stdout.readline().decode().split()[-1]
    receiver = Address(("127.0.0.1", int(url.rstrip("/").rpartition(":")[2])))
    assert ask(receiver, "GET", "/?x=1")[0] == 400
    assert post(receiver, b"no event")[0] == 400
    process.terminate()
    assert ended(process).status == 0


def test_one_client_does_not_silence_the_lines_of_others(receiver, capsys):
    for number in range(3 * WARN_CLIENT_MOST):
        assert ask(receiver, "GET", f"/?x{number}=1")[0] == 400
    assert len(capsys.readouterr().err.splitlines()) == WARN_CLIENT_MOST
    assert post(receiver, b"no event", source="127.0.0.77")[0] == 400
    receiver.warnings.warn("the database fails")
    assert [line[:24] for line in capsys.readouterr().err.splitlines()] == [
        "receiver: refused 127.0.", "receiver: the database f"]


def test_an_end_of_a_step_that_was_forgotten_is_not_the_end_of_all():
    more = " ".join(f"r{number} s{number}" for number in range(2000, 2000 + STEPS_MOST))
    assert run_of(f"r1000 r1010 s1010 {more} r1030 s1010").state == "running"
    assert run_of(f"r1000 r1010 s1010 {more} f1010").state == "failed"
    assert run_of(f"r1000 r1010 s1010 {more} f1010 s1010").state == "running"
    assert run_of(f"r1000 {more} s1001").state == "running"  # which might be one of them


def test_a_step_that_failed_is_forgotten_last():
    more = " ".join(f"r{number} s{number}" for number in range(2000, 2000 + STEPS_MOST))
    run = run_of(f"r1000 r1010 f1010 {more}")
    assert 1010 in [step.code for step in run.steps]
    assert len(run.steps) == STEPS_MOST


def test_page_and_wait_agree_when_the_end_has_been_deleted(receiver):
    for state in ("running", "failed"):
        receiver.tell("10.0.0.1", event(state, 1000, "the reason"))
    receiver.execute("DELETE FROM events WHERE state = 'failed'")
    status, body = ask(receiver, "GET", "/devices/10.0.0.1/wait?timeout=0")
    assert (status, json.loads(body.decode())["message"]) == (409, "the reason")
    assert ask(receiver, "GET", "/devices/10.0.0.1/wait?timeout=0&after=2")[0] == 504


def test_old_events_go_behind_those_of_a_clock_that_was_ahead(settings):
    settings(SWEEP_MOST=2)
    with Receiver(keep=1) as receiver:
        for number in range(8):
            receiver.tell("10.0.0.1", event("running", 1000 + number))
        receiver.execute("UPDATE events SET created_at = CASE WHEN number < 5 "
                         "THEN '2222-01-01T00:00:00.000000Z' "
                         "ELSE '2020-01-01T00:00:00.000000Z' END")
        receiver.store.sweep()
        assert receiver.store.numbers({}, 0, 100) == (4, [4, 3, 2, 1])


def test_a_name_of_names_is_its_address_also_when_a_stranger_has_posted_by_it():
    with Receiver(names=NAMES, only=["web-01"]) as receiver:
        receiver.store.put("web-01", "127.0.0.9", event("succeeded", 1000, "of a stranger"))
        body = json.dumps(event("running", 1000, "of the address")).encode()
        path = "/devices/web-01/events"
        assert ask(receiver, "POST", path, body, source="127.0.0.9")[0] == 403
        assert ask(receiver, "POST", path, body, source="127.0.0.1")[0] == 200
        listed = read_json(receiver, path)["events"]
        assert [each["message"] for each in listed] == ["of the address"]
        assert ask(receiver, "GET", "/devices/web-01/wait?timeout=0")[0] == 504
        stranger = f"/devices/{device_id('web-01')}"  # is shown, and can be deleted
        listed = read_json(receiver, f"{stranger}/events")["events"]
        assert [each["message"] for each in listed] == ["of a stranger"]
        paths = {each["device"]: each["path"]
                 for each in read_json(receiver, "/devices")["devices"]}
        assert paths == {"web-01": stranger, "127.0.0.1": "/devices/127.0.0.1"}
        assert f'href="{stranger}"' in read_page(receiver)
        assert ask(receiver, "DELETE", stranger)[0] == 204
        assert [body for _, _, body in receiver.shown()] == ["of the address"]


def test_a_machine_is_quiet_since_the_time_of_silence_was_over(settings):
    clock = Clock()
    settings(utc_now=clock)
    with Receiver(quiet_after=60) as receiver:
        clock.tell(receiver, "10.0.0.1", "r1000 +100")
        device, = read_json(receiver, "/devices")["devices"]
        assert device["state"] == "quiet"
        assert device["last_event_at"] == "2026-01-31T10:00:01.000000Z"
        assert device["state_since"] == "2026-01-31T10:01:01.000000Z"


def test_a_post_that_is_on_its_way_at_the_end_is_answered(tmp_path):
    data = str(tmp_path / "events")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        receiver = Receiver(data=data).__enter__()
        with held(data, "BEGIN IMMEDIATE"):
            answer = pool.submit(post, receiver, EVENT)
            wait_for(lambda: receiver.answering)
            end = pool.submit(receiver.__exit__)
            wait_for(lambda: not receiver.thread.is_alive())
        assert answer.result(10) == TAKEN
        end.result(10)
    assert query(data, "SELECT state FROM events") == [("running",)]


def test_a_wait_for_a_name_that_is_made_known_ends(settings, tmp_path):
    settings(LOOK_EVERY=0.05)
    names = tmp_path / "names"
    names.write_text("")
    with Receiver() as receiver:
        receiver.machines._names = str(names)
        with connect(receiver) as connection:
            connection.sendall(b"GET /devices/web-09/wait HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            wait_for(lambda: receiver.waiting)
            names.write_text("127.0.0.9 web-09\n")
            receiver.machines.read()
            receiver.tell("127.0.0.9", event("succeeded"))
            assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")


def test_a_name_like_the_id_of_a_machine_does_not_take_its_place(receiver):
    receiver.tell("10.0.0.9", event("succeeded", 1000, "the machine"))
    identity = read_json(receiver, "/devices")["devices"][0]["id"]
    receiver.put(identity, "10.0.0.66", event("failed", 1000, "made up"))
    status, body = ask(receiver, "GET", f"/devices/{identity}/wait")
    assert (status, json.loads(body.decode())["message"]) == (200, "the machine")


def test_an_address_in_absolute_form_is_that_path(receiver):
    answer = exchange(receiver, b"GET http://127.0.0.1/healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                                b"Connection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_of_a_hosts_file_what_is_no_machine_is_not_expected():
    lines = {"::1": "localhost ip6-loopback", "fe00::": "ip6-localnet",
             "ff02::1": "ip6-allnodes", "255.255.255.255": "broadcasthost",
             "127.0.0.1": "localhost", "10.0.0.1": "web-01"}
    with Receiver(names=lines) as receiver:
        never = read_json(receiver, "/devices?state=never")["devices"]
        assert [device["device"] for device in never] == ["10.0.0.1"]


def test_sighup_during_the_start_does_not_end_it(tmp_path):
    names = tmp_path / "names"
    os.mkfifo(str(names))
    process = start_receiver("--names", str(names))
    with open(str(names), "w") as file:  # it reads, and so has begun to start
        process.send_signal(signal.SIGHUP)
        file.write("10.0.0.1 web-01\n")
    assert process.stdout.readline().startswith(b"# the timeline")
    process.terminate()
    assert ended(process).status == 0
