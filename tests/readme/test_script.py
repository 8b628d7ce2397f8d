"""The user-data script: what it reports in each shell, and its steps if that cannot be."""
import collections
import re

import pytest

from support.files import SOURCE
from support.interpreters import hide
from support.peers import DEAD, DEAD_PORT, Peer, answer, hang
from support.processes import run_command
from support.readme import CHECKSUM, README, SHELL, adapted, replaced
from support.receivers import in_threads
from support.scripts import (
    FETCHERS,
    GOOD_FILE,
    PYTHON,
    TIMELINE,
    WORKING_PYTHON,
    tools_in,
)
from support.tools import find, needs, slow
from support.waiting import at_most

SHELLS = {"bash": ["bash"], "dash": ["dash"], "ash": ["busybox", "ash"], "ksh": ["ksh"],
          "zsh": ["zsh"], "mksh": ["mksh"]}
SURE = ["bash", "dash", "ash"]  # that is, sh on a machine
OTHERS = ["ksh", "zsh", "mksh"]
SURE_AND_SLOWLY_OTHERS = [*SURE, *(pytest.param(shell, marks=slow) for shell in OTHERS)]
STEPS_SAY = "no such package\n"
WITHOUT = "going on without reports\n"
SUCCESS = ("user.1000", "succeeded", "user-data")


def run_in(shell, text, folder, tools=None, **environment):
    """Run text in shell, with tools as its PATH; tell how it ended."""
    command, *words = SHELLS[shell]
    needs(command)
    tools = tools or tools_in(folder / "tools", busybox=shell == "ash")
    done = run_command(find(command), *words, "-c", text, seconds=400, traces=True,
                       env=dict({"PATH": tools, "TMPDIR": str(folder)}, **environment))
    assert done.out == "", done
    return done


def script(metadata_url, folder, port):
    """Return the script with the addresses of a test."""
    return adapted(SHELL["script"], metadata_url, folder, port)


def hurried(text, tries="0 0 0 0 0", limit="0.3"):
    """Return text without pauses, and with less time for a download and an event."""
    assert "--deadline 60" in text
    text = replaced(text, "for pause in 0 1 2 4 8", f"for pause in {tries}")
    text = replaced(text, "DEADLINE=5", "DEADLINE=0.2")
    text = text.replace("--deadline 60", "--deadline 0.3")
    assert "timeout 30" in text
    return text.replace("timeout 30", f"timeout {limit}")


def that_succeeds(text):
    return replaced(text, "exit 100", "true")


@pytest.mark.parametrize("shell, shown", [
    ("bash", TIMELINE),
    ("dash", TIMELINE),
    ("ash", TIMELINE),
    ("ksh", TIMELINE),
    ("zsh", TIMELINE[:-1]),  # as the README says
    ("mksh", TIMELINE)], ids=SHELLS)
def test_the_timeline_is_that_of_the_readme_in(shell, shown, tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = script(receiver.metadata_url, tmp_path, files.port)
        assert run_in(shell, text, tmp_path) == (100, "", STEPS_SAY)
    assert len(files.requests) == 1
    assert (tmp_path / "app").is_dir()
    assert receiver.shown() == shown


@pytest.mark.parametrize("shell", SHELLS)
def test_success_is_shown_as_success_in(shell, tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = that_succeeds(script(receiver.metadata_url, tmp_path, files.port))
        assert run_in(shell, text, tmp_path) == (0, "", STEPS_SAY)
    assert receiver.shown()[-1] == SUCCESS
    assert len(receiver.shown()) == 8


def run_until_killed(shell, name, folder, receiver):
    """Run the script, which gets a signal before its second step; tell how it ended."""
    with Peer(GOOD_FILE) as files:
        text = replaced(script(receiver.metadata_url, folder, files.port),
                        "step 1020", f"kill -{name} $$\nstep 1020")
        return run_in(shell, text, folder)


@pytest.mark.parametrize("name, status", [("HUP", 129), ("INT", 130), ("TERM", 143)])
@pytest.mark.parametrize("shell", ["bash", "dash", "ash", "ksh", "zsh"])
def test_a_signal_is_shown_as_a_failure_in(shell, name, status, tmp_path, receiver):
    assert run_until_killed(shell, name, tmp_path, receiver).status == status
    assert receiver.shown()[-1] == ("user.1000", "failed", f"user-data: exit status {status}")


@pytest.mark.parametrize("name, status", [("HUP", 129), ("INT", 130), ("TERM", 143)])
def test_mksh_shows_a_signal_as_a_failure_and_ends_with_0(name, status, tmp_path, receiver):
    assert run_until_killed("mksh", name, tmp_path, receiver).status == 0  # as the README says
    assert receiver.shown()[-1] == ("user.1000", "failed", f"user-data: exit status {status}")


def test_the_python_of_red_hat_will_do(tmp_path, receiver):
    tools = tools_in(tmp_path / "tools", python=None)
    with Peer(GOOD_FILE) as files:
        text = replaced(script(receiver.metadata_url, tmp_path, files.port),
                        "/usr/libexec/platform-python", PYTHON)
        assert run_in("dash", text, tmp_path, tools).status == 100
    assert receiver.shown() == TIMELINE


def test_set_x_shows_no_program(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = script(receiver.metadata_url, tmp_path, files.port)
        done = run_in("dash", "set -x\n" + text, tmp_path)
    assert len(done.err) < 10000
    assert "import sys" not in done.err


# What can be wrong: the answer of the file server, python3, and the environment.
Cause = collections.namedtuple("Cause", "file python environment")
THIN_PYTHON = f"""#!{PYTHON}
{hide("json")}
import runpy
del sys.argv[:2]  # itself and -I
runpy.run_path(sys.argv[0], run_name="__main__")
"""
CAUSES = {
    "no Python": Cause(GOOD_FILE, None, {}),
    "a Python that does not start": Cause(GOOD_FILE, "#!/nonexistent\n", {}),
    "a Python without json": Cause(GOOD_FILE, THIN_PYTHON, {}),
    "an empty file": Cause(answer(200), WORKING_PYTHON, {}),
    "a file that was cut": Cause(GOOD_FILE[:20000], WORKING_PYTHON, {}),
    "half a file": Cause(answer(200, SOURCE[:20000]), WORKING_PYTHON, {}),
    "a file of another checksum": Cause(answer(200, SOURCE + b"#\n"), WORKING_PYTHON, {}),
    "a page that it is not found": Cause(answer(404, b"<html>"), WORKING_PYTHON, {}),
    "a file server that hangs": Cause(hang, WORKING_PYTHON, {}),
    "no folder to write to": Cause(GOOD_FILE, WORKING_PYTHON, {"TMPDIR": "/nonexistent"}),
    "a deadline that is no number": Cause(GOOD_FILE, WORKING_PYTHON,
                                          {"USERSTATE_DEADLINE": "soon"}),
}


def run_without_reports(shell, text, folder, python=WORKING_PYTHON, **environment):
    """Run the script, in a hurry: it has to say why, and to do its steps all the same."""
    tools = tools_in(folder / "tools", python=python, busybox=shell == "ash")
    done = run_in(shell, hurried(text), folder, tools, **environment)
    assert done.status == 100, done
    assert WITHOUT + STEPS_SAY in done.err
    assert (folder / "app").is_dir()


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("shell", SURE_AND_SLOWLY_OTHERS)
def test_the_steps_run_without_reports(shell, cause, tmp_path, receiver):
    file, python, environment = CAUSES[cause]
    with Peer(file) as files:
        text = script(receiver.metadata_url, tmp_path, files.port)
        run_without_reports(shell, text, tmp_path, python, **environment)
    assert receiver.shown() == []


@pytest.mark.parametrize("shell", SURE_AND_SLOWLY_OTHERS)
def test_the_steps_run_without_a_file_server(shell, tmp_path, receiver):
    text = script(receiver.metadata_url, tmp_path, DEAD_PORT)
    run_without_reports(shell, text, tmp_path)
    assert receiver.shown() == []


@pytest.mark.parametrize("shell", SURE_AND_SLOWLY_OTHERS)
def test_the_steps_run_with_an_address_without_http(shell, tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = script("metadata.example.com/metadata", tmp_path, files.port)
        run_without_reports(shell, text, tmp_path)
    assert receiver.shown() == []


@pytest.mark.parametrize("shell", SURE)
def test_the_steps_end_well_without_reports(shell, tmp_path, receiver):
    with Peer(answer(404)) as files:
        text = hurried(script(receiver.metadata_url, tmp_path, files.port))
        text = replaced(that_succeeds(text), '"prepare"', '"prepare" --')
        done = run_in(shell, text, tmp_path)
    assert done.status == 0, done
    assert done.err.endswith(WITHOUT + STEPS_SAY)


# What a file server answers at first, and the time that a download may take.
PASSING = {"late": ([b"", answer(503)], "30"), "hangs": ([hang], "2"),
           "cuts": ([GOOD_FILE[:20000]], "30"), "404": ([answer(404)], "30")}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("fetcher", FETCHERS)
def test_a_file_server_that_recovers_is_asked_again(fetcher, fault, tmp_path, receiver):
    tools = tools_in(tmp_path / "tools", fetcher)
    answers, limit = PASSING[fault]
    with Peer(*answers, GOOD_FILE) as files:
        text = script(receiver.metadata_url, tmp_path, files.port)
        done = run_in("dash", hurried(text, limit=limit), tmp_path, tools)
    assert done.status == 100, done
    assert receiver.shown() == TIMELINE


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("fetcher", FETCHERS)
def test_a_file_server_that_does_not_recover_is_given_up(fetcher, fault, tmp_path, receiver):
    tools = tools_in(tmp_path / "tools", fetcher)
    answers, _ = PASSING[fault]
    with Peer(*answers) as files:
        text = script(receiver.metadata_url, tmp_path, files.port)
        done = run_in("dash", hurried(text), tmp_path, tools)
    assert done.status == 100, done
    assert WITHOUT in done.err
    assert receiver.shown() == []


@pytest.mark.parametrize("step, status", [("exit 100", 100), ("exit 0", 0)])
@pytest.mark.parametrize("shell", SURE)
def test_a_dead_service_changes_no_status(shell, step, status, tmp_path):
    with Peer(GOOD_FILE) as files:
        text = hurried(script(DEAD, tmp_path, files.port))
        done = run_in(shell, replaced(text, "exit 100", step), tmp_path)
    assert done.status == status
    assert "Connection refused" in done.err


def test_a_service_that_comes_back_gets_the_end(tmp_path, receiver):
    """The short deadline is a shorter wait, not the end of reports."""
    with Peer(GOOD_FILE) as files, Peer(answer(403), answer(403), b"") as metadata:
        text = that_succeeds(hurried(script(metadata.url, tmp_path, files.port)))
        text = replaced(text, "step 1030",
                        f"export USERSTATE_URL={receiver.url}/events\nstep 1030")
        assert run_in("dash", text, tmp_path).status == 0
    assert receiver.shown()[-1] == SUCCESS
    assert len(receiver.shown()) == 3  # the last step, too


@pytest.mark.parametrize("content, status", [(SOURCE, 0), (SOURCE + b"#\n", 1)],
                         ids=["the same", "another"])
@pytest.mark.parametrize("shell", SURE)
def test_the_checksum_is_checked_in(shell, content, status, tmp_path):
    (tmp_path / "userstate.py").write_bytes(content)
    line = re.search('echo "[$]SHA256.*-c > /dev/null', SHELL["script"]).group()
    done = run_in(shell, line, tmp_path, SHA256=CHECKSUM,
                  userstate=str(tmp_path / "userstate.py"))
    assert done.status == status


# What the README says of the time it takes, as it stands there.
MINUTE = 60
EVENT, STEP = map(int, re.search(
    r"^\| the metadata service, from the start \| one minute; then (\d+) seconds for each "
    r"event, at most (\d+) seconds for each step", README, re.M).groups())
REFUSING, HANGING, TRIES, TRY = map(int, re.search(
    r"^\| the file server \| (\d+) seconds if it refuses or answers 404, (\d+) minutes if it "
    r"hangs \((\d+) tries of (\d+) seconds\)", README, re.M).groups())


@slow
@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_what_a_dead_service_costs(fault, tmp_path):
    """A minute, two steps and an event."""
    with Peer(GOOD_FILE) as files, Peer(hang) as peer:
        port = {"refuses": DEAD_PORT, "hangs": peer.port}[fault]
        text = script(f"http://127.0.0.1:{port}/metadata", tmp_path, files.port)
        with at_most(MINUTE + 2 * STEP + EVENT + 5, least=MINUTE):
            assert run_in("dash", text, tmp_path).status == 100


@slow
@pytest.mark.parametrize("fault, least, most", [
    ("refuses", REFUSING, REFUSING + 5),
    ("404", REFUSING, REFUSING + 5),
    ("hangs", REFUSING + TRIES * TRY, HANGING * MINUTE)])
def test_what_a_dead_file_server_costs(fault, least, most, tmp_path, receiver):
    """Each way to fetch the file at the same time, as it takes minutes."""
    fetchers = list(FETCHERS)
    with Peer(answer(404)) as missing, Peer(hang) as hanging:
        port = {"refuses": DEAD_PORT, "404": missing.port, "hangs": hanging.port}[fault]

        def run(number):
            folder = tmp_path / str(number)
            folder.mkdir()
            tools = tools_in(folder / "tools", fetchers[number])
            text = script(receiver.metadata_url, folder, port)
            with at_most(most, least):
                return run_in("dash", text, folder, tools)
        for done in in_threads(len(fetchers), run):
            assert done.status == 100, done
            assert WITHOUT in done.err


@slow
@pytest.mark.parametrize("packages, shown", [((), []), (("python3",), TIMELINE)],
                         ids=["python3-minimal", "python3"])
def test_the_script_in_a_debian_with_nothing_else(packages, shown, debian, receiver):
    """Neither curl nor wget: Python fetches, and python3-minimal's cannot."""
    with Peer(GOOD_FILE) as files:
        text = script(receiver.metadata_url, "/srv", files.port)
        done = debian(*packages).run(["sh", "-c", text], TMPDIR="/srv", **receiver.env)
    assert done.returncode == 100, done
    assert receiver.shown() == shown
