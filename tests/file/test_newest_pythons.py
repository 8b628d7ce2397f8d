"""The interpreters of Debian sid, newer than any that is installed: nothing warns."""
import re
import shutil
import subprocess
import tempfile

import pytest

from support.authority import tls_peer
from support.debians import Debians
from support.files import SCRIPT
from support.interpreters import PYTHONS
from support.peers import ACCEPTED, Peer, reported
from support.receivers import make_archive
from support.tools import slow

pytestmark = slow
STRICT = ["-W", "error", "-X", "dev"]  # a socket that is left open is a warning, too
BLOCK = """
import userstate
with userstate.step(1010, "m", every=0.05):
    sum(range(5000000))
"""
RECEIVE = """
import re, subprocess, sys, urllib.request
strict = [sys.executable, "-W", "error", "-X", "dev"]
receiver = subprocess.Popen([*strict, "receiver.pyz", "--port", "0", "--data", "events"],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
try:
    shown = receiver.stdout.readline() + receiver.stdout.readline()
    metadata = re.search("http.*/metadata", shown.decode()).group()
    event = ["--metadata-url", metadata, "running", "1000", "x"]
    subprocess.run([*strict, "userstate.py", *event], check=True)
    for path in "/", "/devices", "/devices/127.0.0.1", "/devices/127.0.0.1/events":
        with urllib.request.urlopen(metadata.replace("/metadata", path)) as reply:
            assert b"running" in reply.read(), path
finally:
    receiver.terminate()
    out, err = receiver.communicate()
sys.stderr.write(err.decode())
sys.exit(receiver.returncode)
"""


@pytest.fixture(scope="module")
def sid():
    """A Debian sid with the program, the receiver and each of its interpreters."""
    with tempfile.TemporaryDirectory(prefix="sid") as folder:
        debians = Debians(folder, "sid")
        try:
            debians.path()
        except subprocess.CalledProcessError as error:
            pytest.skip(f"the mirror has no sid today: {error}")
        root = debians.copy(folder, "python3")
        listed = root.run(["apt-cache", "pkgnames", "python3."]).stdout.decode().split()
        root.pythons = sorted(name for name in listed if re.fullmatch(r"python3\.\d+", name))
        root.install(*root.pythons)
        with tempfile.TemporaryDirectory() as made:
            for name in (SCRIPT, make_archive(made)):
                shutil.copy(name, root.path)
        yield root


def test_there_is_a_newer_one_than_those_that_are_installed(sid):
    newest = max(int(name.partition(".")[2]) for name in sid.pythons)
    assert newest >= int(list(PYTHONS)[-1].partition(".")[2])


def in_each(sid, *words, status=0, input=b"", **environment):
    """Run words in each interpreter of sid: the status is this, and nothing is on stderr."""
    for python in sid.pythons:
        done = sid.run([python, *STRICT, *words], input, **environment)
        assert (done.returncode, done.stderr.decode()) == (status, ""), python


@pytest.mark.parametrize("how", ["file", "pipe"])
def test_an_event(how, sid):
    with open(SCRIPT, "rb") as file, Peer(ACCEPTED) as peer:
        where = "-" if how == "pipe" else "/userstate.py"
        in_each(sid, where, "--url", peer.url, "running", "1000", "x", input=file.read())
        assert reported(peer) == [("running", "x")] * len(sid.pythons)


def test_a_command_with_a_log_and_heartbeats(sid):
    with Peer(ACCEPTED) as peer:
        in_each(sid, "/userstate.py", "--url", peer.url, "run", "--every", "0.05", "--log",
                "/log", "1010", "m", "sh", "-c", "echo why; sleep 0.2; exit 3", status=3)
        ends = [message for state, message in reported(peer) if state == "failed"]
        assert ends == ["m: exit status 3 after 0 s: why"] * len(sid.pythons)


def test_a_step(sid):
    with Peer(ACCEPTED) as peer:
        in_each(sid, "-c", BLOCK, USERSTATE_URL=peer.url, PYTHONPATH="/")
        ends = [message for state, message in reported(peer) if state == "succeeded"]
        assert ends == ["m: done after 0 s"] * len(sid.pythons)


def test_https(sid, authority):
    shutil.copy(str(authority / "ca.pem"), sid.path)
    with tls_peer(authority, "good") as peer:
        in_each(sid, "/userstate.py", "--url", peer.url, "running", "1000", "x",
                SSL_CERT_FILE="/ca.pem")
        assert reported(peer) == [("running", "x")] * len(sid.pythons)


def test_the_receiver(sid):
    in_each(sid, "-c", f"import os; os.chdir('/')\n{RECEIVE}")
