"""Every way to start it, in every Python: file, pipe, -c, module, copy, link and zip."""
import os
import shutil
import subprocess
import sys
import zipfile

import pytest

from support.files import SCRIPT, SOURCE, TOP
from support.interpreters import PYTHONS
from support.processes import run


@pytest.mark.parametrize("how", ["pipe", "-c", "file"])
def test_nothing_is_imported_from_where_it_runs(python, how, receiver, tmp_path):
    for name in ("json", "email", "ssl", "getopt", "re", "random", "urllib", "http",
                 "socket", "threading", "time", "string", "userstate", "encodings", "os"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stray module ran')")
    options = {"how": how}
    if how == "file":
        copy = tmp_path / "copy.py"
        copy.write_bytes(SOURCE)
        ended = subprocess.run([python, "-B", str(copy), "running", "1000", "x"],
                               env=receiver.env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=str(tmp_path))
        assert (ended.returncode, ended.stderr) == (0, b"")
    else:
        ended = run("running", "1000", "x", python=python, cwd=str(tmp_path),
                    env=receiver.env, **options)
        assert ended == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_the_oldest_and_newest_pythons_are_known():
    if len(PYTHONS) == 1:
        pytest.skip("only one Python here: " + ", ".join(PYTHONS))
    assert list(PYTHONS) == sorted(PYTHONS, key=lambda v: tuple(map(int, v.split("."))))


def test_runs_as_a_module_and_from_a_zip(python, receiver, tmp_path):
    import zipfile
    with zipfile.ZipFile(str(tmp_path / "x.zip"), "w") as archive:
        archive.write(SCRIPT, "userstate.py")
    for path in (TOP, str(tmp_path / "x.zip")):
        ended = subprocess.run([python, "-B", "-m", "userstate", "running", "1000", "x"],
                               env=dict(receiver.env, PYTHONPATH=path), cwd=str(tmp_path),
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert (ended.returncode, ended.stdout) == (0, b"")
    assert len(receiver.shown()) == 2


WAYS = {
    "file": [SCRIPT], "isolated": ["-I", SCRIPT], "no site": ["-I", "-S", SCRIPT],
    "optimised": ["-OO", SCRIPT], "warnings": ["-W", "error", SCRIPT],
    "command": ["-c", SOURCE], "module": ["-m", "userstate"], "pipe": ["-I", "-"],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_python_every_way(way, python, receiver):
    """An event, a command, a refusal of bad operands: by this way in this Python."""
    for words, status in ((["running", "1000", "x"], 0), (["run", "1001", "y", "false"], 1),
                          (["url"], 0), (["bogus", "1000", "x"], 2)):
        ended = subprocess.run(
            [python, "-B", *WAYS[way], *words], env=dict(receiver.env, PYTHONPATH=TOP),
            input=SOURCE if way == "pipe" else b"", stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=os.sep, timeout=60)
        assert ended.returncode == status, ended.stderr
        assert ended.stderr.count(b"\n") == (status == 2), ended.stderr
    assert [kind for kind, _, _ in receiver.shown()] == ["user.1000", "user.1001", "user.1001"]


def test_copied_linked_and_zipped(tmp_path, receiver):
    environment = dict(receiver.env, PATH=os.environ["PATH"])
    copy = str(tmp_path / "userstate")
    shutil.copy(SCRIPT, copy)
    os.symlink(copy, str(tmp_path / "link"))
    with zipfile.ZipFile(str(tmp_path / "x.zip"), "w") as archive:
        archive.write(SCRIPT, "userstate.py")
    for command in ([copy], [str(tmp_path / "link")], [sys.executable, "-m", "userstate"]):
        ended = subprocess.run([*command, "running", "1000", "x"], stderr=subprocess.PIPE,
                               env=dict(environment, PYTHONPATH=str(tmp_path / "x.zip")))
        assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(receiver.shown()) == 3
