"""What is printed and where: standard streams that are closed, full, blocked or a terminal."""
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

import userstate
from support.files import SCRIPT, SOURCE
from support.peers import ACCEPTED, DEAD, Peer, answer, document, part
from support.processes import EVENT_WORDS, ended, run, start
from support.terminals import BLOCKED, full_pipe
from support.waiting import wait_for


def test_verbose_shows_each_request_and_answer_but_no_document(receiver):
    ended = run("-v", "running", "1000", "x", env=receiver.env)
    lines = ended.err.splitlines()
    assert re.fullmatch(rf"userstate: GET {receiver.metadata_url}: .*\d\.\d+ s", lines[0])
    assert re.fullmatch(rf"userstate: POST {receiver.url}/events: .*\d\.\d+ s", lines[1])
    assert ended.status == 0 and len(lines) == 2 and "ssh" not in ended.err


def test_what_cannot_be_printed_is_an_error(receiver):
    for words in (["--help"], ["url"], ["-n", "running", "1000", "x"]):
        with open("/dev/full", "wb") as full:
            ended = run(*words, env=receiver.env, stdout=full)
        assert ended.status == 1 and re.fullmatch("userstate: .*No space.*\n", ended.err)
        closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, SCRIPT,
                                 *words], env=receiver.env, stderr=subprocess.PIPE)
        assert closed.returncode == 1 and closed.stderr.startswith(b"userstate: ")


@pytest.mark.parametrize("close", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-", "2>/dev/full"])
def test_closed_standard_streams_do_not_matter(close, receiver, edge_python):
    command = f'exec "$@" {close}'
    for words, status in ((["running", "1000", "x"], 0), (["bogus", "1000", "x"], 2)):
        ended = subprocess.run(["sh", "-c", command, "sh", edge_python, "-B", SCRIPT, *words],
                               env=dict(receiver.env, PATH=os.environ["PATH"]), timeout=30)
        assert ended.returncode == status
    assert receiver.shown() == [("user.1000", "running", "x")]


def test_ctrl_c_before_main_is_one_line_as_well(edge_python):
    early = SOURCE.replace(b"class DeadlineError", b"os.kill(os.getpid(), 2)\n" * 2
                           + b"class DeadlineError", 1)
    ended = subprocess.run([edge_python, "-c", early], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (-2, b"userstate: interrupted\n")


SAYING = {  # answers of the peer, words, status, number of events that arrive at least
    "event": ([ACCEPTED], ["-v", *EVENT_WORDS], 0, 1),
    "retry": ([answer(503), ACCEPTED], EVENT_WORDS, 0, 2),
    "refusal": ([answer(403)], EVENT_WORDS, 1, 1),
    "deadline": ([answer(503)], ["--deadline=0.4", *EVENT_WORDS], 75, 1),
    "usage error": ([ACCEPTED], ["bogus", "1000", "x"], 2, 0),
    "unknown option": ([ACCEPTED], ["--nope", *EVENT_WORDS], 2, 0),
    "run": ([ACCEPTED], ["-v", "run", "1000", "x", "sh", "-c", "exit 3"], 3, 2),
    "run and refusals": ([answer(403)], ["run", "1000", "x", "sh", "-c", "exit 3"], 3, 2),
    "run of nothing": ([ACCEPTED], ["run", "1000", "x", "/nowhere/x"], 127, 1),
    "run without a log": ([ACCEPTED], ["run", "--log=/", "1000", "x", "true"], 2, 0),
}


@pytest.mark.parametrize("stream, name", [
    (stream, name) for stream in BLOCKED for name in SAYING
    if stream in ("full pipe", "stopped terminal") or name in ("event", "refusal", "run")])
def test_stderr_that_blocks_loses_lines_and_nothing_else(stream, name):
    scripts, words, status, events = SAYING[name]
    with Peer(*scripts) as peer, BLOCKED[stream]() as stderr:
        begun = time.monotonic()
        assert run(*words, url=peer.url, stderr=stderr, seconds=8).status == status
        assert time.monotonic() - begun < 5 and len(peer.events) >= events


def test_no_line_waits_for_a_stderr_that_blocks(monkeypatch):
    with full_pipe() as stderr, open(stderr, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        begun = time.monotonic()
        for _ in range(10):
            assert userstate.main(["--nope", *EVENT_WORDS]) == 2
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("stream", ["full pipe", "stopped terminal"])
def test_ctrl_c_and_half_a_download_end_with_a_stderr_that_blocks(stream, edge_python):
    with Peer(part(b"")) as peer, BLOCKED[stream]() as stderr:
        process = start(*EVENT_WORDS, url=peer.url, stderr=stderr, python=edge_python)
        wait_for(lambda: peer.requests)
        process.send_signal(signal.SIGINT)
        assert ended(process, 5).status == -signal.SIGINT
    with BLOCKED[stream]() as stderr:
        half = SOURCE[:SOURCE.index(b"\nclass ")]
        done = subprocess.run([edge_python, "-c", half], stderr=stderr, timeout=5)
        assert done.returncode == 1


PRINTING = {"url": ["url"], "dry run": ["-n", *EVENT_WORDS], "dry run of run": ["-n", "run", "1000",
                                                                       "x", "true"],
            "url, with a variable": ["url"]}


@pytest.mark.parametrize("stream, name", [
    (stream, name) for stream in BLOCKED for name in PRINTING
    if stream == "full pipe" or name == "url"])
def test_stdout_that_blocks_is_an_error_at_the_deadline(stream, name):
    options, env = ["--deadline=0.2"], None
    if "variable" in name:
        options, env = [], {"USERSTATE_DEADLINE": "0.2"}
    with BLOCKED[stream]() as stdout:
        begun = time.monotonic()
        status, _, err = run(*options, *PRINTING[name], url=DEAD, stdout=stdout, env=env,
                                seconds=8)
        assert time.monotonic() - begun < 3
    assert status == 1 and err == "userstate: cannot print: nobody reads it\n"


def test_stdout_that_is_read_slowly_gets_all_of_it():
    message = "x" * 100000
    process = start("-n", "running", "1000", message, stdout=subprocess.PIPE)
    fcntl.fcntl(process.stdout, 1031, 4096)  # F_SETPIPE_SZ
    assert json.loads(ended(process).out)["message"] == message and process.returncode == 0


EVIL = ["\x1b[31mred", "\x9b31m", "\x07\x08\x7f", "\rforged", "\nuserstate: forged",
        "\u202eevil",
        "\u2028userstate: forged", "\x00", "\ud800"]


def evil_answer(where, text):
    raw = text.replace("\n", " ").replace("\r", "\x0b").encode("utf-8", "replace")
    if where == "reason phrase":
        return b"HTTP/1.1 403 " + raw + b"\r\n\r\n"
    if where == "redirect":
        return b"HTTP/1.1 302 Found\r\nLocation: http://h/" + raw + b"\r\n\r\n"
    if where == "errors":
        return answer(403, json.dumps({"errors": [text]}).encode())
    if where == "status line":
        return raw + b"\r\n\r\n"
    return document(**{where: f"http://h/{text}/phone-home"})


@pytest.mark.parametrize("where", ["reason phrase", "redirect", "errors", "status line",
                                   "phone_home_url", "user_state_url"])
def test_nothing_from_outside_reaches_the_terminal_or_the_log_raw(where, said, caplog, capfd):
    for text in EVIL:
        with Peer(evil_answer(where, text)) as peer:
            words = ["-v", "--deadline=0.05", "--metadata-url", peer.url]
            assert userstate.main([*words, "url"]) in (1, 75)
            assert userstate.main([*words, "run", "1000", "x", "true"]) == 0
            with userstate.step(1000, "x", metadata_url=peer.url, deadline=0.05):
                pass
            with pytest.raises(userstate.UserStateError) as caught:
                userstate.user_state_url(metadata_url=peer.url, **said.options)
        err = capfd.readouterr().err
        lines = [line for line in err.split("\n")[:-1] if "WARNING" not in line]
        lines += [record.getMessage() for record in caplog.records]
        lines += said.lines + [str(caught.value)]
        assert len(lines) > 3
        for line in lines:
            assert re.fullmatch("[ -~]+", line) and "userstate: forged" not in line[11:20], line
        assert all(line.startswith("userstate: ") for line in err.split("\n")[:-1])
        assert not re.search("(?m)^userstate: forged", err)


@pytest.mark.parametrize("text", EVIL[:6], ids=ascii)
def test_nothing_of_operands_and_variables_is_shown_raw(text, tmp_path, capfd):
    for words in ([text, "1000", "x"], ["running", text, "x"], ["--" + text, *EVENT_WORDS],
                  ["--timeout=" + text, *EVENT_WORDS], ["run", "1000", "x", "/nowhere/" + text],
                  ["run", "--log", f"/nowhere/{text}", "1000", "x", "true"],
                  ["run", "--every", text, "1000", "x", "true"], ["--url", text, *EVENT_WORDS]):
        assert userstate.main(["--deadline=0.05", "--url", DEAD, *words]) in (2, 127)
        out, err = capfd.readouterr()
        assert out == "" and err
        for line in err.split("\n")[:-1]:
            assert re.fullmatch("userstate: [ -~]+", line), err
