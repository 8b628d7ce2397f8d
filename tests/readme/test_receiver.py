"""The section on the receiver: each block, with the tool that reads it."""
import collections
import json
import re
import shutil
import signal
import socket
import subprocess

import pytest

from support.files import TOP
from support.processes import ended, start_command
from support.readme import RECEIVER_BLOCKS, block, replaced
from support.receivers import RECEIVER_SCRIPT, Receiver, ReceiverProcess, ask, event
from support.scripts import shell, start_play
from support.tools import check, find, needs
from support.waiting import wait_for

HERE = "http://127.0.0.1:8000"  # the receiver of the README
MACHINE = "127.0.0.1"


def shown(kind, mark):
    """Return the one block of the section that is of this kind and has mark in it."""
    return block(kind, mark, RECEIVER_BLOCKS)


def pasted(text, **environment):
    return shell(text, TOP, "-eu", **environment)


def test_every_block_is_tested_here():
    assert len(RECEIVER_BLOCKS) == 7


def test_it_starts_on_a_lan_as_shown(tmp_path):
    python, program, *words = shown("sh", "--host 0.0.0.0").split()
    assert python == "python3"
    assert program == "tests/service.py"
    words = [word.replace("/var/lib", str(tmp_path)) for word in words]
    with ReceiverProcess(*words) as receiver:
        assert receiver.announced[0].startswith("# the timeline: http://0.0.0.0:")
        done = receiver.end(signal.SIGTERM)
    assert "can post and read" in done.err.splitlines()[0]
    assert done.status == 0
    assert (tmp_path / "userstate.sqlite").exists()


@pytest.mark.parametrize("state, status", [("succeeded", 0), ("failed", 22)])
def test_a_shell_waits_for_a_machine(state, status, receiver):
    needs("curl")
    receiver.put(MACHINE, event("failed", 1099, "of an earlier installation"))
    receiver.execute("UPDATE events SET created_at = '2000-01-01T00:00:00.000000Z'")
    text = shown("sh", "/wait?").replace(HERE, receiver.url)
    process = start_command("sh", "-eu", "-c", text, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    wait_for(lambda: receiver.waiting)
    receiver.put(MACHINE, event("running", 1099))
    receiver.put(MACHINE, event("succeeded", 1010))
    assert process.poll() is None
    receiver.put(MACHINE, event(state, 1099, "of this one"))
    done = ended(process)
    assert done.status == status, done
    if state == "succeeded":  # else curl shows nothing
        assert json.loads(done.out)["type"] == "user.1099"
        assert json.loads(done.out)["body"] == "of this one"


@pytest.mark.parametrize("state, status, recap", [
    ("succeeded", 0, "failed=0"), ("failed", 2, "failed=1")])
def test_ansible_waits_for_a_machine(state, status, recap, receiver, tmp_path):
    text = shown("ansible-playbook", "/wait?").replace(HERE, receiver.url)
    process = start_play(text, tmp_path)
    wait_for(lambda: receiver.waiting)
    receiver.put(MACHINE, event(state, 1099))
    done = ended(process, 60)
    assert done.status == status, done
    assert recap in done.out


def test_the_database_is_read_and_backed_up_while_it_runs(tmp_path):
    needs("sqlite3")
    data = str(tmp_path / "events.sqlite")
    with Receiver(data=data) as receiver:
        receiver.put(MACHINE, event("running", 1010, "unpack"))
        receiver.put(MACHINE, event("failed", 1010, "unpack: exit status 3"))
        done = pasted(replaced(shown("sh", "sqlite3"), "/var/lib/userstate.sqlite", data))
    assert done.status == 0
    assert done.err == ""
    first, second, third = done.out.splitlines()
    assert re.fullmatch(r"\S+Z\|127.0.0.1\|failed\|1010\|unpack: exit status 3", first)
    assert re.fullmatch(r"\S+Z\|127.0.0.1\|running\|1010\|unpack", second)
    assert third.startswith("127.0.0.1|failed|")
    with Receiver(data=data + ".backup") as receiver:
        assert [state for _, state, _ in receiver.shown()] == ["running", "failed"]


@pytest.fixture
def unit(tmp_path):
    """The unit, with the file in another folder."""
    program = tmp_path / "service.py"
    shutil.copy(RECEIVER_SCRIPT, str(program))
    return replaced(shown("systemd-receiver", "ExecStart"), "/usr/local/lib/service.py",
                    str(program))


def test_systemd_takes_the_unit(unit, tmp_path):
    (tmp_path / "receiver.service").write_text(unit)
    assert "receiver" not in check("systemd-analyze", "verify",
                                   str(tmp_path / "receiver.service"))


def test_the_unit_starts_the_receiver(unit, tmp_path):
    needs("/usr/bin/python3")
    command = replaced(re.search("ExecStart=(.*)", unit).group(1), "0.0.0.0", "127.0.0.1")
    process = start_command("sh", "-c", f"exec {command} --port 0", stdout=subprocess.PIPE,
                            env={"STATE_DIRECTORY": str(tmp_path)})
    line = process.stdout.readline()
    process.terminate()
    assert ended(process).status == 0
    assert line.startswith(b"# the timeline: ")
    assert (tmp_path / "events.sqlite").exists()


CLICKHOUSE = {"config.xml": """<yandex>
<logger><level>warning</level><console>1</console></logger>
<http_port>PORT</http_port><listen_host>127.0.0.1</listen_host>
<path>FOLDER/data/</path><tmp_path>FOLDER/tmp/</tmp_path><users_config>users.xml</users_config>
<default_profile>default</default_profile><default_database>default</default_database>
<mark_cache_size>100000000</mark_cache_size></yandex>""", "users.xml": """<yandex>
<profiles><default/></profiles><quotas><default/></quotas><users><default><password></password>
<networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
</default></users></yandex>"""}
Server = collections.namedtuple("Server", "url server_address")


@pytest.fixture
def clickhouse(tmp_path):
    """A ClickHouse server, of which can be asked as of a receiver."""
    needs("clickhouse-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    for name, text in CLICKHOUSE.items():
        (tmp_path / name).write_text(text.replace("PORT", str(address[1])).replace(
            "FOLDER", str(tmp_path)))
    process = start_command(
        find("clickhouse-server"), f"--config-file={tmp_path}/config.xml",
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def answers():
        assert process.poll() is None
        with socket.socket() as client:
            return client.connect_ex(address) == 0
    try:
        wait_for(answers)
        yield Server(f"http://127.0.0.1:{address[1]}", address)
    finally:
        process.kill()
        process.wait()


def test_clickhouse_files_the_events(clickhouse):
    def query(statement):
        return ask(clickhouse, "POST", "/", statement.encode())
    assert query(shown("sql", "CREATE TABLE")) == (200, b"")
    text = replaced(shown("sh", "USERSTATE_URL="), "http://127.0.0.1:8123", clickhouse.url)
    assert pasted(replaced(text, "$(hostname)", "machine-7")) == (0, "", "")
    assert query("SELECT state, code, message FROM userstate") == (
        200, b"running\t1000\tmachine-7: hey im still running\n")
    assert query("SELECT count() FROM userstate WHERE time > now() - 60") == (200, b"1\n")
