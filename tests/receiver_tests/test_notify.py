"""Who is told that a machine has failed, is quiet, or has succeeded."""
import datetime
import json
import socket
import subprocess
from contextlib import contextmanager

import pytest

from receiver.events import time_text, utc_now
from receiver.notify import Notifier
from support.peers import ACCEPTED, Peer, answer, part
from support.processes import start_command
from support.receivers import TAKEN, Receiver, ReceiverProcess, event, post, run_receiver
from support.tools import find, needs
from support.waiting import at_most, wait_for

BODY = json.dumps(event("running", 1000, "user-data")).encode()
FAILURE = json.dumps(event("failed", 1010, "install: exit status 100")).encode()
SUCCESS = json.dumps(event("succeeded", 1010, "install: done")).encode()


@contextmanager
def notifying(url, states=("failed", "quiet"), **options):
    """Give a receiver in this process that notifies url, and the lines that it warns."""
    warned = []
    with Receiver(**options) as receiver:
        notifier = Notifier(url, states, receiver.store, receiver.machines, receiver.url,
                            lambda line, more="": warned.append(line + more))
        receiver.store.observers.append(notifier.note_change)
        yield receiver, warned


def test_a_failure_is_posted_as_json_that_chats_show():
    with Peer(ACCEPTED) as peer:
        with ReceiverProcess("--notify", peer.url) as receiver:
            assert post(receiver, BODY) == TAKEN
            assert post(receiver, FAILURE) == TAKEN
            wait_for(lambda: peer.bodies)
        link = f"{receiver.url}/devices/127.0.0.1"
        assert json.loads(peer.bodies[0].decode()) == {
            "text": f"127.0.0.1: failed: install: exit status 100 {link}",
            "device": "127.0.0.1", "name": None, "state": "failed", "code": 1010,
            "message": "install: exit status 100", "url": link}
        assert len(peer.bodies) == 1


def test_the_name_of_a_machine_is_told():
    with Peer(ACCEPTED) as peer, notifying(peer.url, names={"10.0.0.1": "web-01"}) as made:
        made[0].tell("10.0.0.1", event("failed", 1000, "no"))
        wait_for(lambda: peer.bodies)
        told = json.loads(peer.bodies[0].decode())
        assert told["name"] == "web-01"
        assert told["text"].startswith("web-01: failed: no http://")


@pytest.mark.parametrize("states, told", [
    (["failed"], ["failed", "failed"]), (["succeeded"], ["succeeded"]),
    (["failed", "succeeded"], ["failed", "succeeded", "failed"])], ids=str)
def test_each_change_into_a_state_is_told_once(states, told):
    events = [("running", 1000), ("running", 1010), ("failed", 1010), ("failed", 1020),
              ("succeeded", 1000), ("running", 1000), ("failed", 1000), ("failed", 1000)]
    with Peer(ACCEPTED) as peer, notifying(peer.url, states) as (receiver, warned):
        for state, code in events:
            receiver.tell("10.0.0.1", event(state, code))
        receiver.tell("10.0.0.9", event(states[-1], 1099, "the last one"))
        wait_for(lambda: any(b"the last one" in body for body in peer.bodies))
        found = [json.loads(body.decode()) for body in peer.bodies]
        assert [each["state"] for each in found if each["device"] == "10.0.0.1"] == told
        assert warned == []


def test_a_machine_that_becomes_quiet_is_told_once(settings):
    settings(LOOK_EVERY=0.05)
    with Peer(ACCEPTED) as peer, notifying(peer.url, quiet_after=0.3) as (receiver, _):
        receiver.tell("10.0.0.1", event("running", 1000, "user-data"))
        wait_for(lambda: peer.bodies)
        receiver.tell("10.0.0.2", event("failed", 1000))
        wait_for(lambda: len(peer.bodies) == 2)
        states = [json.loads(body.decode())["state"] for body in peer.bodies]
        assert states == ["quiet", "failed"]


def test_one_that_is_quiet_is_noted_while_another_message_is_tried_again():
    with Peer(answer(503)) as peer, notifying(peer.url, quiet_after=0.3) as (receiver, _):
        notifier = receiver.store.observers[-1].__self__
        receiver.tell("10.0.0.1", event("failed", 1000))
        wait_for(lambda: peer.bodies)
        receiver.tell("10.0.0.2", event("running", 1000))
        wait_for(lambda: notifier.queue.qsize() == 1)
        assert {json.loads(body.decode())["device"] for body in peer.bodies} == {"10.0.0.1"}


def later(seconds):
    return utc_now() + datetime.timedelta(seconds=seconds)


def test_who_became_quiet_while_no_receiver_was_there_is_told_once(tmp_path):
    data = str(tmp_path / "events")
    with Receiver(data=data) as receiver:
        receiver.tell("10.0.0.1", event("running", 1000, "long before"))
        assert receiver.store.became_quiet(later(3700), 100) == []  # as nobody has asked before
        receiver.tell("10.0.0.2", event("running", 1000, "user-data"))
        receiver.tell("10.0.0.3", event("succeeded", 1000))
        receiver.execute("UPDATE devices SET last_at = ? WHERE machine <> '10.0.0.1'",
                         [time_text(later(200))])
    with Receiver(data=data) as receiver:
        row, = receiver.store.became_quiet(later(3900), 100)
        assert (row["machine"], row["code"], row["message"]) == ("10.0.0.2", 1000, "user-data")
        assert receiver.store.became_quiet(later(4000), 100) == []
    with Receiver(data=data, quiet_after=60) as receiver:
        assert receiver.store.became_quiet(later(4000), 100) == []


def test_all_that_became_quiet_are_told_also_if_they_are_more_than_can_wait(receiver):
    assert receiver.store.became_quiet(later(0), 2) == []
    for number in range(5):
        receiver.tell(f"10.0.0.{number}", event("running", 1000))
    told = [row["machine"] for _ in range(4)
            for row in receiver.store.became_quiet(later(3700), 2)]
    assert told == [f"10.0.0.{number}" for number in range(5)]


def test_one_that_speaks_again_in_the_same_moment_is_not_told(receiver):
    store = receiver.store
    assert store.became_quiet(later(0), 100) == []
    receiver.tell("10.0.0.1", event("running", 1000))
    batch = {"10.0.0.1": None}  # of the same transaction
    assert store._do(lambda writer, _: store._tell_quiet(
        writer, batch, time_text(later(99)), 100)) == []


def test_a_clock_that_is_set_back_keeps_nobody_from_being_told(receiver):
    receiver.store.became_quiet(later(99999), 100)
    receiver.tell("10.0.0.1", event("running", 1000))
    assert receiver.store.became_quiet(later(0), 100) == []
    assert len(receiver.store.became_quiet(later(3700), 100)) == 1


def test_the_message_is_that_of_the_change_and_not_of_what_came_later(settings):
    settings(LOOK_EVERY=0.05)
    with Peer(answer(503), ACCEPTED) as peer, notifying(peer.url) as (receiver, _):
        receiver.tell("10.0.0.1", event("failed", 1000, "no network"))
        wait_for(lambda: peer.bodies)  # it is told again after a second
        receiver.tell("10.0.0.1", event("failed", 1010, "another"))
        receiver.tell("10.0.0.1", event("succeeded", 1010, "done"))
        receiver.tell("10.0.0.1", event("succeeded", 1000, "done"))
        receiver.tell("10.0.0.1", event("failed", 1000, "no disk"))
        wait_for(lambda: len(peer.bodies) == 3)
        found = [json.loads(body.decode()) for body in peer.bodies]
        assert [each["message"] for each in found] == ["no network", "no network", "no disk"]
        assert [each["state"] for each in found] == ["failed"] * 3


def test_no_message_calls_the_whole_channel_of_a_chat():
    """Slack's documentation: these three characters, and no others, are to be escaped."""
    with Peer(ACCEPTED) as peer, notifying(peer.url) as (receiver, _):
        receiver.tell("10.0.0.1", event("failed", 1000, "<!channel> & it's"))
        wait_for(lambda: peer.bodies)
        told = json.loads(peer.bodies[0].decode())
        assert told["message"] == "<!channel> & it's"
        assert told["text"].startswith(
            "10.0.0.1: failed: &lt;!channel&gt; &amp; it's http://")


def test_what_is_not_sent_when_the_receiver_ends_is_told():
    with Peer(part(b"")) as peer:
        with ReceiverProcess("--notify", peer.url) as receiver:
            assert post(receiver, FAILURE) == TAKEN
            assert post(receiver, SUCCESS) == TAKEN
            assert post(receiver, FAILURE) == TAKEN
            wait_for(lambda: peer.requests)
            done = receiver.end(15)
    assert done.status == 0
    assert done.err == "receiver: --notify: messages that are not sent: 2\n"


def test_an_address_that_hangs_keeps_no_machine_and_no_end_waiting():
    with Peer(part(b"")) as peer:
        with ReceiverProcess("--notify", peer.url) as receiver:
            with at_most(5):
                for _ in range(20):
                    assert post(receiver, BODY) == TAKEN
                    assert post(receiver, FAILURE) == TAKEN
            with at_most(5):
                assert receiver.end(15).status == 0


def test_what_cannot_be_sent_in_time_is_dropped_with_a_line(settings):
    settings(TRY_FOR=0.3)
    with Peer(answer(503)) as peer, notifying(peer.url) as (receiver, warned):
        receiver.tell("10.0.0.1", event("failed", 1000))
        wait_for(lambda: warned)
        assert warned[0].startswith(f"--notify: a message was dropped: {peer.url}: HTTP 503")


def test_a_refusal_is_a_line_and_the_next_one_is_sent():
    with Peer(answer(404), ACCEPTED) as peer, notifying(peer.url) as (receiver, warned):
        receiver.tell("10.0.0.1", event("failed", 1000))
        receiver.tell("10.0.0.2", event("failed", 1000))
        wait_for(lambda: len(peer.bodies) == 2)
        assert "HTTP 404" in warned[0]


def test_more_than_can_wait_are_dropped_with_a_line(settings):
    settings(QUEUED_MOST=1)
    with Peer(part(b"")) as peer, notifying(peer.url) as (receiver, warned):
        for number in range(5):
            receiver.tell(f"10.0.0.{number}", event("failed", 1000))
        assert "--notify: 1 messages wait; more are dropped" in warned


@pytest.mark.parametrize("words, line", [
    (["--notify", "ftp://x"], "receiver: --notify: url 'ftp://x': must be http(s)://host"),
    (["--notify", "http://h/", "--notify-on", "running"], "--notify-on: invalid"),
], ids=str)
def test_what_is_no_address_or_no_state_prevents_the_start(words, line):
    done = run_receiver(*words)
    assert done.status in (1, 2)
    assert line in done.err


HOOKS = [{"id": "userstate", "execute-command": "/bin/sh", "pass-arguments-to-command": [
    {"source": "string", "name": "-c"},
    {"source": "string", "name": 'printf "%s" "$0" > told.new; mv told.new told'},
    {"source": "payload", "name": "text"}]}]


def test_debians_webhook_runs_a_command_with_the_text(tmp_path):
    needs("webhook")
    (tmp_path / "hooks.json").write_text(json.dumps(
        [dict(HOOKS[0], **{"command-working-directory": str(tmp_path)})]))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    start_command(find("webhook"), "-hooks", str(tmp_path / "hooks.json"), "-ip", "127.0.0.1",
                  "-port", str(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/hooks/userstate"
    with ReceiverProcess("--notify", url) as receiver:
        assert post(receiver, FAILURE) == TAKEN
        wait_for((tmp_path / "told").exists)
        assert (tmp_path / "told").read_text() == (
            f"127.0.0.1: failed: install: exit status 100 {receiver.url}/devices/127.0.0.1")
