"""Where people really put it: every way to start it, minimal Pythons, poor surroundings."""
import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import SCRIPT, SOURCE, TOP, Peer, answer, slow
from test_readme import SHELL, adapted, block
from test_recipes import INSTALLED, carried, shown
from test_script import TIMELINE

WAYS = {
    "file": [SCRIPT], "isolated": ["-I", SCRIPT], "no site": ["-I", "-S", SCRIPT],
    "optimised": ["-OO", SCRIPT], "warnings": ["-W", "error", SCRIPT],
    "command": ["-c", SOURCE], "module": ["-m", "userstate"], "pipe": ["-I", "-"],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_python_every_way(way, python, platform):
    """An event, a command, a refusal of bad operands: by this way in this Python."""
    for words, status in ((["running", "1000", "x"], 0), (["run", "1001", "y", "false"], 1),
                          (["url"], 0), (["bogus", "1000", "x"], 2)):
        ended = subprocess.run(
            [python, "-B", *WAYS[way], *words], env=dict(platform.env, PYTHONPATH=TOP),
            input=SOURCE if way == "pipe" else b"", stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, cwd=os.sep, timeout=60)
        assert ended.returncode == status, ended.stderr
        assert ended.stderr.count(b"\n") == (status == 2), ended.stderr
    assert [kind for kind, _, _ in platform.shown()] == ["user.1000", "user.1001", "user.1001"]


def test_copied_linked_and_zipped(tmp_path, platform):
    environment = dict(platform.env, PATH=os.environ["PATH"])
    copy = str(tmp_path / "userstate")
    shutil.copy(SCRIPT, copy)
    os.symlink(copy, str(tmp_path / "link"))
    with zipfile.ZipFile(str(tmp_path / "x.zip"), "w") as archive:
        archive.write(SCRIPT, "userstate.py")
    for command in ([copy], [str(tmp_path / "link")], [sys.executable, "-m", "userstate"]):
        ended = subprocess.run([*command, "running", "1000", "x"], stderr=subprocess.PIPE,
                               env=dict(environment, PYTHONPATH=str(tmp_path / "x.zip")))
        assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(platform.shown()) == 3


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


def end_of_guard():
    start = re.search(rb"^if __name__ ==.*$", SOURCE, re.M).end()
    return start + re.search(rb"\n(?=\S)", SOURCE[start:]).end()


def pieces():
    """Yield (offset, header, piece) of SOURCE: its statements, and those of classes."""
    def offset(node):  # of its decorators; a comment before it goes to its neighbour
        lines = [node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]
        return len(b"".join(SOURCE.splitlines(True)[:min(lines) - 1]))
    # Not the docstring: Python 3.7 tells its last line as its first.
    body = [node for node in ast.parse(SOURCE).body if not isinstance(node, ast.Expr)]
    for node, after in zip(body, body[1:] + [None]):
        starts, end = [offset(node)], offset(after) if after else len(SOURCE)
        if isinstance(node, ast.ClassDef):
            starts += [offset(inner) for inner in node.body
                       if isinstance(inner, ast.FunctionDef)]
        for start, stop in zip(starts, starts[1:] + [end]):
            yield start, b"class C:\n" * (start != starts[0]), SOURCE[start:stop]


def parsing_cuts():
    """Yield (end, last statement) of each cut behind the guard that parses."""
    for offset, header, piece in pieces():
        for end in range(len(piece)):
            if end_of_guard() <= offset + end < len(SOURCE) - 1:
                try:
                    yield offset + end, ast.parse(header + piece[:end]).body[-1:]
                except SyntaxError:
                    pass


def test_every_cut_behind_the_guard_has_a_guard():
    """What parses of half a download has the whole guard before it, and runs nothing."""
    cuts = 0
    assert b"atexit.register(" in SOURCE[:end_of_guard()]
    for end, statement in parsing_cuts():
        cuts += 1
        if cuts % 100 == 0:  # the pieces tell the truth
            ast.parse(SOURCE[:end])
        for node in statement:
            if isinstance(node, (ast.If, ast.Expr)):
                assert not any(isinstance(inner, ast.Call) for inner in ast.walk(node)), end
    assert cuts > 300


LIMITS = ["ulimit -n 16", "ulimit -v 400000", "unset HOME; cd /", "umask 777",
          "exec <&-", "exec >&-", "exec 2>&-", "exec <&- >&- 2>&-"]


@pytest.mark.parametrize("limit", LIMITS)
def test_poor_surroundings(limit, edge_python, platform):
    ended = subprocess.run(
        ["sh", "-c", f'{limit}; exec "$0" -B "$1" run 1000 x true', edge_python, SCRIPT],
        env=platform.env, stderr=subprocess.PIPE, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert len(platform.shown()) == 2


@slow
@pytest.mark.parametrize("packages", [(), ("python3",)], ids=["python3-minimal", "python3"])
def test_a_debian_with_nothing_else(packages, debian, platform):
    ended = debian(*packages).run(["python3", "-I", "-", "running", "1000", "x"],
                                  input=SOURCE, **platform.env)
    if packages:
        assert (ended.returncode, ended.stderr) == (0, b"") and len(platform.shown()) == 1
    else:
        assert ended.returncode == 1 and re.fullmatch(
            rb"userstate: No module named .*install python3 .*\n", ended.stderr)


@slow
@pytest.mark.parametrize("packages", [(), ("python3",)], ids=["python3-minimal", "python3"])
def test_the_script_in_a_debian_with_nothing_else(packages, debian, platform):
    """Neither curl nor wget: Python fetches, and python3-minimal's cannot."""
    with Peer(answer(200, SOURCE)) as files:
        text = adapted(SHELL["script"], platform, files, "/srv")
        ended = debian(*packages).run(["sh", "-c", text], TMPDIR="/srv", **platform.env)
    assert ended.returncode == 100, ended.stderr
    assert platform.shown() == (TIMELINE if packages else [])


# What of cloud-init would change this machine is left out.
CLOUD = """
datasource_list: [NoCloud]
network: {config: disabled}
preserve_hostname: true
cloud_init_modules: [write_files]
cloud_config_modules: [runcmd]
cloud_final_modules: [package_update_upgrade_install, write_files_deferred, scripts_user]
"""
STAGES = ("cloud-init init --local; cloud-init init; cloud-init modules --mode=config; "
          "cloud-init modules --mode=final")


def user_data(form, platform, files, folder):
    """Return the user-data of the README in one of its forms, as test_recipes adapts it."""
    if form == "a script":
        return adapted(SHELL["script"], platform, files, "/srv")
    text = (carried(folder, platform)[0] if form == "a config that carries the program"
            else adapted(block("yaml"), platform, files, "/run"))
    assert text.count("apt-get install -y nginx") == 1
    return text.replace("apt-get install -y nginx", "test -s /usr/bin/apt-get")


@slow
@pytest.mark.parametrize("form", ["a script", "a config", "a config that carries the program"])
def test_a_real_cloud_init_runs(form, debian, platform, tmp_path):
    root = debian("python3", "ca-certificates", "cloud-init")
    seed = os.path.join(root.path, "var/lib/cloud/seed/nocloud")
    os.makedirs(seed)
    with Peer(answer(200, SOURCE)) as files:
        for path, text in (
                (os.path.join(seed, "meta-data"), "instance-id: test\n"),
                (os.path.join(seed, "user-data"), user_data(form, platform, files, tmp_path)),
                (os.path.join(root.path, "etc/cloud/cloud.cfg.d/99-test.cfg"), CLOUD)):
            with open(path, "w") as file:
                file.write(text)
        ended = root.run(["sh", "-c", STAGES])
    with open(os.path.join(root.path, "var/log/cloud-init-output.log")) as file:
        log = file.read()
    expected = ([" ".join(event) for event in TIMELINE] if form == "a script" else INSTALLED)
    assert shown(platform) == [re.sub("after [0-9]+ s", "after N s", line)
                               for line in expected], (ended, log)
    assert ("Failed to run module scripts_user" in log) == (form == "a script")  # its exit 100
    assert "package_update_upgrade_install" not in log  # no warning of the lists
