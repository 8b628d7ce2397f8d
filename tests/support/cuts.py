"""The file in pieces: where it may be cut, and what of that parses."""
import ast
import re

from support.files import SOURCE

LINES = SOURCE.splitlines(True)


def end_of_guard():
    """Return the offset of the first line behind the guard against half a download."""
    start = re.search(rb"^if __name__ ==.*$", SOURCE, re.M).end()
    return start + re.search(rb"\n(?=\S)", SOURCE[start:]).end()


def offset(node):
    """Return that of the first line of node; a comment before it goes to its neighbour."""
    decorators = getattr(node, "decorator_list", [])
    first = min(part.lineno for part in [node, *decorators])
    return len(b"".join(LINES[:first - 1]))


def pieces():
    """Yield (offset, header, piece) of SOURCE: its statements, and those of classes.

    A method parses behind its header.
    """
    # Not the docstring: Python 3.7 tells its last line as its first.
    body = [node for node in ast.parse(SOURCE).body if not isinstance(node, ast.Expr)]
    ends = [*(offset(node) for node in body[1:]), len(SOURCE)]
    for node, end in zip(body, ends):
        methods = []
        if isinstance(node, ast.ClassDef):
            methods = [offset(inner) for inner in node.body
                       if isinstance(inner, ast.FunctionDef)]
        start, *others = [offset(node), *methods, end]
        yield start, b"", SOURCE[start:others[0]]
        for begin, stop in zip(methods, others[1:]):
            yield begin, b"class C:\n", SOURCE[begin:stop]


def parsing_cuts():
    """Yield (end, last statement) of each cut behind the guard that parses."""
    guarded = range(end_of_guard(), len(SOURCE) - 1)
    for start, header, piece in pieces():
        for size in range(len(piece)):
            if start + size not in guarded:
                continue
            try:
                statements = ast.parse(header + piece[:size]).body
            except SyntaxError:
                continue
            yield start + size, statements[-1:]
