"""Options and operands: what is taken, and what is refused in one line."""
import json
import random
import re
import string

import pytest

import userstate
from support.peers import ACCEPTED, DEAD, WELL, Peer, reported
from support.processes import EVENT_WORDS, run, run_code


def test_url_prints_the_address(receiver):
    assert run("url", env=receiver.env) == (0, receiver.url + "/events\n", "")
    assert run("--url", DEAD, "url") == (0, DEAD + "\n", "")


def test_dry_run_prints_the_json_and_asks_nobody():
    with Peer(ACCEPTED) as peer:
        done = run("-n", "--url", peer.url, "running", "1000", "\u00fc\n")
        assert peer.requests == []
    assert done == (0, '{"state": "running", "code": 1000, "message": "\\u00fc\\n"}\n', "")


INVALID_STATES = ["", "Running", "running ", "256", "1000", "0x1", "1.0", "\u0661"]
INVALID_CODES = ["", "999", "1100", "0", "01000", " 1000", "1000 ", "1000\n", "+1000", "-1000",
                 "1_000", "1e3", "1000.0", "0x3e8", "\u0661\u0660\u0660\u0660",
                 "\uff11\uff10\uff10\uff10", "9" * 5000]
INVALID_URLS = ["", "x", "null", "/events", "ftp://h/", "file:///etc/passwd", "data:,x",
                "http:", "http://", "http:///x", "http://:80/", "https://h:99999/",
                "http://h:x/", "http://h:0/", "http://a b/", "http://h/\r\nX: y",
                "http://[::1/", "http://h/\u00fc", "http://a..b/", "http://u:p@h/",
                "http://" + "a" * 64 + "/", "javascript:alert(1)", "//h/x"]
INVALID_SECONDS = ["", "0", "0.0", "-1", "1e3", "nan", "inf", "1 ", "x", "100000", "1s"]
# Words, and what the line has to match.
INVALID = {
    "no operand": ([], "operands: 0, must be STATE CODE MESSAGE"),
    "one operand": (["running"], "operands: 1, must be STATE CODE MESSAGE"),
    "two operands": (["running", "1000"], "operands: 2, must be STATE CODE MESSAGE"),
    "message not quoted": (["running", "1000", "a", "b"], "operands: 4, .* MESSAGE quoted"),
    "many operands": (["running"] * 5000, "operands: 5000, must be STATE CODE MESSAGE"),
    "url and more": (["url", "x"], "operands: 2, must be STATE CODE MESSAGE"),
    "url and two more": (["url", "--url", "x"], "operands: 3, must be STATE CODE MESSAGE"),
    "unknown option": (["--nope", "running", "1000", "x"], "option --nope"),
    "unknown letter": (["-x", "running", "1000", "x"], "option -x"),
    "option without value": (["--url"], "option --url requires"),
    "flag with value": (["--verbose=x", "running", "1000", "x"], "option --verbose"),
    **{f"state {state!r}": (
        [state, "1000", "x"], "^userstate: state .*running, succeeded.*exit status, 0 to 255")
       for state in INVALID_STATES},
    **{f"code {code!r}": (["running", code, "x"], "^userstate: code .*1000 to 1099")
       for code in INVALID_CODES},
    **{f"url {url!r}": (["--url", url, *EVENT_WORDS], "^userstate: url .*: must be http")
       for url in INVALID_URLS},
    "metadata url": (["--metadata-url", "ftp://h", *EVENT_WORDS], "metadata_url 'ftp"),
    "one of two": (["--metadata-url", "http://h/ ftp://h", "url"], "metadata_url 'ftp"),
    "no metadata url": (["--metadata-url", " ", "url"], "metadata_url ''"),
    **{f"{name} {value!r}": ([f"--{name}={value}", "running", "1000", "x"],
                             f"^userstate: {name} .*: must be seconds, above 0 and below "
                             "100000, like 10 or 0.5$")
       for name in ("timeout", "deadline") for value in INVALID_SECONDS},
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_is_one_line_and_status_2_and_nothing_is_sent(name, capsys, monkeypatch):
    words, pattern = INVALID[name]
    with Peer(ACCEPTED) as peer:
        monkeypatch.setenv("USERSTATE_URL", peer.url)
        assert userstate.main(words) == 2
        assert peer.requests == []
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch("userstate: .+\n", err)
    assert len(err) < 400
    assert err[:-1].isprintable()
    assert re.search(pattern, err)


def test_a_dry_run_does_not_ask_for_the_address(capsys):
    with Peer(ACCEPTED) as peer:
        assert userstate.main(["--metadata-url", peer.url, "-n", "url"]) == 2
        assert peer.requests == []
    assert capsys.readouterr() == (
        "", "userstate: dry run: asks nobody, so --url has to say where\n")


THERE_ARE = ("there are --metadata-url= --url= --timeout= --deadline= --dry-run --verbose "
             "--help --version; behind run --every= --log= --help")


@pytest.mark.parametrize("words, line", [
    (["running", "1000"], "operands: 2, must be STATE CODE MESSAGE, the MESSAGE quoted and "
                          "options before them; see --help"),
    (["run", "1000", "x"], "run: must be followed by CODE MESSAGE COMMAND; see --help"),
    (["--timeot", "5"], f"option --timeot not recognized; {THERE_ARE}"),
    (["run", "--evry", "5"], f"option --evry not recognized; {THERE_ARE}"),
    (["--every", "5", "run", "1000", "m", "true"],
     f"option --every not recognized; {THERE_ARE}"),
    (["run", "--url", "http://h/", "1000", "m", "true"],
     f"option --url not recognized; {THERE_ARE}"),
    (["walking", "1000", "x"],
     "state 'walking': must be running, succeeded or failed, in small letters (on the command "
     "line also an exit status, 0 to 255)"),
    (["running", "100", "x"], "code '100': must be an int 1000 to 1099"),
], ids=str)
def test_what_is_missing_is_said_in_full(words, line, capsys):
    assert userstate.main(words) == 2
    assert capsys.readouterr().err == f"userstate: {line}\n"


@pytest.mark.parametrize("operands", [
    [], ["1000"], ["1000", "x"], ["1000", "x", "--"]], ids=str)
def test_a_run_of_nothing_speaks_of_the_command(operands, capsys):
    assert userstate.main(["--url", DEAD, "run", *operands]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch("userstate: .*CODE MESSAGE COMMAND.*\n", err)
    assert "STATE" not in err


@pytest.mark.parametrize("before, letters", [([], "hnv"), (["run"], "h")],
                         ids=["of all", "of run"])
def test_no_other_letter_is_an_option(before, letters, capsys):
    with Peer(ACCEPTED) as peer:
        for letter in sorted(set(string.ascii_letters + string.digits) - set(letters)):
            words = ["--url", peer.url, *before, "-" + letter, "running", "1000", "x"]
            assert userstate.main(words) == 2
            assert capsys.readouterr().err == (
                f"userstate: option -{letter} not recognized; {THERE_ARE}\n")
        assert peer.requests == []


def test_any_words_give_a_documented_status_and_no_traceback(capfd):
    dice = random.Random(2026)
    words = ["running", "failed", "0", "255", "1000", "1099", "x", "", "-n", "-v", "--", "-h",
             "url", "--url", "--deadline", "--timeout=1", "--deadline=0.1", "-1", "\udcff",
             "--version", "--metadata-url", DEAD, "http://[", "\x00", "\u202e", "--dry-run"]
    for _ in range(1500):
        argv = ["--deadline=0.01", f"--url={DEAD}"]
        argv += [dice.choice(words) for _ in range(dice.randrange(7))]
        status = userstate.main(argv)
        err = capfd.readouterr().err
        assert status in (0, 2, 75), argv
        assert "Traceback" not in err, argv
        assert bool(err) == bool(status), argv
        for line in err.splitlines():
            assert line.startswith("userstate: "), line
            assert line.isprintable(), line


def test_words_of_any_length_take_no_time(edge_python):
    code = """
import sys, userstate
print(userstate.main(["--url", sys.argv[1], "run", "1010", "m", "true" * 40000]))
print(userstate.main(["--" + "x" * 100000, "running", "1000", "m"]))
print(userstate.main(["--url", "x" * 100000, "running", "1000", "m"]))
"""
    with Peer(ACCEPTED) as peer:
        done = run_code(code, peer.url, python=edge_python, seconds=3)
        event, = peer.events
    assert done.out == "126\n2\n2\n"
    assert len(done.err) < 1000
    assert len(event["message"]) < 400


def test_a_nul_in_an_address_is_invalid():
    assert userstate.main(["--url", "http://h/\0", *EVENT_WORDS]) == 2


@pytest.mark.parametrize("words", [
    ["--log", "/tmp/l", "true"], ["--every=5", "true"], ["-h"], ["-", "x"], ["--odd"]], ids=str)
@pytest.mark.parametrize("before", [[], ["-n"]], ids=["", "dry run"])
def test_an_option_in_place_of_a_command_is_told_where_options_go(before, words, capsys):
    with Peer(ACCEPTED) as peer:
        around = [*before, "--url", peer.url, "run", "1055", "install"]
        assert userstate.main([*around, *words]) == 2
        assert peer.requests == []
    assert capsys.readouterr() == ("", (
        f"userstate: option {words[0]}: must be before CODE MESSAGE, or behind -- if it is the "
        "COMMAND; see --help\n"))


def test_a_command_behind_two_dashes_may_begin_with_one(tmp_path, receiver):
    command = tmp_path / "-odd"
    command.write_text("#!/bin/sh\necho odd\n")
    command.chmod(0o755)
    done = run("run", "1010", "m", "--", "-odd", env=dict(receiver.env, PATH=str(tmp_path)))
    assert done == (0, "odd\n", "")
    assert reported(receiver) == WELL


@pytest.mark.parametrize("word", ["--odd", "--log", "-h", "--"])
def test_what_follows_two_dashes_is_the_command(word, capfd):
    words = ["--url", DEAD, "run", "1010", "m", "--", word]
    assert userstate.main(["--deadline=0.05", *words]) == 127
    assert f": cannot run {word}: No such file" in capfd.readouterr().err
    assert userstate.main(["-n", *words]) == 0
    assert json.loads(capfd.readouterr().out) == {
        "state": "running", "code": 1010, "message": "m"}


def test_a_message_may_have_a_nul_and_a_surrogate(capfd):
    assert userstate.main(["-n", "running", "1000", "a\0\ud800"]) == 0
    assert json.loads(capfd.readouterr().out)["message"] == "a\0\ud800"
