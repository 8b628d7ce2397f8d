"""The addresses that are asked when nothing was configured."""
import re
import socket

import pytest

import userstate
from support.peers import DEAD, DEAD_PORT, Peer, answer, document
from support.processes import EVENT_WORDS, run

DEFAULTS = ["https://metadata.packet.net/metadata",
            "https://metadata.platformequinix.com/metadata"]
# What becomes of every question for an address. PORT: of a peer that speaks no TLS.
FAILING = {
    "no such name": "raise socket.gaierror(-2, 'No such name')",
    "nobody listens": f"return find('127.0.0.1', {DEAD_PORT}, type=1)",
    "no TLS": "return find('127.0.0.1', PORT, type=1)",
}


def plain(connection, peer):
    connection.recv(65536)
    connection.sendall(answer(400))


@pytest.mark.parametrize("name, words, event, status", [
    ("no such name", EVENT_WORDS, "running 1000: ", 75),
    ("nobody listens", EVENT_WORDS, "running 1000: ", 75),
    ("no TLS", EVENT_WORDS, "running 1000: ", 75),
    ("no such name", ["url"], "", 75),
    ("nobody listens", ["run", "1000", "x", "true"], "running 1000: ", 0)], ids=str)
def test_a_default_address_that_fails_is_said_to_be_switched_off(name, words, event, status):
    with Peer(plain) as peer:
        done = run("--deadline=0.3", *words, before=f"""
import socket
find = socket.getaddrinfo
def getaddrinfo(*words, **options):
    {FAILING[name].replace("PORT", str(peer.port))}
socket.getaddrinfo = getaddrinfo
""")
    assert done.status == status
    lines = [line for line in done.err.splitlines() if "metadata" in line]
    for url in DEFAULTS:
        assert any(line.startswith(f"userstate: {event}{url}: ") for line in lines)
    for line in lines:
        assert re.search(r"\(this default was switched off on 2026-06-30: "
                         r"set USERSTATE_METADATA_URL\); (gave up|trying again)", line)


def refuse(*args, **options):
    raise ConnectionRefusedError(111, "Connection refused")


def find_nothing(*args, **options):
    raise socket.gaierror(-2, "Name or service not known")


def hang(*args, **options):
    raise socket.timeout("timed out")


@pytest.mark.parametrize("find", [refuse, find_nothing, hang])
def test_the_defaults_are_worth_three_more_tries_whatever_the_fault(find, said, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", find)
    with pytest.raises(userstate.RefusedError, match="refused at try 4 after ") as caught:
        userstate.send_user_state_event("running", 1000, "x", **said.options)
    assert len(said.time.pauses) == 3
    assert sum(said.time.pauses) <= 7
    assert caught.value.tries == 4
    assert "; trying again in " in said.lines[0]
    assert said.lines[0].endswith(" s, 3 times at most")
    for line in [*said.lines, str(caught.value)]:
        assert ("(this default was switched off on 2026-06-30: set USERSTATE_METADATA_URL); "
                in line)


@pytest.mark.parametrize("urls", [DEFAULTS, DEFAULTS[:1], DEFAULTS[::-1]], ids=len)
def test_a_default_that_is_given_is_a_default_all_the_same(urls, said, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(userstate.RefusedError, match="switched off.*; refused at try 4 "):
        userstate.fetch_metadata(metadata_url=" ".join(urls), **said.options)


def test_a_default_beside_an_address_that_was_given_does_not_end_its_tries(said, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(userstate.DeadlineError):
        userstate.fetch_metadata(metadata_url=f"{DEAD} {DEFAULTS[0]}", **said.options)
    assert sum(said.time.pauses) > 148


def test_the_service_that_a_default_names_is_tried_until_the_deadline(said, monkeypatch):
    """What a default is worth is not what the address is worth that it answers with."""
    with Peer(document(user_state_url=DEAD)) as peer:
        monkeypatch.setattr(userstate, "METADATA_URL", peer.url)
        with pytest.raises(userstate.DeadlineError):
            userstate.send_user_state_event("running", 1000, "x", **said.options)
    assert sum(said.time.pauses) > 148


def test_an_address_that_was_given_is_tried_until_the_deadline(said):
    with pytest.raises(userstate.DeadlineError):
        userstate.fetch_metadata(metadata_url=DEAD, **said.options)
    assert sum(said.time.pauses) > 148


def test_an_address_that_was_given_is_not_said_to_be_switched_off():
    done = run("--deadline=0.3", "--metadata-url", DEAD, *EVENT_WORDS)
    assert done.status == 75
    assert "switched off" not in done.err
