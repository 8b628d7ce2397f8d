"""Images whose Python lacks modules, and the smallest of Debian."""
import re
import subprocess

import pytest

from support.files import SOURCE
from support.tools import slow


@pytest.mark.parametrize("module", ["json", "http", "email", "socket", "getopt", "random",
                                    "urllib", "contextlib"])
def test_a_module_that_is_missing_is_named_with_its_package(module, edge_python):
    """As in python3-minimal, python3-light and python3-core."""
    hide = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "{module}":
            raise ModuleNotFoundError(f"No module named '{{name}}'", name=name)
sys.meta_path.insert(0, Hide())
for name in [name for name in sys.modules if name.split(".")[0] == "{module}"]:
    del sys.modules[name]
"""
    ended = subprocess.run([edge_python, "-S", "-c", hide + SOURCE.decode(), "running",
                            "1000", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    err = ended.stderr.decode()
    assert ended.returncode == 1 and err.count("\n") == 1 and f"'{module}" in err
    assert err.endswith("; install python3 (Alpine, Debian, Fedora, OpenWrt), "
                        "python3-modules (Yocto)\n")


@pytest.mark.parametrize("error, line", [
    ("MemoryError()", b"userstate: MemoryError\n"),
    ("OSError(5, 'EIO')", b"userstate: [Errno 5] EIO\n"),
    ("KeyboardInterrupt()", b"userstate: interrupted\n")])
def test_a_module_that_cannot_be_read_is_told_of_in_one_line(error, line, edge_python):
    fail = f"""
import sys
class Fail:
    def find_spec(self, name, path=None, target=None):
        if name == "getopt":
            raise {error}
sys.modules.pop("getopt", None)
sys.meta_path.insert(0, Fail())
"""
    ended = subprocess.run([edge_python, "-S", "-c", fail + SOURCE.decode(), "running",
                            "1000", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (-2 if "Key" in error else 1, line)


@slow
@pytest.mark.parametrize("packages", [(), ("python3",)], ids=["python3-minimal", "python3"])
def test_a_debian_with_nothing_else(packages, debian, receiver):
    ended = debian(*packages).run(["python3", "-I", "-", "running", "1000", "x"],
                                  input=SOURCE, **receiver.env)
    if packages:
        assert (ended.returncode, ended.stderr) == (0, b"") and len(receiver.shown()) == 1
    else:
        assert ended.returncode == 1 and re.fullmatch(
            rb"userstate: No module named .*install python3 .*\n", ended.stderr)
