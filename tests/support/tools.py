"""The tools of the machine, and what tests do when one is missing: they skip, and say why."""
import os
import shutil
import subprocess
import sys

import pytest

TOOLS = ["ansible", "bash", "busybox", "cc", "chromedriver", "chromium", "clickhouse-server",
         "cloud-init", "curl", "dash", "debconf-set-selections", "debootstrap", "jq", "ksh",
         "mksh", "openssl", "python3", "setpriv", "shellcheck", "sqlite3", "systemd-analyze",
         "terraform", "timeout", "unshare", "zsh"]
slow = pytest.mark.skipif(not os.environ.get("SLOW"), reason="slow: make test SLOW=1")


def find(tool):
    """Return the path of tool, also of one that is for root or of the tests' own Python."""
    places = os.path.dirname(sys.executable), os.environ["PATH"], "/usr/sbin", "/sbin"
    return shutil.which(tool, path=os.pathsep.join(places))


def needs(*tools):
    """Skip the test if one of the tools is not installed."""
    for tool in tools:
        if not find(tool):
            pytest.skip(f"{tool} is not installed")


def check(tool, *words, **options):
    """Run the tool, or skip if it is not there; it has to be content. Return what it says."""
    needs(tool)
    done = subprocess.run([find(tool), *words], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60, **options)
    assert done.returncode == 0, done.stdout.decode()
    return done.stdout.decode()
