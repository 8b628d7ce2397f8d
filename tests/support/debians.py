"""Trees of a Debian, to run commands in; only root can make them."""
import os
import subprocess
import tempfile

import pytest

from support.tools import find, needs


class Root:
    """A tree to run commands in, in namespaces of its own but for the network."""

    def __init__(self, path):
        self.path = path

    def run(self, command, input=b"", **environment):
        words = ["unshare", "--mount", "--uts", "--ipc", "sh", "-ec",
                 'mount -t proc proc "$0/proc"; exec chroot "$0" "$@"', self.path, *command]
        return subprocess.run(
            words, input=input, capture_output=True, timeout=600,
            env=dict(environment, PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"))

    def install(self, *packages):
        done = self.run(["apt-get", "-qy", "--no-install-recommends", "install", *packages],
                        DEBIAN_FRONTEND="noninteractive")
        assert done.returncode == 0, done


class Debians:
    """The trees of one suite, each made once, in a folder."""

    def __init__(self, folder, suite="stable"):
        needs("debootstrap", "unshare")
        if os.getuid():
            pytest.skip("only root can make a Debian")
        self.folder, self.suite, self.paths = folder, suite, {}

    def path(self, *packages):
        """Return the path of a tree with these packages; it is not to be changed."""
        if packages not in self.paths:
            if packages:
                self.paths[packages] = self.with_one_more(packages)
            else:
                self.paths[packages] = self.with_nothing()
        return self.paths[packages]

    def with_nothing(self):
        path = os.path.join(self.folder, self.suite)
        subprocess.run([find("debootstrap"), "--variant=minbase",
                        "--include=python3-minimal", self.suite, path],
                       check=True, stdout=subprocess.DEVNULL)
        return path

    def with_one_more(self, packages):
        root = self.copy(self.folder, *packages[:-1])
        root.install(packages[-1])
        return root.path

    def copy(self, folder, *packages):
        """Return a Root, in folder, with these packages, to do anything with."""
        tree = tempfile.mkdtemp(dir=folder) + "/root"
        subprocess.run(["cp", "-a", self.path(*packages), tree], check=True)
        return Root(tree)
