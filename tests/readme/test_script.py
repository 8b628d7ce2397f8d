"""The user-data script: what it reports in each shell, and its steps if that cannot be."""
import collections
import hashlib
import re
import stat

import pytest

from receiver import program
from support.files import SOURCE
from support.interpreters import hide
from support.peers import DEAD, DEAD_PORT, Peer, answer, hang, part
from support.processes import run_command
from support.readme import CHECKSUM, README, SHELL, adapted, replaced, timeline
from support.scripts import (
    DASH_AND_SLOWLY_OTHERS,
    GOOD_FILE,
    PYTHON,
    SHELLS,
    SURE,
    TIMELINE,
    WORKING_PYTHON,
    command_of,
    tools_in,
)
from support.tools import slow
from support.waiting import at_most

STEPS_SAY = "no such package\n"
WITHOUT = "going on without reports\n"
SUCCESS = ("user.1000", "succeeded", "user-data")


def run_in(shell, text, folder, tools=None, **environment):
    """Run text in shell, with tools as its PATH; tell how it ended."""
    tools = tools or tools_in(folder / "tools", busybox=shell == "ash")
    return run_command(*command_of(shell, text), seconds=400, traces=True,
                       env=dict({"PATH": tools, "TMPDIR": str(folder)}, **environment))


def script(metadata_url, folder, port):
    """Return the script with the addresses of a test."""
    return adapted(SHELL["script"], metadata_url, folder, port)


def hurried(text, tries="0 0 0 0 0", limit="0.3"):
    """Return text without pauses, and with less time for a download and an event."""
    assert "--deadline 60" in text
    text = replaced(text, "for pause in 0 1 2 4 8", f"for pause in {tries}")
    text = replaced(text, "DEADLINE=5", "DEADLINE=0.2")
    text = text.replace("--deadline 60", "--deadline 0.3")
    return replaced(text, "Timer(30", f"Timer({limit}")


def that_succeeds(text):
    return replaced(text, "exit 100", "true")


def with_steps(text, steps):
    """Return text with these steps in place of its own."""
    head, _, _ = text.partition("step 1010")
    return head + steps


def test_the_receiver_serves_the_script_of_the_readme():
    assert program.template() == SHELL["script"]


def test_the_receiver_fills_in_the_three_values():
    text = program.script("http://192.0.2.1:8000", "http://192.0.2.1:8000/metadata")
    changed = [line for line in text.splitlines() if line not in SHELL["script"].splitlines()]
    assert changed == [
        "PROGRAM=http://192.0.2.1:8000/userstate.py", f"SHA256={CHECKSUM}",
        "export USERSTATE_METADATA_URL=http://192.0.2.1:8000/metadata"]


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
        assert run_in(shell, text, tmp_path) == (100, STEPS_SAY, "")
    assert len(files.requests) == 1
    assert (tmp_path / "app").is_dir()
    assert receiver.shown() == shown


@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_success_is_shown_as_success_in(shell, tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = that_succeeds(script(receiver.metadata_url, tmp_path, files.port))
        assert run_in(shell, text, tmp_path) == (0, STEPS_SAY, "")
    assert receiver.shown()[-1] == SUCCESS
    assert len(receiver.shown()) == 8


def run_until_killed(shell, name, folder, receiver):
    """Run the script, which gets a signal before its second step; tell how it ended."""
    with Peer(GOOD_FILE) as files:
        text = replaced(script(receiver.metadata_url, folder, files.port),
                        "step 1020", f"kill -{name} $$\nstep 1020")
        return run_in(shell, text, folder)


SIGNALS = [("TERM", 143), pytest.param("HUP", 129, marks=slow),
           pytest.param("INT", 130, marks=slow)]


@pytest.mark.parametrize("name, status", SIGNALS)
@pytest.mark.parametrize("shell", ["bash", "dash", "ash", "ksh", "zsh"])
def test_a_signal_is_shown_as_a_failure_in(shell, name, status, tmp_path, receiver):
    assert run_until_killed(shell, name, tmp_path, receiver).status == status
    assert receiver.shown()[-1] == ("user.1000", "failed", f"user-data: exit status {status}")


@pytest.mark.parametrize("name, status", SIGNALS)
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


def test_set_x_shows_the_script_and_not_the_program(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = script(receiver.metadata_url, tmp_path, files.port)
        done = run_in("dash", "set -x\n" + text, tmp_path)
    assert len(done.err) < 10000
    assert "import getopt" in SOURCE.decode()
    assert "import getopt" not in done.err
    assert receiver.shown() == TIMELINE


# How a step may be written: options, operands, what stands before the command.
FORMS = ["1010 m", "1010 m --", "--every 5 --log={log} 1010 m",
         "--log {log} --every=5 1010 m --", "-- 1010 m", "--e 5 --l {log} -- 1010 m"]


@pytest.mark.parametrize("python", [WORKING_PYTHON, None], ids=["reports", "no reports"])
@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_each_form_of_a_step_runs_its_command_in(shell, python, tmp_path, receiver):
    steps = "".join(f"step {form} sh -c 'echo \"$0 $1\"; exit 3' {number} 'a  b' || echo $?\n"
                    for number, form in enumerate(FORMS)).format(log=tmp_path / "other.log")
    tools = tools_in(tmp_path / "tools", python=python, busybox=shell == "ash")
    with Peer(GOOD_FILE) as files:
        text = with_steps(script(receiver.metadata_url, tmp_path, files.port), steps)
        done = run_in(shell, text, tmp_path, tools)
    assert done.status == 0, done
    if python:  # what has a --log of its own writes there
        assert (tmp_path / "other.log").read_text() == "2 a  b\n3 a  b\n5 a  b\n"
        assert len(receiver.shown()) == 2 + 2 * len(FORMS)
        assert receiver.shown()[2][2] == "m: exit status 3 after 0 s: 0 a  b"
        assert done.out == "0 a  b\n3\n1 a  b\n3\n3\n3\n4 a  b\n3\n3\n"
    else:
        assert done.out == "".join(f"{number} a  b\n3\n" for number in range(len(FORMS)))
        assert receiver.shown() == []


@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_what_a_step_writes_is_shown_once_and_in_order(shell, tmp_path, receiver):
    steps = ("echo before\nstep 1010 a sh -c 'echo 1; echo 2 >&2'\nstep 1020 b true\n"
             "step 1030 c sh -c 'echo 3; exit 4'\n")
    with Peer(GOOD_FILE) as files:
        text = with_steps(script(receiver.metadata_url, tmp_path, files.port), steps)
        assert run_in(shell, text, tmp_path) == (4, "before\n1\n2\n3\n", "")
    assert "user.1030 failed c: exit status 4 after N s: 3" in timeline(receiver)


@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_a_log_that_cannot_be_written_is_a_line(shell, tmp_path, receiver):
    """The output stays where it would have been."""
    (tmp_path / "userstate.log").mkdir()
    with Peer(GOOD_FILE) as files:
        done = run_in(shell, script(receiver.metadata_url, tmp_path, files.port), tmp_path)
    assert done.status == 100, done
    assert "userstate.log': Is a directory; it is not written\n" in done.err
    assert STEPS_SAY in done.err
    assert "user.1020 failed install: exit status 100 after N s" in timeline(receiver)


def test_only_root_may_change_the_program_and_read_the_log(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        run_in("dash", script(receiver.metadata_url, tmp_path, files.port), tmp_path)
    assert stat.S_IMODE((tmp_path / "userstate.log").stat().st_mode) == 0o600
    assert not (tmp_path / "userstate.py").stat().st_mode & 0o022


# What can be wrong: the answer of the file server, python3, and the environment; the reason
# that is said, and how often the file is asked for.
Cause = collections.namedtuple("Cause", "file python environment reason tries")


def without(module, is_old=False):
    """Return the text of a python3 that lacks a module, or for which the file is too new."""
    old = 'compile("print 1", sys.argv[0], "exec")' if is_old else ""
    return f"""#!{PYTHON}
{hide(module)}
del sys.argv[:2]  # itself and -I
if sys.argv[0] == "-c":
    del sys.argv[0]
    code, sys.argv[0] = sys.argv[0], "-c"
    exec(code, dict(__name__="__main__"))
else:
    {old}
    import runpy
    runpy.run_path(sys.argv[0], run_name="__main__")
"""

CAUSES = {
    "no Python": Cause(GOOD_FILE, None, {}, "no python3\n", 0),
    "a Python that does not start": Cause(GOOD_FILE, "#!/nonexistent\n", {}, "python3", 0),
    "a Python without json": Cause(
        GOOD_FILE, without("json"), {},
        "No module named 'json'; install python3", 1),
    "a Python without urllib": Cause(
        GOOD_FILE, without("urllib"), {}, "python3: No module named 'urllib'\n", 0),
    "a Python without hashlib": Cause(
        GOOD_FILE, without("hashlib"), {}, "python3: No module named 'hashlib'\n", 0),
    "a Python that is too old": Cause(
        GOOD_FILE, without("-", is_old=True), {}, "SyntaxError: ", 1),
    "an empty file": Cause(answer(200), WORKING_PYTHON, {}, "its SHA-256 is e3b0c44298", 1),
    "a file that was cut": Cause(GOOD_FILE[:20000], WORKING_PYTHON, {}, "IncompleteRead", 5),
    "half a file": Cause(answer(200, SOURCE[:20000]), WORKING_PYTHON, {}, "its SHA-256 is", 1),
    "a file of another checksum": Cause(
        answer(200, SOURCE + b"#\n"), WORKING_PYTHON, {},
        f"its SHA-256 is {hashlib.sha256(SOURCE + b'#' + bytes([10])).hexdigest()}, "
        f"not {CHECKSUM}\n", 1),
    "a page that it is not found": Cause(
        answer(404, b"<html>"), WORKING_PYTHON, {}, "HTTP Error 404", 5),
    "a connection that is closed": Cause(b"", WORKING_PYTHON, {}, "closed", 5),
    "a file server that hangs": Cause(
        hang, WORKING_PYTHON, {}, "not there after 30 seconds", 5),
    "a file that drips": Cause(
        part(GOOD_FILE[:20000], b"#"), WORKING_PYTHON, {}, "not there after 30 seconds", 5),
    "no folder to write to": Cause(
        GOOD_FILE, WORKING_PYTHON, {"TMPDIR": "/nonexistent"},
        "No such file or directory: '/nonexistent/userstate.py'\n", 1),
    "a deadline that is no number": Cause(
        GOOD_FILE, WORKING_PYTHON, {"USERSTATE_DEADLINE": "soon"},
        "userstate: USERSTATE_DEADLINE 'soon': ", 1),
}


def run_without_reports(shell, text, folder, python=WORKING_PYTHON, **environment):
    """Run the script, in a hurry: it has to say why, and to do its steps all the same."""
    tools = tools_in(folder / "tools", python=python, busybox=shell == "ash")
    done = run_in(shell, hurried(text), folder, tools, **environment)
    assert done.status == 100, done
    assert done.out == ""
    assert done.err.endswith(WITHOUT + STEPS_SAY)
    assert (folder / "app").is_dir()
    return done.err


@pytest.mark.parametrize("cause", CAUSES)
@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_the_steps_run_without_reports(shell, cause, tmp_path, receiver):
    file, python, environment, reason, tries = CAUSES[cause]
    with Peer(file) as files:
        text = script(receiver.metadata_url, tmp_path, files.port)
        err = run_without_reports(shell, text, tmp_path, python, **environment)
        assert len(files.requests) == tries
    assert err.count(reason) == max(tries, 1)
    assert receiver.shown() == []


@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_the_steps_run_without_a_file_server(shell, tmp_path, receiver):
    text = script(receiver.metadata_url, tmp_path, DEAD_PORT)
    run_without_reports(shell, text, tmp_path)
    assert receiver.shown() == []


@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
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
def test_a_file_server_that_recovers_is_asked_again(fault, tmp_path, receiver):
    answers, limit = PASSING[fault]
    with Peer(*answers, GOOD_FILE) as files:
        text = script(receiver.metadata_url, tmp_path, files.port)
        done = run_in("dash", hurried(text, limit=limit), tmp_path)
    assert done.status == 100, done
    assert WITHOUT not in done.err
    assert receiver.shown() == TIMELINE


@pytest.mark.parametrize("step, status", [("exit 100", 100), ("exit 0", 0)])
@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_a_dead_receiver_changes_no_status(shell, step, status, tmp_path):
    with Peer(GOOD_FILE) as files:
        text = hurried(script(DEAD, tmp_path, files.port))
        done = run_in(shell, replaced(text, "exit 100", step), tmp_path)
    assert done.status == status
    assert "Connection refused" in done.err


def test_a_receiver_that_comes_back_gets_the_end(tmp_path, receiver):
    """The short deadline is a shorter wait, not the end of reports."""
    with Peer(GOOD_FILE) as files, Peer(answer(403), answer(403), b"") as metadata:
        text = that_succeeds(hurried(script(metadata.url, tmp_path, files.port)))
        text = replaced(text, "step 1030",
                        f"export USERSTATE_URL={receiver.url}/events\nstep 1030")
        assert run_in("dash", text, tmp_path).status == 0
    assert receiver.shown()[-1] == SUCCESS
    assert len(receiver.shown()) == 3  # the last step, too


# What the README says of the time it takes, as it stands there.
MINUTE = 60
EVENT, STEP = map(int, re.search(
    r"^\| the receiver, from the start \| one minute; then (\d+) seconds for each "
    r"event, at most (\d+) seconds for each step", README, re.M).groups())
REFUSING, HANGING, TRIES, TRY = map(int, re.search(
    r"^\| the file server \| (\d+) seconds if it refuses or answers 404, (\d+) minutes if it "
    r"hangs \((\d+) tries of (\d+) seconds\)", README, re.M).groups())


@slow
@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_what_a_dead_receiver_costs(fault, tmp_path):
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
    with Peer(answer(404)) as missing, Peer(hang) as hanging:
        port = {"refuses": DEAD_PORT, "404": missing.port, "hangs": hanging.port}[fault]
        text = script(receiver.metadata_url, tmp_path, port)
        with at_most(most, least):
            done = run_in("dash", text, tmp_path)
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
