"""What a shell script of the README finds on a machine: its tools, a file server, faults."""
import os
import shutil
import subprocess
import sys

from support.files import SOURCE
from support.peers import answer
from support.readme import block
from support.tools import needs

SCRIPT_TOOLS = ["timeout", "sleep", "sha256sum", "mkdir", "sh", "true"]
PYTHON = os.path.realpath(sys.executable)
TIMELINE = [tuple(line.split(None, 2))  # oldest first
            for line in block("text", "user-data").splitlines()[:0:-1]]
GOOD = answer(200, SOURCE)
# What may be wrong, and no recipe may fail for: answers of the file server.
FAULTS = {"none": GOOD, "empty": answer(200), "cut": answer(200, SOURCE[:9000]),
          "other": answer(200, SOURCE + b"#\n"), "404": answer(404)}


def tools_in(folder, fetcher="curl", python=f'#!/bin/sh\nexec {PYTHON} "$@"\n', busybox=False):
    """Return a PATH that has what the script uses, and no other tools."""
    folder.mkdir()
    real = {tool: "busybox" if busybox else tool for tool in SCRIPT_TOOLS}
    real[fetcher.split()[-1]] = fetcher.split()[0]
    for name, tool in real.items():
        needs(tool)
        (folder / name).symlink_to(shutil.which(tool))
    if "python3" in real:
        (folder / "python3").unlink()
    if python:
        (folder / "python3").write_text(python)
        (folder / "python3").chmod(0o755)
    return str(folder)


def sh(text, folder, words=("-c",), **environment):
    """Run text with the tools of the machine; return how it ended."""
    return subprocess.run(
        ["sh", *words, text], cwd=str(folder), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, timeout=60,
        env=dict(environment, PATH=f"{folder}/bin:{os.environ['PATH']}"))
