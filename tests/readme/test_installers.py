"""The recipes for installers: iPXE and kickstart, preseed, autoinstall."""
import contextlib
import os
import re
import signal
import subprocess
import time

import pytest

from support.peers import DEAD, Peer, hang
from support.readme import adapted, block, section, timeline, yaml_of
from support.scripts import FAULTS, sh
from support.tools import check, needs, slow


def command_line():
    """Return the command line of the kernel that iPXE makes."""
    lines = block("ipxe").splitlines()
    values = dict(re.findall(r"^set (\w+) (.*)$", block("ipxe"), re.M))
    kernel = next(line for line in lines if line.startswith("kernel "))
    assert lines[0] == "#!ipxe" and lines[-1] == "boot"
    return re.sub(r"\$\{(\w+)\}", lambda name: values[name.group(1)], kernel)


def test_kickstart(tmp_path):
    (tmp_path / "ks").write_text(block("kickstart"))
    check("ksvalidator", str(tmp_path / "ks"))


def test_ipxe_hands_on_the_kickstart():
    assert " inst.ks=http://files.example.com/ks " in command_line()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_kickstart_reports_begin_success_and_failure(fault, tmp_path, receiver):
    needs("curl")
    with Peer(FAULTS[fault]) as files:
        (tmp_path / "cmdline").write_text(adapted(command_line(), receiver, files, tmp_path))
        for name in ("pre", "post --nochroot", "onerror"):
            text = adapted(section(name), receiver, files, tmp_path)
            ended = sh(text.replace("/proc/cmdline", "cmdline"), tmp_path, ("-e", "-c"))
            assert ended.returncode == 0, ended.stderr
    assert timeline(receiver) == ["user.1000 running installing", "user.1000 succeeded installed",
                               "user.1000 failed not installed"] * (fault == "none")


def preseeded(name, receiver, tmp_path):
    """Return a command of the preseed as debian-installer keeps it, but more hasty."""
    text = re.sub(r"\\\n", "", block("preseed"))
    command = re.search(f"^d-i preseed/{name} string (.*)$", text, re.M).group(1)
    command = command.replace("/tmp/", f"{tmp_path}/").replace("sleep 10", "sleep 0.1")
    command = command.replace("&& sleep 1", "&& sleep 0.2")
    command = command.replace("/var/log/syslog", f"{tmp_path}/syslog")
    return adapted(command, receiver, Peer(b""), tmp_path)


def installer(command, tmp_path):
    """Start command with nothing but busybox."""
    folder = tmp_path / "busybox"
    if not folder.exists():
        needs("busybox")
        folder.mkdir()
        subprocess.run(["busybox", "--install", "-s", str(folder)], check=True)
    return subprocess.Popen([str(folder / "sh"), "-c", command], env={"PATH": str(folder)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            start_new_session=True)


def test_debconf_takes_the_preseed():
    check("debconf-set-selections", "-c", input=block("preseed").encode())


def test_debconf_keeps_the_commands_as_they_are_run(tmp_path, receiver):
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
    joined = re.findall("string (.*)$", re.sub(r"\\\n", "", text), re.M)
    assert [" ".join(line.split()) for line in kept] == [
        " ".join(line.split()) for line in joined]


def test_the_preseed_reports_begin_and_success(tmp_path, receiver):
    groups = []
    for name in ("early_command", "late_command"):
        with installer(preseeded(name, receiver, tmp_path), tmp_path) as process:
            assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == 0
        groups.append(process.pid)
        while len(receiver.shown()) < len(groups):
            pass
    os.killpg(groups[0], signal.SIGKILL)  # the loop, as the machine starts anew
    assert timeline(receiver) == ["user.1000 running installing", "user.1000 succeeded installed"]


def test_the_preseed_reports_a_part_that_failed(tmp_path, receiver):
    """In the words of main-menu.c of debian-installer."""
    needs("busybox")
    (tmp_path / "syslog").write_text("main-menu[232]: INFO: Menu item 'partman' selected\n")
    with installer(preseeded("early_command", receiver, tmp_path), tmp_path) as process:
        process.communicate(timeout=60)
        with (tmp_path / "syslog").open("a") as log:
            log.write("main-menu[232]: WARNING **: Menu item 'partman' failed.\n")
        group = process.pid
    while any_in_group(group):
        pass
    assert timeline(receiver) == ["user.1000 running installing", "user.1000 failed not installed"]


def any_in_group(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_the_preseed_goes_on_without_a_service(fault, tmp_path, receiver):
    with Peer(hang) as peer:
        url = peer.url if fault == "hangs" else DEAD
        for name in ("early_command", "late_command"):
            command = preseeded(name, receiver, tmp_path).replace(receiver.metadata_url, url)
            begun = time.monotonic()
            with installer(command, tmp_path) as process:
                process.communicate(timeout=60)
            assert process.returncode == 0 and time.monotonic() - begun < 8
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert receiver.shown() == []


@slow
def test_cloud_init_takes_the_autoinstall(tmp_path):
    assert block("autoinstall").startswith("#cloud-config\n")
    (tmp_path / "config").write_text(block("autoinstall"))
    check("cloud-init", "schema", "--config-file", str(tmp_path / "config"))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_autoinstall_reports_begin_success_and_failure(fault, tmp_path, receiver):
    needs("curl")
    with Peer(FAULTS[fault]) as files:
        text = adapted(block("autoinstall"), receiver, files, tmp_path)
        config = yaml_of(text)["autoinstall"]
        for key in ("early-commands", "late-commands", "error-commands"):
            for command in config[key]:
                ended = sh(command, tmp_path)
                assert ended.returncode == 0, ended.stderr
    assert timeline(receiver) == ["user.1000 running installing", "user.1000 succeeded installed",
                               "user.1000 failed not installed"] * (fault == "none")
