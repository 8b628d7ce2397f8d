"""The addresses that are asked when nothing was configured."""
import re

import pytest

from support.peers import DEAD, DEAD_PORT, Peer, answer
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


@pytest.mark.parametrize("name, words, status", [
    ("no such name", EVENT_WORDS, 75),
    ("nobody listens", EVENT_WORDS, 75),
    ("no TLS", EVENT_WORDS, 75),
    ("no such name", ["url"], 75),
    ("nobody listens", ["run", "1000", "x", "true"], 0)], ids=str)
def test_a_default_address_that_fails_is_said_to_be_switched_off(name, words, status):
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
        assert any(line.startswith(f"userstate: {url}: ") for line in lines)
    for line in lines:
        assert re.search(r"\(this default was switched off on 2026-06-30: "
                         r"set USERSTATE_METADATA_URL\); (gave up|trying again)", line)


def test_an_address_that_was_given_is_not_said_to_be_switched_off():
    done = run("--deadline=0.3", "--metadata-url", DEAD, *EVENT_WORDS)
    assert done.status == 75
    assert "switched off" not in done.err
