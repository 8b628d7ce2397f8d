"""The lines for a script that is there already, and the function for the platform's old one."""
import re
import signal

import pytest

from support.files import SOURCE
from support.peers import ACCEPTED, DEAD, DEAD_PORT, Peer, answer, document
from support.processes import run_command
from support.readme import SHELL, adapted, replaced, timeline
from support.scripts import (
    DASH_AND_SLOWLY_OTHERS,
    GOOD_FILE,
    SHELLS,
    WORKING_PYTHON,
    command_of,
    tools_in,
    write_program,
)
from support.tools import slow

# What a script of one's own may begin with; Debian's dash has no pipefail.
CAREFUL = {shell: "set -eu\n" if shell == "dash" else "set -euo pipefail\n" for shell in SHELLS}
BEGUN = "user.1000 running install"


def with_the_trap(rest, metadata_url, folder, port):
    """Return a script of one's own: the lines of the README, and rest."""
    return adapted(SHELL["trap"], metadata_url, folder, port) + rest


def run_in(shell, text, folder, tools=None, **environment):
    tools = tools or tools_in(folder / "tools", "curl")
    return run_command(*command_of(shell, text), seconds=60, traces=True,
                       env=dict(environment, PATH=tools))


@pytest.mark.parametrize("status, end", [(0, "succeeded install"),
                                         (3, "failed install: exit status 3")])
@pytest.mark.parametrize("careful", [True, pytest.param(False, marks=slow)],
                         ids=["set -euo pipefail", "plain"])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_end_of_a_script_is_reported_in(shell, careful, status, end, tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = with_the_trap(f"echo said\nsh -c 'exit {status}'\n", receiver.metadata_url,
                             tmp_path, files.port)
        done = run_in(shell, CAREFUL[shell] * careful + text, tmp_path)
    assert done == (status, "said\n", "")
    assert timeline(receiver) == [BEGUN, f"user.1000 {end}"]


@pytest.mark.parametrize("number", [
    signal.SIGTERM, *(pytest.param(number, marks=slow)
                      for number in (signal.SIGHUP, signal.SIGINT))])
@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_that_a_signal_ends_is_not_green_in(shell, number, tmp_path, receiver):
    """Without a trap of its own, bash and ksh would have the status of the last command, 0."""
    with Peer(GOOD_FILE) as files:
        text = with_the_trap(f"true; kill -{number} $$; sleep 1; echo on",
                             receiver.metadata_url, tmp_path, files.port)
        done = run_in(shell, text, tmp_path)
    assert done.out == ""
    assert timeline(receiver) == [BEGUN, "user.1000 failed install: exit status 1"]



@pytest.mark.parametrize("status", [0, 3])
@pytest.mark.parametrize("fault", ["receiver", "files", "404", "python3", "curl"])
@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_the_script_keeps_its_status_without(shell, fault, status, tmp_path, receiver):
    with Peer(answer(404) if fault == "404" else GOOD_FILE) as files:
        text = with_the_trap(
            f"echo said\nsh -c 'exit {status}'\n",
            DEAD if fault == "receiver" else receiver.metadata_url, tmp_path,
            DEAD_PORT if fault == "files" else files.port)
        tools = tools_in(tmp_path / "tools", *([] if fault == "curl" else ["curl"]),
                         python=None if fault == "python3" else WORKING_PYTHON)
        done = run_in(shell, CAREFUL[shell] + hurried(text), tmp_path, tools)
    assert (done.status, done.out) == (status, "said\n")
    assert done.err
    assert receiver.shown() == []


def hurried(text):
    """Return text with less time for an event, and without a second try of curl."""
    text = re.sub("DEADLINE=20|deadline 20", lambda found: found.group()[:-2] + "0.3", text)
    return replaced(text, "--retry 4", "--retry 0")


# As the platform's documentation, Terraform examples and providers of Cluster API have it.
OLD_FUNCTION = r'''
url="$(curl -s https://metadata.platformequinix.com/metadata | jq -r .user_state_url)"

send_user_state_event() {
    data=$(
        echo "{}" \
            | jq '.state = $state | .code = ($code | tonumber) | .message = $message' \
            --arg state "$1" \
            --arg code "$2" \
            --arg message "$3"
    )
    curl -s -X POST -d "$data" "$url"
}
'''
OLD_SCRIPT = f'''
apt-get update && apt-get upgrade -y
{OLD_FUNCTION}
send_user_state_event running 1000 "Installing Docker..."

apt-get install -y docker-ce docker-ce-cli
systemctl restart networking

if ! ip addr show bond0.1000; then
  send_user_state_event failed 1002 "Network configuration failed"
  exit 1
fi
send_user_state_event succeeded 1001 "Docker installation \\"complete\\"."
'''
SUCCEEDS = ["user.1000 running Installing Docker...",
            'user.1001 succeeded Docker installation "complete".']
FAILS = [SUCCEEDS[0], "user.1002 failed Network configuration failed"]
INSTALLED = "update\nupgrade -y\ninstall -y docker-ce docker-ce-cli\nrestart networking\n"


def mended(metadata_url, folder, port):
    """Return the old script with the README's lines in the place of its function."""
    text = adapted(SHELL["old"], metadata_url, folder, port)
    return replaced(OLD_SCRIPT, OLD_FUNCTION, text)


def machine(folder, is_good=True, *others, **options):
    """Return the PATH of a machine on which nothing is changed by the old script."""
    tools = tools_in(folder / "tools", "curl", *others, **options)
    for name in ("apt-get", "systemctl"):
        write_program(folder / "tools" / name, '#!/bin/sh\necho "$@"\n')
    write_program(folder / "tools" / "ip", f"#!/bin/sh\nexit {int(not is_good)}\n")
    return tools


def test_the_old_script_is_one_that_the_platform_took(tmp_path, receiver):
    text = replaced(OLD_SCRIPT, "https://metadata.platformequinix.com/metadata",
                    receiver.metadata_url)
    done = run_in("bash", text, tmp_path, machine(tmp_path, True, "jq"))
    assert done == (0, INSTALLED, "")
    assert timeline(receiver) == SUCCEEDS


@pytest.mark.parametrize("is_good, shown", [(True, SUCCEEDS), (False, FAILS)],
                         ids=["succeeds", "fails"])
@pytest.mark.parametrize("shell", SHELLS)
def test_the_old_script_reports_as_before_in(shell, is_good, shown, tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = CAREFUL[shell] + mended(receiver.metadata_url, tmp_path, files.port)
        done = run_in(shell, text, tmp_path, machine(tmp_path, is_good))
    assert done == (int(not is_good), INSTALLED, "")
    assert timeline(receiver) == shown


@pytest.mark.parametrize("is_good", [True, False], ids=["succeeds", "fails"])
@pytest.mark.parametrize("fault", ["receiver", "files", "python3"])
@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_the_old_script_goes_on_without(shell, fault, is_good, tmp_path, receiver):
    with Peer(GOOD_FILE) as files:
        text = mended(DEAD if fault == "receiver" else receiver.metadata_url, tmp_path,
                      DEAD_PORT if fault == "files" else files.port)
        tools = machine(tmp_path, is_good,
                        python=None if fault == "python3" else WORKING_PYTHON)
        done = run_in(shell, CAREFUL[shell] + hurried(text), tmp_path, tools)
    assert (done.status, done.out) == (int(not is_good), INSTALLED)
    assert done.err
    assert receiver.shown() == []


@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_the_old_script_reports_while_the_network_is_restarted(shell, tmp_path):
    """The file server and the receiver are away at first, and the receiver once more."""
    with Peer(answer(503), GOOD_FILE) as files, Peer() as peer:
        metadata = document(user_state_url=peer.url)
        peer.scripts = [b"", metadata, ACCEPTED, b"", metadata, b"", metadata, ACCEPTED]
        text = CAREFUL[shell] + mended(peer.url, tmp_path, files.port)
        done = run_in(shell, text, tmp_path, machine(tmp_path))
    assert (done.status, done.out) == (0, INSTALLED)
    assert [(event["state"], event["code"]) for event in peer.events] == [
        ("running", 1000), ("succeeded", 1001), ("succeeded", 1001)]


def test_the_function_takes_the_operands_of_the_old_one_alone(tmp_path, receiver):
    """It leaves no variable, and its status is 0 also for what is invalid."""
    (tmp_path / "userstate.py").write_bytes(SOURCE)
    _, _, text = adapted(SHELL["old"], receiver.metadata_url, tmp_path).partition("|| true\n")
    done = run_in("dash", f"set -eu\n{text}send_user_state_event dancing 1 x\n"
                          'echo "${USERSTATE_METADATA_URL-unset}"', tmp_path)
    assert (done.status, done.out) == (0, "unset\n")
    assert "dancing" in done.err
