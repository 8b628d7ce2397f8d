"""Half a download fails loudly, wherever it is cut."""
import ast
import subprocess
import sys

import pytest

from support.cuts import end_of_guard, parsing_cuts
from support.files import SOURCE

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
