"""The addresses that are asked when nothing was configured."""
import re

import pytest

from support.peers import DEAD, DEAD_PORT, Peer
from support.processes import EVENT_WORDS, run

DEFAULTS = ["https://metadata.packet.net/metadata",
            "https://metadata.platformequinix.com/metadata"]
FAILING = {
    "no such name": "def getaddrinfo(*a, **o): raise socket.gaierror(-2, 'No such name')",
    "nobody listens":
        f"def getaddrinfo(*a, **o): return all('127.0.0.1', {DEAD_PORT}, type=1)",
    "no TLS": "def getaddrinfo(*a, **o): return all('127.0.0.1', PORT, type=1)"}


@pytest.mark.parametrize("name, words", [
    *[(name, EVENT_WORDS) for name in FAILING], ("no such name", ["url"]),
    ("nobody listens", ["run", "1000", "x", "true"])], ids=str)
def test_a_default_address_that_fails_is_said_to_be_switched_off(name, words):
    def plain(connection, peer):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with Peer(plain) as peer:
        before = ("import socket; all = socket.getaddrinfo\n"
                  + FAILING[name].replace("PORT", str(peer.port))
                  + "\nsocket.getaddrinfo = getaddrinfo\n")
        done = run("--deadline=0.3", *words, before=before)
    assert done.status == (0 if words[0] == "run" else 75)
    lines = [line for line in done.err.splitlines() if "metadata" in line]
    for url in DEFAULTS:
        assert any(line.startswith(f"userstate: {url}: ") for line in lines)
    for line in lines:
        assert re.search(r"\(this default was switched off on 2026-06-30: "
                         r"set USERSTATE_METADATA_URL\); (gave up|trying again)", line)


def test_an_address_that_was_given_is_not_said_to_be_switched_off():
    done = run("--deadline=0.3", "--metadata-url", DEAD, *EVENT_WORDS)
    assert done.status == 75 and "switched off" not in done.err
