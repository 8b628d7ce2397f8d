"""The user-data script of the README: in each shell, and whatever is missing."""
import concurrent.futures
import os
import re
import shutil
import subprocess
import sys
import time

import pytest
from conftest import DEAD, DEAD_PORT, SOURCE, Peer, answer, needs, slow
from test_readme import HIDE, README, SHELL, adapted, block, hang

SHELLS = {"bash": ["bash"], "dash": ["dash"], "ash": ["busybox", "ash"], "ksh": ["ksh"],
          "zsh": ["zsh"], "mksh": ["mksh"]}
SURE = ["bash", "dash", "ash"]  # that is, sh on a machine
TOOLS = ["timeout", "sleep", "sha256sum", "mkdir", "sh", "true"]
PYTHON = os.path.realpath(sys.executable)
TIMELINE = [tuple(line.split(None, 2))  # oldest first
            for line in block("text", "user-data").splitlines()[:0:-1]]
WITHOUT = b"going on without reports\n"


def path(folder, fetcher="curl", python=f'#!/bin/sh\nexec {PYTHON} "$@"\n', busybox=False):
    """Return a PATH that has what the script uses, and no other tools."""
    folder.mkdir()
    real = {tool: "busybox" if busybox else tool for tool in TOOLS}
    real[fetcher.split()[-1]] = fetcher.split()[0]
    for name, tool in real.items():
        needs(tool)
        (folder / name).symlink_to(shutil.which(tool))
    if "python3" in real:
        (folder / "python3").unlink()
    if python:
        (folder / "python3").write_text(python)
        (folder / "python3").chmod(0o755)
    return str(folder)


FETCHERS = ["curl", "wget", "busybox wget", "python3"]


def run_script(text, shell, tmp_path, tools=None, **environment):
    """Run text in shell, with tools as its PATH; return status and stderr."""
    needs(SHELLS[shell][0])
    command = [shutil.which(SHELLS[shell][0]), *SHELLS[shell][1:]]
    tools = tools or path(tmp_path / "tools", busybox=shell == "ash")
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


GOOD = answer(200, SOURCE)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_timeline_is_that_of_the_readme_in(shell, tmp_path, platform):
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], platform, files, tmp_path)
        assert run_script(text, shell, tmp_path) == (100, b"no such package\n")
    assert len(files.requests) == 1 and (tmp_path / "app").is_dir()
    # zsh: as the README says.
    assert platform.shown() == (TIMELINE[:-1] if shell == "zsh" else TIMELINE)


@pytest.mark.parametrize("shell", SHELLS)
def test_success_is_shown_as_success_in(shell, tmp_path, platform):
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], platform, files, tmp_path).replace("exit 100", "true")
        assert run_script(text, shell, tmp_path) == (0, b"no such package\n")
    assert platform.shown()[-1] == ("user.1000", "succeeded", "user-data")
    assert len(platform.shown()) == 8


@pytest.mark.parametrize("name, number", [("HUP", 1), ("INT", 2), ("TERM", 15)])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_signal_is_shown_as_a_failure_in(shell, name, number, tmp_path, platform):
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], platform, files, tmp_path)
        text = text.replace("step 1020", f"kill -{name} $$\nstep 1020")
        status, _ = run_script(text, shell, tmp_path)
    assert status == (0 if shell == "mksh" else 128 + number)  # as the README says
    assert platform.shown()[-1] == ("user.1000", "failed",
                                    f"user-data: exit status {128 + number}")


# What can be wrong, as (answers of the file server or None, python3, environment).
THIN = f"""#!{PYTHON}
{HIDE.format("json")}
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
def test_the_steps_run_without_reports(shell, cause, tmp_path, platform):
    script, python, environment = CAUSES[cause]
    tools = path(tmp_path / "tools", busybox=shell == "ash",
                 **{} if python == "" else {"python": python})
    with Peer(script or b"") as files:
        files = files if script else Peer(b"")
        files.port = files.port if script else DEAD_PORT
        text = hurried(adapted(SHELL["script"], platform, files, tmp_path))
        if cause == "an address without http":
            text = text.replace(platform.metadata_url, "metadata.example.com/metadata")
        status, err = run_script(text, shell, tmp_path, tools, **environment)
    assert status == 100, err
    assert WITHOUT + b"no such package\n" in err
    assert (tmp_path / "app").is_dir()
    assert platform.shown() == []


@pytest.mark.parametrize("shell", SURE)
def test_the_steps_end_well_without_reports(shell, tmp_path, platform):
    with Peer(answer(404)) as files:
        text = hurried(adapted(SHELL["script"], platform, files, tmp_path))
        text = text.replace("exit 100", "true").replace('"prepare"', '"prepare" --')
        status, err = run_script(text, shell, tmp_path)
    assert status == 0, err
    assert err.endswith(WITHOUT + b"no such package\n")


PASSING = {"late": [b"", answer(503)], "hangs": [hang], "cuts": [GOOD[:20000]],
           "404": [answer(404)]}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("fetcher", FETCHERS)
def test_a_file_server_that_recovers_is_asked_again(fetcher, fault, tmp_path, platform):
    tools = path(tmp_path / "tools", fetcher)
    with Peer(*PASSING[fault], GOOD) as files:
        text = adapted(SHELL["script"], platform, files, tmp_path)
        text = hurried(text, limit="2" if fault == "hangs" else "30")
        assert run_script(text, "dash", tmp_path, tools)[0] == 100
    assert platform.shown() == TIMELINE


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("fetcher", FETCHERS)
def test_a_file_server_that_does_not_recover_is_given_up(fetcher, fault, tmp_path, platform):
    tools = path(tmp_path / "tools", fetcher)
    with Peer(*PASSING[fault]) as files:
        text = hurried(adapted(SHELL["script"], platform, files, tmp_path))
        status, err = run_script(text, "dash", tmp_path, tools)
    assert status == 100 and WITHOUT in err and platform.shown() == []


def test_the_python_of_red_hat_will_do(tmp_path, platform):
    tools = path(tmp_path / "tools", python=None)
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], platform, files, tmp_path)
        assert text.count("/usr/libexec/platform-python") == 1
        text = text.replace("/usr/libexec/platform-python", PYTHON)
        assert run_script(text, "dash", tmp_path, tools)[0] == 100
    assert platform.shown() == TIMELINE


@pytest.mark.parametrize("shell", SURE)
def test_a_dead_service_changes_no_status(shell, tmp_path, platform):
    with Peer(GOOD) as files:
        text = hurried(adapted(SHELL["script"], platform, files, tmp_path))
        text = text.replace(platform.metadata_url, DEAD)
        status, err = run_script(text, shell, tmp_path)
        assert status == 100 and b"Connection refused" in err
        text = text.replace("exit 100", "true")
        assert run_script(text, shell, tmp_path, str(tmp_path / "tools"))[0] == 0


def test_a_service_that_comes_back_gets_the_end(tmp_path, platform):
    """The short deadline is a shorter wait, not the end of reports."""
    with Peer(GOOD) as files, Peer(answer(403), answer(403), b"") as metadata:
        text = hurried(adapted(SHELL["script"], platform, files, tmp_path))
        text = text.replace(platform.metadata_url, metadata.url)
        text = text.replace("exit 100", "true").replace(
            "step 1030", f"export USERSTATE_URL={platform.url}/events\nstep 1030")
        assert run_script(text, "dash", tmp_path)[0] == 0
    assert platform.shown()[-1] == ("user.1000", "succeeded", "user-data")
    assert len(platform.shown()) == 3  # the last step, too


def test_set_x_and_ps_show_no_program(tmp_path, platform):
    with Peer(GOOD) as files:
        text = adapted(SHELL["script"], platform, files, tmp_path)
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
        tools, begun = path(folder / "tools", fetchers[name]), time.monotonic()
        status, err = run_script(texts[name], "dash", folder, tools)
        print(f"{name}: {time.monotonic() - begun:.1f} s")
        return time.monotonic() - begun, status, err
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return dict(zip(texts, pool.map(run, texts)))


@slow
def test_what_a_dead_service_costs(tmp_path, platform):
    """A minute, two steps and an event, as the README says, when it refuses or hangs."""
    event, step = WAITS["metadata service"]
    with Peer(GOOD) as files, Peer(hang) as peer:
        text = adapted(SHELL["script"], platform, files, tmp_path)
        ports = {"hangs": peer.port, "refuses": DEAD_PORT}
        texts = {name: text.replace(platform.metadata_url, f"http://127.0.0.1:{port}/metadata")
                 for name, port in ports.items()}
        ended = timed(texts, tmp_path, dict.fromkeys(texts, "curl"))
    for seconds, status, _ in ended.values():
        assert status == 100 and 60 < seconds < 60 + 2 * step + event + 5


@slow
@pytest.mark.parametrize("fault", ["refuses", "404", "hangs"])
def test_what_a_dead_file_server_costs(fault, tmp_path, platform):
    least = WAITS["file server"][0]
    with Peer(hang if fault == "hangs" else answer(404)) as files:
        text = adapted(SHELL["script"], platform, files, tmp_path)
        if fault == "refuses":
            text = text.replace(f":{files.port}/", f":{DEAD_PORT}/")
        ended = timed(dict.fromkeys(FETCHERS, text), tmp_path, dict(zip(FETCHERS, FETCHERS)))
    for seconds, status, err in ended.values():
        assert status == 100 and WITHOUT in err
        assert least <= seconds < (180 if fault == "hangs" else least + 5)
