"""Every block of the README has a test, and the short ones are pasted here."""
import collections
import os
import re
import shutil

import pytest

from support.files import SCRIPT, SOURCE, TESTS, TOP
from support.interpreters import PYTHONS, hide
from support.peers import ACCEPTED, Peer, document
from support.processes import run_code, run_command
from support.readme import (
    CHECKSUM,
    MARKS,
    README,
    SHELL,
    adapted,
    block,
    joined,
    replaced,
    section,
    timeline,
)
from support.receivers import ReceiverProcess
from support.scripts import shell
from support.tools import check, needs

VERSIONS = {path: tuple(map(int, version.split("."))) for version, path in PYTHONS.items()}


def test_each_block_has_its_test():
    """Those of the receiver have theirs in test_receiver.py."""
    kinds = collections.Counter(re.findall(r"^```(\w+)$", README, re.M))
    assert kinds.pop("sh") == len(SHELL) == len(MARKS)
    assert kinds.pop("text") == 4  # the demo, make serve, the timeline, the usage
    assert kinds == dict(python=2, yaml=1, ipxe=1, kickstart=1, preseed=1, autoinstall=1,
                         systemd=2, ansible=1)


def pasted(text, metadata_url, folder):
    """Run a shell block in a folder with the program; tell how it ended."""
    shutil.copy(SCRIPT, str(folder))
    return shell(adapted(text, metadata_url, folder), folder, "-eu")


def test_get_it_prints_the_checksum_of_what_it_copied(tmp_path, receiver):
    (tmp_path / "web").mkdir()
    text = replaced(SHELL["get"], "FOLDER=/tmp", f"FOLDER={tmp_path}/web")
    done = pasted(text, receiver.metadata_url, tmp_path)
    assert done.status == 0
    assert done.out.split()[0] == CHECKSUM
    assert (tmp_path / "web" / "userstate.py").read_bytes() == SOURCE


@pytest.mark.parametrize("name", ["event", "curl"])
def test_the_first_event_is_seen(name, tmp_path, receiver):
    needs("curl")
    assert pasted(SHELL[name], receiver.metadata_url, tmp_path) == (0, "", "")
    assert timeline(receiver) == ["user.1000 running hey im still running"]


def test_curl_finds_the_address_in_a_document_of_one_line(tmp_path):
    needs("curl")
    with Peer() as peer:
        peer.scripts = [document(user_state_url=peer.url, x="y"), ACCEPTED]
        assert pasted(SHELL["curl"], peer.url, tmp_path).status == 0
    assert peer.events == [dict(state="running", code=1000, message="hey im still running")]


def test_the_address_is_asked_for_once(tmp_path, receiver):
    needs("python3")
    event = "unset USERSTATE_METADATA_URL; python3 userstate.py running 1000 x"
    done = pasted(f"{SHELL['once']}\n{event}", receiver.metadata_url, tmp_path)
    assert done.status == 0
    assert timeline(receiver) == ["user.1000 running x"]


def test_the_image_gets_the_program_with_its_run_bit(tmp_path, receiver):
    text = replaced(SHELL["image"], "ROOT=/ ", f"ROOT={tmp_path} ")
    assert pasted(text, receiver.metadata_url, tmp_path).status == 0
    assert os.access(str(tmp_path / "usr/local/bin/userstate"), os.X_OK)


@pytest.mark.parametrize("mark, out, events", [
    ("send_user_state_event", "", ["user.1000 running hey im still running"]),
    ("step", "installing\n", ["user.1010 running install packages",
                              "user.1010 succeeded install packages: done after N s"])])
def test_the_python_block_runs_with(mark, out, events, receiver):
    text = block("python", f"userstate.{mark}(")
    assert run_code(text, env=receiver.env) == (0, out, "")
    assert timeline(receiver) == events


def same_in_each_run(text):
    """Return text with one port and one time of the day, as these differ in each run."""
    return re.sub(r":\d{4,5}/", ":0/", re.sub(r"\d\d:\d\d:\d\d", "TIME", text))


def test_make_demo_prints_what_the_readme_shows(python):
    if VERSIONS[python] < (3, 8):
        pytest.skip("the receiver needs Python 3.8")
    done = run_command(*SHELL["demo"].split(), "-s", f"PYTHON={python}", cwd=TOP, seconds=60)
    assert same_in_each_run(done.out) == same_in_each_run(block("text", "$ export"))
    assert done.status == 0


def test_the_demo_and_the_bench_need_no_pytest():
    code = hide("pytest") + "import bench, demo"
    assert run_code(code, env={"PYTHONPATH": TESTS}) == (0, "", "")


def test_make_serve_prints_what_the_readme_shows():
    command, *shown = block("text", "make serve").splitlines(True)
    assert command == "$ make serve\n"
    with ReceiverProcess() as receiver:
        port = str(receiver.server_address[1])
        assert receiver.announced == [line.replace("8000", port) for line in shown]


def scripts():
    """Return every shell script of the README, by the name of its block."""
    found = dict(SHELL)
    found["kickstart"] = "\n".join(map(section, ("pre", "post", "onerror")))
    found["preseed"] = "\n".join(
        re.findall("_command string (.*)$", joined(block("preseed")), re.M))
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
