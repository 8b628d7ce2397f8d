"""Half a download fails loudly, wherever it is cut."""
import ast
import sys

import pytest

from support.cuts import end_of_guard, parsing_cuts
from support.files import SOURCE
from support.processes import EVENT_WORDS, run_command

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


@pytest.mark.parametrize("flags", [[], ["-I"]], ids=["plain", "isolated"])
def test_few_cuts_of_the_file_run_to_a_silent_end(flags):
    """All lie before the end of the guard, and are no more than the 65 of version 1.0."""
    guard = SOURCE[:end_of_guard()]
    assert b"atexit.register(" in guard
    assert b"sys.excepthook = " in guard
    done = run_command(sys.executable, *flags, "-c", EVERY_CUT, *EVENT_WORDS, input=guard,
                       seconds=60)
    assert done.status == 0
    assert done.err == ""
    silent = [int(word) for word in done.out.split()]
    assert len(silent) > 20  # the first line at least is a comment
    assert silent[-1] < len(guard)
    assert len(silent) <= 65, f"the last is {SOURCE[:silent[-1]][-60:]}"


def test_half_a_download_fails_loudly_wherever_it_is_cut():
    """Each cut that parses is one that Python would run to a silent end with status 0."""
    parsing = [end for end, _ in parsing_cuts()]
    assert len(parsing) > 100
    for end in parsing[::len(parsing) // 25] + parsing[-12:]:
        done = run_command(sys.executable, "-", *EVENT_WORDS, input=SOURCE[:end])
        assert done.status == 1, end
        assert done.out == "", end
        assert done.err.splitlines()[-1].startswith("userstate: "), SOURCE[:end][-60:]


def test_every_cut_behind_the_guard_has_a_guard():
    """What parses of half a download has the whole guard before it, and runs nothing."""
    assert b"atexit.register(" in SOURCE[:end_of_guard()]
    cuts = 0
    for end, statements in parsing_cuts():
        cuts += 1
        if cuts % 100 == 0:  # the pieces tell the truth
            ast.parse(SOURCE[:end])
        for statement in statements:
            if isinstance(statement, (ast.If, ast.Expr)):
                assert not any(isinstance(node, ast.Call) for node in ast.walk(statement)), end
    assert cuts > 300
