"""Addresses as people write them, what is asked of DNS, and proxies, which are not."""
import os
import random
import re
import signal
import socket
import subprocess
import time

import pytest

import userstate
from support.authority import tls_peer
from support.calls import post
from support.files import SOURCE, TOP
from support.interpreters import HIDDEN_DNS, NEWEST, OLDEST, PYTHONS, resolve_to
from support.peers import ACCEPTED, Peer, black_hole
from support.processes import EVENT_WORDS, run, run_code


def test_dns_that_never_answers_does_not_hold_up_the_boot(edge_python):
    begun = time.monotonic()
    ended = subprocess.run(
        [edge_python, "-B", "-c", HIDDEN_DNS + SOURCE.decode(), "--deadline", "1", "running",
         "1000", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/")
    assert ended.returncode == 75 and time.monotonic() - begun < 3
    assert re.search(rb"packet.net/metadata: timed out \(.*\); gave up", ended.stderr)


def test_a_dead_address_of_two_leaves_time_for_the_other(edge_python):
    with socket.socket() as dead, Peer(ACCEPTED) as peer:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        waiting = []
        for _ in range(3):  # its backlog is full: who connects gets no answer
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(dead.getsockname())
        code = f"""
import socket, userstate
def both(*args, **options):
    return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))
            for port in ({dead.getsockname()[1]}, {peer.port})]
socket.getaddrinfo = both
userstate.post_event({{}}, "http://two.example/", timeout=1, deadline=1)
"""
        ended = subprocess.run([edge_python, "-B", "-c", code], cwd=TOP,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert ended.returncode == 0, ended.stderr
        assert len(peer.events) == 1
        for client in waiting:
            client.close()


def test_proxies_netrc_and_home_do_not_matter(receiver, tmp_path, edge_python):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    dead = "http://127.0.0.1:9"
    env = dict(receiver.env, HOME=str(tmp_path), http_proxy=dead, HTTP_PROXY=dead,
               https_proxy=dead, all_proxy=dead, ALL_PROXY=dead, REQUEST_METHOD="GET")
    assert run("running", "1000", "x", env=env, python=edge_python) == (0, "", "")
    with Peer(ACCEPTED) as peer:
        assert run("--url", peer.url, "running", "1000", "x", env=env).status == 0
        assert b"authorization" not in peer.requests[0].lower()


def test_ipv6(said):
    try:
        peer = Peer(ACCEPTED, host="::1")
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with peer:
        post(peer, said)
        assert f"Host: [::1]:{peer.port}".encode() in peer.requests[0]


def test_ctrl_c_in_dns_ends_it_at_once(edge_python):
    code = HIDDEN_DNS + "print('ready', flush=True)\n" + SOURCE.decode()
    code = code.replace("asked.set()", "print('asked', flush=True)")
    with subprocess.Popen([edge_python, "-B", "-c", code, "running", "1000", "x"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/") as process:
        assert process.stdout.readline() + process.stdout.readline() == b"ready\nasked\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == -2 and time.monotonic() - begun < 2


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


NAMES_OF = {"1 address": "g", "2": "dg", "3": "ddg", "4": "dddg", "refused ones": "rrrg",
            "both kinds": "drg", "a good one first": "gdd"}


@pytest.mark.parametrize("name, python", [
    *[(name, NEWEST) for name in NAMES_OF], ("4", OLDEST)],
    ids=lambda text: text.split(os.sep)[-3:][0])
def test_every_address_of_a_name_gets_a_chance_within_a_try(name, python):
    with black_hole() as dead, Peer(ACCEPTED) as peer:
        ports = {"g": peer.port, "d": dead, "r": 9}
        assert run("--timeout=0.6", "--deadline=0.6", *EVENT_WORDS, url="http://h.example/",
                      before=resolve_to(*[ports[kind] for kind in NAMES_OF[name]]),
                      python=python) == (0, "", "")
        assert len(peer.events) == 1


@pytest.mark.parametrize("path, target", [
    ("//events", "//events"), ("///a//b", "///a//b"), ("//e?x=//y&z", "//e?x=//y&z"),
    ("", "/"), ("?a=b", "/?a=b"), ("/a%2Fb;c", "/a%2Fb;c"), ("/e#fragment", "/e"),
    ("/~x/../y", "/~x/../y")])
def test_a_path_is_sent_as_it_stands(path, target):
    code = "import sys, userstate; userstate.post_event({}, sys.argv[1])"
    with Peer(ACCEPTED) as peer:
        url = peer.url.replace("/events", path)
        for python in PYTHONS.values() if path == "//events" else [NEWEST]:
            assert run_code(code, url, python=python) == (0, "", "")
    assert {r.split(b"\r\n")[0] for r in peer.requests} == {f"POST {target} HTTP/1.1".encode()}


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_zone_of_an_address_may_be_written_either_way(percent, edge_python):
    try:
        peer = Peer(ACCEPTED, host="::1")
        zone = percent + str(socket.if_nametoindex("lo"))  # its name is for fe80:: alone
    except OSError:
        pytest.skip("no IPv6 loopback here")
    with peer:
        done = run("--deadline=0.9", *EVENT_WORDS, url=peer.url.replace("::1", "::1" + zone),
                      python=edge_python)
        assert done == (0, "", "")
        assert f"\r\nHost: [::1]:{peer.port}\r\n".encode() in peer.requests[0]


@pytest.mark.parametrize("host", ["[2001:db8::abcd]", "[::]", "[::ffff:192.0.2.1]", "[::FFFF]",
                                  "192.0.2.1", "x_y.example"])
def test_any_kind_of_host_is_asked_and_named(host):
    with Peer(ACCEPTED) as peer:
        assert run("--deadline=0.9", *EVENT_WORDS, url=f"http://{host}:8080/",
                      before=resolve_to(peer.port)) == (0, "", "")
        assert f"\r\nHost: {host}:8080\r\n".lower().encode() in peer.requests[0].lower()


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
        assert run("--deadline=0.9", *EVENT_WORDS, url=f"http://[fe80::1{percent}eth0]:80/",
                      before=check, python=edge_python) == (0, "", "")
        assert re.search(rb"\r\nHost: \[fe80::1\](:80)?\r\n", peer.requests[0])


@pytest.mark.parametrize("name", ["good.example", "good.example.", "GOOD.example."])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_name_that_ends_in_a_dot_is_the_same_name(scheme, name, authority, edge_python):
    with (tls_peer(authority, "named") if scheme == "https" else Peer(ACCEPTED)) as peer:
        done = run("--deadline=0.9", *EVENT_WORDS, url=f"{scheme}://{name}/x", python=edge_python,
                      before=resolve_to(peer.port), env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert done == (0, "", "") and len(peer.events) == 1


def test_any_address_raises_documented_errors_only(said, monkeypatch):
    def refuse(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    dice = random.Random(7)
    parts = ["http", "https", "HTTP", "://", "h", ".", "..", "[", "]", "::1", "%25", "%", ":",
             "80", "0", "99999", "-", "_", "a" * 63, "a" * 64, "xn--", "xn--a", "/", "?", "#",
             "\xfc", "\u3002", "\udcff", "\0", " ", "@", "127.1", "*", "\\", "1" * 300]
    for _ in range(2000):
        url = dice.choice(["http://", "https://", ""]) + "".join(
            dice.choice(parts) for _ in range(dice.randrange(1, 6)))
        with pytest.raises(userstate.UserStateError):
            userstate.post_event({}, url, **dict(said.options, deadline=2))
        assert all(line.isprintable() for line in said.lines)
