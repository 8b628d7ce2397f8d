"""Every block of the README has a test, and the short ones are pasted here."""
import collections
import os
import re
import shutil

import pytest

from support.files import SCRIPT, TESTS, TOP
from support.interpreters import PYTHONS, hide
from support.peers import ACCEPTED, DEAD, Peer, document
from support.processes import run_code, run_command
from support.readme import (
    MARKS,
    README,
    SENTENCES,
    SHELL,
    WHOLE,
    adapted,
    block,
    joined,
    replaced,
    sections,
    timeline,
)
from support.receivers import ReceiverProcess, read_page
from support.scripts import shell
from support.tools import check, needs

VERSIONS = {path: tuple(map(int, version.split("."))) for version, path in PYTHONS.items()}


def test_each_block_has_its_test():
    """Those of the receiver have theirs in test_receiver.py."""
    kinds = collections.Counter(re.findall(r"^```(\w+)$", README, re.M))
    assert kinds.pop("sh") == len(SHELL) == len(MARKS)
    assert kinds.pop("text") == 4  # the demo, make serve, the timeline, the usage
    assert kinds == dict(python=2, yaml=1, ipxe=1, kickstart=1, preseed=1, autoinstall=1,
                         systemd=2, ansible=1, hcl=1)


def pasted(text, metadata_url, folder):
    """Run a shell block in a folder with the program; tell how it ended."""
    shutil.copy(SCRIPT, str(folder))
    return shell(adapted(text, metadata_url, folder), folder, "-eu")


TWO = ["user.1000 running hey im still running", "user.1010 running install nginx",
       "user.1010 failed install nginx: exit status 100 after N s"]


def test_the_first_commands_print_and_end_as_the_readme_says(tmp_path, receiver):
    done = pasted(SHELL["two"], receiver.metadata_url, tmp_path)
    assert done == (100, "", "no such package\n")
    assert timeline(receiver) == TWO


def test_the_page_shows_the_three_commands_as_the_readme_says(tmp_path, receiver):
    pasted(SHELL["two"], receiver.metadata_url, tmp_path)
    assert run_code(block("python", "userstate.step("), env=receiver.env).status == 0
    assert timeline(receiver) == [*TWO, "user.1020 running install packages",
                                  "user.1020 succeeded install packages: done after N s"]
    said = re.search("with the message of what failed, `([^`]*)`", SENTENCES).group(1)
    table = re.search("<tbody>(.*)</tbody>", read_page(receiver), re.S).group(1)
    row, = table.split("<tr>")[1:]
    assert said in " ".join(re.sub("<[^>]*>", " ", row).split())
    assert row.startswith('<td class="state"><span class="failed">failed</span>')
    assert 'href="/devices/127.0.0.1"' in row
    assert row.count("<rect") == 3  # a bar for each step


@pytest.mark.parametrize("name", ["fetched", "curl"])
def test_the_first_event_is_seen(name, tmp_path, receiver):
    needs("curl")
    assert pasted(SHELL[name], receiver.metadata_url, tmp_path) == (0, "", "")
    assert timeline(receiver) == TWO[:1]


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
    ("send_user_state_event", "", TWO[:1]),
    ("step", "installing\n", ["user.1020 running install packages",
                              "user.1020 succeeded install packages: done after N s"])])
def test_the_python_block_runs_with(mark, out, events, receiver):
    text = block("python", f"userstate.{mark}(")
    assert run_code(text, env=receiver.env) == (0, out, "")
    assert timeline(receiver) == events


def test_the_python_block_goes_on_without_a_receiver():
    text = block("python", "userstate.send_user_state_event(")
    done = run_code(text, env={"USERSTATE_URL": DEAD, "USERSTATE_DEADLINE": "0.2"})
    assert done.status == 0
    assert done.out.startswith("the installation goes on without it: ")


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
    for name in ("pre", "post", "onerror"):
        found[f"kickstart {name}"] = "\n".join(f"({text})" for text in sections(name))
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
    assert recipes.count("<details>") == recipes.count("</details>") == 7
    outside = re.sub("(?s)<details>.*?</details>", "", recipes)
    assert "```" not in outside


def plain_lines():
    """Yield each line of the README that is no row of a table."""
    for line in WHOLE.splitlines():
        if not line.startswith("|"):
            yield line


# What cannot be broken: an address, and a line of a unit.
LONG = ("export USERSTATE_URL=", "ExecStart=")


def test_no_line_outside_tables_is_wider_than_100_columns():
    assert [line for line in plain_lines()
            if len(line) > 100 and not line.startswith(LONG)] == []


def anchors():
    """Return the names of the sections, as GitHub makes them."""
    return [re.sub("[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
            for title in re.findall("^##+ (.*)$", re.sub("(?ms)^```.*?^```$", "", WHOLE), re.M)]


def test_each_link_leads_to_a_section():
    assert set(re.findall(r"\]\(#([^)]*)\)", WHOLE)) <= set(anchors())


def test_the_contents_are_the_sections_in_their_order():
    contents, = re.findall(r"(?m)(?:^- \[.*\n)+", WHOLE.partition("\n## ")[0])
    assert re.findall(r"\(#([^)]*)\)", contents) == anchors()


def test_the_receiver_is_not_called_a_service():
    """A service is systemd's here, or part of a name."""
    text = re.sub("(?ms)^```.*?^```$", "", WHOLE).replace("Name or service not known", "")
    assert re.findall(r".*\bservice\b.*", text) == []
    assert "800 lines" not in WHOLE
    assert "at most 1000 lines" in WHOLE
