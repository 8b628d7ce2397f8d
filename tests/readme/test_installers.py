"""The recipes for installers with a Python: iPXE with kickstart, and Ubuntu's autoinstall."""
import importlib
import re

import pytest

from support.peers import Peer
from support.readme import adapted, block, replaced, timeline, yaml_of
from support.scripts import BAD_FILES, GOOD_FILE, shell, write_program
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


def scripts_of(text):
    """Return the scripts of a kickstart as Anaconda's parser has them, in their order."""
    kickstart = pytest.importorskip("pykickstart", reason="no pykickstart module")
    parser, version = importlib.import_module("pykickstart.parser"), kickstart.version
    handler = version.makeVersion()
    parser.KickstartParser(handler).readKickstartFromString(text)
    return handler.scripts


def run_as_anaconda(text, folder):
    """Run the scripts of a kickstart in Anaconda's order; return whether it goes to the end.

    A script that fails ends the installation only with --erroronfail; %onerror comes then.
    """
    scripts = scripts_of(text)
    constants = importlib.import_module("pykickstart.constants")

    def run(kind):
        for script in scripts:
            if script.type == kind:
                assert not script.inChroot or kind != constants.KS_SCRIPT_POST
                assert script.interp == "/bin/sh"
                done = shell(script.script, folder)
                if done.status and script.errorOnFail:
                    return False
        return True
    good = run(constants.KS_SCRIPT_PRE) and run(constants.KS_SCRIPT_POST)
    if not good:
        run(constants.KS_SCRIPT_ONERROR)
    return good


def kickstart(receiver, folder, port, status=0):
    """Return the kickstart of a test, in which the command in the new system has a status."""
    needs("curl")
    line = adapted(command_line(), receiver.metadata_url, folder, port)
    (folder / "cmdline").write_text(line)
    text = adapted(block("kickstart"), receiver.metadata_url, folder, port)
    text = replaced(text, "/proc/cmdline", "cmdline")
    (folder / "bin").mkdir()
    write_program(folder / "bin" / "chroot",
                  f'#!/bin/sh\necho "$@" > {folder}/chrooted\nexit {status}\n')
    return replaced(text, "chroot /mnt", f"{folder}/bin/chroot /mnt")


BEGUN = ["user.1000 running installing", "user.1010 running set the time zone"]
STEP = "user.1010 succeeded set the time zone"


def test_the_kickstart_reports_begin_step_and_success(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        assert run_as_anaconda(kickstart(receiver, tmp_path, files.port), tmp_path)
    assert timeline(receiver) == [*BEGUN, STEP, "user.1000 succeeded installed"]
    assert (tmp_path / "chrooted").read_text() == (
        "/mnt/sysroot ln -sf /usr/share/zoneinfo/UTC /etc/localtime\n")


def test_a_command_in_the_new_system_that_fails_ends_the_kickstart(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        assert not run_as_anaconda(kickstart(receiver, tmp_path, files.port, 5), tmp_path)
    assert timeline(receiver) == [
        *BEGUN, "user.1010 failed set the time zone: exit status 5",
        "user.1000 failed not installed"]


OWN = "%post --nochroot --erroronfail\nexit 7\n%end\n"  # a section of one's own that fails


def with_own(text, section):
    """Return the kickstart with this section before the last %post."""
    last = "%post --nochroot --erroronfail\nsh"
    head, mark, rest = text.rpartition(last)
    assert mark
    return head + section + "\n" + mark + rest


def test_a_section_of_ones_own_that_fails_is_reported(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = with_own(kickstart(receiver, tmp_path, files.port), OWN)
        assert not run_as_anaconda(text, tmp_path)
    assert timeline(receiver) == [*BEGUN, STEP, "user.1000 failed not installed"]


def test_without_erroronfail_it_would_be_green_as_the_readme_says(tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = with_own(kickstart(receiver, tmp_path, files.port),
                        replaced(OWN, " --erroronfail", ""))
        assert run_as_anaconda(text, tmp_path)
    assert timeline(receiver)[-1] == "user.1000 succeeded installed"


@pytest.mark.parametrize("status", [0, pytest.param(5, marks=slow)])
@pytest.mark.parametrize("fault", BAD_FILES)
def test_the_kickstart_goes_on_without_reports(fault, status, tmp_path, receiver):
    with Peer(BAD_FILES[fault]) as files:
        text = kickstart(receiver, tmp_path, files.port, status)
        assert run_as_anaconda(text, tmp_path) == (status == 0)
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
