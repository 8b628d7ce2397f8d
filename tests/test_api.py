"""What the functions return and raise, and what they make of a metadata document."""
import inspect
import json
import re
import subprocess

import pytest
from conftest import ACCEPTED, TOP, Peer, answer, document

import userstate

FEW = 4  # requests for what is tried three more times


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


def test_the_event_on_the_wire():
    with Peer(ACCEPTED) as peer:
        userstate.post_event(userstate.build_event("failed", 1042, "\u00fc"), peer.url)
    head, _, body = peer.requests[0].partition(b"\r\n\r\n")
    request, *headers = head.decode().split("\r\n")
    assert request == "POST /events HTTP/1.1"
    assert re.sub("[0-9a-f]{32}", "32 DIGITS", "\n".join(sorted(headers))) == (
        f"Accept-Encoding: identity\nContent-Length: {len(body)}\n"
        f'Content-Type: application/json\nHost: 127.0.0.1:{peer.port}\n'
        'Idempotency-Key: "32 DIGITS"\nUser-Agent: userstate/2.0')
    assert body == b'{"state": "failed", "code": 1042, "message": "\\u00fc"}'


def test_the_metadata_request_asks_for_no_vendor_type():
    with Peer(document(a=1)) as peer:
        assert userstate.fetch_metadata(metadata_url=peer.url)["a"] == 1
    request, *headers = peer.requests[0].decode().strip().split("\r\n")
    assert request == "GET /events HTTP/1.1"
    assert sorted(headers) == ["Accept-Encoding: identity", f"Host: 127.0.0.1:{peer.port}",
                               "User-Agent: userstate/2.0"]


USABLE = {
    "with the key": (dict(user_state_url="http://h/e"), "http://h/e"),
    "https and a deep path": (dict(user_state_url="https://da.user.state/events/1-2"),
                              "https://da.user.state/events/1-2"),
    "IPv6": (dict(user_state_url="http://[::1]:80/e"), "http://[::1]:80/e"),
    "both keys": (dict(user_state_url="http://h/e", phone_home_url="http://p/phone-home"),
                  "http://h/e"),
    "phone home only": (dict(phone_home_url="http://147.75.200.3/phone-home"),
                        "http://147.75.200.3/events"),
    "null and phone home": (dict(user_state_url=None, phone_home_url="http://p/a/phone-home"),
                            "http://p/a/events"),
}


@pytest.mark.parametrize("name", USABLE)
def test_finds_the_address_in_a_document(name, said):
    keys, url = USABLE[name]
    with Peer(document(**keys)) as peer:
        assert userstate.user_state_url(metadata_url=peer.url, **said.options) == url
        assert len(peer.requests) == 1
    assert [url in line and "phone_home_url" in line for line in said.lines] == (
        [] if keys.get("user_state_url") else [True])


UNUSABLE = {
    "without": document(), "null": document(user_state_url=None),
    "empty": document(user_state_url=""), "number": document(user_state_url=5),
    "list": document(user_state_url=["http://h/"]), "object": document(user_state_url={}),
    "phone home of another form": document(phone_home_url="http://h/phone"),
    "phone home a number": document(phone_home_url=5),
    "an old error with status 200": answer(200, b'{"error":"not here yet"}'),
    "not JSON": answer(200, b"<html>login</html>"), "no body": answer(200),
    "an array": answer(200, b"[]"), "a string": answer(200, b'"http://h/"'),
    "null document": answer(200, b"null"), "deep": answer(200, b'{"a":' * 200000),
    "not UTF-8": answer(200, b'{"a": "\xff"}'), "cut JSON": answer(200, b'{"user_state_u'),
    "over 1 MiB": answer(200, json.dumps({
        "a": "x" * 2**20, "user_state_url": "http://h/"}).encode()),
    "big number": answer(200, b'{"a": ' + b"9" * 100000 + b"}"),
    "a message in a document": answer(200, b'{"id": 1, "message": "s3cret"}'),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_unusable_document_is_asked_for_three_more_times(name, said):
    with Peer(UNUSABLE[name]) as peer:
        with pytest.raises(userstate.RefusedError, match=rf"{peer.url}: .*try 4") as caught:
            userstate.user_state_url(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == FEW
    assert len(said.lines) == 1 and len(str(caught.value)) < 300
    if name == "without":
        hint = r"\(Tinkerbell of today has none: set --url or USERSTATE_URL\); refused"
        assert re.search("no user_state_url " + hint, str(caught.value))
    if name == "an old error with status 200":
        assert "not here yet" in said.lines[0]
    assert "s3cret" not in "".join(said.lines) + str(caught.value)


@pytest.mark.parametrize("url", [
    "ftp://h/e", "null", "file:///etc/passwd", "http:///e", "http://h:99999/", "http://h:x/",
    "http://h/\r\nHost: x", "http://h/a b", "http://[::1/", "javascript:x", "events"])
@pytest.mark.parametrize("key", ["user_state_url", "phone_home_url"])
def test_an_address_that_is_not_http_with_a_host_is_refused_at_once(url, key, said):
    value = url + "/phone-home" if key == "phone_home_url" else url
    with Peer(document(**{key: value})) as peer:
        with pytest.raises(userstate.RefusedError, match="address"):
            userstate.user_state_url(metadata_url=peer.url, **said.options)
        assert len(peer.requests) == 1


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


def test_the_environment_counts_in_python_too(platform, monkeypatch):
    monkeypatch.setenv("USERSTATE_METADATA_URL", platform.metadata_url)
    userstate.send_user_state_event("running", 1000, "x")
    assert platform.shown() == [("user.1000", "running", "x")]


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


def test_a_huge_number_in_the_document_takes_no_time(edge_python):
    body = b'{"a": ' + b"9" * 1000000 + b', "user_state_url": "http://h/"}'
    code = ("import sys, time, userstate; begun = time.monotonic();"
            "print(userstate.user_state_url(metadata_url=sys.argv[1]));"
            "assert time.monotonic() - begun < 3")
    with Peer(answer(200, body)) as peer:
        ended = subprocess.run([edge_python, "-B", "-c", code, peer.url], cwd=TOP,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stdout) == (0, b"http://h/\n"), ended.stderr


@pytest.mark.parametrize("body", [b"hello", b"[]", b"{", b"\xff", b"[" * 60000], ids=ascii)
def test_what_is_no_json_object_is_called_not_json(body, said):
    with Peer(answer(200, body)) as peer:
        with pytest.raises(userstate.RefusedError, match=": not JSON; refused at try 4 after "):
            userstate.fetch_metadata(metadata_url=peer.url, **said.options)


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
