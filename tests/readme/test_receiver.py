"""The section on the receiver: each block, with the tool that reads it."""
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

from support.files import TESTS, TOP
from support.readme import RECEIVER_BLOCKS
from support.receivers import Receiver
from support.tools import needs
from support.waiting import wait_for


def block(kind, word):
    """Return the one block of this kind that has word in it."""
    found, = [text for name, text in RECEIVER_BLOCKS if name == kind and word in text]
    return found


def shell(script, **env):
    return subprocess.run(["sh", "-eu", "-c", script], cwd=TOP, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, timeout=60,
                          env=dict({"PATH": os.environ["PATH"]}, **env))


def put(receiver, state, code, message="m"):
    receiver.put("127.0.0.1", {"state": state, "code": code, "message": message})


def wait_until_waited_for(receiver):
    wait_for(lambda: receiver.waiting)


def test_every_block_is_tested_here():
    assert len(RECEIVER_BLOCKS) == 7


def test_it_starts_on_a_lan_as_shown(tmp_path):
    words = block("sh", "--host 0.0.0.0").split()
    assert words[:2] == ["python3", "tests/service.py"]
    words = [word.replace("/var/lib", str(tmp_path)) for word in words[2:]]
    with subprocess.Popen([sys.executable, "-B", os.path.join(TESTS, "service.py"), *words,
                           "--port", "0"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as service:
        assert service.stdout.readline().startswith(b"# the timeline: http://0.0.0.0:")
        assert b"can post and read" in service.stderr.readline()
        service.terminate()
        assert service.wait(20) == 0
    assert (tmp_path / "userstate.sqlite").exists()


@pytest.mark.parametrize("state, status", [("succeeded", 0), ("failed", 22)])
def test_a_shell_waits_for_a_machine(state, status, receiver):
    needs("curl")
    put(receiver, "failed", 1099, "of an earlier installation")
    wait_for(lambda: receiver.shown())
    script = block("sh", "/wait?").replace("http://127.0.0.1:8000", receiver.url)
    # The clock of `since` has whole seconds: the earlier event must not be of this one.
    script = script.replace("since=$(date", 'since=$(date -d "1 second"', 1)
    if shell('date -d "1 second" +%s').returncode:
        pytest.skip("date has no -d here")
    done = []
    waiting = threading.Thread(target=lambda: done.append(shell(script)), daemon=True)
    waiting.start()
    wait_until_waited_for(receiver)
    while not done:
        put(receiver, "running", 1099)
        put(receiver, "succeeded", 1010)
        put(receiver, state, 1099)
        waiting.join(0.2)
    assert done[0].returncode == status, done[0].stderr
    if state == "succeeded":
        assert json.loads(done[0].stdout.decode())["type"] == "user.1099"


@pytest.mark.parametrize("state, status", [("succeeded", 0), ("failed", 2)])
def test_ansible_waits_for_a_machine(state, status, receiver, tmp_path):
    needs("ansible-playbook")
    playbook = block("ansible-playbook", "/wait?")
    playbook = playbook.replace("http://127.0.0.1:8000", receiver.url)
    (tmp_path / "wait.yml").write_text(playbook)
    with subprocess.Popen(
            ["ansible-playbook", "-i", "localhost,", "-c", "local", str(tmp_path / "wait.yml")],
            env=dict(os.environ, HOME=str(tmp_path), ANSIBLE_LOCAL_TEMP=str(tmp_path)),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as ended:
        wait_until_waited_for(receiver)
        put(receiver, state, 1099)
        out = ended.communicate(timeout=60)[0].decode()
    assert ended.returncode == status, out
    assert ("failed=0" in out) == (status == 0)


def test_the_database_is_read_and_backed_up_while_it_runs(tmp_path):
    needs("sqlite3")
    data = tmp_path / "events.sqlite"
    with Receiver(data=str(data)) as receiver:
        put(receiver, "running", 1010, "unpack")
        put(receiver, "failed", 1010, "unpack: exit status 3")
        script = block("sh", "sqlite3").replace("/var/lib/userstate.sqlite", str(data))
        ended = shell(script)
        assert (ended.returncode, ended.stderr) == (0, b"")
        first, second, third = ended.stdout.decode().splitlines()
        assert re.fullmatch(r"\S+Z\|127.0.0.1\|failed\|1010\|unpack: exit status 3", first)
        assert re.fullmatch(r"\S+Z\|127.0.0.1\|running\|1010\|unpack", second)
        assert third.startswith("127.0.0.1|failed|")
    with Receiver(data=str(data) + ".backup") as receiver:
        assert [state for _, state, _ in receiver.shown()] == ["running", "failed"]


def test_the_unit_is_one(tmp_path):
    needs("systemd-analyze")
    unit = block("systemd-receiver", "ExecStart")
    program = tmp_path / "service.py"
    shutil.copy(os.path.join(TESTS, "service.py"), str(program))
    (tmp_path / "receiver.service").write_text(
        unit.replace("/usr/local/lib/service.py", str(program)))
    ended = subprocess.run(["systemd-analyze", "verify", str(tmp_path / "receiver.service")],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert ended.returncode == 0 and b"receiver" not in ended.stdout, ended.stdout
    start = re.search("ExecStart=(.*)", unit).group(1)
    start = start.replace("/usr/local/lib/service.py", str(program)).replace(
        "0.0.0.0", "127.0.0.1") + " --port 0"
    with subprocess.Popen(["sh", "-c", f"exec {start}"], stdout=subprocess.PIPE,
                          env={"STATE_DIRECTORY": str(tmp_path)}) as service:
        assert service.stdout.readline().startswith(b"# the timeline: ")
        service.terminate()
        assert service.wait(20) == 0
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


@pytest.fixture
def clickhouse(tmp_path):
    """The address of a ClickHouse server."""
    needs("clickhouse-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, text in CLICKHOUSE.items():
        (tmp_path / name).write_text(text.replace("PORT", str(port)).replace(
            "FOLDER", str(tmp_path)))
    server = shutil.which("clickhouse-server", path=os.environ["PATH"] + ":/usr/sbin")
    with subprocess.Popen([server, f"--config-file={tmp_path}/config.xml"],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        def answers():
            assert process.poll() is None
            with socket.socket() as client:
                return not client.connect_ex(("127.0.0.1", port))
        try:
            wait_for(answers)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


def test_clickhouse_files_the_events(clickhouse):
    def ask(query):
        with urllib.request.urlopen(clickhouse, query.encode()) as reply:
            return reply.read().decode()
    ask(block("sql", "CREATE TABLE"))
    script = block("sh", "USERSTATE_URL=").replace("http://127.0.0.1:8123", clickhouse)
    assert '$(hostname)' in script
    ended = shell(script.replace("$(hostname)", "machine-7"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert ask("SELECT state, code, message FROM userstate") == (
        "running\t1000\tmachine-7: hey im still running\n")
    assert ask("SELECT count() FROM userstate WHERE time > now() - 60") == "1\n"
