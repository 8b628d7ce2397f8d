"""What is printed and where, also if a standard stream is closed or full."""
import fcntl
import json
import re
import subprocess
import sys

import pytest

from support.files import SCRIPT, SOURCE
from support.processes import EVENT_WORDS, ended, run, run_code, run_command, start

F_SETPIPE_SZ = 1031  # fcntl has it since Python 3.10


def test_verbose_shows_each_request_and_answer_but_no_document(receiver):
    done = run("-v", *EVENT_WORDS, env=receiver.env)
    assert done.status == 0
    asked, sent = done.err.splitlines()
    event = "userstate: running 1000:"
    assert re.fullmatch(rf"{event} GET {receiver.metadata_url}: .*\d\.\d+ s", asked)
    assert re.fullmatch(rf"{event} POST {receiver.url}/events: .*\d\.\d+ s", sent)
    assert "ssh" not in done.err


def run_by_shell(redirection, *words, python=sys.executable, **options):
    """Run the command line by a shell that redirects its streams; tell how it ended."""
    return run_command("sh", "-c", f'exec "$@" {redirection}', "sh", python, "-B", SCRIPT,
                       *words, **options)


# Redirections, and whether an error can be read.
REDIRECTIONS = [("0<&-", True), ("1>&-", True), ("2>&-", False), ("0<&- 1>&- 2>&-", False),
                ("2>/dev/full", False)]


@pytest.mark.parametrize("redirection", [redirection for redirection, _ in REDIRECTIONS])
def test_closed_streams_do_not_matter_for_an_event(redirection, receiver, edge_python):
    done = run_by_shell(redirection, *EVENT_WORDS, python=edge_python, env=receiver.env)
    assert done == (0, "", "")
    assert receiver.shown() == [("user.1000", "running", "x")]


@pytest.mark.parametrize("redirection, readable", REDIRECTIONS)
def test_closed_streams_do_not_matter_for_an_error(redirection, readable, edge_python):
    done = run_by_shell(redirection, "bogus", "1000", "x", python=edge_python)
    assert done.status == 2
    assert bool(done.err) == readable


PRINTING = {"help": ["--help"], "url": ["url"], "dry run": ["-n", *EVENT_WORDS]}


@pytest.mark.parametrize("name", PRINTING)
def test_what_does_not_fit_on_the_disk_is_an_error(name, receiver):
    with open("/dev/full", "wb") as full:
        done = run(*PRINTING[name], env=receiver.env, stdout=full)
    assert done.status == 1
    assert re.fullmatch("userstate: .*No space.*\n", done.err)


@pytest.mark.parametrize("name", PRINTING)
def test_what_cannot_be_printed_is_an_error(name, receiver):
    done = run_by_shell(">&-", *PRINTING[name], env=receiver.env)
    assert done.status == 1
    assert done.err.startswith("userstate: ")


def test_standard_output_that_is_read_slowly_gets_all_of_it():
    message = "x" * 100000
    process = start("-n", "running", "1000", message, stdout=subprocess.PIPE)
    fcntl.fcntl(process.stdout, F_SETPIPE_SZ, 4096)
    done = ended(process)
    assert done.status == 0
    assert json.loads(done.out)["message"] == message


def test_ctrl_c_before_main_is_one_line_as_well(edge_python):
    before, found, after = SOURCE.decode().partition("class DeadlineError")
    interrupt = "os.kill(os.getpid(), 2)\nos.kill(os.getpid(), 2)\n"
    done = run_code(before + interrupt + found + after, python=edge_python)
    assert done.status == -2
    assert done.err == "userstate: interrupted\n"
