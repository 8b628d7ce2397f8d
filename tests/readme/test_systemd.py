"""The recipe for systemd: the units, and what they report of a first boot."""
import os
import re
import shlex
import signal
import subprocess

import pytest

from support.files import SCRIPT, SOURCE
from support.peers import Peer
from support.readme import BLOCKS, adapted, timeline
from support.tools import check, needs

UNITS = {re.search("system/(.*)", text).group(1): text for kind, text in BLOCKS
         if kind == "systemd"}


def boot(tmp_path, receiver, python="python3"):
    """Start the units as systemd would: conditions, then commands; return what failed."""
    failed = []
    for name in sorted(UNITS, key=lambda name: "Before=" not in UNITS[name]):
        text = UNITS[name].replace("/usr/local/bin/", f"{tmp_path}/").replace(
            "/usr/local/sbin/", f"{tmp_path}/").replace("\\\n", " ")
        lines = re.findall(r"^(\w+)=(.*)$", adapted(text, receiver, Peer(b""), tmp_path), re.M)
        conditions = [path for key, path in lines if key == "ConditionPathExists"]
        if not all(os.path.exists(path.lstrip("!")) != path.startswith("!")
                   for path in conditions):
            continue
        environment = dict(pair.split("=", 1) for key, pair in lines if key == "Environment")
        for order in ("ExecStartPre", "ExecStart", "ExecStartPost"):
            for command in [command for key, command in lines if key == order]:
                words = [w.replace("$$", "$") for w in shlex.split(command.lstrip("-"))]
                ended = subprocess.run(words, env=dict(environment, PATH=os.environ["PATH"]),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                if ended.returncode and not command.startswith("-"):
                    failed.append((name, ended.returncode))
                    break
            if failed:
                break
    return failed


def first_boot(tmp_path, text, userstate=None):
    needs("python3")
    for name, content in (("first-boot", text), ("userstate", userstate or SOURCE.decode())):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)


def test_systemd_takes_the_units(tmp_path):
    """Among them KillMode, so that `run` and its command do not both get the signal."""
    for name, text in UNITS.items():
        (tmp_path / name).write_text(text.replace("/usr/local/bin/userstate", SCRIPT))
    out = check("systemd-analyze", "verify", *[str(tmp_path / name) for name in UNITS])
    assert "first-boot" not in out
    main = UNITS["first-boot.service"]
    assert ("exec $$u run" in main) == ("KillMode=mixed" in main) is True


def test_a_first_boot_is_reported_once(tmp_path, receiver):
    first_boot(tmp_path, "#!/bin/sh\n")
    assert boot(tmp_path, receiver) == []
    assert boot(tmp_path, receiver) == []
    assert timeline(receiver) == ["user.1050 running first boot",
                               "user.1050 succeeded first boot: done after N s"]


def test_a_first_boot_that_did_not_finish_is_reported_at_the_next(tmp_path, receiver):
    us = os.getpid()  # the parent, if the program cannot run
    first_boot(tmp_path, f"#!/bin/sh\n[ $PPID = {us} ] || kill -9 $PPID\n")  # power is lost
    assert boot(tmp_path, receiver) == [("first-boot.service", -signal.SIGKILL)]
    first_boot(tmp_path, "#!/bin/sh\n")
    assert boot(tmp_path, receiver) == []
    assert timeline(receiver)[-3:] == [
        "user.1050 failed first boot: did not finish", "user.1050 running first boot",
        "user.1050 succeeded first boot: done after N s"]
    before = len(receiver.shown())
    assert boot(tmp_path, receiver) == [] and len(receiver.shown()) == before


@pytest.mark.parametrize("status", [0, 3])
def test_a_first_boot_goes_on_without_the_program(status, tmp_path, receiver):
    first_boot(tmp_path, f"#!/bin/sh\nexit {status}\n", "#!/nonexistent\n")
    assert boot(tmp_path, receiver) == [("first-boot.service", 3)] * (status == 3)
    assert receiver.shown() == []
    assert (tmp_path / "first-boot.done").exists() == (status == 0)


def test_the_signal_of_systemd_comes_once(tmp_path, receiver):
    """With KillMode=mixed: to the main process, which is `run`."""
    first_boot(tmp_path, f"#!/bin/sh\nsleep 60 &\n"
                         f"trap 'echo TERM >> {tmp_path}/got; kill $!' TERM\n"
                         f"echo > {tmp_path}/fifo\nwait\nexit 7\n")
    os.mkfifo(str(tmp_path / "fifo"))
    line = re.search("ExecStart=(.*\n.*)", UNITS["first-boot.service"]).group(1)
    for old in ("/usr/local/bin/", "/usr/local/sbin/"):
        line = line.replace(old, f"{tmp_path}/")
    words = [w.replace("$$", "$") for w in shlex.split(line.replace("\\\n", " "))]
    with subprocess.Popen(words, env=dict(receiver.env, PATH=os.environ["PATH"]),
                          stdout=subprocess.DEVNULL, start_new_session=True) as main:
        (tmp_path / "fifo").read_text()
        main.send_signal(signal.SIGTERM)
        assert main.wait(30) == 7
    assert (tmp_path / "got").read_text() == "TERM\n"
    assert timeline(receiver)[-1] == "user.1050 failed first boot: exit status 7 after N s"
