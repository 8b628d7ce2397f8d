"""The section on the receiver: each block, with the tool that reads it."""
import collections
import re
import signal
import socket
import subprocess

import pytest

from support.files import TOP
from support.processes import ended, start_command
from support.readme import RECEIVER_BLOCKS, block, replaced
from support.receivers import Receiver, ReceiverProcess, ask, event, make_archive
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
    make, start = shown("sh", "--host 0.0.0.0").splitlines()
    assert make == "make receiver.pyz"
    python, program, *words = start.split()
    assert python == "python3"
    assert program == "receiver.pyz"
    words = [word.replace("/var/lib", str(tmp_path)) for word in words]
    with ReceiverProcess(*words) as receiver:
        assert receiver.announced[0].startswith("# the timeline: http://")
        assert "//0.0.0.0" not in receiver.announced[1]
        done = receiver.end(signal.SIGTERM)
    assert "can post and read" in done.err.splitlines()[0]
    assert done.status == 0
    assert (tmp_path / "userstate.sqlite").exists()


EARLIER = [("running", 1000), ("succeeded", 1000)]  # installations, and what is said of them
ENDS = {
    "done": ([("running", 1000), ("running", 1010), ("succeeded", 1010), ("succeeded", 1000)],
             0, "done"),
    "failed": ([("running", 1000), ("running", 1010), ("failed", 1010)], 1,
               "failed: failed 1010")}


@pytest.mark.parametrize("told, status, said", ENDS.values(), ids=ENDS.keys())
def test_a_shell_waits_for_a_machine(told, status, said, receiver):
    needs("curl")
    tell(receiver, EARLIER)
    text = shown("sh", "/wait?").replace(HERE, receiver.url)
    process = start_command("sh", "-eu", "-c", text, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE)
    wait_for(lambda: receiver.waiting)
    tell(receiver, told[:-1])
    assert process.poll() is None
    tell(receiver, told[-1:])
    assert ended(process) == (status, said + "\n", "")


def tell(receiver, told):
    for state, code in told:
        receiver.tell(MACHINE, event(state, code, f"{state} {code}"))


def test_a_shell_that_waits_tells_too_long_from_failed(receiver):
    needs("curl")
    text = shown("sh", "/wait?").replace(HERE, receiver.url)
    done = pasted(replaced(text, "timeout=1800", "timeout=0.1"))
    assert done == (2, "not done within 30 minutes\n", "")


def test_a_shell_that_waits_tells_that_the_receiver_ends():
    needs("curl")
    with ReceiverProcess() as receiver:
        text = shown("sh", "/wait?").replace(HERE, receiver.url)
        process = start_command("sh", "-eu", "-c", text, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
        wait_for(lambda: b'status="200"} 1' in ask(receiver, "GET", "/metrics")[1])
        receiver.end(signal.SIGTERM)
        done = ended(process)
        assert done.status in (3, 7, 52)  # 7, 52: curl's, if it had not begun to wait


@pytest.mark.parametrize("told, status, said", ENDS.values(), ids=ENDS.keys())
def test_ansible_waits_for_a_machine(told, status, said, receiver, tmp_path):
    tell(receiver, EARLIER)
    text = shown("ansible-playbook", "/wait?").replace(HERE, receiver.url)
    process = start_play(text, tmp_path)
    wait_for(lambda: receiver.waiting)
    tell(receiver, told)
    done = ended(process, 60)
    assert done.status == (2 if status else 0), done
    assert f"failed={status}" in done.out
    assert status == 0 or "failed 1010" in done.out


def test_the_database_is_read_and_backed_up_while_it_runs(tmp_path):
    needs("sqlite3")
    data = str(tmp_path / "events.sqlite")
    with Receiver(data=data) as receiver:
        receiver.tell(MACHINE, event("running", 1010, "unpack"))
        receiver.tell(MACHINE, event("failed", 1010, "unpack: exit status 3"))
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
    return replaced(shown("systemd-receiver", "ExecStart"), "/usr/local/lib/receiver.pyz",
                    make_archive(tmp_path))


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
