"""The recipe for systemd: the units, and what they report of a first boot."""
import os
import re
import shlex
import signal
import subprocess

import pytest

from support.files import SCRIPT, SOURCE
from support.processes import ended, run_command, start_command
from support.readme import BLOCKS, adapted, joined, timeline
from support.scripts import write_program
from support.tools import check, needs

UNITS = {re.search("system/(.*)", text).group(1): text for kind, text in BLOCKS
         if kind == "systemd"}
MAIN = "first-boot.service"
IN_ORDER = ["first-boot-unfinished.service", MAIN]
RUNNING = "user.1050 running first boot"
SUCCEEDED = "user.1050 succeeded first boot: done after N s"
PROGRAM = SOURCE.decode()
SUCCESS = "#!/bin/sh\n"  # a first boot that does well


def values_in(unit, receiver, folder):
    """Return {key: [value, ...]} of a unit, its places those of a test."""
    text = joined(adapted(UNITS[unit], receiver.metadata_url, folder))
    for place in ("/usr/local/bin/", "/usr/local/sbin/"):
        text = text.replace(place, f"{folder}/")
    values = {}
    for key, value in re.findall(r"^(\w+)=(.*)$", text, re.M):
        values.setdefault(key, []).append(value)
    return values


def holds(condition):
    """Return whether the ConditionPathExists= of this value is true."""
    if condition.startswith("!"):
        return not os.path.exists(condition[1:])
    return os.path.exists(condition)


def words_of(command):
    """Return the words of a command of a unit, as systemd reads it."""
    return [word.replace("$$", "$") for word in shlex.split(command)]


def start_unit(unit, receiver, folder):
    """Start unit as systemd would, if its conditions hold; return the status of a failure.

    The status is 0 if nothing has failed but what may, which begins with "-".
    """
    values = values_in(unit, receiver, folder)
    if not all(map(holds, values["ConditionPathExists"])):
        return 0
    environment = dict(pair.split("=", 1) for pair in values["Environment"])
    for key in ("ExecStartPre", "ExecStart", "ExecStartPost"):
        for command in values.get(key, []):
            done = run_command(*words_of(command.lstrip("-")), env=environment)
            if done.status and not command.startswith("-"):
                return done.status
    return 0


def boot(receiver, folder):
    """Start the units as systemd would; return {unit: status} of those that failed."""
    statuses = {unit: start_unit(unit, receiver, folder) for unit in IN_ORDER}
    return {unit: status for unit, status in statuses.items() if status}


def install(folder, first_boot, userstate=PROGRAM):
    """Put the two programs where the units look for them."""
    needs("python3")
    write_program(folder / "first-boot", first_boot)
    write_program(folder / "userstate", userstate)


def test_systemd_takes_the_units(tmp_path):
    for name, text in UNITS.items():
        (tmp_path / name).write_text(text.replace("/usr/local/bin/userstate", SCRIPT))
    out = check("systemd-analyze", "verify", *[str(tmp_path / name) for name in UNITS])
    assert "first-boot" not in out


def test_the_units_are_started_in_the_order_that_they_say():
    assert sorted(UNITS) == sorted(IN_ORDER)
    assert f"Before={MAIN}\n" in UNITS[IN_ORDER[0]]


def test_the_signal_of_systemd_goes_to_run_alone():
    """Else the command would get it twice, as run passes it on."""
    assert "exec $$u run" in UNITS[MAIN]
    assert "KillMode=mixed\n" in UNITS[MAIN]


def test_a_first_boot_is_reported_once(tmp_path, receiver):
    install(tmp_path, SUCCESS)
    assert boot(receiver, tmp_path) == {}
    assert boot(receiver, tmp_path) == {}
    assert timeline(receiver) == [RUNNING, SUCCEEDED]


def test_a_first_boot_that_did_not_finish_is_reported_at_the_next(tmp_path, receiver):
    us = os.getpid()  # the parent, if the program cannot run
    install(tmp_path, f"#!/bin/sh\n[ $PPID = {us} ] || kill -9 $PPID\n")  # power is lost
    assert boot(receiver, tmp_path) == {MAIN: -signal.SIGKILL}
    install(tmp_path, SUCCESS)
    assert boot(receiver, tmp_path) == {}
    end = ["user.1050 failed first boot: did not finish", RUNNING, SUCCEEDED]
    assert timeline(receiver)[-3:] == end
    before = len(receiver.shown())
    assert boot(receiver, tmp_path) == {}
    assert len(receiver.shown()) == before


@pytest.mark.parametrize("status, failed, is_done", [(0, {}, True), (3, {MAIN: 3}, False)])
def test_a_first_boot_goes_on_without_the_program(status, failed, is_done, tmp_path, receiver):
    install(tmp_path, f"#!/bin/sh\nexit {status}\n", userstate="#!/nonexistent\n")
    assert boot(receiver, tmp_path) == failed
    assert receiver.shown() == []
    assert (tmp_path / "first-boot.done").exists() == is_done


def test_the_signal_of_systemd_comes_once(tmp_path, receiver):
    """With KillMode=mixed: to the main process, which is `run`."""
    install(tmp_path, f"#!/bin/sh\nsleep 60 &\n"
                      f"trap 'echo TERM >> {tmp_path}/got; kill $!' TERM\n"
                      f"echo > {tmp_path}/fifo\nwait\nexit 7\n")
    os.mkfifo(str(tmp_path / "fifo"))
    command, = values_in(MAIN, receiver, tmp_path)["ExecStart"]
    process = start_command(*words_of(command), env=receiver.env, stdout=subprocess.DEVNULL,
                            start_new_session=True)
    (tmp_path / "fifo").read_text()
    process.send_signal(signal.SIGTERM)
    assert ended(process).status == 7
    assert (tmp_path / "got").read_text() == "TERM\n"
    assert timeline(receiver)[-1] == "user.1050 failed first boot: exit status 7 after N s"
