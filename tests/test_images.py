"""Where people really put it: every way to start it, minimal Pythons, poor surroundings."""
import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import SCRIPT, SOURCE, TOP

WAYS = {
    "file": [SCRIPT], "isolated": ["-I", SCRIPT], "no site": ["-I", "-S", SCRIPT],
    "optimised": ["-OO", SCRIPT], "warnings": ["-W", "error", SCRIPT],
    "command": ["-c", SOURCE], "module": ["-m", "userstate"], "pipe": ["-I", "-"],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_python_every_way(way, python, platform):
    """An event, a command, a refusal of bad operands: by this way in this Python."""
    for words, status in ((["running", "1000", "x"], 0), (["run", "1001", "y", "false"], 1),
                          (["url"], 0), (["bogus", "1000", "x"], 2)):
        ended = subprocess.run(
            [python, "-B", *WAYS[way], *words], env=dict(platform.env, PYTHONPATH=TOP),
            input=SOURCE if way == "pipe" else b"", stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=os.sep, timeout=60)
        assert ended.returncode == status, ended.stderr
        assert ended.stderr.count(b"\n") == (status == 2), ended.stderr
    assert [kind for kind, _, _ in platform.shown()] == ["user.1000", "user.1001", "user.1001"]


def test_copied_linked_and_zipped(tmp_path, platform):
    environment = dict(platform.env, PATH=os.environ["PATH"])
    copy = str(tmp_path / "userstate")
    shutil.copy(SCRIPT, copy)
    os.symlink(copy, str(tmp_path / "link"))
    with zipfile.ZipFile(str(tmp_path / "x.zip"), "w") as archive:
        archive.write(SCRIPT, "userstate.py")
    for command in ([copy], [str(tmp_path / "link")], [sys.executable, "-m", "userstate"]):
        ended = subprocess.run([*command, "running", "1000", "x"], stderr=subprocess.PIPE,
                               env=dict(environment, PYTHONPATH=str(tmp_path / "x.zip")))
        assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(platform.shown()) == 3


@pytest.mark.parametrize("module", ["json", "http", "email", "socket", "getopt", "random",
                                    "urllib", "contextlib", "threading"])
def test_a_module_that_is_missing_is_named_with_its_package(module, edge_python):
    """As in python3-minimal, python3-light and python3-core."""
    hide = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "{module}":
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Hide())
for name in [name for name in sys.modules if name.split(".")[0] == "{module}"]:
    del sys.modules[name]
"""
    ended = subprocess.run([edge_python, "-S", "-c", hide + SOURCE.decode(), "running",
                            "1000", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    err = ended.stderr.decode()
    assert ended.returncode == 1 and err.count("\n") == 1 and f"'{module}" in err
    for word in ("Alpine", "Debian", "Fedora", "OpenWrt", "Yocto", "python3-modules"):
        assert word in err


def end_of_guard():
    start = re.search(rb"^if __name__ ==.*$", SOURCE, re.M).end()
    return start + re.search(rb"\n(?=\S)", SOURCE[start:]).end()


def pieces():
    """Yield (offset, header, piece) of SOURCE: its statements, and those of classes."""
    def offset(node):  # of its decorators; a comment before it goes to its neighbour
        lines = [node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]
        return len(b"".join(SOURCE.splitlines(True)[:min(lines) - 1]))
    # Not the docstring: Python 3.7 tells its last line as its first.
    body = [node for node in ast.parse(SOURCE).body if not isinstance(node, ast.Expr)]
    for node, after in zip(body, body[1:] + [None]):
        starts, end = [offset(node)], offset(after) if after else len(SOURCE)
        if isinstance(node, ast.ClassDef):
            starts += [offset(inner) for inner in node.body
                       if isinstance(inner, ast.FunctionDef)]
        for start, stop in zip(starts, starts[1:] + [end]):
            yield start, b"class C:\n" * (start != starts[0]), SOURCE[start:stop]


def parsing_cuts():
    """Yield (end, last statement) of each cut behind the guard that parses."""
    for offset, header, piece in pieces():
        for end in range(len(piece)):
            if end_of_guard() <= offset + end < len(SOURCE) - 1:
                try:
                    yield offset + end, ast.parse(header + piece[:end]).body[-1:]
                except SyntaxError:
                    pass


def test_every_cut_behind_the_guard_has_a_guard():
    """What parses of half a download has the whole guard before it, and runs nothing."""
    cuts = 0
    assert b"atexit.register(" in SOURCE[:end_of_guard()]
    for end, statement in parsing_cuts():
        cuts += 1
        if cuts % 100 == 0:  # the pieces tell the truth
            ast.parse(SOURCE[:end])
        for node in statement:
            if isinstance(node, (ast.If, ast.Expr)):
                assert not any(isinstance(inner, ast.Call) for inner in ast.walk(node)), end
    assert cuts > 300


LIMITS = ["ulimit -n 16", "ulimit -v 400000", "unset HOME; cd /", "umask 777",
          "exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"]


@pytest.mark.parametrize("limit", LIMITS)
def test_poor_surroundings(limit, edge_python, platform):
    ended = subprocess.run(
        ["sh", "-c", f'{limit}; exec "$0" -B "$1" run 1000 x true', edge_python, SCRIPT],
        env=platform.env, stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(platform.shown()) == 2


@pytest.mark.skipif(not os.environ.get("DEBOOTSTRAP"), reason="slow: make test DEBOOTSTRAP=1")
@pytest.mark.parametrize("package", ["python3-minimal", "python3"])
def test_a_debian_with_nothing_else(package, platform, tmp_path):
    tool = shutil.which("debootstrap", path=os.environ["PATH"] + ":/usr/sbin")
    if not tool or os.getuid():
        pytest.skip("debootstrap needs to be installed, and root")
    root = str(tmp_path / "root")
    subprocess.run([tool, "--variant=minbase", f"--include={package}", "stable", root],
                   check=True, stdout=subprocess.DEVNULL)
    ended = subprocess.run(["/usr/sbin/chroot", root, "python3", "-I", "-", "running", "1000", "x"],
                           env=dict(platform.env, PATH="/usr/bin:/bin"), input=SOURCE,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if package == "python3":
        assert (ended.returncode, ended.stderr) == (0, b"") and len(platform.shown()) == 1
    else:
        assert ended.returncode == 1 and re.fullmatch(
            rb"userstate: No module named .*install python3 .*\n", ended.stderr)
