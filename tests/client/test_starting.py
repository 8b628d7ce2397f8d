"""Every way to start it, in every Python: file, pipe, -c, module, copy, link and zip."""
import shutil
import zipfile

import pytest

from support.files import SCRIPT, SOURCE, TOP
from support.interpreters import PYTHONS
from support.processes import EVENT_WORDS, run, run_command


@pytest.mark.parametrize("version", PYTHONS)
def test_an_interpreter_is_of_the_version_that_it_is_known_by(version):
    code = "import sys; print('{}.{}'.format(*sys.version_info))"
    assert run_command(PYTHONS[version], "-c", code).out == version + "\n"


# Words for Python, and what it reads.
WAYS = {
    "file": ([SCRIPT], b""),
    "isolated": (["-I", SCRIPT], b""),
    "no site": (["-I", "-S", SCRIPT], b""),
    "optimised": (["-OO", SCRIPT], b""),
    "warnings": (["-W", "error", SCRIPT], b""),
    "command": (["-c", SOURCE], b""),
    "module": (["-m", "userstate"], b""),
    "pipe": (["-I", "-"], SOURCE),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_python_every_way(way, python, receiver):
    """An event, a command, a question, a refusal of bad operands: each as it has to end."""
    words, read = WAYS[way]

    def run_it(*operands):
        return run_command(python, "-B", *words, *operands, input=read,
                           env=dict(receiver.env, PYTHONPATH=TOP))
    assert run_it(*EVENT_WORDS) == (0, "", "")
    assert run_it("run", "1001", "y", "false") == (1, "", "")
    assert run_it("url") == (0, receiver.url + "/events\n", "")
    bad = run_it("bogus", "1000", "x")
    assert bad.status == 2
    assert bad.out == ""
    assert bad.err.count("\n") == 1
    assert [kind for kind, _, _ in receiver.shown()] == ["user.1000", "user.1001", "user.1001"]


@pytest.fixture
def archive(tmp_path):
    """The path of a zip file with the program in it."""
    path = str(tmp_path / "x.zip")
    with zipfile.ZipFile(path, "w") as file:
        file.write(SCRIPT, "userstate.py")
    return path


def test_runs_from_a_zip(python, receiver, archive):
    done = run_command(python, "-B", "-m", "userstate", *EVENT_WORDS,
                       env=dict(receiver.env, PYTHONPATH=archive))
    assert done == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


@pytest.fixture
def copy(tmp_path):
    """The path of a copy of the program, which can be run, of a name without .py."""
    return shutil.copy(SCRIPT, str(tmp_path / "copy"))


def test_runs_as_a_command_of_another_name(copy, receiver):
    assert run_command(copy, *EVENT_WORDS, env=receiver.env) == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_runs_as_a_link(copy, receiver, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(copy)
    assert run_command(str(link), *EVENT_WORDS, env=receiver.env) == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


@pytest.fixture
def strays(tmp_path):
    """The path of a folder of modules that must not run."""
    for name in ("json", "email", "ssl", "getopt", "re", "random", "urllib", "http",
                 "socket", "threading", "time", "string", "userstate", "encodings", "os"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stray module ran')")
    return str(tmp_path)


@pytest.mark.parametrize("how", ["pipe", "-c"])
def test_nothing_is_imported_from_where_it_runs(how, python, receiver, strays):
    done = run(*EVENT_WORDS, how=how, python=python, cwd=strays, env=receiver.env)
    assert done == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_nothing_is_imported_from_beside_the_file(python, receiver, strays, copy):
    done = run_command(python, "-B", copy, *EVENT_WORDS, cwd=strays, env=receiver.env)
    assert done == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


# Code for sitecustomize, which runs before the folder of the program is put on sys.path.
COMPARE_PATHS = """
import os, sys
leave, before = os._exit, list(sys.path)
def compare(status):
    now = [place for place in sys.path if place not in before]
    lost = [place for place in before if place not in sys.path]
    os.write(1, "more: {}, less: {}".format(now, lost).encode())
    leave(status)
os._exit = compare
"""
SAFE = [version for version in PYTHONS if int(version.partition(".")[2]) >= 11]
# Words for Python, a variable for it, and the interpreters that know these.
WAYS_TO_BE_SAFE = {"plain": ([], "", PYTHONS), "-P": (["-P"], "", SAFE),
                   "PYTHONSAFEPATH": ([], "1", SAFE)}


@pytest.mark.parametrize("how", ["file", "pipe", "-c"])
@pytest.mark.parametrize("name, version", [
    (name, version) for name, (_, _, known) in WAYS_TO_BE_SAFE.items() for version in known])
def test_of_sys_path_only_the_folder_that_it_runs_in_is_dropped(
        name, version, how, receiver, strays, tmp_path_factory):
    """With -P it is not there, and the first place is one of the standard library."""
    flags, safe_path, _ = WAYS_TO_BE_SAFE[name]
    first = tmp_path_factory.mktemp("first")
    (first / "sitecustomize.py").write_text(COMPARE_PATHS)
    done = run(*EVENT_WORDS, how=how, python=PYTHONS[version], flags=flags, cwd=strays,
               env=dict(receiver.env, PYTHONPATH=str(first), PYTHONSAFEPATH=safe_path))
    assert done == (0, "more: [], less: []", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_of_an_isolated_python_no_place_is_dropped(python):
    """It never had the folder that it runs in."""
    done = run("--version", python=python, flags=["-I"], before=COMPARE_PATHS)
    assert done == (0, "userstate 2.1\nmore: [], less: []", "")
