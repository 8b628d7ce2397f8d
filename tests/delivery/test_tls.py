"""TLS is verified, always, and says what is wrong."""
import os
import re
import shutil
import socket
import ssl
import subprocess
import time

import pytest

import userstate
from support.authority import tls_peer
from support.files import SOURCE
from support.interpreters import NEWEST, PYTHONS, resolve_to
from support.peers import ACCEPTED, Peer
from support.processes import EVENT_WORDS, run


def test_a_trusted_service_is_delivered_to(authority, python):
    with tls_peer(authority, "good") as peer:
        ended = run("--url", peer.url, "running", "1000", "x", python=python,
                    env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert ended == (0, "", "") and len(peer.events) == 1
        assert f"Host: 127.0.0.1:{peer.port}\r\n".encode() in peer.requests[0]


@pytest.mark.parametrize("env", [{}, {"SSL_CERT_FILE": "/nowhere"},
                                 {"PYTHONHTTPSVERIFY": "0"}], ids=str)
def test_an_unknown_authority_is_refused_at_once(authority, env):
    begun = time.monotonic()
    with tls_peer(authority, "good") as peer:
        ended = run("--url", peer.url, "running", "1000", "x", env=env)
        assert ended.status == 1 and peer.events == [] and time.monotonic() - begun < 5
    assert re.fullmatch(r"userstate: .*ca-certificates.*SSL_CERT_FILE.*refused at try 1.*\n",
                        ended.err)


@pytest.mark.parametrize("reason, sent, known", [
    ("self.signed certificate", ["ca.pem", "ca.key"], None),
    ("self.signed certificate in certificate chain", ["leaf", "ca.pem", "leaf.key"], None),
    ("unable to get local issuer certificate", ["leaf", "leaf.key"], None),
    ("unable to get issuer certificate", ["leaf", "middle.pem", "leaf.key"], "middle.pem")])
def test_each_way_not_to_know_an_authority_is_refused_at_once(reason, sent, known, authority,
                                                              monkeypatch, tmp_path, said):
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=str(tmp_path), check=True,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    shutil.copy(str(authority / "ca.pem"), str(tmp_path))
    shutil.copy(str(authority / "ca.key"), str(tmp_path))
    (tmp_path / "extensions").write_text("basicConstraints = CA:true\n")
    above = "ca"
    for name in ("middle", "leaf") if known else ("leaf",):
        openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", name + ".key",
                "-out", "request", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", "request", "-CA", above + ".pem", "-CAkey",
                above + ".key", "-set_serial", "7", "-out", name + ".pem",
                *["-extfile", "extensions"] * (name == "middle"))
        above = name
    (tmp_path / "leaf").write_text((tmp_path / "leaf.pem").read_text())
    (tmp_path / "sent").write_text("".join((tmp_path / name).read_text() for name in sent))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / (known or "nothing")))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nothing"))
    with tls_peer(tmp_path, "sent") as peer:
        with pytest.raises(userstate.RefusedError, match=(
                f"certificate verify failed: {reason} .its authority is not in ca-certificat")):
            userstate.post_event({}, peer.url, **said.options)
        assert peer.requests == []


def test_python_3_6_does_not_tell_an_unknown_authority_from_a_wrong_clock(authority):
    """It tries until the deadline, as the clock is often wrong at boot, and never sends."""
    if "3.6" not in PYTHONS:
        pytest.skip("no Python 3.6 here")
    with tls_peer(authority, "good") as peer:
        ended = run("--url", peer.url, "--deadline=1", "running", "1000", "x",
                    python=PYTHONS["3.6"])
        assert ended.status == 75 and peer.events == []
    assert re.search("(?s)certificate verify failed.*clock right.*gave up", ended.err)


def test_a_certificate_for_another_host_is_refused_at_once(authority, edge_python):
    with tls_peer(authority, "other") as peer:
        ended = run("--url", peer.url, "running", "1000", "x", python=edge_python,
                    env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert ended.status == 1 and peer.events == []
    assert re.fullmatch(r"userstate: .*127\.0\.0\.1.*refused at try 1.*\n", ended.err)
    assert "ca-certificates" not in ended.err and "clock" not in ended.err


@pytest.mark.parametrize("name", ["expired", "future"])
def test_a_wrong_time_is_tried_again_with_a_hint_at_the_clock(name, authority, edge_python):
    with tls_peer(authority, name) as peer:
        ended = run("--url", peer.url, "--deadline", "1", "running", "1000", "x",
                    python=edge_python, env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert ended.status == 75 and peer.events == []
    assert re.search(r"\(is the clock right\? It says \d{4}-\d\d-\d\d \d\d:\d\d\); ", ended.err)
    assert "ca-certificates" not in ended.err


def test_https_to_a_service_that_speaks_http_is_named(said):
    def plain(connection, peer):
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with Peer(plain) as peer:
        url = peer.url.replace("http:", "https:")
        with pytest.raises(userstate.DeadlineError, match="is it http"):
            userstate.post_event({}, url, **said.options)


@pytest.mark.parametrize("answered, told", [
    (b"\x15\x03\x03\x00\x02\x02\x28", "(?i)handshake.failure"), (b"", "(?i)eof|reset")])
def test_a_service_that_speaks_tls_and_fails_is_not_taken_for_http(answered, told, said):
    def wrap(connection):
        connection.recv(65536)
        connection.sendall(answered)
        connection.close()
        raise OSError("failed")
    with Peer(ACCEPTED, wrap=wrap) as peer:
        with pytest.raises(userstate.DeadlineError, match=told) as caught:
            userstate.post_event({}, peer.url.replace("http:", "https:"), **said.options)
    assert "is it http" not in str(caught.value)


def test_delivers_once_the_certificate_is_valid(authority, said, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    contexts = []
    for name in ("future", "future", "good"):
        contexts.append(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        contexts[-1].load_cert_chain(str(authority / name))
    with Peer(ACCEPTED, wrap=lambda connection: contexts.pop(0).wrap_socket(
            connection, server_side=True)) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 1 and len(said.time.pauses) == 2


def test_tls_faults_of_the_transport_are_tried_again(authority, said, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(authority / "good"))
    faults = ["plain", "closed", "cut"]

    def wrap(connection):
        fault = faults.pop(0) if faults else ""
        if not fault:
            return context.wrap_socket(connection, server_side=True)
        connection.recv(10)
        connection.sendall({"plain": b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed": b"",
                            "cut": b"\x16\x03\x03\x00\x7a\x02"}[fault])
        connection.close()
        raise OSError(fault)
    with Peer(ACCEPTED, wrap=wrap) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 1 and len(said.time.pauses) == 3


@pytest.mark.parametrize("reason", ["WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"])
def test_what_each_openssl_says_of_http_is_told_in_the_same_way(reason, said, monkeypatch):
    """The second is that of OpenSSL 3.2 and later; so the fault is made here."""
    def wrap_socket(*words, **options):
        error = ssl.SSLError(1, f"[SSL: {reason}]")
        error.reason = reason
        raise error
    monkeypatch.setattr(ssl.SSLContext, "wrap_socket", wrap_socket)
    with Peer(ACCEPTED) as peer:
        line = rf"no TLS: {reason} \(is it http\?\); gave up"
        with pytest.raises(userstate.DeadlineError, match=line):
            userstate.post_event({}, peer.url.replace("http", "https"), **said.options)


@pytest.mark.parametrize("drip", [b"", b"\x16\x03\x03"])
def test_a_handshake_that_hangs_or_drips_is_closed_on_time(drip, said):
    def wrap(connection):
        connection.recv(10)
        try:
            for _ in range(200):
                connection.sendall(drip[:1] or b"")
                drip_on = bool(drip) and not peer.over.wait(0.02)
                if not drip_on:
                    break
        except ConnectionError:
            pass
        peer.wait_closed(connection)
        raise OSError("closed")
    with Peer(ACCEPTED, wrap=wrap) as peer:
        begun = time.monotonic()
        with pytest.raises(userstate.DeadlineError):
            userstate.post_event({}, peer.url, deadline=0.1, say=said.lines.append)
        assert time.monotonic() - begun < 0.9
        assert peer.closed.acquire(timeout=10)


def test_a_python_without_ssl_does_http_and_names_what_https_lacks(python, receiver):
    hidden = "import sys; sys.modules['ssl'] = sys.modules['_ssl'] = None\n"
    for url, status in ((receiver.url + "/events", 0), ("https://127.0.0.1:9/", 1)):
        with socket.socket() as listener:
            if status:
                listener.bind(("127.0.0.1", 0))
                listener.listen(1)
                url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
            ended = subprocess.run(
                [python, "-c", hidden + SOURCE.decode(), "--url", url, "running", "1000", "x"],
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=os.sep)
        assert ended.returncode == status
        if status:
            assert re.fullmatch(rb"userstate: .*\bssl\b.*refused at try 1.*\n", ended.stderr)


@pytest.mark.parametrize("kinds", ["rg", "gg"])
def test_a_slow_handshake_may_take_what_is_left_of_the_try(kinds, authority):
    with tls_peer(authority, "named") as peer:
        wrap = peer.wrap

        def slowly(connection):
            peer.over.wait(0.6)  # of 1.0
            return wrap(connection)
        peer.wrap = slowly
        ports = {"g": peer.port, "r": 9}
        assert run("--timeout=1.0", "--deadline=1.0", *EVENT_WORDS, url="https://good.example/",
                      before=resolve_to(*[ports[kind] for kind in kinds]),
                      env={"SSL_CERT_FILE": str(authority / "ca.pem")}) == (0, "", "")
        assert len(peer.events) == 1


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_certificate_is_of_an_address_without_its_zone(percent, authority, edge_python):
    with tls_peer(authority, "zoned") as peer:
        done = run("--deadline=2", *EVENT_WORDS, url=f"https://[fe80::1{percent}eth0]/",
                      before=resolve_to(peer.port), python=edge_python,
                      env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert done == (0, "", "") and len(peer.events) == 1


HINTS = {  # certificate of the peer, SSL_CERT_FILE, what the line says, and what not
    "unknown authority": ("good", None, "set SSL_CERT_FILE", "clock"),
    "unknown authority, empty variable": ("good", "", "set SSL_CERT_FILE", "clock"),
    "unknown authority, variable set": ("good", "other.pem", r"other\.pem",
                                        "set SSL_CERT_FILE"),
    "variable of no file": ("good", "none.pem", r"none\.pem", "set SSL_CERT_FILE"),
    "another name": ("other", "ca.pem", "127.0.0.1", "SSL_CERT_FILE|ca-certificates|clock"),
    "expired": ("expired", "ca.pem", "clock", "SSL_CERT_FILE|ca-certificates"),
    "not yet valid": ("future", "ca.pem", "clock", "SSL_CERT_FILE|ca-certificates")}


@pytest.mark.parametrize("name", HINTS)
def test_the_hint_of_a_certificate_follows_the_reason(name, authority):
    """But Python 3.6 does not tell it."""
    certificate, file, right, wrong = HINTS[name]
    if not (authority / "other.pem").exists():
        words = ("openssl req -x509 -config config -newkey rsa:2048 -nodes -keyout other.key "
                 "-out other.pem -subj /CN=elsewhere").split()
        made = subprocess.run(words, cwd=str(authority), stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        assert made.returncode == 0, made.stderr
    env = {} if file is None else {"SSL_CERT_FILE": file and str(authority / file)}
    with tls_peer(authority, certificate) as peer:
        done = run("--deadline=0.6", *EVENT_WORDS, url=peer.url, python=NEWEST, env=env)
        assert peer.events == []
    assert done.status == (75 if right == "clock" else 1)
    assert re.search(right, done.err) and not re.search(wrong, done.err), done.err
