"""Each recipe of the README goes to the tool that will read it, and its commands are run."""
import ast
import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import DEAD, DEAD_PORT, SCRIPT, SOURCE, Peer, answer, needs, slow
from test_readme import BLOCKS, CHECKSUM, README, SHELL, adapted, block, hang
from test_script import GOOD, path

# What may be wrong, and no recipe may fail for: answers of the file server.
FAULTS = {"none": GOOD, "empty": answer(200), "cut": answer(200, SOURCE[:9000]),
          "other": answer(200, SOURCE + b"#\n"), "404": answer(404)}


def check(*command, **options):
    """Run the tool, or skip if it is not there; it has to be content."""
    where = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"], "/usr/sbin"])
    tool = shutil.which(command[0], path=where)
    if not tool:
        pytest.skip(f"{command[0]} is not installed")
    ended = subprocess.run([tool, *command[1:]], stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=60, **options)
    assert ended.returncode == 0, ended.stdout.decode()
    return ended.stdout.decode()


def yaml_of(text):
    return pytest.importorskip("yaml", reason="no yaml module").safe_load(text)


def sh(text, folder, words=("-c",), **environment):
    """Run text with the tools of the machine; return how it ended."""
    return subprocess.run(
        ["sh", *words, text], cwd=str(folder), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, timeout=60,
        env=dict(environment, PATH=f"{folder}/bin:{os.environ['PATH']}"))


def shown(platform):
    return [re.sub("after [0-9]+ s", "after N s", " ".join(event))
            for event in platform.shown()]


# cloud-init

INSTALLED = ["user.1010 running install nginx",
             "user.1010 succeeded install nginx: done after N s"]


def carried(folder, platform):
    """Return the user-data that the README's command makes, and the program in it."""
    shutil.copy(SCRIPT, str(folder))
    text = adapted(SHELL["carries"], platform, Peer(b""), folder)
    subprocess.run(["sh", "-eu", "-c", text], cwd=str(folder), check=True,
                   env={"PATH": os.environ["PATH"]})
    config = (folder / "user-data").read_text()
    packed = re.search("content: (.*)", config).group(1)
    return config, subprocess.run("base64 -d | gunzip", shell=True, input=packed.encode(),
                                  stdout=subprocess.PIPE).stdout


@slow
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
    config, program = carried(tmp_path, platform)
    assert len(config) + 2048 <= 16384
    assert program.split(b"\n")[0] == SOURCE.split(b"\n")[0]
    assert statements(program) == statements(SOURCE)


@slow
def test_cloud_init_takes_the_config_that_carries_the_program(tmp_path, platform):
    carried(tmp_path, platform)
    check("cloud-init", "schema", "--config-file", str(tmp_path / "user-data"))


@pytest.mark.parametrize("status", [0, 100])
@pytest.mark.parametrize("python", ["python3", "no python3"])
def test_the_commands_of_the_config_that_carries_it(python, status, tmp_path, platform):
    config, program = carried(tmp_path, platform)
    tools = path(tmp_path / "tools", **{} if python == "python3" else {"python": None})
    for name, text in (("userstate", program.decode()), ("apt-get", "#!/bin/sh\nexit $1\n")):
        (tmp_path / "tools" / name).write_text(text)
        (tmp_path / "tools" / name).chmod(0o755)
    (tmp_path / "tools" / "env").symlink_to("/usr/bin/env")
    commands = "\n".join(yaml_of(config)["runcmd"]).replace("install -y", str(status))
    ended = subprocess.run([shutil.which("sh"), "-c", commands], env={"PATH": tools},
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60)
    assert ended.returncode == status, ended.stderr
    assert len(platform.shown()) == (2 if python == "python3" else 0)


@pytest.mark.parametrize("status", [0, 100])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_script_of_the_config(fault, status, tmp_path, platform):
    needs("curl")
    with Peer(FAULTS[fault]) as files:
        config = yaml_of(adapted(block("yaml"), platform, files, tmp_path))
        (entry,), (command,) = config["write_files"], config["runcmd"]
        assert command == ["sh", entry["path"]]
        ended = sh(entry["content"].replace("apt-get install -y nginx",
                                            f"sh -c 'exit {status}'"), tmp_path)
    assert ended.returncode == status, ended.stderr
    if fault != "none":
        assert platform.shown() == []
    elif not status:
        assert shown(platform) == INSTALLED


@slow
@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_what_a_step_waits_for_a_dead_service(fault, tmp_path, platform):
    event, step = map(int, re.search("waits ([0-9]+) seconds for a service\\nthat is dead, and "
                                     "a step ([0-9]+)", README).groups())
    with Peer(GOOD) as files, Peer(hang) as peer:
        text = adapted(block("yaml"), platform, files, tmp_path)
        port = peer.port if fault == "hangs" else DEAD_PORT
        text = text.replace(platform.metadata_url, f"http://127.0.0.1:{port}/metadata")
        script = yaml_of(text)["write_files"][0]["content"]
        begun = time.monotonic()
        ended = sh(script.replace("apt-get install -y nginx", "true"), tmp_path)
    took = time.monotonic() - begun
    print(f"a step, as the service {fault}: {took:.1f} s")
    assert ended.returncode == 0 and event < took < step + 2


# iPXE, kickstart

def section(name):
    return re.search(rf"^%{name}.*?\n(.*?)^%end", block("kickstart"), re.M | re.S).group(1)


def command_line():
    """Return the command line of the kernel that iPXE makes."""
    lines = block("ipxe").splitlines()
    values = dict(re.findall(r"^set (\w+) (.*)$", block("ipxe"), re.M))
    kernel = next(line for line in lines if line.startswith("kernel "))
    assert lines[0] == "#!ipxe" and lines[-1] == "boot"
    return re.sub(r"\$\{(\w+)\}", lambda name: values[name.group(1)], kernel)


def test_kickstart(tmp_path):
    (tmp_path / "ks").write_text(block("kickstart"))
    check("ksvalidator", str(tmp_path / "ks"))


def test_ipxe_hands_on_the_kickstart():
    assert " inst.ks=http://files.example.com/ks " in command_line()


@pytest.mark.parametrize("fault", FAULTS)
def test_the_kickstart_reports_begin_success_and_failure(fault, tmp_path, platform):
    needs("curl")
    with Peer(FAULTS[fault]) as files:
        (tmp_path / "cmdline").write_text(adapted(command_line(), platform, files, tmp_path))
        for name in ("pre", "post --nochroot", "onerror"):
            text = adapted(section(name), platform, files, tmp_path)
            ended = sh(text.replace("/proc/cmdline", "cmdline"), tmp_path, ("-e", "-c"))
            assert ended.returncode == 0, ended.stderr
    assert shown(platform) == ["user.1000 running installing", "user.1000 succeeded installed",
                               "user.1000 failed not installed"] * (fault == "none")


# preseed

def preseeded(name, platform, tmp_path):
    """Return a command of the preseed as debian-installer keeps it, but more hasty."""
    text = re.sub(r"\\\n", "", block("preseed"))
    command = re.search(f"^d-i preseed/{name} string (.*)$", text, re.M).group(1)
    command = command.replace("/tmp/", f"{tmp_path}/").replace("sleep 10", "sleep 0.1")
    command = command.replace("&& sleep 1", "&& sleep 0.2")
    command = command.replace("/var/log/syslog", f"{tmp_path}/syslog")
    return adapted(command, platform, Peer(b""), tmp_path)


def installer(command, tmp_path):
    """Start command with nothing but busybox."""
    folder = tmp_path / "busybox"
    if not folder.exists():
        needs("busybox")
        folder.mkdir()
        subprocess.run(["busybox", "--install", "-s", str(folder)], check=True)
    return subprocess.Popen([str(folder / "sh"), "-c", command], env={"PATH": str(folder)},
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            start_new_session=True)


def test_debconf_takes_the_preseed():
    check("debconf-set-selections", "-c", input=block("preseed").encode())


def test_debconf_keeps_the_commands_as_they_are_run(tmp_path, platform):
    """The reader of the tests and that of debconf join the lines alike."""
    needs("debconf-set-selections", "debconf-show")
    text = re.sub("(?m)^d-i ", "userstate-test ", block("preseed"))
    (tmp_path / "debconf.conf").write_text(
        "Config: one\nTemplates: two\n\n"
        f"Name: one\nDriver: File\nFilename: {tmp_path}/config.dat\n\n"
        f"Name: two\nDriver: File\nFilename: {tmp_path}/templates.dat\n")
    environment = dict(os.environ, DEBCONF_SYSTEMRC=str(tmp_path / "debconf.conf"))
    check("debconf-set-selections", input=text.encode(), env=environment)
    kept = re.findall("^Value: (.*)$", (tmp_path / "config.dat").read_text(), re.M)
    joined = re.findall("string (.*)$", re.sub(r"\\\n", "", text), re.M)
    assert [" ".join(line.split()) for line in kept] == [
        " ".join(line.split()) for line in joined]


def test_the_preseed_reports_begin_and_success(tmp_path, platform):
    groups = []
    for name in ("early_command", "late_command"):
        with installer(preseeded(name, platform, tmp_path), tmp_path) as process:
            assert process.communicate(timeout=60) == (b"", b"")
        assert process.returncode == 0
        groups.append(process.pid)
        while len(platform.shown()) < len(groups):
            pass
    os.killpg(groups[0], signal.SIGKILL)  # the loop, as the machine starts anew
    assert shown(platform) == ["user.1000 running installing", "user.1000 succeeded installed"]


def test_the_preseed_reports_a_part_that_failed(tmp_path, platform):
    """In the words of main-menu.c of debian-installer."""
    needs("busybox")
    (tmp_path / "syslog").write_text("main-menu[232]: INFO: Menu item 'partman' selected\n")
    with installer(preseeded("early_command", platform, tmp_path), tmp_path) as process:
        process.communicate(timeout=60)
        with (tmp_path / "syslog").open("a") as log:
            log.write("main-menu[232]: WARNING **: Menu item 'partman' failed.\n")
        group = process.pid
    while any_in_group(group):
        pass
    assert shown(platform) == ["user.1000 running installing", "user.1000 failed not installed"]


def any_in_group(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_the_preseed_goes_on_without_a_service(fault, tmp_path, platform):
    with Peer(hang) as peer:
        url = peer.url if fault == "hangs" else DEAD
        for name in ("early_command", "late_command"):
            command = preseeded(name, platform, tmp_path).replace(platform.metadata_url, url)
            begun = time.monotonic()
            with installer(command, tmp_path) as process:
                process.communicate(timeout=60)
            assert process.returncode == 0 and time.monotonic() - begun < 8
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert platform.shown() == []


# autoinstall

@slow
def test_cloud_init_takes_the_autoinstall(tmp_path):
    assert block("autoinstall").startswith("#cloud-config\n")
    (tmp_path / "config").write_text(block("autoinstall"))
    check("cloud-init", "schema", "--config-file", str(tmp_path / "config"))


@pytest.mark.parametrize("fault", FAULTS)
def test_the_autoinstall_reports_begin_success_and_failure(fault, tmp_path, platform):
    needs("curl")
    with Peer(FAULTS[fault]) as files:
        text = adapted(block("autoinstall"), platform, files, tmp_path)
        config = yaml_of(text)["autoinstall"]
        for key in ("early-commands", "late-commands", "error-commands"):
            for command in config[key]:
                ended = sh(command, tmp_path)
                assert ended.returncode == 0, ended.stderr
    assert shown(platform) == ["user.1000 running installing", "user.1000 succeeded installed",
                               "user.1000 failed not installed"] * (fault == "none")


# systemd

UNITS = {re.search("system/(.*)", text).group(1): text for kind, text in BLOCKS
         if kind == "systemd"}


def boot(tmp_path, platform, python="python3"):
    """Start the units as systemd would: conditions, then commands; return what failed."""
    failed = []
    for name in sorted(UNITS, key=lambda name: "Before=" not in UNITS[name]):
        text = UNITS[name].replace("/usr/local/bin/", f"{tmp_path}/").replace(
            "/usr/local/sbin/", f"{tmp_path}/").replace("\\\n", " ")
        lines = re.findall(r"^(\w+)=(.*)$", adapted(text, platform, Peer(b""), tmp_path), re.M)
        conditions = [path for key, path in lines if key == "ConditionPathExists"]
        if not all(os.path.exists(path.lstrip("!")) != path.startswith("!")
                   for path in conditions):
            continue
        environment = dict(pair.split("=", 1) for key, pair in lines if key == "Environment")
        for order in ("ExecStartPre", "ExecStart", "ExecStartPost"):
            for command in [command for key, command in lines if key == order]:
                words = [w.replace("$$", "$") for w in shlex.split(command.lstrip("-"))]
                ended = subprocess.run(words, env=dict(environment, PATH=os.environ["PATH"]),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                if ended.returncode and not command.startswith("-"):
                    failed.append((name, ended.returncode))
                    break
            if failed:
                break
    return failed


def first_boot(tmp_path, text, userstate=None):
    needs("python3")
    for name, content in (("first-boot", text), ("userstate", userstate or SOURCE.decode())):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(0o755)


def test_systemd_takes_the_units(tmp_path):
    """Among them KillMode, so that `run` and its command do not both get the signal."""
    for name, text in UNITS.items():
        (tmp_path / name).write_text(text.replace("/usr/local/bin/userstate", SCRIPT))
    out = check("systemd-analyze", "verify", *[str(tmp_path / name) for name in UNITS])
    assert "first-boot" not in out
    main = UNITS["first-boot.service"]
    assert ("exec $$u run" in main) == ("KillMode=mixed" in main) is True


def test_a_first_boot_is_reported_once(tmp_path, platform):
    first_boot(tmp_path, "#!/bin/sh\n")
    assert boot(tmp_path, platform) == []
    assert boot(tmp_path, platform) == []
    assert shown(platform) == ["user.1050 running first boot",
                               "user.1050 succeeded first boot: done after N s"]


def test_a_first_boot_that_did_not_finish_is_reported_at_the_next(tmp_path, platform):
    us = os.getpid()  # the parent, if the program cannot run
    first_boot(tmp_path, f"#!/bin/sh\n[ $PPID = {us} ] || kill -9 $PPID\n")  # power is lost
    assert boot(tmp_path, platform) == [("first-boot.service", -signal.SIGKILL)]
    first_boot(tmp_path, "#!/bin/sh\n")
    assert boot(tmp_path, platform) == []
    assert shown(platform)[-3:] == [
        "user.1050 failed first boot: did not finish", "user.1050 running first boot",
        "user.1050 succeeded first boot: done after N s"]
    before = len(platform.shown())
    assert boot(tmp_path, platform) == [] and len(platform.shown()) == before


@pytest.mark.parametrize("status", [0, 3])
def test_a_first_boot_goes_on_without_the_program(status, tmp_path, platform):
    first_boot(tmp_path, f"#!/bin/sh\nexit {status}\n", "#!/nonexistent\n")
    assert boot(tmp_path, platform) == [("first-boot.service", 3)] * (status == 3)
    assert platform.shown() == []
    assert (tmp_path / "first-boot.done").exists() == (status == 0)


def test_the_signal_of_systemd_comes_once(tmp_path, platform):
    """With KillMode=mixed: to the main process, which is `run`."""
    first_boot(tmp_path, f"#!/bin/sh\nsleep 60 &\n"
                         f"trap 'echo TERM >> {tmp_path}/got; kill $!' TERM\n"
                         f"echo > {tmp_path}/fifo\nwait\nexit 7\n")
    os.mkfifo(str(tmp_path / "fifo"))
    line = re.search("ExecStart=(.*\n.*)", UNITS["first-boot.service"]).group(1)
    for old in ("/usr/local/bin/", "/usr/local/sbin/"):
        line = line.replace(old, f"{tmp_path}/")
    words = [w.replace("$$", "$") for w in shlex.split(line.replace("\\\n", " "))]
    with subprocess.Popen(words, env=dict(platform.env, PATH=os.environ["PATH"]),
                          stdout=subprocess.DEVNULL, start_new_session=True) as main:
        (tmp_path / "fifo").read_text()
        main.send_signal(signal.SIGTERM)
        assert main.wait(30) == 7
    assert (tmp_path / "got").read_text() == "TERM\n"
    assert shown(platform)[-1] == "user.1050 failed first boot: exit status 7 after N s"


# Ansible

@pytest.mark.parametrize("task, status", [("true", 0), ("false", 2)])
@pytest.mark.parametrize("service", ["", "dead"])
def test_the_playbook_reports_and_keeps_its_status(service, task, status, tmp_path, platform):
    needs("ansible-playbook")
    shutil.copy(SCRIPT, str(tmp_path))
    text = adapted(block("ansible"), platform, Peer(b""), tmp_path)
    text = text.replace('command: "true"', f'command: "{task}"')
    if service:
        text = text.replace(platform.metadata_url, DEAD)
        text = text.replace("--deadline 20", "--deadline 0.2")
    (tmp_path / "playbook.yaml").write_text(text)
    ended = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", "playbook.yaml"],
        cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        env=dict(os.environ, ANSIBLE_LOCALHOST_WARNING="0"))
    assert ended.returncode == status, ended.stdout.decode()
    end = "failed not configured" if status else "succeeded configured"
    assert shown(platform) == ([] if service else
                               ["user.1060 running configuring", f"user.1060 {end}"])


# All of them

def scripts():
    """Return every shell script of the README, by the name of its block."""
    found = dict(SHELL)
    found["kickstart"] = "\n".join(map(section, ("pre", "post", "onerror")))
    found["preseed"] = "\n".join(re.findall("_command string (.*)$", re.sub(
        r"\\\n", "", block("preseed")), re.M))
    for kind, start in (("yaml", "content: [|]"), ("autoinstall", "    - [|]")):
        text = re.search(rf"{start}\n((?:      .*\n|\n)*)", block(kind)).group(1)
        found[kind] = re.sub("(?m)^      ", "", text)
    return found


@pytest.mark.parametrize("name", scripts())
def test_shellcheck(name):
    """SC2016: the preseed writes a script; SC2317: a trap calls it."""
    check("shellcheck", "-s", "sh", "-e", "SC2016,SC2317", "-",
          input=scripts()[name].encode())


def test_each_recipe_is_folded():
    recipes = re.search(r"^## Recipes\n.*?^## ", README, re.M | re.S).group()
    assert recipes.count("<details>") == recipes.count("</details>") == 6
    outside = re.sub("(?s)<details>.*?</details>", "", recipes)
    assert "```" not in outside


@pytest.mark.parametrize("cause", ["none", "other"])
@pytest.mark.parametrize("shell", [["bash"], ["dash"], ["busybox", "sh"]], ids=" ".join)
def test_the_checksum_is_checked_in(shell, cause, tmp_path):
    needs(shell[0])
    (tmp_path / "userstate.py").write_bytes(SOURCE + b"#\n" * (cause == "other"))
    line = re.search('echo "[$]SHA256.*-c', SHELL["script"]).group()
    tools = path(tmp_path / "tools", busybox=shell[0] == "busybox")
    environment = {"PATH": tools, "SHA256": CHECKSUM, "userstate": "userstate.py"}
    ended = subprocess.run([shutil.which(shell[0]), *shell[1:], "-c", line], env=environment,
                           cwd=str(tmp_path), stdout=subprocess.PIPE)
    assert (ended.returncode == 0) == (cause == "none")


