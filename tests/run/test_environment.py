"""What the command finds: variables, descriptors, limits, groups, as without run."""
import json
import os
import signal
import subprocess
import sys

import pytest

from support.files import SCRIPT, SOURCE
from support.interpreters import NEWEST, OLDEST

STATE = r"""
import json, os, resource, signal, sys
names = sorted(n for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n))
print(json.dumps({
    "env": sorted(open("/proc/self/environ").read().split("\0")), "cwd": os.getcwd(),
    "group": os.getpgrp(), "session": os.getsid(0), "umask": os.umask(0), "fds": names,
    "limits": [resource.getrlimit(n) for n in range(10)],
    "signals": [int(line.split()[1], 16) & 0x7fffffff  # not those of the C library
                for line in open("/proc/self/status")
                if line.startswith(("SigBlk", "SigIgn"))]}))
"""


@pytest.mark.parametrize("python", [OLDEST, NEWEST])
@pytest.mark.parametrize("env", [{}, {"LC_ALL": "C", "A": "b"}, {"LC_CTYPE": "C.UTF-8"},
                                 {"LC_CTYPE": "C"}, {"LC_CTYPE": ""},
                                 {"MY_LC_CTYPE": "x"}], ids=str)
def test_the_command_finds_all_as_it_was(python, env, receiver, tmp_path):
    if not os.path.exists("/proc/self/environ"):
        pytest.skip("no /proc here")
    command = ["/bin/sh", "-c", f'exec {sys.executable} -c "$0"', STATE]
    options = dict(env=env, cwd=str(tmp_path), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL,
                   preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL))
    as_it_was = subprocess.run(command, **options)
    reported = subprocess.run([python, "-B", SCRIPT, "--url", receiver.url + "/events", "run",
                               "1010", "m", *command], **options)
    assert json.loads(reported.stdout.decode()) == json.loads(as_it_was.stdout.decode())


@pytest.mark.parametrize("value", ["C.UTF-8", "C.utf8", "UTF-8"])
def test_what_python_takes_for_its_own_locale_is_not_the_commands(value, receiver):
    """Which of them it sets, in a locale of C, depends on what the system has: PEP 538."""
    if not os.path.exists("/proc/self/environ"):
        pytest.skip("no /proc here")
    code = f"import os; os.environ['LC_CTYPE'] = '{value}'\n" + SOURCE.decode()
    words = ["--url", receiver.url + "/events", "run", "1010", "m", "sh", "-c",
             'echo "<${LC_CTYPE-none}>"']
    for env, given in (({}, "none"), ({"LC_CTYPE": "C"}, "C")):
        done = subprocess.run([sys.executable, "-B", "-c", code, *words], env=dict(
            {"PATH": os.environ["PATH"]}, **env), stdout=subprocess.PIPE)
        assert done.stdout.decode() == f"<{given}>\n"
