"""A database that is removed, renamed or replaced while it is in use: nothing gets lost."""
import os
import re
import shutil
import signal

import pytest

from support.receivers import (
    TAKEN,
    Receiver,
    ReceiverProcess,
    ask,
    post,
    query,
)


def remove(data):
    os.unlink(data)


def rename(data):
    os.rename(data, data + ".old")


def replace(data):
    shutil.copy(data, data + ".copy")
    os.rename(data, data + ".old")
    os.rename(data + ".copy", data)


def replace_by_an_empty_one(data):
    os.rename(data, data + ".old")
    open(data, "w").close()


def rename_folder(data):
    os.rename(os.path.dirname(data), os.path.dirname(data) + ".old")


WAYS = [remove, rename, replace, replace_by_an_empty_one, rename_folder]


@pytest.fixture
def data(tmp_path):
    """The path of a database, in a folder of its own."""
    (tmp_path / "folder").mkdir()
    return str(tmp_path / "folder" / "events")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_event_is_taken_for_a_file_that_is_gone(data, way, capsys):
    with Receiver(data=data) as receiver:
        assert post(receiver, b'{"message":"before"}') == TAKEN
        way(data)
        for _ in range(2):
            status, body = post(receiver, b'{"message":"lost"}')
            assert status == 500
            assert b"events has been removed, renamed or replaced" in body
        status, body = ask(receiver, "GET", "/healthz")
        assert status == 503
        assert b"removed, renamed or replaced" in body
    assert re.fullmatch("receiver: the database fails, the answer is 500: .*events has been "
                        "removed, renamed or replaced\n", capsys.readouterr().err)


@pytest.mark.parametrize("way, back", [
    (rename, lambda data: os.rename(data + ".old", data)),
    (replace, lambda data: os.rename(data + ".old", data)),
    (rename_folder, lambda data: os.rename(os.path.dirname(data) + ".old",
                                           os.path.dirname(data)))],
    ids=["rename", "replace", "folder"])
def test_goes_on_when_the_file_is_back(data, way, back):
    with Receiver(data=data) as receiver:
        assert post(receiver, b'{"message":"before"}') == TAKEN
        way(data)
        assert post(receiver)[0] == 500
        back(data)
        assert post(receiver, b'{"message":"after"}') == TAKEN
        assert ask(receiver, "GET", "/healthz")[0] == 200
    assert query(data, "SELECT message FROM events") == [("before",), ("after",)]
    with Receiver(data=data) as receiver:
        assert [message for _, _, message in receiver.shown()] == ["before", "after"]


@pytest.mark.parametrize("is_asked, number, status", [
    (False, signal.SIGTERM, 0), (True, signal.SIGTERM, 0), (True, signal.SIGKILL, -9)],
    ids=["unnoticed", "noticed", "noticed and killed"])
def test_what_was_taken_before_a_rename_is_in_the_renamed_file(data, is_asked, number, status):
    with ReceiverProcess("--data", data) as receiver:
        assert post(receiver, b'{"message":"before"}') == TAKEN
        rename(data)
        if is_asked:
            assert post(receiver)[0] == 500
        assert receiver.end(number).status == status
    assert query(data + ".old", "SELECT message FROM events") == [("before",)]
    assert not os.path.exists(data)


def test_one_that_took_its_place_is_not_touched(data, tmp_path):
    other = str(tmp_path / "other")
    with Receiver(data=other) as receiver:
        assert post(receiver, b'{"message":"theirs"}') == TAKEN
    with Receiver(data=data) as receiver:
        assert post(receiver, b'{"message":"ours"}') == TAKEN
        os.rename(other, data)
        with open(data, "rb") as file:
            before = file.read()
        assert post(receiver)[0] == 500
    with open(data, "rb") as file:
        assert file.read() == before
    assert query(data, "SELECT message FROM events") == [("theirs",)]


def test_a_delete_and_a_sweep_of_a_file_that_is_gone_fail_as_well(data):
    with Receiver(data=data, keep=1) as receiver:
        assert post(receiver) == TAKEN
        remove(data)
        assert ask(receiver, "DELETE", "/devices/127.0.0.1")[0] == 500
        with pytest.raises(OSError, match="removed, renamed or replaced|disk I/O error"):
            receiver.store.sweep()


def test_a_file_that_is_only_touched_or_linked_is_the_same(data):
    with Receiver(data=data) as receiver:
        os.utime(data)
        os.chmod(data, 0o600)
        os.link(data, data + ".hard")
        assert post(receiver) == TAKEN
