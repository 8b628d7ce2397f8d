"""TLS is verified, always: which certificates are trusted, and which are not, and why.

Handshakes that fail, hang or are not TLS are in test_handshakes.py.
"""
import re
import shutil

import pytest

import userstate
from support.authority import openssl, server_side, tls_peer, trusting
from support.interpreters import NEWEST, PYTHONS, hide, resolve_to
from support.peers import ACCEPTED, Peer
from support.processes import EVENT_WORDS, run, run_code
from support.waiting import at_most


def test_a_trusted_service_is_delivered_to(authority, python):
    with tls_peer(authority, "good") as peer:
        done = run(*EVENT_WORDS, url=peer.url, python=python, env=trusting(authority))
        assert done == (0, "", "")
        assert len(peer.events) == 1
        assert f"Host: 127.0.0.1:{peer.port}\r\n".encode() in peer.requests[0]


@pytest.mark.parametrize("percent", ["%25", "%"])
def test_a_certificate_is_of_an_address_without_its_zone(percent, authority, edge_python):
    with tls_peer(authority, "zoned") as peer:
        done = run("--deadline=2", *EVENT_WORDS, url=f"https://[fe80::1{percent}eth0]/",
                   before=resolve_to(peer.port), python=edge_python, env=trusting(authority))
        assert done == (0, "", "")
        assert len(peer.events) == 1


def test_delivers_once_the_certificate_is_valid(authority, said, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(authority / "ca.pem"))
    wraps = [server_side(authority, name) for name in ("future", "future", "good")]
    with Peer(ACCEPTED, wrap=lambda connection: wraps.pop(0)(connection)) as peer:
        userstate.post_event({}, peer.url, **said.options)
        assert len(peer.events) == 1
    assert len(said.time.pauses) == 2


@pytest.mark.parametrize("env", [{}, {"SSL_CERT_FILE": "/nowhere"},
                                 {"PYTHONHTTPSVERIFY": "0"}], ids=str)
def test_an_unknown_authority_is_refused_at_once(authority, env):
    with tls_peer(authority, "good") as peer:
        with at_most(5):
            done = run(*EVENT_WORDS, url=peer.url, env=env)
        assert peer.events == []
    assert done.status == 1
    assert re.fullmatch(r"userstate: .*ca-certificates.*SSL_CERT_FILE.*refused at try 1.*\n",
                        done.err)


def test_python_3_6_does_not_tell_an_unknown_authority_from_a_wrong_clock(authority):
    """It tries until the deadline, as the clock is often wrong at boot, and never sends."""
    if "3.6" not in PYTHONS:
        pytest.skip("no Python 3.6 here")
    with tls_peer(authority, "good") as peer:
        done = run("--deadline=1", *EVENT_WORDS, url=peer.url, python=PYTHONS["3.6"])
        assert peer.events == []
    assert done.status == 75
    assert re.search("(?s)certificate verify failed.*clock right.*gave up", done.err)


@pytest.fixture
def chain(authority, tmp_path):
    """A folder with leaf.pem, vouched for by middle.pem, and short.pem, by the authority."""
    for name in ("ca.pem", "ca.key"):
        shutil.copy(str(authority / name), str(tmp_path))
    (tmp_path / "extensions").write_text("basicConstraints = CA:true\n")
    for name, above, options in (("middle", "ca", ["-extfile", "extensions"]),
                                 ("leaf", "middle", []), ("short", "ca", [])):
        openssl(tmp_path, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout",
                f"{name}.key", "-out", "request", "-subj", f"/CN={name}")
        openssl(tmp_path, "x509", "-req", "-in", "request", "-CA", f"{above}.pem", "-CAkey",
                f"{above}.key", "-set_serial", "7", "-out", f"{name}.pem", *options)
    return tmp_path


@pytest.mark.parametrize("reason, sent, known", [
    ("self.signed certificate", ["ca.pem", "ca.key"], "nothing"),
    ("self.signed certificate in certificate chain", ["short.pem", "ca.pem", "short.key"],
     "nothing"),
    ("unable to get local issuer certificate", ["short.pem", "short.key"], "nothing"),
    ("unable to get issuer certificate", ["leaf.pem", "middle.pem", "leaf.key"],
     "middle.pem")])
def test_each_way_not_to_know_an_authority_is_refused_at_once(reason, sent, known, chain,
                                                              monkeypatch, said):
    (chain / "sent").write_text("".join((chain / name).read_text() for name in sent))
    monkeypatch.setenv("SSL_CERT_FILE", str(chain / known))
    monkeypatch.setenv("SSL_CERT_DIR", str(chain / "nothing"))
    line = f"certificate verify failed: {reason} .its authority is not in ca-certificat"
    with tls_peer(chain, "sent") as peer:
        with pytest.raises(userstate.RefusedError, match=line):
            userstate.post_event({}, peer.url, **said.options)
        assert peer.requests == []


def test_a_certificate_for_another_host_is_refused_at_once(authority, edge_python):
    with tls_peer(authority, "other") as peer:
        done = run(*EVENT_WORDS, url=peer.url, python=edge_python, env=trusting(authority))
        assert peer.events == []
    assert done.status == 1
    assert re.fullmatch(r"userstate: .*127\.0\.0\.1.*refused at try 1.*\n", done.err)
    assert "ca-certificates" not in done.err
    assert "clock" not in done.err


@pytest.mark.parametrize("name", ["expired", "future"])
def test_a_wrong_time_is_tried_again_with_a_hint_at_the_clock(name, authority, edge_python):
    with tls_peer(authority, name) as peer:
        done = run("--deadline=1", *EVENT_WORDS, url=peer.url, python=edge_python,
                   env=trusting(authority))
        assert peer.events == []
    assert done.status == 75
    assert re.search(r"\(is the clock right\? It says \d{4}-\d\d-\d\d \d\d:\d\d\); ", done.err)
    assert "ca-certificates" not in done.err


@pytest.fixture(scope="session")
def elsewhere(authority):
    """The folder of the authority, in which other.pem is an authority of somebody else."""
    openssl(authority, "req", "-x509", "-config", "config", "-newkey", "rsa:2048", "-nodes",
            "-keyout", "other.key", "-out", "other.pem", "-subj", "/CN=elsewhere")
    return authority


# Certificate of the peer, SSL_CERT_FILE, status, what the line says, and what not.
HINTS = {
    "unknown authority": ("good", None, 1, "set SSL_CERT_FILE", "clock"),
    "unknown authority, empty variable": ("good", "", 1, "set SSL_CERT_FILE", "clock"),
    "unknown authority, variable set": ("good", "FOLDER/other.pem", 1, r"other\.pem",
                                        "set SSL_CERT_FILE"),
    "variable of no file": ("good", "FOLDER/none.pem", 1, r"none\.pem", "set SSL_CERT_FILE"),
    "another name": ("other", "FOLDER/ca.pem", 1, "127.0.0.1",
                     "SSL_CERT_FILE|ca-certificates|clock"),
    "expired": ("expired", "FOLDER/ca.pem", 75, "clock", "SSL_CERT_FILE|ca-certificates"),
    "not yet valid": ("future", "FOLDER/ca.pem", 75, "clock", "SSL_CERT_FILE|ca-certificates"),
}


@pytest.mark.parametrize("name", HINTS)
def test_the_hint_of_a_certificate_follows_the_reason(name, elsewhere):
    """But Python 3.6 does not tell it."""
    certificate, file, status, right, wrong = HINTS[name]
    env = {}
    if file is not None:
        env["SSL_CERT_FILE"] = file.replace("FOLDER", str(elsewhere))
    with tls_peer(elsewhere, certificate) as peer:
        done = run("--deadline=0.6", *EVENT_WORDS, url=peer.url, python=NEWEST, env=env)
        assert peer.events == []
    assert done.status == status
    assert re.search(right, done.err), done.err
    assert not re.search(wrong, done.err), done.err


NO_SSL = hide("ssl") + hide("_ssl")


def test_a_python_without_ssl_delivers_by_http(python, receiver):
    done = run(*EVENT_WORDS, url=receiver.url + "/events", python=python, before=NO_SSL)
    assert done == (0, "", "")
    assert len(receiver.shown()) == 1


def test_a_python_without_ssl_names_what_https_lacks(python):
    with Peer(ACCEPTED) as peer:
        done = run(*EVENT_WORDS, url=peer.url.replace("http:", "https:"), python=python,
                   before=NO_SSL)
        assert peer.requests == []
    assert done.status == 1
    assert re.fullmatch(r"userstate: .*\bssl\b.*refused at try 1.*\n", done.err)


SHOW_SSL = """
import os, sys
def leave(status, leave=os._exit):
    os.write(1, repr("ssl" in sys.modules).encode())
    leave(status)
os._exit = leave
"""


def test_http_does_without_ssl(edge_python):
    with Peer(ACCEPTED) as peer:
        done = run(*EVENT_WORDS, url=peer.url, before=SHOW_SSL, python=edge_python)
        assert done == (0, "False", "")


def test_https_gets_it(authority, edge_python):
    with tls_peer(authority, "good") as peer:
        done = run(*EVENT_WORDS, url=peer.url, before=SHOW_SSL, python=edge_python,
                   env=trusting(authority))
        assert done == (0, "True", "")


IMPORTED = """
import sys
FIRST
import userstate
assert sys.modules["ssl"].SSLContext
userstate.post_event({}, sys.argv[1])
"""


@pytest.mark.parametrize("first", ["", "import ssl"])
def test_an_imported_module_leaves_ssl_as_it_is(first, authority, edge_python):
    with tls_peer(authority, "good") as peer:
        done = run_code(IMPORTED.replace("FIRST", first), peer.url, python=edge_python,
                        env=trusting(authority))
        assert done == (0, "", "")
        assert len(peer.events) == 1
