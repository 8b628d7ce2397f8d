"""Every block of the README does what it says; test_script and test_recipes have the rest."""
import collections
import hashlib
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import (ACCEPTED, DEAD, PYTHONS, SCRIPT, SOURCE, TOP, Peer, answer, document,
                      needs, tls_peer)

import userstate

with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
    README = file.read()
# The receiver has tests of its own.
README, _, rest = README.partition("\n## A receiver\n")
README += rest[rest.index("\n## "):]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
MARKS = {"demo": "make demo", "get": "sha256sum \"$FOLDER", "event": "userstate.py running",
         "script": "#!/bin/sh", "curl": "curl -fsS -d", "carries": "gz+b64",
         "image": "install -D", "once": "USERSTATE_URL=$(python3"}
SHELL = {name: text for name, mark in MARKS.items() for kind, text in BLOCKS
         if kind == "sh" and mark in text}
CHECKSUM = hashlib.sha256(SOURCE).hexdigest()
Files = collections.namedtuple("Files", "port requests")  # a file server


def block(kind, mark=""):
    """Return the one block of this kind that has mark in it."""
    found = [text for name, text in BLOCKS if name == kind and mark in text]
    assert len(found) == 1
    return found[0]


def adapted(text, platform, files, folder):
    """Return text with its addresses, checksum and places made those of a test."""
    pairs = {"http://files.example.com": f"http://127.0.0.1:{files.port}",
             "http://metadata.example.com/metadata": platform.metadata_url,
             "http://127.0.0.1:8000/metadata": platform.metadata_url,
             "0123456789abcdef" * 4: CHECKSUM, "/srv/app": f"{folder}/app",
             "/var/lib/": f"{folder}/", "/run/": f"{folder}/"}
    for old, new in pairs.items():
        text = text.replace(old, new)
    return text


def test_each_block_has_its_test():
    """Those of the receiver have theirs in test_receiver.py."""
    kinds = collections.Counter(re.findall(r"^```(\w+)$", README, re.M))
    assert kinds.pop("sh") == len(SHELL) == len(MARKS)
    assert kinds.pop("text") == 4  # the demo, make serve, the timeline, the usage
    assert kinds == dict(python=2, yaml=1, ipxe=1, kickstart=1, preseed=1, autoinstall=1,
                         systemd=2, ansible=1)


def pasted(name, platform, tmp_path, text=""):
    """Run a shell block, given by its name or whole, in a checkout."""
    block = adapted(SHELL.get(name, name), platform, Files(9, []), tmp_path) + text
    shutil.copy(SCRIPT, str(tmp_path))
    return subprocess.run(["sh", "-eu", "-c", block], env={"PATH": os.environ["PATH"]},
                          cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60)


def test_get_it_prints_the_checksum_of_what_it_copied(tmp_path, platform):
    (tmp_path / "web").mkdir()
    block = SHELL["get"].replace("FOLDER=/tmp", f"FOLDER={tmp_path}/web")
    ended = pasted(block, platform, tmp_path)
    assert (ended.returncode, ended.stdout.split()[0].decode()) == (0, CHECKSUM)
    assert (tmp_path / "web" / "userstate.py").read_bytes() == SOURCE


@pytest.mark.parametrize("name", ["event", "curl"])
def test_the_first_event_is_seen(name, tmp_path, platform):
    needs("curl")
    ended = pasted(name, platform, tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert platform.shown() == [("user.1000", "running", "hey im still running")]


def test_curl_finds_the_address_in_a_document_of_one_line(tmp_path):
    needs("curl")
    with Peer() as peer:
        peer.metadata_url = peer.url
        peer.scripts = [document(user_state_url=peer.url, x="y"), ACCEPTED]
        assert pasted("curl", peer, tmp_path).returncode == 0
    assert peer.events == [dict(state="running", code=1000, message="hey im still running")]


def test_the_address_is_asked_for_once(tmp_path, platform):
    needs("python3")
    text = "\nunset USERSTATE_METADATA_URL; python3 userstate.py running 1000 x"
    assert pasted("once", platform, tmp_path, text).returncode == 0
    assert platform.shown() == [("user.1000", "running", "x")]


def test_the_image_gets_the_program_with_its_run_bit(tmp_path, platform):
    block = SHELL["image"].replace("ROOT=/ ", f"ROOT={tmp_path} ")
    assert pasted(block, platform, tmp_path).returncode == 0
    assert os.access(str(tmp_path / "usr/local/bin/userstate"), os.X_OK)


def test_python_blocks_run(platform):
    for block in [text for kind, text in BLOCKS if kind == "python"]:
        ended = subprocess.run([sys.executable, "-B", "-c", block], cwd=TOP,
                               env=platform.env, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        assert (ended.returncode, ended.stdout) == (0, b"installing\n" * ("step" in block))
    assert [(kind, state) for kind, state, _ in platform.shown()] == [
        ("user.1000", "running"), ("user.1010", "running"), ("user.1010", "succeeded")]


def test_make_demo_prints_what_the_readme_shows(python):
    version = next(name for name, path in PYTHONS.items() if path == python)
    if int(version.partition(".")[2]) < 8:
        pytest.skip("the service needs Python 3.8")

    def same(text):
        return re.sub(r":\d{4,5}/", ":0/", re.sub(r"\d\d:\d\d:\d\d", "TIME", text))
    ended = subprocess.run([*SHELL["demo"].split(), "-s", f"PYTHON={python}"], cwd=TOP,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                           env={"PATH": os.environ["PATH"]})
    assert same(ended.stdout.decode()) == same(block("text", "$ export"))
    assert ended.returncode == 0


def test_make_serve_prints_what_the_readme_shows():
    shown = block("text", "make serve").splitlines()
    assert shown[0] == "$ make serve"
    with subprocess.Popen([sys.executable, "-B", os.path.join(TOP, "tests", "service.py"),
                           "--port", "0"], stdout=subprocess.PIPE) as service:
        lines = [service.stdout.readline().decode().strip() for _ in shown[1:]]
        service.kill()
    port = re.search(":([0-9]+)/", lines[0]).group(1)
    assert lines == [line.replace("8000", port) for line in shown[1:]]


def test_the_tables_name_every_option_variable_status_and_default():
    for word in userstate.OPTIONS:
        assert "--" + word.rstrip("=") in README
    for word in (*re.findall("USERSTATE_[A-Z_]+", userstate.USAGE), "SSL_CERT_FILE",
                 *userstate.METADATA_URL.split(), *userstate.STATES):
        assert f"`{word}`" in README
    for status in (0, 1, 2, 75, 130):
        assert re.search(rf"^\| {status} \|", README, re.M)
    assert "2026-06-30" in README


def test_the_numbers_are_those_of_the_program():
    pauses = ", ".join(map(str, userstate.PAUSES))
    for words in (f"| `--timeout SECONDS` | `USERSTATE_TIMEOUT` | {userstate.TIMEOUT} |",
                  f"| `--deadline SECONDS` | `USERSTATE_DEADLINE` | {userstate.DEADLINE} |",
                  f"after pauses of {pauses}, 15 ... seconds",
                  f"makes a pause longer, up to {userstate.RETRY_AFTER_MOST} seconds"):
        assert words in README
    assert f"of one try, {userstate.TIMEOUT};" in userstate.USAGE
    assert f"of one report, {userstate.DEADLINE}\n" in userstate.USAGE


def test_the_readme_names_a_python_that_is_tested():
    assert "Python 3.6" in README
    if "3.6" not in PYTHONS:
        pytest.skip("no Python 3.6 here; oldest is " + next(iter(PYTHONS)))


def hang(connection, peer):
    peer.read(connection)
    peer.over.wait(600)


def speak_http(connection, peer):
    connection.recv(65536)
    connection.sendall(answer(400))


# The table "If it fails": what brings each of its lines about, as (options, environment,
# the start of the program) or the answers of a peer.
TABLE = re.findall("`([^`]+)`", "".join(
    line.split("|")[1] for line in re.search("## If it fails(.*?)\n## ", README, re.S).group(1)
    .splitlines() if line.startswith("| `")))
HIDE = """
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == "{0}":
            raise ModuleNotFoundError("No module named '{0}'", name=name)
sys.modules.pop("{0}", None)
sys.meta_path.insert(0, Hide())
"""
PROVOKED = {
    "Connection refused": lambda: said("--url", DEAD),
    "Name or service not known": lambda: said("--url", "http://nobody.invalid/"),
    "timed out": lambda: peer_said(hang),
    "switched off on 2026-06-30": lambda: said(),
    "HTTP 404": lambda: peer_said(answer(404)),
    "no user_state_url": lambda: peer_said(document(x="y")),
    "not JSON": lambda: peer_said(answer(200, b"<html>")),
    "no ssl": lambda: peer_said(hang, "https", start=HIDE.format("ssl")),
    "No module named": lambda: said(start=HIDE.format("json")),
    "redirect to": lambda: peer_said(answer(301, b"", "Location: http://x.example/")),
    "incomplete download": lambda: said(source=SOURCE[:20000].rpartition(b"\n\ndef")[0]),
    "refused at try N": lambda: peer_said(answer(403)),
    "gave up at try N": lambda: said("--url", DEAD),
    "no TLS": lambda: peer_said(speak_http, "https"),
}
PROVOKED["Temporary failure in name resolution"] = PROVOKED["Name or service not known"]
OF_TLS = {"certificate verify failed": ("good", None), "is the clock right?": ("expired", "ca")}


def said(*options, start="", source=SOURCE, deadline="0.5", **environment):
    """Return what an event with these options says on stderr."""
    ended = subprocess.run([sys.executable, "-B", "-c", start + source.decode(), "--deadline",
                            deadline, *options, "running", "1000", "x"],
                           env=dict(environment, PATH=os.environ["PATH"]), timeout=60,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert ended.returncode in (1, 75)
    return ended.stderr.decode()


def peer_said(script, scheme="http", **options):
    with Peer(script) as peer:
        return said("--metadata-url", peer.url.replace("http", scheme), **options)


@pytest.mark.parametrize("line", TABLE)
def test_the_program_says_the_line_of_the_table(line, request):
    if line in OF_TLS:
        authority = request.getfixturevalue("authority")
        name, known = OF_TLS[line]
        with tls_peer(authority, name) as peer:
            environment = {"SSL_CERT_FILE": str(authority / "ca.pem")} if known else {}
            text = said("--url", peer.url, **environment)
    else:
        text = PROVOKED[line]()
    line = line.replace("at try N", "at try ")
    if line in ("Name or service not known", "Temporary failure in name resolution"):
        assert re.search("name|Name|resol", text)  # which of them depends on the machine
    else:
        assert line in text
