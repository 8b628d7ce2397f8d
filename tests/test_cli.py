"""The command line as people meet it: as a file, as a pipe, as -c, and by main()."""
import json
import os
import random
import re
import string
import subprocess
import sys

import pytest
from conftest import ACCEPTED, DEAD, PYTHONS, SCRIPT, SOURCE, TOP, Peer, Platform, run

import userstate



@pytest.mark.parametrize("how", ["file", "pipe", "-c"])
def test_puts_an_event_on_the_timeline(python, how, platform):
    ended = run("running", "1000", "hey im still running", python=python, how=how,
                env=platform.env)
    assert ended == (0, "", "")
    assert platform.shown() == [("user.1000", "running", "hey im still running")]


MESSAGES = {
    "empty": "", "help": "-h", "dashes": "--", "minus one": "-1", "option": "--url=x",
    "spaces": "  a  b ", "newlines": "a\nb\r\n\tc\n", "quotes": "'\"`$(id)\\n\\", "nul": "\\0",
    "emoji": "\U0001f600 \u00fc", "separators": "\u2028\u202e", "command": "run",
    "json": '{"state": "failed"}', "long": "0123456789" * 10000, "controls": "\x1b[31m\x07",
}


@pytest.mark.parametrize("name", MESSAGES)
def test_the_message_arrives_verbatim(name, edge_python, platform):
    for how, env in (("file", {"LC_ALL": "C"}), ("pipe", {"LC_ALL": "C.UTF-8"})):
        ended = run("succeeded", "1099", os.fsencode(MESSAGES[name]), how=how,
                    python=edge_python, env=dict(platform.env, **env))
        assert ended == (0, "", "")
    assert platform.shown() == [("user.1099", "succeeded", MESSAGES[name])] * 2


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8", "en_US.ISO-8859-1", "nowhere"])
def test_bytes_that_are_not_utf_8_arrive_as_replacement(edge_python, locale, platform):
    ended = run("failed", "1001", b"a\xff\xc3\xa9\xf0b", python=edge_python,
                env=dict(platform.env, LC_ALL=locale))
    assert ended == (0, "", "")
    assert platform.shown() == [("user.1001", "failed", "a\ufffd\xe9\ufffdb")]


@pytest.mark.parametrize("state, shown", [
    ("0", ("succeeded", "m")), ("1", ("failed", "m: exit status 1")),
    ("127", ("failed", "m: exit status 127")), ("255", ("failed", "m: exit status 255")),
    ("running", ("running", "m")), ("succeeded", ("succeeded", "m")),
    ("failed", ("failed", "m"))])
def test_the_state_is_a_word_or_an_exit_status(state, shown, capsys):
    assert userstate.main(["-n", state, "1000", "m"]) == 0
    event = json.loads(capsys.readouterr().out)
    assert (event["state"], event["message"]) == shown


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


HELP = """\
usage: userstate [OPTIONS] STATE CODE MESSAGE
       userstate [OPTIONS] run [--every SECONDS] [--log FILE] CODE MESSAGE [--] COMMAND
       userstate [OPTIONS] url
STATE: running, succeeded, failed, or an exit status, 0 to 255; CODE: 1000 to 1099
OPTIONS: -n, --dry-run: print the JSON only; -v, --verbose; -h, --help; --version;
  --metadata-url URL, or USERSTATE_METADATA_URL: where to ask for the address of events;
  --url URL, or USERSTATE_URL: that address itself;
  --timeout SECONDS, or USERSTATE_TIMEOUT: of one try, 10;
  --deadline SECONDS, or USERSTATE_DEADLINE: of one report, 150
status: 0 accepted, 1 refused, 2 invalid, 75 gave up, 130 interrupted, or COMMAND's
"""


def test_help_is_this():
    assert run("--help") == (0, HELP, "")


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


def test_secrets_of_an_invalid_address_are_not_shown(capsys):
    for url in ("http://user:s3cret@h/?token=s3cret#s3cret", "ftp://s3cret@h/",
                "http://h:99999/?s3cret", "http://u:s3cret@h:x/", "http://u:s3cret#x@h/",
                "http://u:s3cret?x@h/", "http://u:s3cret/x@h/", "u:s3cret@h", "x@s3cret",
                "http://s3cret\n@h/"):
        assert userstate.main(["--url", url, "running", "1000", "x"]) == 2
    assert "s3cret" not in capsys.readouterr().err


def test_options_win_over_the_environment(platform):
    with Peer(ACCEPTED) as peer:
        wrong = {"USERSTATE_URL": DEAD, "USERSTATE_METADATA_URL": DEAD,
                 "USERSTATE_TIMEOUT": "0.5", "USERSTATE_DEADLINE": "0.5"}
        assert run("--url", peer.url, "running", "1000", "a", env=wrong).status == 0
        assert [event["message"] for event in peer.events] == ["a"]
    ended = run("--metadata-url", platform.metadata_url, "--deadline=20", "running", "1000",
                "b", env=wrong)
    assert ended.status == 0 and platform.shown() == [("user.1000", "running", "b")]


def test_unset_and_empty_variables_are_the_same(platform):
    empty = dict.fromkeys(["USERSTATE_URL", "USERSTATE_TIMEOUT", "USERSTATE_DEADLINE"], "")
    assert run("running", "1000", "x", env=dict(empty, **platform.env)) == (0, "", "")
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


def test_url_prints_the_address(platform):
    assert run("url", env=platform.env) == (0, platform.url + "/events\n", "")
    assert run("--url", DEAD, "url") == (0, DEAD + "\n", "")


def test_dry_run_prints_the_json_and_asks_nobody():
    with Peer(ACCEPTED) as peer:
        ended = run("-n", "--url", peer.url, "running", "1000", "\u00fc\n")
        assert peer.requests == []
    assert ended == (
        0, '{"state": "running", "code": 1000, "message": "\\u00fc\\n"}\n', "")


@pytest.mark.parametrize("words, start", [
    (["-h"], "usage: userstate "), (["--help"], "usage: userstate "),
    (["-n", "--help", "nonsense"], "usage: userstate "),
    (["--version"], f"userstate {userstate.__version__}\n")])
def test_help_and_version(words, start, edge_python):
    for how, flags in (("file", ["-OO"]), ("pipe", []), ("-c", ["-I"])):
        ended = run(*words, how=how, flags=flags, python=edge_python)
        assert ended.status == 0 and ended.err == "" and ended.out.startswith(start)


def test_help_names_every_option_variable_and_status():
    for word in ("--metadata-url", "--url", "--timeout", "--deadline", "--dry-run", "-n",
                 "--verbose", "-v", "--help", "-h", "--version", "USERSTATE_METADATA_URL",
                 "USERSTATE_URL", "USERSTATE_TIMEOUT", "USERSTATE_DEADLINE", "75", "130"):
        assert word in userstate.USAGE


def test_verbose_shows_each_request_and_answer_but_no_document(platform):
    ended = run("-v", "running", "1000", "x", env=platform.env)
    lines = ended.err.splitlines()
    assert re.fullmatch(rf"userstate: GET {platform.metadata_url}: .*\d\.\d+ s", lines[0])
    assert re.fullmatch(rf"userstate: POST {platform.url}/events: .*\d\.\d+ s", lines[1])
    assert ended.status == 0 and len(lines) == 2 and "ssh" not in ended.err


def test_what_cannot_be_printed_is_an_error(platform):
    for words in (["--help"], ["url"], ["-n", "running", "1000", "x"]):
        with open("/dev/full", "wb") as full:
            ended = run(*words, env=platform.env, stdout=full)
        assert ended.status == 1 and re.fullmatch("userstate: .*No space.*\n", ended.err)
        closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, SCRIPT,
                                 *words], env=platform.env, stderr=subprocess.PIPE)
        assert closed.returncode == 1 and closed.stderr.startswith(b"userstate: ")


@pytest.mark.parametrize("close", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "2>/dev/full"])
def test_closed_standard_streams_do_not_matter(close, platform, edge_python):
    command = f'exec "$@" {close}'
    for words, status in ((["running", "1000", "x"], 0), (["bogus", "1000", "x"], 2)):
        ended = subprocess.run(["sh", "-c", command, "sh", edge_python, "-B", SCRIPT, *words],
                               env=dict(platform.env, PATH=os.environ["PATH"]), timeout=30)
        assert ended.returncode == status
    assert platform.shown() == [("user.1000", "running", "x")]


@pytest.mark.parametrize("how", ["pipe", "-c", "file"])
def test_nothing_is_imported_from_where_it_runs(python, how, platform, tmp_path):
    for name in ("json", "email", "ssl", "getopt", "re", "random", "urllib", "http",
                 "socket", "threading", "time", "string", "userstate", "encodings", "os"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stray module ran')")
    options = {"how": how}
    if how == "file":
        copy = tmp_path / "copy.py"
        copy.write_bytes(SOURCE)
        ended = subprocess.run([python, "-B", str(copy), "running", "1000", "x"],
                               env=platform.env, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, cwd=str(tmp_path))
        assert (ended.returncode, ended.stderr) == (0, b"")
    else:
        ended = run("running", "1000", "x", python=python, cwd=str(tmp_path),
                    env=platform.env, **options)
        assert ended == (0, "", "")
    assert platform.shown() == [("user.1000", "running", "x")]


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


def test_any_message_survives_the_wire(platform):
    dice = random.Random(1)
    messages = []
    for size in (1, 2, 5, 30, 1000) * 5:
        points = [dice.choice([dice.randrange(1, 128), dice.randrange(0xd800),
                               dice.randrange(0xe000, 0x110000)]) for _ in range(size)]
        messages.append("".join(map(chr, points)))
        userstate.send_user_state_event("running", 1000, messages[-1],
                                        metadata_url=platform.metadata_url)
    assert [body for _, _, body in platform.shown()] == messages


def test_a_lone_surrogate_is_shown_as_the_platform_shows_it(platform):
    userstate.send_user_state_event("running", 1000, "a\udcffb\ud83d",
                                    metadata_url=platform.metadata_url)
    assert platform.shown() == [("user.1000", "running", "a\ufffdb\ufffd")]


def test_the_oldest_and_newest_pythons_are_known():
    if len(PYTHONS) == 1:
        pytest.skip("only one Python here: " + ", ".join(PYTHONS))
    assert list(PYTHONS) == sorted(PYTHONS, key=lambda v: tuple(map(int, v.split("."))))


def test_runs_as_a_module_and_from_a_zip(python, platform, tmp_path):
    import zipfile
    with zipfile.ZipFile(str(tmp_path / "x.zip"), "w") as archive:
        archive.write(SCRIPT, "userstate.py")
    for path in (TOP, str(tmp_path / "x.zip")):
        ended = subprocess.run([python, "-B", "-m", "userstate", "running", "1000", "x"],
                               env=dict(platform.env, PYTHONPATH=path), cwd=str(tmp_path),
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert (ended.returncode, ended.stdout) == (0, b"")
    assert len(platform.shown()) == 2


def test_an_unknown_address_is_accepted_but_never_called_delivered(capfd):
    with Platform(only=["127.0.0.9"]) as platform:
        words = ["-v", "--url", platform.url + "/events", "running", "1000", "x"]
        assert userstate.main(words) == 0
        assert platform.shown() == []
        assert "deliver" not in capfd.readouterr().err


def test_ctrl_c_before_main_is_one_line_as_well(edge_python):
    early = SOURCE.replace(b"class DeadlineError", b"os.kill(os.getpid(), 2)\n" * 2
                           + b"class DeadlineError", 1)
    ended = subprocess.run([edge_python, "-c", early], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (-2, b"userstate: interrupted\n")
