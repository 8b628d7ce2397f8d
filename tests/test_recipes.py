"""Each recipe of the README goes to the tool that will read it."""
import ast
import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import SCRIPT, TOP
from test_readme import BLOCKS, SHELL, environment  # noqa: F401

SHELLS = {"bash": ["bash"], "dash": ["dash"], "ash": ["busybox", "ash"], "zsh": ["zsh"],
          "ksh": ["ksh"], "mksh": ["mksh"]}
DEFINITION = re.search(r"^userstate=.*\n.*\n", "".join(SHELL), re.M).group()


def block(kind, number=0):
    return [text for name, text in BLOCKS if name == kind][number]


def check(*command, **options):
    """Run the tool, or skip if it is not there; it has to be content."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"], "/usr/sbin"])
    tool = shutil.which(command[0], path=path)
    if not tool:
        pytest.skip(f"{command[0]} is not installed")
    ended = subprocess.run([tool, *command[1:]], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=60, **options)
    assert ended.returncode == 0, ended.stdout.decode()
    return ended.stdout.decode()


def test_cloud_init_takes_the_config(tmp_path):
    (tmp_path / "config").write_text(block("yaml"))
    check("cloud-init", "schema", "--config-file", str(tmp_path / "config"))


def statements(source):
    """Return what source says to Python, that is all but comments and docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if getattr(node, "body", None) and isinstance(node.body, list):
            node.body = [part for part in node.body if not (
                isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    return ast.dump(tree)


def test_the_config_that_carries_the_program_fits_and_works(tmp_path, platform):
    command = next(text for text in SHELL if "gz+b64" in text)
    subprocess.run(["sh", "-eu", "-c", command], cwd=TOP, check=True,
                   env={"PATH": os.environ["PATH"], "PREFIX": str(tmp_path)})
    config = (tmp_path / "user-data").read_text()
    assert len(config) + 2048 <= 16384
    packed = re.search("content: (.*)", config).group(1)
    program = subprocess.run("base64 -d | gunzip", shell=True, input=packed.encode(),
                             stdout=subprocess.PIPE).stdout
    with open(SCRIPT, "rb") as file:
        source = file.read()
    assert program.split(b"\n")[0] == source.split(b"\n")[0]
    assert statements(program) == statements(source)
    check("cloud-init", "schema", "--config-file", str(tmp_path / "user-data"))


def test_the_autoinstall_is_yaml_of_commands(tmp_path):
    yaml = pytest.importorskip("yaml", reason="no yaml module")
    config = yaml.safe_load(block("autoinstall"))["autoinstall"]
    for key in ("early-commands", "late-commands", "error-commands"):
        assert all(isinstance(command, str) for command in config[key])


@pytest.mark.parametrize("download, status", [
    (f"cp {SCRIPT}", 0), (": >", 1), ("false", 1)], ids=["good", "empty", "failed"])
def test_the_script_of_the_config(download, status, tmp_path, platform):
    """A good download installs, whatever the service says; a bad one stops with a line."""
    script = re.search("content: \\|\n(.*?)^runcmd", block("yaml"), re.M | re.S).group(1)
    for old, new in (("curl -fsSL http://files.example.com/userstate.py -o", download),
                     ("/run/userstate.py", str(tmp_path / "userstate.py")),
                     ("http://metadata.example.com/metadata", "http://127.0.0.1:9/metadata"),
                     ("apt-get install -y nginx", "echo installed")):
        script = script.replace(old, new)
    ended = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, timeout=60,
                           env=dict(os.environ, USERSTATE_DEADLINE="0.3"))
    assert ended.returncode == status
    assert ended.stdout == (b"" if status else b"installed\n")
    assert ended.stderr or download == "false"


def test_kickstart(tmp_path):
    (tmp_path / "ks").write_text(block("kickstart"))
    check("ksvalidator", str(tmp_path / "ks"))


def test_preseed():
    check("debconf-set-selections", "-c", input=block("preseed").encode())


def test_ipxe_starts_with_its_mark_and_names_the_kickstart():
    lines = block("ipxe").splitlines()
    assert lines[0] == "#!ipxe" and lines[-1] == "boot" and "inst.ks=" in block("ipxe")


def test_systemd(tmp_path):
    unit = block("systemd").replace("/usr/local/bin/userstate", SCRIPT)
    (tmp_path / "first-boot.service").write_text(
        unit.replace("/usr/local/sbin/first-boot", "/bin/true"))
    out = check("systemd-analyze", "verify", str(tmp_path / "first-boot.service"))
    assert "first-boot" not in out


@pytest.mark.parametrize("result, shown", [
    ("success", ("succeeded", "first boot: success 0")),
    ("exit-code", ("failed", "first boot: exit-code 3"))])
def test_the_unit_reports_its_result(result, shown, platform):
    command = re.search("ExecStopPost=-/bin/sh -c '(.*)'", block("systemd")).group(1)
    command = command.replace("$$", "$").replace("/usr/local/bin/userstate", SCRIPT)
    subprocess.run(["sh", "-c", command], check=True, env=dict(
        os.environ, SERVICE_RESULT=result, EXIT_STATUS=shown[1][-1], **platform.env))
    assert [event[1:] for event in platform.shown()] == [shown]


def test_ansible(platform):
    words = block("ansible").strip().replace("ansible all", "ansible all -i localhost, -c local")
    words = words.replace("http://metadata.example.com/metadata", platform.metadata_url)
    if not shutil.which("ansible"):
        pytest.skip("ansible is not installed")
    ended = subprocess.run(words, shell=True, cwd=TOP, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=60,
                           env=dict(os.environ, ANSIBLE_LOCALHOST_WARNING="0"))
    assert ended.returncode == 0, ended.stdout.decode()
    assert platform.shown() == [("user.1060", "running", "configured")]


def test_the_image_copies_the_file_with_its_run_bit():
    assert "COPY --chmod=755 userstate.py /usr/local/bin/userstate" in block("dockerfile")


@pytest.mark.parametrize("text", SHELL, ids=lambda text: text.split("\n")[0][:40])
def test_shellcheck(text):
    check("shellcheck", "-s", "sh", "-e", "SC2154,SC2317", "-", input=text.encode())


def started(shell, script, environment):
    if not shutil.which(SHELLS[shell][0]):
        pytest.skip(f"{shell} is not installed")
    return subprocess.run([*SHELLS[shell], "-c", "set -eu\n" + script], env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=30)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_classic_calls_work_in(shell, environment, platform):  # noqa: F811
    script = DEFINITION + """
send_user_state_event running 1000 "hey im still running"
send_user_state_event succeeded 1001 "hey im done now :)"
"""
    ended = started(shell, script, environment)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")
    assert platform.shown() == [("user.1000", "running", "hey im still running"),
                                ("user.1001", "succeeded", "hey im done now :)")]


BAD = {"failed": 'echo "curl: (22) 404" >&2; return 22', "empty": ":",
       "cut": f'head -c 9000 "{SCRIPT}"'}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_bad_download_stops_with_a_line(name, shell, environment, platform):  # noqa: F811
    script = (f"curl() {{ {BAD[name]}; }}\n" + DEFINITION
              + "\nsend_user_state_event running 1000 x\necho reached")
    ended = started(shell, script, environment)
    assert ended.returncode != 0 and ended.stdout == b"" and ended.stderr
    assert platform.shown() == []
