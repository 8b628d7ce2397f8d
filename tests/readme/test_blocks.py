"""Every block of the README has a test, and the short ones are pasted here."""
import collections
import os
import re
import shutil
import subprocess
import sys

import pytest

from support.files import SCRIPT, SOURCE, TOP
from support.interpreters import PYTHONS
from support.peers import ACCEPTED, Peer, document
from support.readme import (
    BLOCKS,
    CHECKSUM,
    MARKS,
    README,
    SHELL,
    Files,
    adapted,
    block,
    section,
)
from support.tools import check, needs

# The receiver has tests of its own.
README, _, rest = README.partition("\n## A receiver\n")


def test_each_block_has_its_test():
    """Those of the receiver have theirs in test_receiver.py."""
    kinds = collections.Counter(re.findall(r"^```(\w+)$", README, re.M))
    assert kinds.pop("sh") == len(SHELL) == len(MARKS)
    assert kinds.pop("text") == 4  # the demo, make serve, the timeline, the usage
    assert kinds == dict(python=2, yaml=1, ipxe=1, kickstart=1, preseed=1, autoinstall=1,
                         systemd=2, ansible=1)


def pasted(name, receiver, tmp_path, text=""):
    """Run a shell block, given by its name or whole, in a checkout."""
    block = adapted(SHELL.get(name, name), receiver, Files(9, []), tmp_path) + text
    shutil.copy(SCRIPT, str(tmp_path))
    return subprocess.run(["sh", "-eu", "-c", block], env={"PATH": os.environ["PATH"]},
                          cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          timeout=60)


def test_get_it_prints_the_checksum_of_what_it_copied(tmp_path, receiver):
    (tmp_path / "web").mkdir()
    block = SHELL["get"].replace("FOLDER=/tmp", f"FOLDER={tmp_path}/web")
    ended = pasted(block, receiver, tmp_path)
    assert (ended.returncode, ended.stdout.split()[0].decode()) == (0, CHECKSUM)
    assert (tmp_path / "web" / "userstate.py").read_bytes() == SOURCE


@pytest.mark.parametrize("name", ["event", "curl"])
def test_the_first_event_is_seen(name, tmp_path, receiver):
    needs("curl")
    ended = pasted(name, receiver, tmp_path)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert receiver.shown() == [("user.1000", "running", "hey im still running")]


def test_curl_finds_the_address_in_a_document_of_one_line(tmp_path):
    needs("curl")
    with Peer() as peer:
        peer.metadata_url = peer.url
        peer.scripts = [document(user_state_url=peer.url, x="y"), ACCEPTED]
        assert pasted("curl", peer, tmp_path).returncode == 0
    assert peer.events == [dict(state="running", code=1000, message="hey im still running")]


def test_the_address_is_asked_for_once(tmp_path, receiver):
    needs("python3")
    text = "\nunset USERSTATE_METADATA_URL; python3 userstate.py running 1000 x"
    assert pasted("once", receiver, tmp_path, text).returncode == 0
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_the_image_gets_the_program_with_its_run_bit(tmp_path, receiver):
    block = SHELL["image"].replace("ROOT=/ ", f"ROOT={tmp_path} ")
    assert pasted(block, receiver, tmp_path).returncode == 0
    assert os.access(str(tmp_path / "usr/local/bin/userstate"), os.X_OK)


def test_python_blocks_run(receiver):
    for block in [text for kind, text in BLOCKS if kind == "python"]:
        ended = subprocess.run([sys.executable, "-B", "-c", block], cwd=TOP,
                               env=receiver.env, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        assert (ended.returncode, ended.stdout) == (0, b"installing\n" * ("step" in block))
    assert [(kind, state) for kind, state, _ in receiver.shown()] == [
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


def scripts():
    """Return every shell script of the README, by the name of its block."""
    found = dict(SHELL)
    found["kickstart"] = "\n".join(map(section, ("pre", "post", "onerror")))
    found["preseed"] = "\n".join(re.findall("_command string (.*)$", re.sub(
        r"\\\n", "", block("preseed")), re.M))
    for kind, start in (("yaml", "content: [|]"), ("autoinstall", "    - [|]")):
        text = re.search(rf"{start}\n((?:      .*\n|\n)*)", block(kind)).group(1)
        found[kind] = re.sub("(?m)^      ", "", text)
    return found


@pytest.mark.parametrize("name", scripts())
def test_shellcheck(name):
    """SC2016: the preseed writes a script; SC2317: a trap calls it."""
    check("shellcheck", "-s", "sh", "-e", "SC2016,SC2317", "-",
          input=scripts()[name].encode())


def test_each_recipe_is_folded():
    recipes = re.search(r"^## Recipes\n.*?^## ", README, re.M | re.S).group()
    assert recipes.count("<details>") == recipes.count("</details>") == 6
    outside = re.sub("(?s)<details>.*?</details>", "", recipes)
    assert "```" not in outside
