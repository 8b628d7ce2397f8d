"""The recipe for the preseed: Debian's installer has busybox, and no Python."""
import os
import re
import signal
import subprocess
from contextlib import contextmanager, suppress

import pytest

from support.peers import DEAD, Peer, hang
from support.processes import ended, run_command, start_command
from support.readme import adapted, block, joined, replaced, timeline
from support.tools import check, find, needs
from support.waiting import at_most, wait_for

RUNNING = "user.1000 running installing"


def test_debconf_takes_the_preseed():
    check("debconf-set-selections", "-c", input=block("preseed").encode())


def without_more_spaces(lines):
    return [" ".join(line.split()) for line in lines]


def test_debconf_keeps_the_commands_as_they_are_run(tmp_path):
    """The reader of the tests and that of debconf join the lines alike."""
    needs("debconf-set-selections", "debconf-show")
    text = re.sub("(?m)^d-i ", "userstate-test ", block("preseed"))
    (tmp_path / "debconf.conf").write_text(
        "Config: one\nTemplates: two\n\n"
        f"Name: one\nDriver: File\nFilename: {tmp_path}/config.dat\n\n"
        f"Name: two\nDriver: File\nFilename: {tmp_path}/templates.dat\n")
    environment = dict(os.environ, DEBCONF_SYSTEMRC=str(tmp_path / "debconf.conf"))
    check("debconf-set-selections", input=text.encode(), env=environment)
    kept = re.findall("^Value: (.*)$", (tmp_path / "config.dat").read_text(), re.M)
    run_by_the_tests = re.findall("string (.*)$", joined(text), re.M)
    assert without_more_spaces(kept) == without_more_spaces(run_by_the_tests)


def command_of(name, metadata_url, folder):
    """Return a command of the preseed as debian-installer keeps it, but more hasty."""
    command = re.search(f"^d-i preseed/{name} string (.*)$", joined(block("preseed")),
                        re.M).group(1).replace("/tmp/", f"{folder}/")
    if name == "early_command":
        command = replaced(command, "sleep 10", "sleep 0.1")
        command = replaced(command, "/var/log/syslog", f"{folder}/syslog")
    else:
        command = replaced(command, "&& sleep 1", "&& sleep 0.2")
    return adapted(command, metadata_url, folder)


def any_in_group(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def installer(tmp_path):
    """Return a function that runs a command with nothing but busybox.

    It is a context manager that gives the group of its processes, of which those that are
    left are killed at the end, as when the machine starts anew.
    """
    needs("busybox")
    folder = tmp_path / "busybox"
    folder.mkdir()
    assert run_command(find("busybox"), "--install", "-s", str(folder)).status == 0

    @contextmanager
    def run(command):
        process = start_command(
            str(folder / "sh"), "-c", command, env={"PATH": str(folder)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        try:
            assert ended(process) == (0, "", "")
            yield process.pid
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return run


def test_the_preseed_reports_begin_and_success(installer, tmp_path, receiver):
    with installer(command_of("early_command", receiver.metadata_url, tmp_path)):
        wait_for(lambda: timeline(receiver) == [RUNNING])
        with installer(command_of("late_command", receiver.metadata_url, tmp_path)):
            wait_for(lambda: len(receiver.shown()) == 2)
    assert timeline(receiver) == [RUNNING, "user.1000 succeeded installed"]


def test_the_preseed_reports_a_part_that_failed(installer, tmp_path, receiver):
    """In the words of main-menu.c of debian-installer."""
    log = tmp_path / "syslog"
    log.write_text("main-menu[232]: INFO: Menu item 'partman' selected\n")
    with installer(command_of("early_command", receiver.metadata_url, tmp_path)) as group:
        with log.open("a") as file:
            file.write("main-menu[232]: WARNING **: Menu item 'partman' failed.\n")
        wait_for(lambda: not any_in_group(group))
    assert timeline(receiver) == [RUNNING, "user.1000 failed not installed"]


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_the_preseed_goes_on_without_a_service(fault, installer, tmp_path):
    with Peer(hang) as peer:
        url = {"refuses": DEAD, "hangs": peer.url}[fault]
        for name in ("early_command", "late_command"):
            with at_most(8), installer(command_of(name, url, tmp_path)):
                pass
