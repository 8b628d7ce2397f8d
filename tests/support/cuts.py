"""The file in pieces: where it may be cut, and what of that parses."""
import ast
import re

from support.files import SOURCE


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
