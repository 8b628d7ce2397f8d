"""What the command finds: variables, descriptors, limits, groups, as without run."""
import json
import os
import subprocess
import sys

import pytest

from support.files import SCRIPT
from support.peers import ACCEPTED, Peer
from support.processes import fresh, run

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/environ"),
                                reason="no /proc here")
STATE = r"""
import json, os, resource, signal, sys
names = sorted(n for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n))
with open("/proc/self/environ") as file:
    environment = sorted(file.read().split("\0"))
with open("/proc/self/status") as file:
    status = file.readlines()
print(json.dumps({
    "env": environment, "cwd": os.getcwd(),
    "group": os.getpgrp(), "session": os.getsid(0), "umask": os.umask(0), "fds": names,
    "limits": [resource.getrlimit(n) for n in range(10)],
    "signals": [int(line.split()[1], 16) & 0x7fffffff  # not those of the C library
                for line in status if line.startswith(("SigBlk", "SigIgn"))]}))
"""


@pytest.mark.parametrize("env", [{}, {"LC_ALL": "C", "A": "b"}, {"LC_CTYPE": "C.UTF-8"},
                                 {"LC_CTYPE": "C"}, {"LC_CTYPE": ""},
                                 {"MY_LC_CTYPE": "x"}], ids=str)
def test_the_command_finds_all_as_it_was(env, edge_python, tmp_path):
    command = ["/bin/sh", "-c", f'exec {sys.executable} -c "$0"', STATE]

    def state_of(*words):  # with no variable but those of env, not even PATH
        return json.loads(subprocess.check_output(
            words, env=env, cwd=str(tmp_path), stdin=subprocess.DEVNULL,
            preexec_fn=fresh, pass_fds=[file.fileno()]).decode())
    with Peer(ACCEPTED) as peer, open(os.devnull) as file:
        assert state_of(edge_python, "-B", SCRIPT, "--url", peer.url, "run", "1010", "m",
                        *command) == state_of(*command)
        assert len(peer.events) == 2


@pytest.mark.parametrize("env, given", [({}, "none"), ({"LC_CTYPE": "C"}, "C")], ids=str)
@pytest.mark.parametrize("value", ["C.UTF-8", "C.utf8", "UTF-8"])
def test_what_python_takes_for_its_own_locale_is_not_the_commands(value, env, given):
    """Which of them it sets, in a locale of C, depends on what the system has: PEP 538."""
    with Peer(ACCEPTED) as peer:
        assert run("run", "1010", "m", "sh", "-c", 'echo "<${LC_CTYPE-none}>"', url=peer.url,
                   before=f"import os; os.environ['LC_CTYPE'] = '{value}'\n",
                   env=env) == (0, f"<{given}>\n", "")
