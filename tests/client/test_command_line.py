"""Options, operands and variables: what is taken, and what is refused in one line."""
import json
import random
import re
import string

import pytest

import userstate
from support.peers import ACCEPTED, DEAD, Peer, document
from support.processes import EVENT_WORDS, run, run_code

INVALID = {
    "no operand": ([], "operands .*: must be STATE CODE MESSAGE"),
    "one operand": (["running"], "operands .*: must be STATE CODE MESSAGE"),
    "two operands": (["running", "1000"], "operands .*: must be STATE CODE MESSAGE"),
    "message not quoted": (["running", "1000", "a", "b"], "operands .* MESSAGE quoted"),
    "many operands": (["running"] * 5000, "operands .*: must be STATE CODE MESSAGE"),
    "url and more": (["url", "x"], "operands .*: must be STATE CODE MESSAGE"),
    "url without network": (["-n", "url"], "dry run"),
    "unknown option": (["--nope", "running", "1000", "x"], "option --nope"),
    "unknown letter": (["-x", "running", "1000", "x"], "option -x"),
    "option without value": (["--url"], "option --url requires"),
    "flag with value": (["--verbose=x", "running", "1000", "x"], "option --verbose"),
    **{f"state {state!r}": ([state, "1000", "x"], "^userstate: state .*running, succeeded")
       for state in ("", "Running", "running ", "-0", "256", "1000", "0x1", "1.0", "\u0661")
       if not state.startswith("-")},
    **{f"code {code!r}": (["running", code, "x"], "^userstate: code .*1000 to 1099")
       for code in ("", "999", "1100", "0", "01000", " 1000", "1000 ", "1000\n", "+1000",
                    "-1000", "1_000", "1e3", "1000.0", "0x3e8", "\u0661\u0660\u0660\u0660",
                    "\uff11\uff10\uff10\uff10", "9" * 5000)},
    **{f"url {url!r}": (["--url", url, "running", "1000", "x"], "^userstate: address ")
       for url in ("", "x", "null", "/events", "ftp://h/", "file:///etc/passwd", "data:,x",
                   "http:", "http://", "http:///x", "http://:80/", "https://h:99999/",
                   "http://h:x/", "http://h:0/", "http://a b/", "http://h/\r\nX: y",
                   "http://[::1/", "http://h/\u00fc", "http://a..b/", "http://u:p@h/",
                   "http://" + "a" * 64 + "/", "javascript:alert(1)", "//h/x")},
    "metadata url": (["--metadata-url", "ftp://h", "running", "1000", "x"], "address 'ftp"),
    "one of two": (["--metadata-url", "http://h/ ftp://h", "url"], "address 'ftp"),
    "no metadata url": (["--metadata-url", " ", "url"], "address ''"),
    **{f"{name} {value!r}": ([f"--{name}={value}", "running", "1000", "x"],
                             f"^userstate: {name} .*must be seconds, like 10 or 0.5$")
       for name in ("timeout", "deadline")
       for value in ("", "0", "0.0", "-1", "1e3", "nan", "inf", "1 ", "x", "100000", "1s")},
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_is_one_line_and_status_2_and_nothing_is_sent(name, capsys):
    words, pattern = INVALID[name]
    with Peer(ACCEPTED) as peer:
        where = [] if not words or name.startswith("url") or "metadata" in words[0] else [
            "--url", peer.url]
        assert userstate.main([*where, *words]) == 2
        assert peer.requests == []
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch("userstate: .+\n", err) and len(err) < 400
    assert err[:-1].isprintable()
    assert re.search(pattern, err)


@pytest.mark.parametrize("words, line", {
    ("running", "1000"): "operands 2: must be STATE CODE MESSAGE, the MESSAGE quoted and "
                         "options before them; see --help",
    ("run", "1000", "x"): "operands 2: must be CODE MESSAGE COMMAND; see --help",
    ("--nope",): "option --nope not recognized; see --help",
    ("walking", "1000", "x"): "state 'walking': must be running, succeeded or failed",
    ("running", "100", "x"): "code '100': must be an int, 1000 to 1099",
}.items(), ids=str)
def test_what_is_missing_is_said_in_full(words, line, capsys):
    assert userstate.main(words) == 2
    assert capsys.readouterr().err == f"userstate: {line}\n"


@pytest.mark.parametrize("before, letters", [([], "hnv"), (["run"], "h")], ids=str)
def test_no_other_letter_is_an_option(before, letters, capsys):
    with Peer(ACCEPTED) as peer:
        for letter in sorted(set(string.ascii_letters + string.digits) - set(letters)):
            words = ["--url", peer.url, *before, "-" + letter, "running", "1000", "x"]
            assert userstate.main(words) == 2
            assert capsys.readouterr().err == (
                f"userstate: option -{letter} not recognized; see --help\n")
        assert peer.requests == []


@pytest.mark.parametrize("variable, value", [
    ("URL", "ftp://h/"), ("METADATA_URL", "http://h/ nonsense"), ("TIMEOUT", "x"),
    ("DEADLINE", "-1")])
def test_invalid_in_the_environment_is_status_2_as_well(variable, value):
    with Peer(ACCEPTED) as peer:
        ended = run("running", "1000", "x", env={
            "USERSTATE_METADATA_URL": peer.url, "USERSTATE_" + variable: value})
        assert ended.status == 2 and peer.requests == []
        assert re.fullmatch("userstate: .*\n", ended.err)


def test_options_win_over_the_environment(receiver):
    with Peer(ACCEPTED) as peer:
        wrong = {"USERSTATE_URL": DEAD, "USERSTATE_METADATA_URL": DEAD,
                 "USERSTATE_TIMEOUT": "0.5", "USERSTATE_DEADLINE": "0.5"}
        assert run("--url", peer.url, "running", "1000", "a", env=wrong).status == 0
        assert [event["message"] for event in peer.events] == ["a"]
    ended = run("--metadata-url", receiver.metadata_url, "--deadline=20", "running", "1000",
                "b", env=wrong)
    assert ended.status == 0 and receiver.shown() == [("user.1000", "running", "b")]


def test_unset_and_empty_variables_are_the_same(receiver):
    empty = dict.fromkeys(["USERSTATE_URL", "USERSTATE_TIMEOUT", "USERSTATE_DEADLINE"], "")
    assert run("running", "1000", "x", env=dict(empty, **receiver.env)) == (0, "", "")
    ended = run("-n", "running", "1000", "x", env=dict(empty, USERSTATE_METADATA_URL=""))
    assert ended.status == 0


def test_url_of_the_environment_skips_the_metadata():
    with Peer(ACCEPTED) as peer:
        env = {"USERSTATE_METADATA_URL": DEAD, "USERSTATE_URL": peer.url + "?a=b"}
        assert run("running", "1000", "x", env=env) == (0, "", "")
        assert peer.requests[0].startswith(b"POST /events?a=b HTTP/1.1\r\n")


def test_a_metadata_address_of_the_environment_does_not_matter_with_url():
    with Peer(ACCEPTED) as peer:
        ended = run("--url", peer.url, "running", "1000", "x",
                    env={"USERSTATE_METADATA_URL": "nonsense"})
        assert ended == (0, "", "") and len(peer.events) == 1


def test_url_prints_the_address(receiver):
    assert run("url", env=receiver.env) == (0, receiver.url + "/events\n", "")
    assert run("--url", DEAD, "url") == (0, DEAD + "\n", "")


def test_dry_run_prints_the_json_and_asks_nobody():
    with Peer(ACCEPTED) as peer:
        ended = run("-n", "--url", peer.url, "running", "1000", "\u00fc\n")
        assert peer.requests == []
    assert ended == (
        0, '{"state": "running", "code": 1000, "message": "\\u00fc\\n"}\n', "")


def test_any_argv_gives_a_documented_status_and_no_traceback(capfd):
    dice = random.Random(2026)
    words = ["running", "failed", "0", "255", "1000", "1099", "x", "", "-n", "-v", "--", "-h",
             "url", "--url", "--deadline", "--timeout=1", "--deadline=0.1", "-1", "\udcff",
             "--version", "--metadata-url", DEAD, "http://[", "\x00", "\u202e", "--dry-run"]
    for _ in range(1500):
        argv = ["--deadline=0.01", f"--url={DEAD}"]
        argv += [dice.choice(words) for _ in range(dice.randrange(7))]
        status = userstate.main(argv)
        out, err = capfd.readouterr()
        assert status in (0, 2, 75), argv
        assert "Traceback" not in err and (status == 0 or err)
        for line in err.splitlines():
            assert line.startswith("userstate: ") and line.isprintable(), line


@pytest.mark.parametrize("end", ["\r", " ", "\n", "\t", "\r\n"], ids=ascii)
@pytest.mark.parametrize("variable", ["URL", "METADATA_URL"])
def test_white_space_around_a_variable_does_not_count(variable, end):
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        value = {"URL": peer.url, "METADATA_URL": metadata.url}[variable]
        done = run(*EVENT_WORDS, env={"USERSTATE_" + variable: end + value + end,
                                   "USERSTATE_TIMEOUT": "5" + end,
                                   "USERSTATE_DEADLINE": end + "9" + end})
        assert done == (0, "", "") and len(peer.events) == 1


def test_a_variable_of_white_space_is_unset():
    with Peer(ACCEPTED) as peer, Peer(document(user_state_url=peer.url)) as metadata:
        names = "USERSTATE_URL", "USERSTATE_TIMEOUT", "USERSTATE_DEADLINE"
        blank = dict.fromkeys(names, " \r")
        done = run(*EVENT_WORDS, env=dict(blank, USERSTATE_METADATA_URL=metadata.url))
        assert done == (0, "", "") and len(peer.events) == 1


@pytest.mark.parametrize("words", [["1000", "x"], ["1000"], [], ["1000", "x", "--"]], ids=str)
def test_a_run_of_nothing_speaks_of_the_command(words, capsys):
    assert userstate.main(["--url", DEAD, "run", *words]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch("userstate: .*CODE MESSAGE COMMAND.*\n", err) and "STATE" not in err


def test_a_command_and_an_option_of_any_length_take_no_time(edge_python):
    code = """
import sys, userstate
print(userstate.main(["--url", sys.argv[1], "run", "1010", "m", "true" * 40000]))
print(userstate.main(["--" + "x" * 100000, "running", "1000", "m"]))
"""
    with Peer(ACCEPTED) as peer:
        done = run_code(code, peer.url, python=edge_python, seconds=3)
        assert done.out == "126\n2\n" and len(done.err) < 1000 and len(peer.events) == 1
    assert len(peer.events[0]["message"]) < 400


def test_operands_with_nul_or_surrogates_are_invalid_or_sent(capfd):
    assert userstate.main(["--url", DEAD, "run", "--log", "a\0b", "1010", "m", "true"]) == 2
    assert userstate.main(["--url", "http://h/\0", *EVENT_WORDS]) == 2
    assert userstate.main(["-n", "running", "1000", "a\0\ud800"]) == 0
    assert json.loads(capfd.readouterr().out)["message"] == "a\0\ud800"
