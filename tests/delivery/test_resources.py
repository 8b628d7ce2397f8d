"""Want of memory, threads, processes, descriptors, variables and modules."""
import os
import re
import resource

import pytest

from support.authority import tls_peer, trusting
from support.files import SCRIPT, SOURCE
from support.interpreters import NO_THREAD, PYTHONS, WITHOUT_IDNA, resolve_to
from support.peers import ACCEPTED, DEAD, Peer, document, flood, part, reported
from support.processes import EVENT_WORDS, fresh, run, run_code, run_command
from support.waiting import at_most

# Answers without end. Some Pythons end that of 100 Continue after a hundred of them.
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
    "endless 103 Early Hints": flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000),
}
# Not ru_maxrss: that is at least what the process that forked it had.
MOST_MEMORY = r"""
import re, sys, userstate
userstate.main(sys.argv[1:])
with open("/proc/self/status") as status:
    print(re.search(r"VmHWM:\s*(\d+) kB", status.read()).group(1))
"""


@pytest.mark.parametrize("name", FLOODS)
def test_memory_stays_under_64_mib(name, edge_python):
    if not os.path.exists("/proc/self/status"):
        pytest.skip("no /proc here")
    with Peer(FLOODS[name]) as peer:
        done = run_code(MOST_MEMORY, "--metadata-url", peer.url, "--deadline=0.8",
                        "--timeout=0.4", *EVENT_WORDS, python=edge_python, traces=True)
        assert peer.requests
    assert "Traceback" not in done.err  # HTTPException is told in a line
    assert int(done.out) < 64 * 1024


def test_no_thread_to_be_had_is_delivered_at_once(edge_python):
    code = NO_THREAD + "userstate.post_event({}, sys.argv[1], say=print)"
    with Peer(ACCEPTED) as peer:
        assert run_code(code, peer.url, python=edge_python) == (0, "", "")
        assert len(peer.requests) == 1
        assert peer.events == [{}]


@pytest.mark.parametrize("words, out, states", [
    (EVENT_WORDS, "", ["running"]), (["url"], "URL\n", [])], ids=["event", "url"])
def test_without_a_thread_the_request_is_made_all_the_same(words, out, states, edge_python):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        done = run("--metadata-url", metadata.url, *words, python=edge_python,
                   before=NO_THREAD)
        assert done == (0, out.replace("URL", peer.url), "")
        assert [event["state"] for event in peer.events] == states


@pytest.mark.parametrize("command, status, out, states", [
    (["sh", "-c", "echo y; exit 3"], 3, "y\n", ["failed"]),
    (["--", "true"], 0, "", ["succeeded"])], ids=["fails", "ends well"])
def test_without_a_thread_a_run_reports_its_end(command, status, out, states, edge_python):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        done = run("--metadata-url", metadata.url, "run", "1010", "m", *command,
                   python=edge_python, before=NO_THREAD)
        assert done.status == status
        assert done.out == out
        assert re.fullmatch("userstate: .*thread.*left out.*\n", done.err)
        assert [event["state"] for event in peer.events] == states


def test_without_a_thread_the_sockets_time_out_bounds_a_try(edge_python):
    with Peer(part(b"")) as peer:
        with at_most(3):
            done = run("--deadline=0.5", *EVENT_WORDS, url=peer.url, python=edge_python,
                       before=NO_THREAD)
    assert done.status == 75
    assert "timed out; gave up" in done.err


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
        messages = [message for _, message in reported(peer)]
    without_the_first_report = [message for message in messages if message != "m"]
    assert without_the_first_report == ["last", "m: done after 0 s"]


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
        # With code before it, its text is given to Python: this user may not read the file.
        done = run(*EVENT_WORDS, url=peer.url, python="/usr/bin/python3", before="import os\n",
                   first=poor)
        assert done == (0, "", "")
        assert len(peer.events) == 1


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
    assert done.status == 0
    assert done.out.startswith("in the block\n")
    assert "Too many open files" in done.out


LIMITS = ["ulimit -n 16", "ulimit -v 400000", "unset HOME; cd /", "umask 777",
          "exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"]


@pytest.mark.parametrize("limit", LIMITS)
def test_poor_surroundings(limit, edge_python, receiver):
    done = run_command("sh", "-c", f'{limit}; exec "$0" -B "$1" run 1000 x true', edge_python,
                       SCRIPT, env=receiver.env)
    assert done == (0, "", "")
    assert len(receiver.shown()) == 2


def test_an_empty_environment_is_enough(receiver, edge_python):
    done = run_command("env", "-i", edge_python, "-", "--metadata-url", receiver.metadata_url,
                       *EVENT_WORDS, input=SOURCE)
    assert done == (0, "", "")
    assert len(receiver.shown()) == 1


@pytest.mark.parametrize("variables", [
    {"SSLKEYLOGFILE": "/nowhere/keys"}, {"SSLKEYLOGFILE": "/"}, {"SSL_CERT_DIR": "/nowhere"},
    {"OPENSSL_CONF": "/nowhere"}, {"TMPDIR": "/nowhere"}, {"HOME": "/nowhere"},
    {"TZ": "Nowhere/Else"}, {"LC_ALL": "nowhere"}, {"PYTHONWARNINGS": "error"},
    {"PYTHONIOENCODING": "ascii:strict"}, {"PYTHONDEVMODE": "1"}], ids=str)
def test_no_variable_makes_delivery_impossible(variables, authority, edge_python):
    with tls_peer(authority, "good") as peer:
        done = run("--deadline=5", *EVENT_WORDS, url=peer.url, python=edge_python,
                   env={**variables, **trusting(authority)})
        assert done == (0, "", "")
        assert len(peer.events) == 1


def deliver_without_idna(url, peer, python, **options):
    """Deliver to url, whose host is a name of 127.0.0.1, or is an address."""
    before = WITHOUT_IDNA
    if ".example" in url:
        before += resolve_to(peer.port)
    done = run("--deadline=2", *EVENT_WORDS, url=f"{url}:{peer.port}/", before=before,
               python=python, **options)
    assert done == (0, "", "")
    assert len(peer.events) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1", "http://localhost", "http://good.example"])
def test_a_python_without_the_idna_codec_delivers(url, edge_python):
    with Peer(ACCEPTED) as peer:
        deliver_without_idna(url, peer, edge_python)


@pytest.mark.parametrize("url, certificate", [("https://127.0.0.1", "good"),
                                              ("https://good.example", "named")])
def test_a_python_without_the_idna_codec_delivers_by_tls(url, certificate, authority,
                                                         edge_python):
    if edge_python == PYTHONS.get("3.6"):
        pytest.skip("Python 3.6 itself needs the codec for the name in a certificate")
    with tls_peer(authority, certificate) as peer:
        deliver_without_idna(url, peer, edge_python, env=trusting(authority))
