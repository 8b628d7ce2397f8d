"""The user-data script: in each shell, and whatever is missing."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import time

import pytest

from support.files import SOURCE
from support.interpreters import hide
from support.peers import DEAD, DEAD_PORT, Peer, answer, hang
from support.readme import CHECKSUM, README, SHELL, adapted
from support.scripts import GOOD, PYTHON, TIMELINE, tools_in
from support.tools import needs, slow

SHELLS = {"bash": ["bash"], "dash": ["dash"], "ash": ["busybox", "ash"], "ksh": ["ksh"],
          "zsh": ["zsh"], "mksh": ["mksh"]}
SURE = ["bash", "dash", "ash"]  # that is, sh on a machine
WITHOUT = b"going on without reports\n"
FETCHERS = ["curl", "wget", "busybox wget", "python3"]


def run_script(text, shell, tmp_path, tools=None, **environment):
    """Run text in shell, with tools as its PATH; return status and stderr."""
    needs(SHELLS[shell][0])
    command = [shutil.which(SHELLS[shell][0]), *SHELLS[shell][1:]]
    tools = tools or tools_in(tmp_path / "tools", busybox=shell == "ash")
    ended = subprocess.run(
        [*command, "-c", text], cwd=os.sep, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=dict({"PATH": tools, "TMPDIR": str(tmp_path)}, **environment), timeout=400)
    assert ended.stdout == b"", ended
    return ended.returncode, ended.stderr


def hurried(text, tries="0 0 0 0 0", limit="0.3"):
    """Return text without pauses, and with less time for a download and an event."""
    for old, new in (("for pause in 0 1 2 4 8", f"for pause in {tries}"),
                     ("timeout 30", f"timeout {limit}"), ("--deadline 60", "--deadline 0.3"),
                     ("DEADLINE=5", "DEADLINE=0.2")):
        assert old in text
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize("shell", SHELLS)
def test_the_timeline_is_that_of_the_readme_in(shell, tmp_path, receiver):
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], receiver, files, tmp_path)
        assert run_script(text, shell, tmp_path) == (100, b"no such package\n")
    assert len(files.requests) == 1 and (tmp_path / "app").is_dir()
    # zsh: as the README says.
    assert receiver.shown() == (TIMELINE[:-1] if shell == "zsh" else TIMELINE)


@pytest.mark.parametrize("shell", SHELLS)
def test_success_is_shown_as_success_in(shell, tmp_path, receiver):
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], receiver, files, tmp_path).replace("exit 100", "true")
        assert run_script(text, shell, tmp_path) == (0, b"no such package\n")
    assert receiver.shown()[-1] == ("user.1000", "succeeded", "user-data")
    assert len(receiver.shown()) == 8


@pytest.mark.parametrize("name, number", [("HUP", 1), ("INT", 2), ("TERM", 15)])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_signal_is_shown_as_a_failure_in(shell, name, number, tmp_path, receiver):
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], receiver, files, tmp_path)
        text = text.replace("step 1020", f"kill -{name} $$\nstep 1020")
        status, _ = run_script(text, shell, tmp_path)
    assert status == (0 if shell == "mksh" else 128 + number)  # as the README says
    assert receiver.shown()[-1] == ("user.1000", "failed",
                                    f"user-data: exit status {128 + number}")


# What can be wrong, as (answers of the file server or None, python3, environment).
THIN = f"""#!{PYTHON}
{hide("json")}
import runpy
del sys.argv[:2]  # itself and -I
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CAUSES = {
    "no Python": (GOOD, None, {}),
    "a Python that does not start": (GOOD, "#!/nonexistent\n", {}),
    "a Python without json": (GOOD, THIN, {}),
    "an empty file": (answer(200), "", {}),
    "a file that was cut": (GOOD[:20000], "", {}),
    "half a file": (answer(200, SOURCE[:20000]), "", {}),
    "a file of another checksum": (answer(200, SOURCE + b"#\n"), "", {}),
    "a page that it is not found": (answer(404, b"<html>"), "", {}),
    "a dead file server": (None, "", {}),
    "a file server that hangs": (hang, "", {}),
    "no folder to write to": (GOOD, "", {"TMPDIR": "/nonexistent"}),
    "an address without http": (GOOD, "", {}),
    "a deadline that is no number": (GOOD, "", {"USERSTATE_DEADLINE": "soon"}),
}


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("shell", [
    shell if shell in SURE else pytest.param(shell, marks=slow) for shell in SHELLS])
def test_the_steps_run_without_reports(shell, cause, tmp_path, receiver):
    script, python, environment = CAUSES[cause]
    tools = tools_in(tmp_path / "tools", busybox=shell == "ash",
                 **{} if python == "" else {"python": python})
    with Peer(script or b"") as files:
        files = files if script else Peer(b"")
        files.port = files.port if script else DEAD_PORT
        text = hurried(adapted(SHELL["script"], receiver, files, tmp_path))
        if cause == "an address without http":
            text = text.replace(receiver.metadata_url, "metadata.example.com/metadata")
        status, err = run_script(text, shell, tmp_path, tools, **environment)
    assert status == 100, err
    assert WITHOUT + b"no such package\n" in err
    assert (tmp_path / "app").is_dir()
    assert receiver.shown() == []


@pytest.mark.parametrize("shell", SURE)
def test_the_steps_end_well_without_reports(shell, tmp_path, receiver):
    with Peer(answer(404)) as files:
        text = hurried(adapted(SHELL["script"], receiver, files, tmp_path))
        text = text.replace("exit 100", "true").replace('"prepare"', '"prepare" --')
        status, err = run_script(text, shell, tmp_path)
    assert status == 0, err
    assert err.endswith(WITHOUT + b"no such package\n")


PASSING = {"late": [b"", answer(503)], "hangs": [hang], "cuts": [GOOD[:20000]],
           "404": [answer(404)]}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("fetcher", FETCHERS)
def test_a_file_server_that_recovers_is_asked_again(fetcher, fault, tmp_path, receiver):
    tools = tools_in(tmp_path / "tools", fetcher)
    with Peer(*PASSING[fault], GOOD) as files:
        text = adapted(SHELL["script"], receiver, files, tmp_path)
        text = hurried(text, limit="2" if fault == "hangs" else "30")
        assert run_script(text, "dash", tmp_path, tools)[0] == 100
    assert receiver.shown() == TIMELINE


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("fetcher", FETCHERS)
def test_a_file_server_that_does_not_recover_is_given_up(fetcher, fault, tmp_path, receiver):
    tools = tools_in(tmp_path / "tools", fetcher)
    with Peer(*PASSING[fault]) as files:
        text = hurried(adapted(SHELL["script"], receiver, files, tmp_path))
        status, err = run_script(text, "dash", tmp_path, tools)
    assert status == 100 and WITHOUT in err and receiver.shown() == []


def test_the_python_of_red_hat_will_do(tmp_path, receiver):
    tools = tools_in(tmp_path / "tools", python=None)
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], receiver, files, tmp_path)
        assert text.count("/usr/libexec/platform-python") == 1
        text = text.replace("/usr/libexec/platform-python", PYTHON)
        assert run_script(text, "dash", tmp_path, tools)[0] == 100
    assert receiver.shown() == TIMELINE


@pytest.mark.parametrize("shell", SURE)
def test_a_dead_service_changes_no_status(shell, tmp_path, receiver):
    with Peer(GOOD) as files:
        text = hurried(adapted(SHELL["script"], receiver, files, tmp_path))
        text = text.replace(receiver.metadata_url, DEAD)
        status, err = run_script(text, shell, tmp_path)
        assert status == 100 and b"Connection refused" in err
        text = text.replace("exit 100", "true")
        assert run_script(text, shell, tmp_path, str(tmp_path / "tools"))[0] == 0


def test_a_service_that_comes_back_gets_the_end(tmp_path, receiver):
    """The short deadline is a shorter wait, not the end of reports."""
    with Peer(GOOD) as files, Peer(answer(403), answer(403), b"") as metadata:
        text = hurried(adapted(SHELL["script"], receiver, files, tmp_path))
        text = text.replace(receiver.metadata_url, metadata.url)
        text = text.replace("exit 100", "true").replace(
            "step 1030", f"export USERSTATE_URL={receiver.url}/events\nstep 1030")
        assert run_script(text, "dash", tmp_path)[0] == 0
    assert receiver.shown()[-1] == ("user.1000", "succeeded", "user-data")
    assert len(receiver.shown()) == 3  # the last step, too


def test_set_x_and_ps_show_no_program(tmp_path, receiver):
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], receiver, files, tmp_path)
        _, err = run_script("set -x\n" + text, "dash", tmp_path)
    assert len(err) < 10000 and b"import sys" not in err


# What the README says of the time it takes, as it stands there: seconds.
WAITS = {name: [int(n) for n in re.findall("([0-9]+) seconds?", row)] for name, row in
         re.findall(r"^\| the (file server|metadata service)[^|]*\| (.*) \|$", README, re.M)}


def timed(texts, tmp_path, fetchers):
    """Run texts, {name: script}, all at once; return {name: (seconds, status, stderr)}."""
    def run(name):
        folder = tmp_path / name.replace(" ", "-")
        folder.mkdir()
        tools, begun = tools_in(folder / "tools", fetchers[name]), time.monotonic()
        status, err = run_script(texts[name], "dash", folder, tools)
        print(f"{name}: {time.monotonic() - begun:.1f} s")
        return time.monotonic() - begun, status, err
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(texts, pool.map(run, texts)))


@slow
def test_what_a_dead_service_costs(tmp_path, receiver):
    """A minute, two steps and an event, as the README says, when it refuses or hangs."""
    event, step = WAITS["metadata service"]
    with Peer(GOOD) as files, Peer(hang) as peer:
        text = adapted(SHELL["script"], receiver, files, tmp_path)
        ports = {"hangs": peer.port, "refuses": DEAD_PORT}
        texts = {name: text.replace(receiver.metadata_url, f"http://127.0.0.1:{port}/metadata")
                 for name, port in ports.items()}
        ended = timed(texts, tmp_path, dict.fromkeys(texts, "curl"))
    for seconds, status, _ in ended.values():
        assert status == 100 and 60 < seconds < 60 + 2 * step + event + 5


@slow
@pytest.mark.parametrize("fault", ["refuses", "404", "hangs"])
def test_what_a_dead_file_server_costs(fault, tmp_path, receiver):
    least = WAITS["file server"][0]
    with Peer(hang if fault == "hangs" else answer(404)) as files:
        text = adapted(SHELL["script"], receiver, files, tmp_path)
        if fault == "refuses":
            text = text.replace(f":{files.port}/", f":{DEAD_PORT}/")
        ended = timed(dict.fromkeys(FETCHERS, text), tmp_path, dict(zip(FETCHERS, FETCHERS)))
    for seconds, status, err in ended.values():
        assert status == 100 and WITHOUT in err
        assert least <= seconds < (180 if fault == "hangs" else least + 5)


@pytest.mark.parametrize("cause", ["none", "other"])
@pytest.mark.parametrize("shell", [["bash"], ["dash"], ["busybox", "sh"]], ids=" ".join)
def test_the_checksum_is_checked_in(shell, cause, tmp_path):
    needs(shell[0])
    (tmp_path / "userstate.py").write_bytes(SOURCE + b"#\n" * (cause == "other"))
    line = re.search('echo "[$]SHA256.*-c', SHELL["script"]).group()
    tools = tools_in(tmp_path / "tools", busybox=shell[0] == "busybox")
    environment = {"PATH": tools, "SHA256": CHECKSUM, "userstate": "userstate.py"}
    ended = subprocess.run([shutil.which(shell[0]), *shell[1:], "-c", line], env=environment,
                           cwd=str(tmp_path), stdout=subprocess.PIPE)
    assert (ended.returncode == 0) == (cause == "none")


@slow
@pytest.mark.parametrize("packages", [(), ("python3",)], ids=["python3-minimal", "python3"])
def test_the_script_in_a_debian_with_nothing_else(packages, debian, receiver):
    """Neither curl nor wget: Python fetches, and python3-minimal's cannot."""
    with Peer(answer(200, SOURCE)) as files:
        text = adapted(SHELL["script"], receiver, files, "/srv")
        ended = debian(*packages).run(["sh", "-c", text], TMPDIR="/srv", **receiver.env)
    assert ended.returncode == 100, ended.stderr
    assert receiver.shown() == (TIMELINE if packages else [])
