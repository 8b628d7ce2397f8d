"""The style of the program that ruff does not check: blank lines, sizes, the order of names."""
import ast

import pytest

from support.files import SOURCE

LINES = SOURCE.decode().splitlines()
TREE = ast.parse(SOURCE)
DEFINITIONS = ast.FunctionDef, ast.ClassDef
# Private names that are not below their first user, and why they are where they are.
ABOVE_THEIR_USERS = {
    "_leave": "the guard has to be whole before anything is imported",
    "_Fault": "it stands with the other errors",
    "_run": "the command line, which calls it, comes last",
    "_open_log": "as _run"}


def blank_lines_above(node):
    """Return how many there are above node, its decorators and its comment."""
    first = min(part.lineno for part in [node, *getattr(node, "decorator_list", [])])
    above = LINES[:first - 1]
    while above[-1].strip().startswith("#"):
        above.pop()
    blank = 0
    while not above[-1 - blank].strip():
        blank += 1
    return blank


def neighbours(body):
    """Return the pairs of statements, one after the other, of which one is a definition."""
    return [(before, node) for before, node in zip(body, body[1:])
            if isinstance(before, DEFINITIONS) or isinstance(node, DEFINITIONS)]


def is_docstring(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def test_two_blank_lines_are_around_each_definition_at_the_top():
    pairs = neighbours(TREE.body)
    assert len(pairs) > 50
    for _, node in pairs:
        assert blank_lines_above(node) == 2, f"line {node.lineno}"


def test_one_blank_line_is_above_each_inner_definition():
    """But where it comes first, or right behind a docstring."""
    pairs = [pair for outer in ast.walk(TREE) if isinstance(outer, DEFINITIONS)
             for pair in neighbours(outer.body)]
    inner = [node for before, node in pairs
             if isinstance(node, DEFINITIONS) and not is_docstring(before)]
    assert len(inner) > 30
    for node in inner:
        assert blank_lines_above(node) == 1, f"line {node.lineno}"


def test_each_statement_has_a_line_of_its_own():
    starts = [node.lineno for node in ast.walk(TREE)
              if isinstance(node, (ast.stmt, ast.ExceptHandler))]
    assert len(starts) > 500
    assert [line for line in set(starts) if starts.count(line) > 1] == []


def functions():
    return [node for node in ast.walk(TREE) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("function", functions(), ids=lambda function: function.name)
def test_no_function_is_longer_than_35_lines(function):
    assert function.end_lineno - function.lineno + 1 <= 35


def private_definitions(body):
    return {node.name: node.lineno for node in body if isinstance(node, DEFINITIONS)
            and node.name.startswith("_") and not node.name.endswith("__")}


def first_use(name):
    """Return the first line that reads name, as a variable or behind a dot."""
    return min(node.lineno for node in ast.walk(TREE)
               if isinstance(node, ast.Name) and node.id == name
               or isinstance(node, ast.Attribute) and node.attr == name)


def test_what_is_private_is_defined_below_its_first_user():
    bodies = [TREE.body, *(node.body for node in TREE.body if isinstance(node, ast.ClassDef))]
    lines = {name: line for body in bodies for name, line in private_definitions(body).items()}
    assert len(lines) > 40
    above = {name for name, line in lines.items() if line < first_use(name)}
    assert above == set(ABOVE_THEIR_USERS)
