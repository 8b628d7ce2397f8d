"""How the receiver starts, what prevents that, and how it ends."""
import os
import re
import signal

import pytest

from support.processes import ended
from support.receivers import (
    TAKEN,
    ReceiverProcess,
    begin_to_wait,
    get,
    held,
    post,
    run_receiver,
    start_receiver,
)
from support.waiting import wait_for


def test_starts_says_what_to_export_and_ends_in_silence_on_ctrl_c():
    with ReceiverProcess() as receiver:
        first, second = receiver.announced
        assert first == f"# the timeline: {receiver.url}/\n"
        assert second == f"export USERSTATE_METADATA_URL={receiver.url}/metadata\n"
        assert b"user_state_url" in get(receiver.url + "/metadata")
        assert receiver.end(signal.SIGINT) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_with_status_0_though_clients_wait(number):
    with ReceiverProcess() as receiver:
        with begin_to_wait(receiver):
            assert post(receiver) == TAKEN
            assert receiver.end(number) == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_in_silence_while_it_waits_for_the_database(tmp_path, number):
    data = str(tmp_path / "events")
    with held(data, "BEGIN EXCLUSIVE"):
        with start_receiver("--data", data) as process:
            wait_for(lambda: os.path.exists(data + "-lock"))
            process.send_signal(number)
            assert ended(process) == (0, "", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_says_in_a_line_that_it_cannot_write_to_stdout():
    with open("/dev/full", "wb") as full:
        assert run_receiver(stdout=full) == (
            1, "", "receiver: cannot write to stdout: No space left on device\n")


@pytest.mark.parametrize("words, line", [
    (["--port", "70000"], "cannot start on 127.0.0.1 port 70000: .*"),
    (["--host", "192.0.2.1"], "cannot start on 192.0.2.1 port 0: .*"),
    (["--host", "no such host"], "cannot start on no such host port 0: .*"),
    (["--host", "a..b"], "cannot start on a..b port 0: .*"),
    (["--data", "FOLDER"], "cannot use .*: it is no regular file"),
    (["--data", "FOLDER/no/file"], "cannot use .*: unable to open database file"),
    (["--data", "FOLDER/lines"], "cannot use .*: it holds lines of JSON, .* another file"),
    (["--names", "FOLDER/none"], "cannot read .*: No such file or directory"),
    (["--names", "FOLDER/lines"], ".*lines, line 1: must be an address and a name"),
    (["--names", "FOLDER/bytes"], "cannot read .*: it is not UTF-8"),
    (["--only", "web/01"], "--only web/01: a machine is an address, or a NAME .*"),
    (["--only", "@FOLDER/none"], "cannot read .*: No such file or directory"),
    (["--only", "@FOLDER/lines"], ".*lines, line 1: a machine is an address, or a NAME .*"),
    (["--notify", "hooks.example"], "--notify: url 'hooks.example': must be http.*"),
    (["--notify", "ftp://hooks.example/"], "--notify: url .*: must be http.*"),
    (["--tls-cert", "FOLDER/lines"], "--tls-cert and --tls-key belong together"),
    (["--tls-key", "FOLDER/lines"], "--tls-cert and --tls-key belong together"),
    (["--tls-cert", "FOLDER/lines", "--tls-key", "FOLDER/lines"], "cannot use .*"),
    (["--tls-cert", "FOLDER/none", "--tls-key", "FOLDER/none"], "cannot use .*No such.*")])
def test_says_in_a_line_what_prevents_a_start(tmp_path, words, line):
    (tmp_path / "lines").write_text('{"id": 1}\n')
    (tmp_path / "bytes").write_bytes(b"10.0.0.1 \xff\n")
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    if "--data" not in words:
        words += ["--data", str(tmp_path / "events")]
    done = run_receiver(*words)
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(f"receiver: {line}\n", done.err)
    assert sorted(os.listdir(str(tmp_path))) == ["bytes", "lines"]


@pytest.mark.parametrize("option, value", [
    ("--quiet-after", "0"), ("--quiet-after", "nan"), ("--quiet-after", "1e3"),
    ("--keep", "0"), ("--keep", "36501"), ("--keep", "inf"), ("--notify-on", "running"),
    ("--notify-on", "failed,"), ("--notify-on", ""), ("--port", "x"),
    ("--trust-proxy", "proxy.example"), ("--trust-proxy", "10.0.0.0/8"),
    ("--host-name", "http://boot.example"), ("--host-name", "boot.example:8000"),
    ("--host-name", ".example"), ("--host-name", "a..b"), ("--host-name", "")])
def test_refuses_an_option_that_is_wrong_with_status_2(tmp_path, option, value):
    done = run_receiver(option, value, "--data", str(tmp_path / "events"))
    assert (done.status, done.out) == (2, "")
    assert os.listdir(str(tmp_path)) == []
    assert f"argument {option}: invalid value {value!r}: must be " in done.err
