"""The promises about the files themselves."""
import ast
import os
import subprocess
import sys

import pytest
from conftest import SOURCE, TOP
from test_images import end_of_guard, parsing_cuts

import userstate


def test_the_script_is_at_most_800_lines():
    assert len(SOURCE.splitlines()) <= 800


def test_the_script_is_ascii_of_at_most_88_columns():
    assert [line for line in SOURCE.decode("ascii").splitlines() if len(line) > 88] == []


def test_the_version_is_that_of_the_contract():
    assert userstate.__version__ == "2.0"


def test_the_script_imports_only_the_standard_library():
    names = {name.split(".")[0]
             for node in ast.walk(ast.parse(SOURCE))
             for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import)
                          else [node.module] if isinstance(node, ast.ImportFrom) else [])}
    if not hasattr(sys, "stdlib_module_names"):
        pytest.skip("this Python does not list its standard library")
    assert {"json", "urllib"} <= names <= sys.stdlib_module_names


def test_the_top_level_holds_what_is_agreed_and_no_more():
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=TOP, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listed.split()} == {
        "userstate.py", "tests", "Makefile", "README.md", "LICENSE", ".ci", ".gitignore"}


def test_the_script_has_its_run_bit():
    assert os.access(os.path.join(TOP, "userstate.py"), os.X_OK)


def test_importing_does_nothing_but_define():
    code = ("import _thread, signal, sys, os; before = dict(os.environ), list(sys.path); "
            "handlers = [signal.getsignal(n) for n in (1, 2, 15)]; import userstate; "
            "assert before == (dict(os.environ), sys.path); "
            "assert handlers == [signal.getsignal(n) for n in (1, 2, 15)]; "
            "assert _thread._count() == 0; "
            "assert not {'logging', 'subprocess', 'argparse', 'threading'} & set(sys.modules)")
    ended = subprocess.run([sys.executable, "-B", "-c", code], cwd=TOP,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (ended.returncode, ended.stdout) == (0, b"")


@pytest.mark.parametrize("name", [
    "send_user_state_event", "build_event", "fetch_metadata", "user_state_url",
    "post_event", "step", "main", "UserStateError", "EventError", "RefusedError",
    "DeadlineError"])
def test_public_names_are_documented(name):
    assert getattr(userstate, name).__doc__


# Run by the bytes that are cut: each of them that compiles, in a process of its own, which
# leaves the loop to run it.
EVERY_CUT = r"""
import os, sys
source, silent = sys.stdin.buffer.read(), []
for end in range(len(source) + 1):
    try:
        code = compile(source[:end], "cut", "exec")
    except (SyntaxError, ValueError):
        continue
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.close(reader)
        os.close(writer)
        break
    os.close(writer)
    with open(reader, "rb") as said:
        if os.waitpid(child, 0)[1] == 0 and not said.read():
            silent.append(end)
else:
    print(*silent)
    sys.exit()
exec(code, {"__name__": "__main__"})
"""


@pytest.mark.parametrize("how", [[], ["-I"]], ids=["", "isolated"])
def test_few_cuts_of_the_file_run_to_a_silent_end(how):
    """All lie before the end of the guard, and are no more than the 65 of version 1.0."""
    end = end_of_guard()
    assert b"atexit.register(" in SOURCE[:end] and b"sys.excepthook = " in SOURCE[:end]
    ended = subprocess.run([sys.executable, *how, "-c", EVERY_CUT, "running", "1000", "x"],
                           input=SOURCE[:end], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    silent = [int(word) for word in ended.stdout.split()]
    assert 20 < len(silent) and silent[-1] < end  # the first line at least is a comment
    assert len(silent) <= 65, f"{len(silent)}, the last is {SOURCE[:silent[-1]][-60:]}"


def test_half_a_download_fails_loudly_wherever_it_is_cut():
    """Each cut that parses is one that Python would run to a silent end with status 0."""
    parsing = [end for end, _ in parsing_cuts()]
    assert len(parsing) > 100
    ends = parsing[::len(parsing) // 25] + parsing[-12:]
    for end in ends:
        ended = subprocess.run([sys.executable, "-", "running", "1000", "x"],
                               input=SOURCE[:end], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        assert ended.returncode == 1 and ended.stdout == b"", end
        last = ended.stderr.splitlines()[-1]
        assert last.startswith(b"userstate: "), SOURCE[:end][-60:]
