"""The promises about the files themselves: size, names, imports, top level."""
import ast
import os
import re
import subprocess
import sys

import pytest

import userstate
from support.files import SCRIPT, SOURCE, TOP
from support.tools import needs


def test_the_script_is_at_most_1000_lines():
    assert len(SOURCE.splitlines()) <= 1000


def test_the_script_is_ascii_and_no_wider_than_its_style_says():
    with open(os.path.join(TOP, ".ci", "ruff.toml")) as file:
        columns = int(re.search(r"^line-length = (\d+)$", file.read(), re.M).group(1))
    wide = [line for line in SOURCE.decode("ascii").splitlines() if len(line) > columns]
    assert wide == []


def test_the_version_is_that_of_the_contract():
    assert userstate.__version__ == "2.1"


def imported(source):
    """Return the names of the modules at the top that source imports, at any place."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.split(".")[0] for name in names}


def test_the_script_imports_only_the_standard_library():
    if not hasattr(sys, "stdlib_module_names"):
        pytest.skip("this Python does not list its standard library")
    names = imported(SOURCE)
    assert {"json", "urllib"} <= names
    assert names <= sys.stdlib_module_names


def test_the_top_level_holds_what_is_agreed_and_no_more():
    needs("git")
    listed = subprocess.run(["git", "ls-files"], cwd=TOP, capture_output=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert {name.split("/")[0] for name in listed.stdout.decode().split()} == {
        "userstate.py", "tests", "Makefile", "README.md", "LICENSE", ".ci", ".gitignore"}


def test_the_script_has_its_run_bit():
    assert os.access(SCRIPT, os.X_OK)
