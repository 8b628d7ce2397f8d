"""One address as people write it: hosts, zones, paths, IPv6; and no proxy is asked.

A name that has several addresses is in test_names_with_several_addresses.py, what DNS is
asked in test_dns.py.
"""
import random
import socket

import pytest

import userstate
from support.authority import tls_peer, trusting
from support.calls import post_to
from support.interpreters import NEWEST, resolve_to
from support.peers import ACCEPTED, DEAD_PORT, Peer
from support.processes import EVENT_WORDS, run, run_code


@pytest.fixture
def peer_of_ipv6():
    """A peer that accepts, on ::1."""
    try:
        peer = Peer(ACCEPTED, host="::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with peer:
        yield peer


def test_ipv6(peer_of_ipv6, said):
    post_to(peer_of_ipv6, said)
    assert f"Host: [::1]:{peer_of_ipv6.port}".encode() in peer_of_ipv6.requests[0]


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_zone_of_an_address_may_be_written_either_way(percent, peer_of_ipv6, edge_python):
    zone = percent + str(socket.if_nametoindex("lo"))  # its name is for fe80:: alone
    done = run("--deadline=0.9", *EVENT_WORDS, python=edge_python,
               url=peer_of_ipv6.url.replace("::1", "::1" + zone))
    assert done == (0, "", "")
    named = f"\r\nHost: [::1]:{peer_of_ipv6.port}\r\n".encode()
    assert named in peer_of_ipv6.requests[0]


@pytest.mark.parametrize("host", ["[2001:db8::abcd]", "[::]", "[::ffff:192.0.2.1]", "[::FFFF]",
                                  "192.0.2.1", "x_y.example"])
def test_any_kind_of_host_is_asked_and_named(host):
    with Peer(ACCEPTED) as peer:
        done = run("--deadline=0.9", *EVENT_WORDS, url=f"http://{host}:8080/",
                   before=resolve_to(peer.port))
        assert done == (0, "", "")
        assert f"\r\nHost: {host}:8080\r\n".lower().encode() in peer.requests[0].lower()


DOTTED = ["good.example", "good.example.", "GOOD.example."]


def deliver_to_name(url, peer, authority, python):
    done = run("--deadline=0.9", *EVENT_WORDS, url=url, python=python,
               before=resolve_to(peer.port), env=trusting(authority))
    assert done == (0, "", "")
    assert len(peer.events) == 1


@pytest.mark.parametrize("name", DOTTED)
def test_a_name_that_ends_in_a_dot_is_the_same_name(name, authority, edge_python):
    with Peer(ACCEPTED) as peer:
        deliver_to_name(f"http://{name}/x", peer, authority, edge_python)


@pytest.mark.parametrize("name", DOTTED)
def test_a_name_that_ends_in_a_dot_is_the_same_name_to_tls(name, authority, edge_python):
    with tls_peer(authority, "named") as peer:
        deliver_to_name(f"https://{name}/x", peer, authority, edge_python)


POST = "import sys, userstate; userstate.post_event({}, sys.argv[1])"


@pytest.mark.parametrize("path, target", [
    ("//events", "//events"), ("///a//b", "///a//b"), ("//e?x=//y&z", "//e?x=//y&z"),
    ("", "/"), ("?a=b", "/?a=b"), ("/a%2Fb;c", "/a%2Fb;c"), ("/e#fragment", "/e"),
    ("/~x/../y", "/~x/../y")])
def test_a_path_is_sent_as_it_stands(path, target):
    with Peer(ACCEPTED) as peer:
        url = peer.url.replace("/events", path)
        assert run_code(POST, url, python=NEWEST) == (0, "", "")
    request, = peer.requests
    assert request.startswith(f"POST {target} HTTP/1.1\r\n".encode())


def test_a_path_of_two_slashes_is_sent_as_it_stands_by_every_python(python):
    with Peer(ACCEPTED) as peer:
        url = peer.url.replace("/events", "//events")
        assert run_code(POST, url, python=python) == (0, "", "")
    request, = peer.requests
    assert request.startswith(b"POST //events HTTP/1.1\r\n")


def test_proxies_netrc_and_home_do_not_matter(receiver, tmp_path, edge_python):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    dead = f"http://127.0.0.1:{DEAD_PORT}"
    env = dict(receiver.env, HOME=str(tmp_path), http_proxy=dead, HTTP_PROXY=dead,
               https_proxy=dead, all_proxy=dead, ALL_PROXY=dead, REQUEST_METHOD="GET")
    assert run(*EVENT_WORDS, env=env, python=edge_python) == (0, "", "")
    assert len(receiver.shown()) == 1
    with Peer(ACCEPTED) as peer:
        assert run(*EVENT_WORDS, url=peer.url, env=env).status == 0
        assert b"authorization" not in peer.requests[0].lower()


# What addresses of nonsense are made of.
PARTS = ["http", "https", "HTTP", "://", "h", ".", "..", "[", "]", "::1", "%25", "%", ":",
         "80", "0", "99999", "-", "_", "a" * 63, "a" * 64, "xn--", "xn--a", "/", "?", "#",
         "\xfc", "\u3002", "\udcff", "\0", " ", "@", "127.1", "*", "\\", "1" * 300]


def test_any_address_raises_documented_errors_only(said, monkeypatch):
    def refuse(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dice = random.Random(7)
    for _ in range(2000):
        number = dice.randrange(1, 6)
        url = dice.choice(["http://", "https://", ""])
        url += "".join(dice.choice(PARTS) for _ in range(number))
        with pytest.raises(userstate.UserStateError):
            userstate.post_event({}, url, deadline=2, **said.options)
    assert said.lines
    for line in said.lines:
        assert line.isprintable()
