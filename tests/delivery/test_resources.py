"""Want of threads, memory, descriptors, processes, variables and modules."""
import os
import re
import resource
import subprocess
import time

import pytest

from support.authority import tls_peer
from support.files import SCRIPT, SOURCE, TOP
from support.interpreters import NO_THREAD, PYTHONS, WITHOUT_IDNA, resolve_to
from support.peers import ACCEPTED, DEAD, Peer, document, flood, part, reported
from support.processes import EVENT_WORDS, fresh, run, run_code

FLOODS = {
    "negative chunk": flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
                            b" " * 65536),
    "negative chunk of an error": flood(
        b"HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", b" " * 65536),
    "endless body": flood(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 65536),
    "endless chunks": flood(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                            b"10000\r\n" + b" " * 65536 + b"\r\n"),
    "endless error": flood(b"HTTP/1.1 503 No\r\n\r\n", b" " * 65536),
    "endless header line": flood(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65536),
    "endless headers": flood(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 10000),
    "endless status line": flood(b"HTTP/1.1 200 ", b"x" * 65536),
    "endless 100 Continue": flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_memory_stays_under_64_mib(name, edge_python):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here")
    # Not ru_maxrss: that is at least what the process that forked it had.
    code = ("import re, sys, userstate; userstate.main(sys.argv[1:]);"
            "print(re.search('VmHWM: *(.*) kB', open('/proc/self/status').read()"
            ".replace('\\t', '')).group(1))")
    with Peer(FLOODS[name]) as peer:
        ended = subprocess.run(
            [edge_python, "-B", "-c", code, "--metadata-url", peer.url, "--deadline=0.8",
             "--timeout=0.4", "running", "1000", "x"], cwd=TOP, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, timeout=30)
    assert b"Traceback" not in ended.stderr
    assert int(ended.stdout) < 64 * 1024


def test_an_empty_environment_is_enough(receiver, edge_python):
    ended = subprocess.run(
        ["env", "-i", edge_python, "-", "--metadata-url", receiver.metadata_url, "running",
         "1000", "x"], input=SOURCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (ended.returncode, ended.stdout) == (0, b"") and len(receiver.shown()) == 1


def test_no_thread_to_be_had_is_delivered_at_once(edge_python):
    code = NO_THREAD + "userstate.post_event({}, sys.argv[1], say=print)"
    with Peer(ACCEPTED) as peer:
        ended = subprocess.run([edge_python, "-B", "-c", code, peer.url], cwd=TOP,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
        assert len(peer.requests) == 1 and peer.events == [{}]


@pytest.mark.parametrize("words, status, out, events", [
    (EVENT_WORDS, 0, "", ["running"]), (["url"], 0, "URL\n", []),
    (["run", "1010", "m", "sh", "-c", "echo y; exit 3"], 3, "y\n", ["failed"]),
    (["run", "1010", "m", "--", "true"], 0, "", ["succeeded"])], ids=str)
def test_without_a_thread_the_request_is_made_all_the_same(words, status, out, events,
                                                           edge_python):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        done = run("--metadata-url", metadata.url, *words, python=edge_python,
                      before=NO_THREAD)
        assert done[:2] == (status, out.replace("URL", peer.url))
        assert [event["state"] for event in peer.events] == events
    if words[0] == "run":
        assert re.fullmatch("userstate: .*thread.*left out.*\n", done.err)
    else:
        assert done.err == ""


def test_without_a_thread_the_sockets_time_out_bounds_a_try(edge_python):
    with Peer(part(b"")) as peer:
        begun = time.monotonic()
        done = run("--deadline=0.5", *EVENT_WORDS, url=peer.url, python=edge_python,
                      before=NO_THREAD)
        assert done.status == 75 and "timed out; gave up" in done.err
        assert time.monotonic() - begun < 3


def test_a_user_who_may_have_no_more_processes_delivers():
    def poor():
        fresh()
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        if os.getuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
    if not os.path.exists("/usr/bin/python3"):
        pytest.skip("no Python that everybody may run")
    with Peer(ACCEPTED) as peer:
        assert run(*EVENT_WORDS, url=peer.url, python="/usr/bin/python3", before="import os\n",
                      first=poor) == (0, "", "")
        assert len(peer.events) == 1


def test_an_event_at_the_exit_of_a_program_is_delivered(python):
    """Python 3.12 and later start no thread by then."""
    code = """
import atexit, sys, userstate
def last():
    userstate.send_user_state_event("running", 1000, "last", url=sys.argv[1])
    with userstate.step(1000, "m", url=sys.argv[1], say=str):
        pass
atexit.register(last)
"""
    with Peer(ACCEPTED) as peer:
        assert run_code(code, peer.url, python=python) == (0, "", "")
        assert [message for _, message in reported(peer) if message != "m"] == [
            "last", "m: done after 0 s"]


@pytest.mark.parametrize("variables", [
    {"SSLKEYLOGFILE": "/nowhere/keys"}, {"SSLKEYLOGFILE": "/"}, {"SSL_CERT_DIR": "/nowhere"},
    {"OPENSSL_CONF": "/nowhere"}, {"TMPDIR": "/nowhere"}, {"HOME": "/nowhere"},
    {"TZ": "Nowhere/Else"}, {"LC_ALL": "nowhere"}, {"PYTHONWARNINGS": "error"},
    {"PYTHONIOENCODING": "ascii:strict"}, {"PYTHONDEVMODE": "1"}], ids=str)
def test_no_variable_makes_delivery_impossible(variables, authority, edge_python):
    with tls_peer(authority, "good") as peer:
        done = run("--deadline=5", *EVENT_WORDS, url=peer.url, python=edge_python,
                      env=dict(variables, SSL_CERT_FILE=str(authority / "ca.pem")))
        assert done == (0, "", "") and len(peer.events) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:PORT/", "http://localhost:PORT/",
                                 "http://good.example:PORT/", "https://good.example:PORT/",
                                 "https://127.0.0.1:PORT/"])
def test_a_python_without_the_idna_codec_delivers(url, authority, edge_python):
    if url[4] == "s" and edge_python == PYTHONS.get("3.6"):
        pytest.skip("Python 3.6 itself needs the codec for the name in a certificate")
    kind = "good" if "127" in url else "named"
    with (tls_peer(authority, kind) if url[4] == "s" else Peer(ACCEPTED)) as peer:
        before = WITHOUT_IDNA + (resolve_to(peer.port) if "example" in url else "")
        done = run("--deadline=2", *EVENT_WORDS, url=url.replace("PORT", str(peer.port)),
                      before=before, python=edge_python,
                      env={"SSL_CERT_FILE": str(authority / "ca.pem")})
        assert done == (0, "", "") and len(peer.events) == 1


NO_DESCRIPTOR = """
import os, resource, sys, userstate
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
"""


def test_no_descriptor_left_is_told_by_documented_errors_only(edge_python):
    code = NO_DESCRIPTOR + """
with userstate.step(1050, "x", url=sys.argv[1], deadline=0.5):
    print("in the block")
try:
    userstate.send_user_state_event("running", 1000, "x", url=sys.argv[1], deadline=0.5)
except userstate.DeadlineError as error:
    print(error)
"""
    done = run_code(code, DEAD, python=edge_python)
    assert done.status == 0 and done.out.startswith("in the block\n")
    assert "Too many open files" in done.out and "Traceback" not in done.err


LIMITS = ["ulimit -n 16", "ulimit -v 400000", "unset HOME; cd /", "umask 777",
          "exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"]


@pytest.mark.parametrize("limit", LIMITS)
def test_poor_surroundings(limit, edge_python, receiver):
    ended = subprocess.run(
        ["sh", "-c", f'{limit}; exec "$0" -B "$1" run 1000 x true', edge_python, SCRIPT],
        env=receiver.env, stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(receiver.shown()) == 2
