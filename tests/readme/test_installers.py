"""The recipes for installers with a Python: iPXE with kickstart, and Ubuntu's autoinstall."""
import re

import pytest

from support.peers import Peer
from support.readme import adapted, block, section, timeline, yaml_of
from support.scripts import BAD_FILES, GOOD_FILE, shell
from support.tools import check, needs, slow

# Each test makes all of the reports, as a failure may also come behind the success.
REPORTS = ["user.1000 running installing", "user.1000 succeeded installed",
           "user.1000 failed not installed"]


def command_line():
    """Return the command line of the kernel that iPXE makes."""
    values = dict(re.findall(r"^set (\w+) (.*)$", block("ipxe"), re.M))
    kernel = re.search("^kernel .*$", block("ipxe"), re.M).group()
    return re.sub(r"\$\{(\w+)\}", lambda name: values[name.group(1)], kernel)


def test_ipxe_knows_its_script_and_boots():
    lines = block("ipxe").splitlines()
    assert lines[0] == "#!ipxe"
    assert lines[-1] == "boot"


def test_ipxe_hands_on_the_kickstart():
    assert " inst.ks=http://files.example.com/ks " in command_line()


def test_pykickstart_takes_the_kickstart(tmp_path):
    (tmp_path / "ks").write_text(block("kickstart"))
    check("ksvalidator", str(tmp_path / "ks"))


def run_the_kickstart(receiver, folder, port):
    """Run the sections of the kickstart as Anaconda does: none of them fails."""
    needs("curl")
    line = adapted(command_line(), receiver.metadata_url, folder, port)
    (folder / "cmdline").write_text(line)
    for name in ("pre", "post --nochroot", "onerror"):
        text = adapted(section(name), receiver.metadata_url, folder, port)
        done = shell(text.replace("/proc/cmdline", "cmdline"), folder, "-e")
        assert done.status == 0, done


def test_the_kickstart_reports_begin_success_and_failure(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        run_the_kickstart(receiver, tmp_path, files.port)
    assert timeline(receiver) == REPORTS


@pytest.mark.parametrize("fault", BAD_FILES)
def test_the_kickstart_goes_on_without_reports(fault, tmp_path, receiver):
    with Peer(BAD_FILES[fault]) as files:
        run_the_kickstart(receiver, tmp_path, files.port)
    assert receiver.shown() == []


@slow
def test_cloud_init_takes_the_autoinstall(tmp_path):
    assert block("autoinstall").startswith("#cloud-config\n")
    (tmp_path / "config").write_text(block("autoinstall"))
    check("cloud-init", "schema", "--config-file", str(tmp_path / "config"))


def run_the_autoinstall(receiver, folder, port):
    """Run the commands of the autoinstall as Subiquity does: none of them fails."""
    needs("curl")
    text = adapted(block("autoinstall"), receiver.metadata_url, folder, port)
    config = yaml_of(text)["autoinstall"]
    for key in ("early-commands", "late-commands", "error-commands"):
        for command in config[key]:
            done = shell(command, folder)
            assert done.status == 0, done


def test_the_autoinstall_reports_begin_success_and_failure(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        run_the_autoinstall(receiver, tmp_path, files.port)
    assert timeline(receiver) == REPORTS


@pytest.mark.parametrize("fault", BAD_FILES)
def test_the_autoinstall_goes_on_without_reports(fault, tmp_path, receiver):
    with Peer(BAD_FILES[fault]) as files:
        run_the_autoinstall(receiver, tmp_path, files.port)
    assert receiver.shown() == []
