"""The files of names and of machines: --names and --only with @FILE, and SIGHUP."""
import json
import signal

import pytest

from receiver.machines import Machines, NamesError
from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    post,
    read_json,
    run_receiver,
)
from support.waiting import wait_for


def known(receiver, *names):
    """Return which of these may ask for their metadata, and so are known."""
    return [name for name in names
            if ask(receiver, "GET", f"/devices/{name}/metadata")[0] == 200]


def silent(receiver):
    """Return {machine: name} of those that have never reported."""
    return {device["device"]: device["hostname"]
            for device in read_json(receiver, "/devices?state=never")["devices"]}


def test_only_takes_addresses_names_and_files_of_both(tmp_path):
    (tmp_path / "rack1").write_text("web-01 # the first\n\n10.0.0.1\tWEB-02\n# web-03\n")
    (tmp_path / "rack2").write_text("::FFFF:10.0.0.2\n")
    words = ["DB-01", "2001:DB8::1", f"@{tmp_path}/rack1", f"@{tmp_path}/rack2"]
    with Receiver(only=words) as receiver:
        names = ["db-01", "2001:db8::1", "web-01", "10.0.0.1", "web-02", "10.0.0.2"]
        assert known(receiver, *names, "web-03", "127.0.0.1", "10.0.0.3") == names
        assert sorted(silent(receiver)) == sorted(names)


def test_only_drops_events_by_a_name_that_is_not_known(capsys):
    with Receiver(only=["web-01"]) as receiver:
        for name in ("web-01", "web-02"):
            assert ask(receiver, "POST", f"/devices/{name}/events", b"{}") == TAKEN
            assert ask(receiver, "POST", f"/devices/{name}/phone-home") == TAKEN
        assert post(receiver) == TAKEN
        assert len(receiver.shown("web-01")) == receiver.store.last() == 2
    assert capsys.readouterr().err == (
        "receiver: an event of web-02 was dropped: it is not in --only\n"
        "receiver: an event of 127.0.0.1 was dropped: it is not in --only\n")


def test_a_name_of_the_file_of_names_is_in_only_by_its_address():
    with Receiver(only=["127.0.0.1"], names={"127.0.0.1": "web-01"}) as receiver:
        assert known(receiver, "web-01", "127.0.0.1", "web-02") == ["web-01", "127.0.0.1"]


def test_lists_the_machines_of_the_files_that_have_never_reported():
    names = {"10.0.0.1": "web-01", "10.0.0.2": "web-02", "127.0.0.1": "me",
             "ff02::1": "ip6-allnodes"}
    with Receiver(names=names) as receiver:
        assert silent(receiver) == {"10.0.0.1": "web-01", "10.0.0.2": "web-02",
                                    "127.0.0.1": "me"}
        assert post(receiver) == TAKEN
        assert silent(receiver) == {"10.0.0.1": "web-01", "10.0.0.2": "web-02"}
        assert read_json(receiver, "/devices")["counts"]["never"] == 2


@pytest.mark.parametrize("words, line", [
    (["a b"], "--only a b: a machine is an address, or a NAME of .*"),
    (["FOLDER/machines"], "--only FOLDER/machines: .*; for the file: @FOLDER/machines"),
    (["@FOLDER/none"], "cannot read FOLDER/none: No such file or directory"),
    (["@FOLDER"], "cannot read FOLDER: Is a directory"),
    (["@FOLDER/broken"], "FOLDER/broken, line 2: a machine is an address, or a NAME .*"),
    (["@FOLDER/bytes"], "cannot read FOLDER/bytes: it is not UTF-8")])
def test_says_in_a_line_what_is_wrong_with_only(tmp_path, words, line):
    (tmp_path / "machines").write_text("10.0.0.1\n")
    (tmp_path / "broken").write_text("10.0.0.1\nweb/01\n")
    (tmp_path / "bytes").write_bytes(b"\xff\n")
    words = [word.replace("FOLDER", str(tmp_path)) for word in words]
    with pytest.raises(NamesError, match=line.replace("FOLDER", str(tmp_path))):
        Machines(words)
    done = run_receiver("--only", *words)
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)


def test_says_that_a_name_is_also_a_file(tmp_path):
    (tmp_path / "rack1").write_text("10.0.0.1\n")
    with ReceiverProcess("--only", "rack1", "web-01", cwd=str(tmp_path)) as receiver:
        assert known(receiver, "rack1", "web-01", "10.0.0.1") == ["rack1", "web-01"]
        assert receiver.end(signal.SIGTERM) == (
            0, "", "receiver: --only rack1: it is a NAME; for the file of this name: @rack1\n")


def hostname(receiver, name):
    status, body = ask(receiver, "GET", f"/devices/{name}/metadata")
    return json.loads(body.decode())["hostname"] if status == 200 else status


@pytest.fixture
def files(tmp_path):
    """A folder with the files of names and machines, `names` and `only`."""
    (tmp_path / "names").write_text("10.0.0.1 first\n10.0.0.2 second\n")
    (tmp_path / "only").write_text("10.0.0.1 10.0.0.2\n")
    return tmp_path


@pytest.fixture
def receiver_of_files(files):
    with ReceiverProcess("--names", str(files / "names"),
                         "--only", f"@{files}/only") as receiver:
        yield receiver


def test_reads_the_files_again_at_sighup(files, receiver_of_files):
    receiver = receiver_of_files
    assert [hostname(receiver, f"10.0.0.{n}") for n in (1, 2, 3)] == ["first", "second", 404]
    (files / "names").write_text("10.0.0.1 renamed\n10.0.0.3 third\n")
    (files / "only").write_text("10.0.0.1 10.0.0.3\n")
    receiver.process.send_signal(signal.SIGHUP)
    wait_for(lambda: hostname(receiver, "10.0.0.3") == "third")
    assert hostname(receiver, "10.0.0.1") == hostname(receiver, "renamed") == "renamed"
    assert hostname(receiver, "10.0.0.2") == hostname(receiver, "second") == 404
    assert silent(receiver) == {"10.0.0.1": "renamed", "10.0.0.3": "third"}
    assert receiver.end(signal.SIGTERM) == (0, "", "")


BROKEN = {  # what is wrong at SIGHUP: a function of the folder, the beginning of the line
    "names of no address": (lambda files: (files / "names").write_text("10.0.0.9 new\nx y\n"),
                            "names, line 2: must be an address and a name"),
    "an address without a name": (lambda files: (files / "names").write_text("10.0.0.9\n"),
                                  "names, line 1: must be an address and a name"),
    "no names": (lambda files: (files / "names").unlink(), "names: No such file"),
    "only of no machine": (lambda files: (files / "only").write_text("10.0.0.9\n<b>\n"),
                           "only, line 2: a machine is an address"),
    "no only": (lambda files: (files / "only").unlink(), "only: No such file"),
}


@pytest.mark.parametrize("harm, line", BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_leaves_all_as_it_was_and_is_a_line(files, receiver_of_files, harm, line):
    receiver = receiver_of_files
    (files / "names").write_text("10.0.0.9 new\n")
    (files / "only").write_text("10.0.0.9\n")
    harm(files)
    receiver.process.send_signal(signal.SIGHUP)
    said = receiver.process.stderr.readline().decode()
    assert line in said
    assert said.endswith("; the names and machines of before stay\n")
    assert [hostname(receiver, f"10.0.0.{n}") for n in (1, 2, 9)] == ["first", "second", 404]


def test_sighup_without_files_changes_nothing():
    with ReceiverProcess() as receiver:
        receiver.process.send_signal(signal.SIGHUP)
        assert post(receiver) == TAKEN
        assert receiver.end(signal.SIGTERM) == (0, "", "")
