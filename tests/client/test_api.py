"""What the functions take, return and raise, and what main does as a function."""
import inspect
import json
import re
import subprocess
import sys

import pytest

import userstate
from support.files import TOP
from support.peers import ACCEPTED, DEAD, Peer, answer, document
from support.processes import EVENT_WORDS, run_code


@pytest.mark.parametrize("state, code, message", [
    ("runing", 1000, "x"), (None, 1000, "x"), (0, 1000, "x"), (["running"], 1000, "x"),
    ("running", "1000", "x"), ("running", 1000.0, "x"), ("running", True, "x"),
    ("running", 999, "x"), ("running", 1100, "x"), ("running", None, "x"),
    ("running", 1000, None), ("running", 1000, b"x"), ("running", 1000, 5)])
def test_nothing_is_converted(state, code, message):
    with pytest.raises(userstate.EventError) as caught:
        userstate.build_event(state, code, message)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, userstate.UserStateError)
    with Peer(ACCEPTED) as peer:
        with pytest.raises(ValueError, match="must be"):
            userstate.send_user_state_event(state, code, message, url=peer.url)
        assert peer.requests == []


@pytest.mark.parametrize("state", userstate.STATES)
@pytest.mark.parametrize("code", [1000, 1099])
def test_an_event_is_a_plain_dict(state, code):
    assert userstate.build_event(state, code, "") == {
        "state": state, "code": code, "message": ""}


def test_fetch_metadata_returns_the_whole_document():
    with Peer(document(user_state_url=None, tags=["a"])) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url) == {
            "id": "x", "customdata": {"key": "s3cret"}, "user_state_url": None, "tags": ["a"]}


def test_an_address_that_is_not_http_is_refused_by_post_event():
    with pytest.raises(userstate.RefusedError, match="address"):
        userstate.post_event({}, "file:///etc/passwd")


@pytest.mark.parametrize("options", [
    dict(timeout=0), dict(deadline=-1), dict(timeout="x"), dict(deadline=float("nan")),
    dict(timeout=True), dict(url="ftp://h/"), dict(metadata_url="x"), dict(url=5),
    dict(metadata_url=["http://h/"])])
def test_invalid_options_are_value_errors(options):
    with pytest.raises(userstate.EventError):
        userstate.send_user_state_event("running", 1000, "x", **options)


def test_an_unknown_option_is_an_event_error_that_names_it():
    with pytest.raises(userstate.EventError, match="timout"):
        userstate.send_user_state_event("running", 1000, "x", timout=5)


def test_the_environment_counts_in_python_too(receiver, monkeypatch):
    monkeypatch.setenv("USERSTATE_METADATA_URL", receiver.metadata_url)
    userstate.send_user_state_event("running", 1000, "x")
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_dry_run_prints(capsys):
    userstate.send_user_state_event("running", 1000, "x", dry_run=True)
    assert json.loads(capsys.readouterr().out)["code"] == 1000


def test_a_dry_run_never_asks_the_network(capsys):
    with Peer(ACCEPTED) as peer:
        userstate.post_event({"a": 1}, peer.url, dry_run=True)
        for function in (userstate.fetch_metadata, userstate.user_state_url):
            with pytest.raises(userstate.EventError, match=(
                    "^dry run: asks nobody, so --url has to say where$")):
                function(metadata_url=peer.url, dry_run=True)
        assert peer.requests == [] and capsys.readouterr().out == '{"a": 1}\n'


def test_faults_that_pass_are_warnings_of_the_logger(caplog):
    with Peer(answer(503), ACCEPTED) as peer:
        userstate.post_event({}, peer.url, sleep=lambda seconds: None)
    assert [(r.name, r.levelname) for r in caplog.records] == [("userstate", "WARNING")]
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.search(r": HTTP 503 .*; trying again in [0-9.]+ s$", line)


def test_errors_are_one_printable_line():
    error = userstate.UserStateError("a\nb\x1b[31m \u2028c\ud800")
    assert str(error) == "a b [31m c"


def test_each_error_has_its_status():
    assert {kind.__name__: kind.status for kind in (
        userstate.EventError, userstate.RefusedError, userstate.DeadlineError)} == {
            "EventError": 2, "RefusedError": 1, "DeadlineError": 75}


def test_main_returns_the_status_and_takes_the_arguments_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["userstate", "--version"])
    assert inspect.signature(userstate.main).parameters["argv"].default is None
    assert userstate.main() == 0 and "userstate" in capsys.readouterr().out


CALLS = {
    "send_user_state_event": ("running", 1000, "x"), "fetch_metadata": (), "user_state_url": (),
    "post_event": ({}, DEAD), "step": (1000, "x")}


@pytest.mark.parametrize("option", ["timout", "metadata", "retries"])
@pytest.mark.parametrize("name", CALLS)
def test_a_mistyped_keyword_is_an_event_error_that_names_it(name, option):
    with pytest.raises(userstate.EventError, match=option):
        getattr(userstate, name)(*CALLS[name], **{option: 5})


CYCLE = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize("event", [object(), {"a": {1}}, {"a": float("nan")}, CYCLE, b"x",
                                   {(1, 2): 3}], ids=lambda event: repr(event)[:9])
def test_an_event_that_is_not_json_is_an_event_error(event):
    with pytest.raises(userstate.EventError):
        userstate.post_event(event, DEAD)


def test_blank_metadata_beside_a_url_does_not_matter():
    with Peer(ACCEPTED) as peer:
        userstate.send_user_state_event(*EVENT_WORDS[:1], 1000, "x", url=peer.url, metadata_url=" ")
        assert len(peer.events) == 1
    for value in (" ", "", "\r\n"):
        with pytest.raises(userstate.EventError):
            userstate.user_state_url(metadata_url=value)


@pytest.mark.parametrize("words", [
    ["run", "1010", "m", "--", "true"], ["run", "--every=5", "1010", "m", "true"],
    ["running", "1000", "x"], ["run", "1010"], ["-n", "running", "1000", "x"]], ids=str)
def test_main_leaves_its_list_as_it_was(words, capfd):
    with Peer(ACCEPTED) as peer:
        argv = ["--url", peer.url, *words]
        copy = list(argv)
        userstate.main(argv)
        assert argv == copy
        assert userstate.main(tuple(argv)) == userstate.main(argv)


@pytest.mark.parametrize("words, status", [
    (EVENT_WORDS, 0), (["-n", *EVENT_WORDS], 0), (["bogus"], 2),
    (["run", "1010", "m", "--", "sh", "-c", "exit 4"], 2)], ids=str)
def test_main_in_another_thread_does_all_but_run(words, status, edge_python):
    code = """
import sys, threading, userstate
got = []
thread = threading.Thread(target=lambda: got.append(userstate.main(sys.argv[1:])))
thread.start()
thread.join(20)
print(got)
"""
    with Peer(ACCEPTED) as peer:
        done = run_code(code, "--url", peer.url, *words, python=edge_python)
        assert done.out.endswith(f"[{status}]\n") and bool(done.err) == (status == 2)
        if "run" in words:
            assert done.err == ("userstate: run: must be in the main thread, which gets the "
                                "signals\n")
        assert len(peer.requests) == (words == EVENT_WORDS)


def test_importing_does_nothing_but_define():
    code = ("import _thread, signal, sys, os; before = dict(os.environ), list(sys.path); "
            "handlers = [signal.getsignal(n) for n in (1, 2, 15)]; import userstate; "
            "assert before == (dict(os.environ), sys.path); "
            "assert handlers == [signal.getsignal(n) for n in (1, 2, 15)]; "
            "assert _thread._count() == 0; "
            "assert not {'logging', 'subprocess', 'argparse', 'threading'} & set(sys.modules)")
    ended = subprocess.run([sys.executable, "-B", "-c", code], cwd=TOP,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (ended.returncode, ended.stdout) == (0, b"")


@pytest.mark.parametrize("name", [
    "send_user_state_event", "build_event", "fetch_metadata", "user_state_url",
    "post_event", "step", "main", "UserStateError", "EventError", "RefusedError",
    "DeadlineError"])
def test_public_names_are_documented(name):
    assert getattr(userstate, name).__doc__


def test_what_only_run_needs_is_not_imported_for_an_event():
    code = ("import sys, userstate; userstate.main(['-n', 'running', '1000', 'x']);"
            "assert not {'subprocess', 'logging'} & set(sys.modules)")
    ended = subprocess.run([sys.executable, "-S", "-c", code], cwd=TOP,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert ended.returncode == 0, ended.stdout
