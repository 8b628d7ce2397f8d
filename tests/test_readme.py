"""Every block of the README does what it says."""
import functools
import http.server
import os
import re
import subprocess
import sys
import threading

import pytest
from conftest import PYTHONS, SCRIPT, TOP

import userstate

with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
    README = file.read()
# The receiver has tests of its own.
README, _, rest = README.partition("\n## A receiver\n")
README += rest[rest.index("\n## "):]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
SHELL = [text for kind, text in BLOCKS if kind == "sh" and not text.startswith("make")]


@pytest.fixture
def environment(platform, tmp_path):
    """What the blocks expect: the file on a web server, a place for programs, a service."""
    kind = functools.partial(http.server.SimpleHTTPRequestHandler, directory=TOP)
    kind.log_message = None
    with http.server.HTTPServer(("127.0.0.1", 0), kind) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "bin").mkdir()
        address = f"http://127.0.0.1:{server.server_port}/userstate.py"
        yield dict(platform.env, PATH=os.environ["PATH"], USERSTATE_PY=address,
                   PREFIX=str(tmp_path))
        server.shutdown()


@pytest.mark.parametrize("block", SHELL, ids=lambda text: text.split("\n")[0][:40])
def test_shell_blocks_run(block, environment, platform):
    if "curl" in block and not any(os.access(os.path.join(p, "curl"), os.X_OK)
                                   for p in os.environ["PATH"].split(os.pathsep)):
        pytest.skip("curl is not installed")
    if "bin/userstate" in block and "install -m" not in block:
        os.makedirs(environment["PREFIX"] + "/bin", exist_ok=True)
        os.symlink(SCRIPT, environment["PREFIX"] + "/bin/userstate")
    ended = subprocess.run(["sh", "-eu", "-c", block], env=environment, cwd=TOP,
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    if "exit 100" in block:
        return check_timeline(ended, platform)
    assert (ended.returncode, ended.stdout) == (0, b""), ended.stderr
    events = platform.shown()
    expected = re.findall(r"(?:running|succeeded) (\d{4}) \"(.*?)\"", block)
    if "trap" in block:
        expected = [("1099", "user-data")]
    assert [(kind, body) for kind, _, body in events] == [
        (f"user.{code}", message) for code, message in expected]


def check_timeline(ended, platform):
    """The script that fails in the middle shows what the README says."""
    shown = next(text for _, text in BLOCKS if text.startswith("TYPE"))
    assert ended.returncode == 100 and ended.stderr == b""
    assert [f"{kind:12}{state:12}{body}" for kind, state, body in platform.shown()[::-1]
            ] == shown.splitlines()[1:]


def test_the_readme_has_shell_blocks():
    assert len(SHELL) >= 4


def test_python_blocks_run(platform):
    blocks = [text for kind, text in BLOCKS if kind == "python"]
    assert blocks
    for block in blocks:
        ended = subprocess.run([sys.executable, "-B", "-c", block], cwd=TOP,
                               env=platform.env, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        assert (ended.returncode, ended.stdout) == (0, b"installing\n" * ("step" in block))
    assert [(kind, state) for kind, state, _ in platform.shown()] == [
        ("user.1000", "running"), ("user.1010", "running"), ("user.1010", "succeeded")]


def test_make_demo_prints_what_the_readme_shows(python):
    version = next(name for name, path in PYTHONS.items() if path == python)
    if int(version.partition(".")[2]) < 8:
        pytest.skip("the service needs Python 3.8")

    def same(text):
        return re.sub(r":\d{4,5}/", ":0/", re.sub(r"\d\d:\d\d:\d\d", "TIME", text))
    shown = next(text for kind, text in BLOCKS if text.startswith("$ export"))
    ended = subprocess.run(["make", "-s", "demo", f"PYTHON={python}"], cwd=TOP, timeout=60,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                           env={"PATH": os.environ["PATH"]})
    assert same(ended.stdout.decode()) == same(shown) and ended.returncode == 0


def test_the_tables_name_every_option_variable_status_and_default():
    for word in userstate.OPTIONS:
        assert "--" + word.rstrip("=") in README
    for word in (*re.findall("USERSTATE_[A-Z_]+", userstate.USAGE), "SSL_CERT_FILE",
                 *userstate.METADATA_URL.split(), *userstate.STATES):
        assert f"`{word}`" in README
    for status in (0, 1, 2, 75, 130):
        assert re.search(rf"^\| {status} \|", README, re.M)
    assert "2026-06-30" in README


def test_the_readme_names_a_python_that_is_tested():
    assert "Python 3.6" in README
    if "3.6" not in PYTHONS:
        pytest.skip("no Python 3.6 here; oldest is " + next(iter(PYTHONS)))
