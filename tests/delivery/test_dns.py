"""What DNS is asked, and a DNS that never answers."""
import re
import signal
import socket
import subprocess

import pytest

import userstate
from support.interpreters import HIDDEN_DNS, resolve_to
from support.peers import ACCEPTED, Peer
from support.processes import EVENT_WORDS, run, start
from support.waiting import at_most


@pytest.mark.parametrize("url, port", [("http://h/", 80), ("https://h/", 443),
                                       ("http://h:81/", 81), ("https://h:80/", 80)])
def test_the_port_is_that_of_the_address_or_of_its_scheme(url, port, said, monkeypatch):
    asked = []

    def getaddrinfo(*words, **options):
        asked.append(words)
        raise OSError("no such name")
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(userstate.DeadlineError):
        userstate.post_event({}, url, **said.options)
    assert set(asked) == {(b"h", port)}


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_zone_that_is_a_name_is_asked_for(percent, edge_python):
    with Peer(ACCEPTED) as peer:
        check = resolve_to(peer.port) + """
answer_all = socket.getaddrinfo
def getaddrinfo(host, *args, **options):
    assert host in (b"fe80::1%eth0", "fe80::1%eth0"), host
    return answer_all()
socket.getaddrinfo = getaddrinfo
"""
        done = run("--deadline=0.9", *EVENT_WORDS, url=f"http://[fe80::1{percent}eth0]:80/",
                   before=check, python=edge_python)
        assert done == (0, "", "")
        assert re.search(rb"\r\nHost: \[fe80::1\](:80)?\r\n", peer.requests[0])


def test_dns_that_never_answers_does_not_hold_up_the_boot(edge_python):
    with at_most(3):
        done = run("--deadline", "1", *EVENT_WORDS, before=HIDDEN_DNS, python=edge_python)
    assert done.status == 75
    assert re.search(r"packet.net/metadata: timed out \(.*\); gave up", done.err)


def test_ctrl_c_while_dns_does_not_answer_ends_it_at_once(edge_python):
    tell = HIDDEN_DNS.replace("asked.set()", "print('asked', flush=True)")
    with start(*EVENT_WORDS, before=tell, python=edge_python, stdout=subprocess.PIPE,
               stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"asked\n"
        with at_most(2):
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == -signal.SIGINT
