"""The promises about the files themselves."""
import ast
import os
import subprocess
import sys

import pytest
from conftest import SOURCE, TOP

import userstate


def test_the_script_is_at_most_450_lines_and_16384_bytes_of_ascii():
    assert len(SOURCE.splitlines()) <= 450
    assert len(SOURCE) <= 16384
    SOURCE.decode("ascii")


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
    code = ("import threading, signal, sys, os; before = dict(os.environ), list(sys.path); "
            "handlers = [signal.getsignal(n) for n in (1, 2, 15)]; import userstate; "
            "assert before == (dict(os.environ), sys.path); "
            "assert handlers == [signal.getsignal(n) for n in (1, 2, 15)]; "
            "assert threading.active_count() == 1; "
            "assert not {'logging', 'subprocess', 'argparse'} & set(sys.modules)")
    ended = subprocess.run([sys.executable, "-B", "-c", code], cwd=TOP,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (ended.returncode, ended.stdout) == (0, b"")


@pytest.mark.parametrize("name", [
    "send_user_state_event", "build_event", "fetch_metadata", "user_state_url",
    "post_event", "step", "main", "UserStateError", "EventError", "RefusedError", "DeadlineError"])
def test_public_names_are_documented(name):
    assert getattr(userstate, name).__doc__


def test_half_a_download_fails_loudly_wherever_it_is_cut():
    """Each cut that parses is one that Python would run to a silent end with status 0."""
    guard = SOURCE.index(b"atexit.register(")
    guard = SOURCE.index(b"\n", guard) + 1
    assert guard < 700
    parsing = []
    for end in [*range(guard, len(SOURCE), 5), *range(len(SOURCE) - 80, len(SOURCE) - 1)]:
        try:
            compile(SOURCE[:end], "cut", "exec")
        except SyntaxError:
            continue
        parsing.append(end)
    assert len(parsing) > 100
    ends = parsing[::len(parsing) // 25] + parsing[-12:]
    for end in ends:
        ended = subprocess.run([sys.executable, "-", "running", "1000", "x"],
                               input=SOURCE[:end], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
        assert ended.returncode == 1 and ended.stdout == b"", end
        last = ended.stderr.splitlines()[-1]
        assert last.startswith(b"userstate: "), SOURCE[:end][-60:]
