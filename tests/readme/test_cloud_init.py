"""The recipes that cloud-init reads, checked and run by it."""
import ast
import os
import re
import shutil
import subprocess
import time

import pytest

from support.files import SCRIPT, SOURCE
from support.peers import DEAD_PORT, Peer, answer, hang
from support.readme import README, SHELL, adapted, block, timeline, yaml_of
from support.scripts import FAULTS, GOOD, TIMELINE, sh, tools_in
from support.tools import check, needs, slow

INSTALLED = ["user.1010 running install nginx",
             "user.1010 succeeded install nginx: done after N s"]


def carried(folder, receiver):
    """Return the user-data that the README's command makes, and the program in it."""
    shutil.copy(SCRIPT, str(folder))
    text = adapted(SHELL["carries"], receiver, Peer(b""), folder)
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


def test_the_config_that_carries_the_program_fits_and_works(tmp_path, receiver):
    config, program = carried(tmp_path, receiver)
    assert len(config) + 2048 <= 16384
    assert program.split(b"\n")[0] == SOURCE.split(b"\n")[0]
    assert statements(program) == statements(SOURCE)


@slow
def test_cloud_init_takes_the_config_that_carries_the_program(tmp_path, receiver):
    carried(tmp_path, receiver)
    check("cloud-init", "schema", "--config-file", str(tmp_path / "user-data"))


@pytest.mark.parametrize("status", [0, 100])
@pytest.mark.parametrize("python", ["python3", "no python3"])
def test_the_commands_of_the_config_that_carries_it(python, status, tmp_path, receiver):
    config, program = carried(tmp_path, receiver)
    tools = tools_in(tmp_path / "tools", **{} if python == "python3" else {"python": None})
    for name, text in (("userstate", program.decode()), ("apt-get", "#!/bin/sh\nexit $1\n")):
        (tmp_path / "tools" / name).write_text(text)
        (tmp_path / "tools" / name).chmod(0o755)
    (tmp_path / "tools" / "env").symlink_to("/usr/bin/env")
    commands = "\n".join(yaml_of(config)["runcmd"]).replace("install -y", str(status))
    ended = subprocess.run([shutil.which("sh"), "-c", commands], env={"PATH": tools},
                           stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60)
    assert ended.returncode == status, ended.stderr
    assert len(receiver.shown()) == (2 if python == "python3" else 0)


@pytest.mark.parametrize("status", [0, 100])
@pytest.mark.parametrize("fault", FAULTS)
def test_the_script_of_the_config(fault, status, tmp_path, receiver):
    needs("curl")
    with Peer(FAULTS[fault]) as files:
        config = yaml_of(adapted(block("yaml"), receiver, files, tmp_path))
        (entry,), (command,) = config["write_files"], config["runcmd"]
        assert command == ["sh", entry["path"]]
        ended = sh(entry["content"].replace("apt-get install -y nginx",
                                            f"sh -c 'exit {status}'"), tmp_path)
    assert ended.returncode == status, ended.stderr
    if fault != "none":
        assert receiver.shown() == []
    elif not status:
        assert timeline(receiver) == INSTALLED


@slow
@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_what_a_step_waits_for_a_dead_service(fault, tmp_path, receiver):
    event, step = map(int, re.search("waits ([0-9]+) seconds for a service\\nthat is dead, and "
                                     "a step ([0-9]+)", README).groups())
    with Peer(GOOD) as files, Peer(hang) as peer:
        text = adapted(block("yaml"), receiver, files, tmp_path)
        port = peer.port if fault == "hangs" else DEAD_PORT
        text = text.replace(receiver.metadata_url, f"http://127.0.0.1:{port}/metadata")
        script = yaml_of(text)["write_files"][0]["content"]
        begun = time.monotonic()
        ended = sh(script.replace("apt-get install -y nginx", "true"), tmp_path)
    took = time.monotonic() - begun
    print(f"a step, as the service {fault}: {took:.1f} s")
    assert ended.returncode == 0 and event < took < step + 2


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


def user_data(form, receiver, files, folder):
    """Return the user-data of the README in one of its forms, as test_recipes adapts it."""
    if form == "a script":
        return adapted(SHELL["script"], receiver, files, "/srv")
    text = (carried(folder, receiver)[0] if form == "a config that carries the program"
            else adapted(block("yaml"), receiver, files, "/run"))
    assert text.count("apt-get install -y nginx") == 1
    return text.replace("apt-get install -y nginx", "test -s /usr/bin/apt-get")


@slow
@pytest.mark.parametrize("form", ["a script", "a config", "a config that carries the program"])
def test_a_real_cloud_init_runs(form, debian, receiver, tmp_path):
    root = debian("python3", "ca-certificates", "cloud-init")
    seed = os.path.join(root.path, "var/lib/cloud/seed/nocloud")
    os.makedirs(seed)
    with Peer(answer(200, SOURCE)) as files:
        for path, text in (
                (os.path.join(seed, "meta-data"), "instance-id: test\n"),
                (os.path.join(seed, "user-data"), user_data(form, receiver, files, tmp_path)),
                (os.path.join(root.path, "etc/cloud/cloud.cfg.d/99-test.cfg"), CLOUD)):
            with open(path, "w") as file:
                file.write(text)
        ended = root.run(["sh", "-c", STAGES])
    with open(os.path.join(root.path, "var/log/cloud-init-output.log")) as file:
        log = file.read()
    expected = ([" ".join(event) for event in TIMELINE] if form == "a script" else INSTALLED)
    assert timeline(receiver) == [re.sub("after [0-9]+ s", "after N s", line)
                               for line in expected], (ended, log)
    assert ("Failed to run module scripts_user" in log) == (form == "a script")  # its exit 100
    assert "package_update_upgrade_install" not in log  # no warning of the lists
