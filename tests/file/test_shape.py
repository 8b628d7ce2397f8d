"""The promises about the files themselves: size, names, imports, top level."""
import ast
import os
import subprocess
import sys

import pytest

import userstate
from support.files import SOURCE, TOP


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
