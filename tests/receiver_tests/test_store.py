"""What is kept: committed before the 200, once, in a file that is its own."""
import concurrent.futures
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading

import pytest

import service
from support.files import TESTS
from support.receivers import Process, Receiver, ask, in_threads, select


def test_events_are_in_the_data_file_before_the_200_and_after_a_restart(tmp_path):
    data = str(tmp_path / "events")
    with Receiver(data=data) as receiver:
        assert ask(receiver, "POST", "/events", b'{"message":"kept"}')[0] == 200
        assert select(data, "SELECT address, state, code, message FROM events") == [
            ("127.0.0.1", "", 0, "kept")]
    with Receiver(data=data) as receiver:
        assert ask(receiver, "POST", "/events", b'{"message":"more"}')[0] == 200
        assert [body for _, _, body in receiver.shown()] == ["kept", "more"]
    with Receiver(data=data) as receiver:
        assert [body for _, _, body in receiver.shown()] == ["kept", "more"]


def test_a_full_disk_is_a_500_and_leaves_no_half_event(tmp_path):
    data = str(tmp_path / "events")
    body = json.dumps({"message": "x" * 30000}).encode()
    with Process("--data", data, limit="RLIMIT_FSIZE, (200000, 200000)") as own:
        statuses = [own.post(body) for _ in range(12)]
        own.end(signal.SIGINT)
        assert own.process.returncode == 0
        assert re.fullmatch("service: the database fails, the answer is 500: [ -~]+\n",
                            own.errors())
    accepted = statuses.count(200)
    assert accepted > 0 and statuses == [200] * accepted + [500] * (12 - accepted)
    with Receiver(data=data) as receiver:
        assert [len(body) for _, _, body in receiver.shown()] == [30000] * accepted
        assert ask(receiver, "POST", "/events", body)[0] == 200


def test_what_was_answered_200_is_there_once_after_a_kill(tmp_path):
    data, accepted, unknown = str(tmp_path / "events"), [], []
    enough = threading.Semaphore(0)

    def post(own, number):
        key = {"Idempotency-Key": str(number)}
        event = json.dumps({"state": "running", "message": str(number)})
        return ask(own, "POST", "/events", event, key)[0]

    def load(client):
        for number in range(client * 1000, client * 1000 + 1000):
            try:
                assert post(own, number) == 200
            except (OSError, http.client.HTTPException):
                return unknown.append(number)
            accepted.append(number)
            enough.release()
        return None
    with Process("--data", data) as own:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(load, number) for number in range(8)]
            for _ in range(200):
                enough.acquire()
            own.end(signal.SIGKILL)
        for client in clients:
            client.result()
    assert len(accepted) >= 200 and len(unknown) == 8
    with Process("--data", data) as own:
        for number in unknown + accepted[-8:]:
            assert post(own, number) == 200
    kept = [int(text) for text, in select(data, "SELECT message FROM events")]
    assert sorted(kept) == sorted(accepted + unknown)
    assert select(data, "SELECT events FROM devices") == [(len(kept),)]


def test_many_clients_share_a_commit_and_all_of_it_is_kept(tmp_path, monkeypatch):
    batches, insert = [], service.Store.insert

    def noting(store, rows):
        batches.append(len(rows))
        return insert(store, rows)
    monkeypatch.setattr(service.Store, "insert", noting)

    def load(client):
        for number in range(10):
            event = json.dumps({"message": f"{client}.{number}"})
            assert ask(receiver, "POST", "/events", event)[0] == 200
    with Receiver(data=str(tmp_path / "events")) as receiver:
        in_threads(64, load)
        kept = [body for _, _, body in receiver.shown()]
    assert sorted(kept) == sorted(f"{c}.{n}" for c in range(64) for n in range(10))
    assert sum(batches) == 640 and max(batches) > 1


def test_an_event_that_cannot_be_stored_leaves_nothing_and_stops_nothing(tmp_path):
    with Receiver(data=str(tmp_path / "events")) as receiver:
        with pytest.raises(OSError):
            receiver.put("10.0.0.1", {"state": "failed", "code": 1, "message": "\ud800"})
        receiver.put("10.0.0.1", {"state": "failed", "code": 2, "message": ""})
        assert receiver.shown("10.0.0.1") == [("user.2", "failed", "")]
        assert [receiver.store.writer.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("journal_mode", "synchronous")] == ["wal", 2]  # 2: FULL


def make_lines(path):
    path.write_text('{"id": "x", "type": "user.1"}\n')
    return "lines of JSON, as version 1 wrote them"


def make_text(path):
    path.write_text("not this")
    return "no SQLite database"


def make_other(path):
    connection = sqlite3.connect(str(path))
    connection.execute("CREATE TABLE mine (x)")
    connection.close()
    return "the database of another program"


def make_broken(path):
    path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    return "(not a database|malformed)"


@pytest.mark.parametrize("make", [make_lines, make_text, make_other, make_broken])
def test_leaves_a_file_that_is_not_its_own_as_it_is(tmp_path, make):
    reason = make(tmp_path / "events")
    before = (tmp_path / "events").read_bytes()
    with pytest.raises(service.StartError, match=reason):
        Receiver(data=str(tmp_path / "events"))
    assert (tmp_path / "events").read_bytes() == before


def test_says_what_holds_the_database(tmp_path, monkeypatch):
    data = str(tmp_path / "events")
    monkeypatch.setattr(service, "LOCKED_MOST", 0.1)
    with Receiver(data=data):
        with pytest.raises(service.StartError, match="another service holds it"):
            Receiver(data=data)
    other = sqlite3.connect(data, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(service.StartError, match="database is locked"):
        Receiver(data=data)
    other.close()
    with Receiver(data=data) as receiver:
        other = sqlite3.connect(data, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        status, body = ask(receiver, "POST", "/events", b"{}")
        assert status == 500 and b"locked" in body and receiver.shown() == []
        other.close()
        assert ask(receiver, "POST", "/events", b"{}") == (200, b"")
        assert len(receiver.shown()) == 1


def test_one_file_has_one_service_by_whatever_name(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "events").touch()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "events")
    with Receiver(data=str(tmp_path / "folder" / "link")):
        for name in ("events", "folder/link", "folder/../events"):
            with pytest.raises(service.StartError, match="another service holds it"):
                Receiver(data=str(tmp_path / name))


def start_with(limit, *words):
    """Return how the start ended, in a process with this limit; `limit`: resource's."""
    code = ("import resource, service, sys\n"
            f"resource.setrlimit(resource.{limit})\nsys.exit(service.main(sys.argv[1:]))")
    return subprocess.run([sys.executable, "-B", "-c", code, "--port", "0", *words], cwd=TESTS,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)


def test_a_full_disk_at_the_start_is_called_that_and_leaves_no_lock(tmp_path):
    ended = start_with("RLIMIT_FSIZE, (0, 0)", "--data", str(tmp_path / "events"))
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert re.fullmatch(b"service: cannot use .*: .*(disk|file).*\n", ended.stderr)
    assert b"another" not in ended.stderr and os.listdir(str(tmp_path)) == []
    Receiver(data=str(tmp_path / "events")).server_close()
    ended = start_with("RLIMIT_FSIZE, (0, 0)", "--data", str(tmp_path / "events"))
    assert ended.returncode == 1 and b"another" not in ended.stderr


def test_a_file_of_another_program_gets_no_lock(tmp_path):
    make_other(tmp_path / "events")
    with pytest.raises(service.StartError):
        Receiver(data=str(tmp_path / "events"))
    assert os.listdir(str(tmp_path)) == ["events"]


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


@pytest.mark.parametrize("file, folder", [(0o444, 0o777), (0o644, 0o555), (0o444, 0o555)])
def test_does_not_start_on_a_database_that_it_cannot_write(file, folder):
    with tempfile.TemporaryDirectory() as place:  # tmp_path is hidden from others
        data = os.path.join(place, "events")
        Receiver(data=data).server_close()
        os.chmod(data, file)
        os.chmod(data + "-lock", 0o666)
        os.chmod(place, folder)
        with as_nobody(), pytest.raises(service.StartError, match=(
                "cannot use .*events: (attempt to write a readonly|unable to open) database")):
            Receiver(data=data)
        os.chmod(place, 0o700)


def test_the_file_can_be_read_and_copied_while_it_serves(tmp_path):
    if not shutil.which("sqlite3"):
        pytest.skip("sqlite3 is not installed")
    data, copy = str(tmp_path / "events"), str(tmp_path / "copy")
    with Receiver(data=data) as receiver:
        receiver.put("10.0.0.1", {"state": "failed", "code": 1020, "message": "a\nb"})
        for words in ([data, f".backup {copy}"],
                      [copy, "select address, state, code from devices"]):
            ended = subprocess.run(["sqlite3", *words], stdout=subprocess.PIPE, check=True)
        assert ended.stdout == b"10.0.0.1|failed|1020\n"
    with Receiver(data=copy) as receiver:
        assert receiver.shown("10.0.0.1") == [("user.1020", "failed", "a\nb")]
