"""Each line of a report begins with the event that it is about."""
import re

import pytest

import userstate
from support.peers import ACCEPTED, DEAD, Peer, answer, document

REFUSED = [answer(403)]
PHONE_HOME = [document(phone_home_url=DEAD.replace("/events", "/phone-home"))]
RUN = ["run", "1010", "m"]
# Answers, words, and what the lines are about, each with a word of it.
LINES = {
    "refused": (REFUSED, ["failed", "1042", "x"], ["failed 1042: .* HTTP 403"]),
    "tried again": ([answer(503), ACCEPTED], ["0", "1099", "x"],
                    ["succeeded 1099: .*HTTP 503.*; trying again in"]),
    "verbose": ([ACCEPTED], ["-v", "succeeded", "1000", "x"],
                ["succeeded 1000: POST .*: accepted"]),
    "an exit status": (REFUSED, ["3", "1000", "x"], ["failed 1000: .*; refused"]),
    "gave up": ([answer(503)], ["--deadline=0.1", "running", "1000", "x"],
                ["running 1000: .*; trying again", "running 1000: .*; gave up"]),
    "a command": (REFUSED, [*RUN, "true"], ["running 1010: .*403", "succeeded 1010: .*403"]),
    "a command that fails": (REFUSED, [*RUN, "false"],
                             ["running 1010: .*403", "failed 1010: .*403"]),
    "a log that cannot be opened": (
        [ACCEPTED], ["run", "--log=/nowhere/log", "1010", "m", "true"],
        ["running 1010: log '/nowhere/log': No such file"]),
    "no command": ([ACCEPTED], [*RUN, "/nowhere/x"],
                   ["failed 1010: cannot run /nowhere/x: No such file"]),
}
# The same, where the peer is asked for the address.
LINES_OF_METADATA = {
    "refused": (REFUSED, ["running", "1000", "x"], ["running 1000: .* HTTP 403"]),
    "by phone_home_url": (PHONE_HOME, ["--deadline=0.1", "running", "1000", "x"], [
        "running 1000: taking http.*, by phone_home_url", "running 1000: .*; trying again",
        "running 1000: .*; gave up"]),
    "verbose": (REFUSED, ["-v", "running", "1000", "x"],
                ["running 1000: GET .*HTTP 403", "running 1000: .*; refused"]),
    "a command": (REFUSED, [*RUN, "true"],
                  ["running 1010: .*metadata.*403", "succeeded 1010: .*metadata.*403"]),
}


def check_lines(err, patterns):
    lines = err.splitlines()
    assert len(lines) == len(patterns), lines
    for line, pattern in zip(lines, patterns):
        assert re.match(f"userstate: {pattern}", line)


@pytest.mark.parametrize("name", LINES)
def test_of_a_report(name, capfd):
    answers, words, patterns = LINES[name]
    with Peer(*answers) as peer:
        userstate.main(["--url", peer.url, *words])
    check_lines(capfd.readouterr().err, patterns)


@pytest.mark.parametrize("name", LINES_OF_METADATA)
def test_of_a_report_that_asks_for_the_address(name, capfd):
    answers, words, patterns = LINES_OF_METADATA[name]
    with Peer(*answers) as peer:
        userstate.main(["--metadata-url", peer.url + "/metadata", *words])
    check_lines(capfd.readouterr().err, patterns)


def test_lines_of_steps_against_the_same_fault_differ(said):
    with Peer(answer(403)) as peer:
        for code in (1010, 1020):
            with userstate.step(code, "m", url=peer.url, say=said.lines.append):
                pass
    about = [re.match("[a-z]+ [0-9]+: ", line).group() for line in said.lines]
    assert about == ["running 1010: ", "succeeded 1010: ", "running 1020: ", "succeeded 1020: "]


def test_of_the_address_alone_there_is_no_event(capfd):
    with Peer(answer(403)) as peer:
        assert userstate.main(["--metadata-url", peer.url, "url"]) == 1
    assert capfd.readouterr().err.startswith(f"userstate: {peer.url}: HTTP 403 ")


def test_an_error_of_an_event_begins_with_it():
    with Peer(answer(403)) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.send_user_state_event("failed", 1042, "x", url=peer.url)
        assert str(caught.value).startswith(f"failed 1042: {peer.url}: HTTP 403 ")


def test_what_is_posted_as_it_is_has_no_event_to_name():
    with Peer(answer(403)) as peer:
        with pytest.raises(userstate.RefusedError) as caught:
            userstate.post_event({"state": "failed", "code": 1042, "message": "x"}, peer.url)
        assert str(caught.value).startswith(f"{peer.url}: HTTP 403 ")
