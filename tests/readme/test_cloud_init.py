"""The recipes that cloud-init reads, checked and run by it."""
import ast
import os
import re
import shutil

import pytest

from support.files import SCRIPT, SOURCE
from support.peers import DEAD_PORT, Peer, hang
from support.processes import run_command
from support.readme import (
    SENTENCES,
    SHELL,
    adapted,
    block,
    lines_of,
    replaced,
    timeline,
    yaml_of,
)
from support.scripts import (
    BAD_FILES,
    DASH_AND_SLOWLY_OTHERS,
    GOOD_FILE,
    TIMELINE,
    WORKING_PYTHON,
    command_of,
    shell,
    tools_in,
    write_program,
)
from support.tools import check, find, needs, slow
from support.waiting import at_most

RUNNING = "user.1010 running install nginx"
SUCCEEDED = "user.1010 succeeded install nginx: done after N s"
FAILED = "user.1010 failed install nginx: exit status 100 after N s"
INSTALL = "apt-get install -y nginx"


@slow
def test_cloud_init_takes_the_config(tmp_path):
    (tmp_path / "config").write_text(block("yaml"))
    check("cloud-init", "schema", "--config-file", str(tmp_path / "config"))


def script_of_the_config(command, metadata_url, folder, port):
    """Return the script that the config writes and runs, with this command to install."""
    config = yaml_of(adapted(block("yaml"), metadata_url, folder, port))
    (entry,), (run,) = config["write_files"], config["runcmd"]
    assert run == ["sh", entry["path"]]
    return replaced(entry["content"], INSTALL, command)


@pytest.mark.parametrize("status, end", [(0, SUCCEEDED), (100, FAILED)])
def test_the_script_of_the_config_reports_its_step(status, end, tmp_path, receiver):
    needs("curl")
    with Peer(GOOD_FILE) as files:
        text = script_of_the_config(f"sh -c 'exit {status}'", receiver.metadata_url, tmp_path,
                                    files.port)
        done = shell(text, tmp_path)
    assert done.status == status, done
    assert timeline(receiver) == [RUNNING, end]


@pytest.mark.parametrize("status", [0, 100])
@pytest.mark.parametrize("fault", BAD_FILES)
def test_the_script_of_the_config_runs_without_reports(fault, status, tmp_path, receiver):
    needs("curl")
    with Peer(BAD_FILES[fault]) as files:
        text = script_of_the_config(f"sh -c 'exit {status}'", receiver.metadata_url, tmp_path,
                                    files.port)
        done = shell(text, tmp_path)
    assert done.status == status, done
    assert receiver.shown() == []


@slow
@pytest.mark.parametrize("fault", ["refuses", "hangs"])
def test_what_a_step_waits_for_a_dead_receiver(fault, tmp_path):
    event, step = map(int, re.search("waits ([0-9]+) seconds for a receiver that is dead, "
                                     "and a step ([0-9]+)", SENTENCES).groups())
    with Peer(GOOD_FILE) as files, Peer(hang) as peer:
        port = {"refuses": DEAD_PORT, "hangs": peer.port}[fault]
        text = script_of_the_config("true", f"http://127.0.0.1:{port}/metadata", tmp_path,
                                    files.port)
        with at_most(step + 2, least=event):
            done = shell(text, tmp_path)
    assert done.status == 0, done


# What may stand between `userstate` and CODE; all of it is dropped without Python.
RUN_OPTIONS = ["", "--every 5 ", "--every=5 ", "--log {log} ", "--every 5 --log={log} ", "-- "]


@pytest.mark.parametrize("python", [WORKING_PYTHON, None], ids=["python3", "no python3"])
@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_each_form_of_a_step_of_the_config(shell, python, tmp_path, receiver):
    tools = tools_in(tmp_path / "tools", "curl", "sha256sum", python=python)
    log = tmp_path / "log"
    steps = "".join(f'step {options}1010 "a  b"{" --" * (number % 2)} '
                    f"sh -c 'echo \"$0\"; exit 3' '{number}  x' || echo $?\n"
                    for number, options in enumerate(RUN_OPTIONS)).format(log=log)
    with Peer(GOOD_FILE) as files:
        text = adapted(block("yaml"), receiver.metadata_url, tmp_path, files.port)
        text = yaml_of(text)["write_files"][0]["content"]
        text = replaced(text, f'step 1010 "install nginx" {INSTALL}\n', steps)
        done = run_command(*command_of(shell, text), env={"PATH": tools}, seconds=60)
    assert_each_was_run(done, log if python else None)


def assert_each_was_run(done, log):
    """log: where the steps with --log write, if the program runs them."""
    out = "".join(f"{number}  x\n" * (log is None or "--log" not in options) + "3\n"
                  for number, options in enumerate(RUN_OPTIONS))
    assert done.status == 0
    assert done.out.endswith(out), done
    assert log is None or log.read_text() == "3  x\n4  x\n"


def carrying(metadata_url, folder):
    """Return the config that the README's command makes, which carries the program."""
    shutil.copy(SCRIPT, str(folder))
    done = shell(adapted(SHELL["carries"], metadata_url, folder), folder, "-eu")
    assert done.status == 0, done
    return (folder / "user-data").read_text()


def program_in(config):
    """Return the program that config carries, as cloud-init unpacks it."""
    packed = re.search("content: (.*)", config).group(1).encode()
    return run_command("sh", "-c", "base64 -d | gunzip", input=packed).out


def is_help(part):
    return isinstance(part, ast.Assign) and getattr(part.targets[0], "id", "") == "USAGE"


def statements(source):
    """Return what source says to Python, that is all but comments, docstrings and the help."""
    tree = ast.parse(source)
    tree.body = [part for part in tree.body if not is_help(part)]
    for node in ast.walk(tree):
        if getattr(node, "body", None) and isinstance(node.body, list):
            node.body = [part for part in node.body if not (
                isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))]
    return ast.dump(tree)


def test_the_config_that_carries_the_program_leaves_room(tmp_path, receiver):
    assert len(carrying(receiver.metadata_url, tmp_path)) + 2048 <= 16384


def test_the_program_that_is_carried_lacks_comments_and_help_alone(tmp_path, receiver):
    program = program_in(carrying(receiver.metadata_url, tmp_path))
    assert program.splitlines()[0] == SOURCE.decode().splitlines()[0]
    assert statements(program) == statements(SOURCE)


@slow
def test_cloud_init_takes_the_config_that_carries_the_program(tmp_path, receiver):
    carrying(receiver.metadata_url, tmp_path)
    check("cloud-init", "schema", "--config-file", str(tmp_path / "user-data"))


@pytest.mark.parametrize("python, status, reports", [
    (WORKING_PYTHON, 0, [RUNNING, SUCCEEDED]),
    (WORKING_PYTHON, 100, [RUNNING, FAILED]),
    (None, 0, []),
    (None, 100, [])], ids=["python3-0", "python3-100", "no python3-0", "no python3-100"])
def test_the_commands_of_the_config_that_carries_it(python, status, reports, tmp_path,
                                                    receiver):
    config = carrying(receiver.metadata_url, tmp_path)
    tools = tools_in(tmp_path / "tools", python=python)
    (tmp_path / "tools" / "env").symlink_to(find("env"))
    write_program(tmp_path / "tools" / "userstate", program_in(config))
    write_program(tmp_path / "tools" / "apt-get", f"#!/bin/sh\nexit {status}\n")
    commands = "\n".join(yaml_of(config)["runcmd"])
    assert INSTALL in commands
    done = run_command(find("sh"), "-c", commands, seconds=60, env={"PATH": tools})
    assert done.status == status, done
    assert timeline(receiver) == reports


@pytest.mark.parametrize("python", [WORKING_PYTHON, None], ids=["python3", "no python3"])
@pytest.mark.parametrize("shell", DASH_AND_SLOWLY_OTHERS)
def test_each_form_of_a_command_of_the_config_that_carries_it(shell, python, tmp_path,
                                                              receiver):
    """Events are no commands: without Python, nothing is run for them."""
    config = carrying(receiver.metadata_url, tmp_path)
    tools = tools_in(tmp_path / "tools", python=python)
    (tmp_path / "tools" / "env").symlink_to(find("env"))
    write_program(tmp_path / "tools" / "userstate", program_in(config))
    log = tmp_path / "log"
    before = ["", "--deadline 5 ", "--timeout=5 ", "-v --deadline=5 ", "--verbose ", "-v "]
    steps = "".join(f'userstate {general}run {options}1010 "a  b"{" --" * (number % 2)} '
                    f"sh -c 'echo \"$0\"; exit 3' '{number}  x' || echo $?\n"
                    for number, (general, options) in enumerate(zip(before, RUN_OPTIONS)))
    events = ('userstate running 1000 "echo no"\nuserstate 3 1001 echo\n'
              "userstate --deadline 5 succeeded 1001 echo\nset -e\n"
              "userstate --deadline 5 succeeded 1001 echo\nset +e\n")
    commands = yaml_of(config)["runcmd"]
    assert INSTALL in commands.pop()
    text = "\n".join([*commands, events + steps.format(log=log)])
    done = run_command(*command_of(shell, text), env={"PATH": tools}, seconds=60)
    assert_each_was_run(done, log if python else None)
    assert "no\n" not in done.out
    assert bool(receiver.shown()) == bool(python)


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
HARMLESS = "test -s /usr/bin/apt-get"


def the_config(metadata_url, folder, port):
    return replaced(adapted(block("yaml"), metadata_url, "/run", port), INSTALL, HARMLESS)


def the_config_that_carries_the_program(metadata_url, folder, port):
    return replaced(carrying(metadata_url, folder), INSTALL, HARMLESS)


@pytest.fixture
def cloud(debian):
    """Return a function of user-data that boots a Debian with it; it returns the log."""
    root = debian("python3", "ca-certificates", "cloud-init")

    def write(path, text):
        path = os.path.join(root.path, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(text)

    def boot(user_data):
        write("var/lib/cloud/seed/nocloud/meta-data", "instance-id: test\n")
        write("var/lib/cloud/seed/nocloud/user-data", user_data)
        write("etc/cloud/cloud.cfg.d/99-test.cfg", CLOUD)
        root.run(["sh", "-c", STAGES])
        with open(os.path.join(root.path, "var/log/cloud-init-output.log")) as file:
            return file.read()
    return boot


SCRIPTS_FAILED = "Failed to run module scripts_user"
LISTS_FAILED = "package_update_upgrade_install"  # it is named in a warning


@slow
def test_a_real_cloud_init_runs_the_script(cloud, receiver):
    with Peer(GOOD_FILE) as files:
        log = cloud(adapted(SHELL["script"], receiver.metadata_url, "/srv", files.port))
    assert timeline(receiver) == lines_of(TIMELINE), log
    assert SCRIPTS_FAILED in log  # as it exits with 100
    assert LISTS_FAILED not in log


@slow
@pytest.mark.parametrize("form", [the_config, the_config_that_carries_the_program])
def test_a_real_cloud_init_runs(form, cloud, receiver, tmp_path):
    with Peer(GOOD_FILE) as files:
        log = cloud(form(receiver.metadata_url, tmp_path, files.port))
    assert timeline(receiver) == [RUNNING, SUCCEEDED], log
    assert SCRIPTS_FAILED not in log
    assert LISTS_FAILED not in log
