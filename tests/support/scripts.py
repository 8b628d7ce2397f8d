"""What a script of the README finds on a machine: a shell, its tools, a file server."""
import os
import subprocess
import sys

import pytest

from support.files import SOURCE
from support.peers import answer
from support.processes import run_command, start_command
from support.readme import block
from support.tools import find, needs, slow

PYTHON = os.path.realpath(sys.executable)
WORKING_PYTHON = f'#!/bin/sh\nexec {PYTHON} "$@"\n'
SCRIPT_TOOLS = ["sleep", "mkdir", "sh", "rm", "cat", "true"]
TIMELINE = [tuple(line.split(None, 2))  # oldest first
            for line in block("text", "user-data").splitlines()[:0:-1]]
SHELLS = {"bash": ["bash"], "dash": ["dash"], "ash": ["busybox", "ash"], "ksh": ["ksh"],
          "zsh": ["zsh"], "mksh": ["mksh"]}
SURE = ["bash", "dash", "ash"]  # that is, sh on a machine
DASH_AND_SLOWLY_OTHERS = ["dash", *(
    pytest.param(shell, marks=slow) for shell in SHELLS if shell != "dash")]
GOOD_FILE = answer(200, SOURCE)
# What the file server may answer instead, and no recipe may fail for.
BAD_FILES = {"empty": answer(200), "cut": answer(200, SOURCE[:9000]),
             "other": answer(200, SOURCE + b"#\n"), "404": answer(404)}


def write_program(path, text):
    """Make path, of a pathlib.Path, a program of this text."""
    path.write_text(text)
    path.chmod(0o755)


def tools_in(folder, *others, python=WORKING_PYTHON, busybox=False):
    """Return a PATH that has what the script uses and these others, and no other tools.

    python: the text of python3, None for none; busybox: whether it is all the tools.
    """
    folder.mkdir()
    tools = {name: "busybox" if busybox else name for name in SCRIPT_TOOLS}
    for name, tool in dict(tools, **dict(zip(others, others))).items():
        needs(tool)
        (folder / name).symlink_to(find(tool))
    if python is not None:
        write_program(folder / "python3", python)
    return str(folder)


def command_of(name, text):
    """Return the words that run text in the shell of this name, which has to be there."""
    command, *words = SHELLS[name]
    needs(command)
    return [find(command), *words, "-c", text]


def shell(text, folder, *flags, **environment):
    """Run text with sh, in folder, with the tools of the machine; tell how it ended."""
    return run_command("sh", *flags, "-c", text, cwd=str(folder), env=environment, seconds=60)


def start_play(text, folder):
    """Start the playbook of this text on this machine, in folder; it tells all on stdout."""
    needs("ansible-playbook")
    (folder / "playbook.yaml").write_text(text)
    return start_command(
        find("ansible-playbook"), "-i", "localhost,", "-c", "local", "-v", "playbook.yaml",
        cwd=str(folder), env={"HOME": str(folder), "ANSIBLE_LOCALHOST_WARNING": "0"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
