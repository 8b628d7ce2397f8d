"""The file that holds the events: it is one receiver's own, or there is no start."""
import contextlib
import os
import re
import resource
import sqlite3
import tempfile

import pytest

from receiver.store import VERSION, StartError
from support.receivers import TAKEN, Receiver, held, post, run_receiver


def make_lines(path):
    path.write_text('{"id": "x", "type": "user.1"}\n')


def make_text(path):
    path.write_text("not this")


def make_other(path):
    with contextlib.closing(sqlite3.connect(str(path))) as connection:
        connection.execute("CREATE TABLE mine (x)")


def make_broken(path):
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)


@pytest.mark.parametrize("make, reason", [
    (make_lines, "lines of JSON, as version 1 wrote them"),
    (make_text, "no SQLite database"),
    (make_other, "the database of another program"),
    (make_broken, "(not a database|malformed)")])
def test_leaves_a_file_that_is_not_its_own_as_it_is(tmp_path, make, reason):
    data = tmp_path / "events"
    make(data)
    before = data.read_bytes()
    with pytest.raises(StartError, match=reason):
        Receiver(data=str(data))
    assert data.read_bytes() == before


@pytest.mark.parametrize("make", [make_lines, make_text, make_other, make_broken])
def test_a_file_that_cannot_be_used_leaves_nothing_open(tmp_path, make):
    make(tmp_path / "events")
    before = os.listdir("/proc/self/fd")
    for _ in range(3):
        with pytest.raises(StartError):
            Receiver(data=str(tmp_path / "events"))
    assert os.listdir("/proc/self/fd") == before


def set_version(data, version):
    with contextlib.closing(sqlite3.connect(data)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")


def test_leaves_the_file_of_a_newer_receiver_as_it_is(data):
    set_version(data, VERSION + 1)
    with open(data, "rb") as file:
        before = file.read()
    done = run_receiver("--data", data)
    assert (done.status, done.out) == (1, "")
    assert done.err == (f"receiver: cannot use {data}: a newer receiver wrote it (version "
                        f"{VERSION + 1}, and this one knows {VERSION})\n")
    with open(data, "rb") as file:
        assert file.read() == before
    set_version(data, VERSION)
    with Receiver(data=data) as receiver:
        assert post(receiver) == TAKEN


def test_a_file_with_a_hard_link_is_refused(data):
    os.link(data, data + ".hard")
    for path in (data, data + ".hard"):
        with pytest.raises(StartError, match="a second name, a hard link"):
            Receiver(data=path)
    os.unlink(data + ".hard")
    with Receiver(data=data) as receiver:
        assert post(receiver) == TAKEN


def test_a_file_of_another_program_gets_no_lock(tmp_path):
    make_other(tmp_path / "events")
    with pytest.raises(StartError):
        Receiver(data=str(tmp_path / "events"))
    assert os.listdir(str(tmp_path)) == ["events"]


def test_says_that_another_receiver_holds_the_file(tmp_path):
    data = str(tmp_path / "events")
    with Receiver(data=data):
        with pytest.raises(StartError, match="another receiver holds it"):
            Receiver(data=data)


@pytest.mark.parametrize("name", ["events", "folder/link", "folder/../events"])
def test_one_file_has_one_receiver_by_whatever_name(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "events").touch()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "events")
    with Receiver(data=str(tmp_path / "folder" / "link")):
        with pytest.raises(StartError, match="another receiver holds it"):
            Receiver(data=str(tmp_path / name))


@pytest.fixture
def data(tmp_path):
    """The path of a database that a receiver has made."""
    path = str(tmp_path / "events")
    with Receiver(data=path):
        pass
    return path


def test_does_not_start_while_another_program_holds_the_database(data, settings):
    settings(LOCKED_MOST=0.1)
    with held(data, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE"):
        with pytest.raises(StartError, match="database is locked"):
            Receiver(data=data)


def test_takes_no_event_while_another_program_holds_the_database(data, settings):
    settings(LOCKED_MOST=0.1)
    with Receiver(data=data) as receiver:
        with held(data, "BEGIN IMMEDIATE"):
            status, body = post(receiver)
            assert status == 500
            assert b"locked" in body
            assert receiver.shown() == []
        assert post(receiver) == TAKEN
        assert len(receiver.shown()) == 1


def start_on_a_full_disk(data):
    """Tell how a start ended, on a disk for which a limit of the size of a file stands in."""
    return run_receiver("--data", data, limit=(resource.RLIMIT_FSIZE, 0))


def test_a_full_disk_at_the_start_is_called_that_and_leaves_no_lock(tmp_path):
    done = start_on_a_full_disk(str(tmp_path / "events"))
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch("receiver: cannot use .*: .*(disk|file).*\n", done.err)
    assert "another" not in done.err
    assert os.listdir(str(tmp_path)) == []


def test_a_full_disk_is_not_taken_for_another_receiver(data):
    done = start_on_a_full_disk(data)
    assert done.status == 1
    assert "another" not in done.err


@contextlib.contextmanager
def as_nobody():
    """Be no root, whom no mode of a file holds up."""
    own = os.geteuid()
    if own == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.mark.parametrize("file_mode, folder_mode", [
    (0o444, 0o777), (0o644, 0o555), (0o444, 0o555)])
def test_does_not_start_on_a_database_that_it_cannot_write(file_mode, folder_mode):
    reason = "cannot use .*events: (attempt to write a readonly|unable to open) database"
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is hidden from others
        data = os.path.join(folder, "events")
        with Receiver(data=data):
            pass
        os.chmod(data, file_mode)
        os.chmod(data + "-lock", 0o666)
        os.chmod(folder, folder_mode)
        try:
            with as_nobody():
                with pytest.raises(StartError, match=reason):
                    Receiver(data=data)
        finally:
            os.chmod(folder, 0o700)
