"""The names of the module: which are public, and that no other one is."""
import ast

import pytest

import userstate
from support.files import SOURCE
from support.peers import DEAD

FUNCTIONS = ["send_user_state_event", "build_event", "fetch_metadata", "user_state_url",
             "post_event", "step", "main"]
ERRORS = ["UserStateError", "EventError", "RefusedError", "DeadlineError"]
TREE = ast.parse(SOURCE)


def is_public(name):
    return not name.startswith("_")


def test_all_names_the_interface():
    assert sorted(userstate.__all__) == sorted([*FUNCTIONS, *ERRORS, "STATES", "CODES"])


def test_what_is_defined_is_public_or_begins_with_an_underscore():
    defined = {node.name for node in TREE.body
               if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    assert set(filter(is_public, defined)) == {*FUNCTIONS, *ERRORS}


def test_what_else_is_assigned_at_the_top_is_a_constant():
    names = {node.id for statement in TREE.body if isinstance(statement, ast.Assign)
             for node in ast.walk(statement)
             if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    assert {"STATES", "CODES"} < names
    others = {name for name in names if name != name.upper()}
    assert others == {"__version__", "__all__"}


@pytest.mark.parametrize("thing", [userstate.step, userstate.step(1000, "m", url=DEAD)],
                         ids=["class", "use"])
def test_a_step_has_no_public_name(thing):
    assert list(filter(is_public, dir(thing))) == []


def test_an_error_has_the_public_names_of_the_contract():
    error = userstate.RefusedError("x", "http://h/", 403, 1)
    own = set(dir(error)) - set(dir(Exception()))
    assert set(filter(is_public, own)) == {"status", "url", "http_status", "tries"}
