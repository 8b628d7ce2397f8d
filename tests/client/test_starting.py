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
