"""The recipe for Terraform: read by a parser of HCL, and applied by Terraform."""
import json
import re
import subprocess
import textwrap

import pytest

from support.peers import DEAD
from support.processes import ended, run_command, start_command
from support.readme import block
from support.receivers import ask, event
from support.tools import find, needs
from support.waiting import wait_for

MACHINE = "web-01"
# What the machine tells while it is waited for, and what of that Terraform has to say.
GOOD = [("running", 1000), ("running", 1010), ("succeeded", 1010), ("succeeded", 1000)]
BAD = [("running", 1000), ("running", 1010), ("failed", 1010)]


def plain(value):
    """Return a value of python-hcl2 with its strings as Terraform has them.

    Since its version 8 it leaves the quotes and the marks of a here-document in them.
    """
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()
                if key != "__is_block__"}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, str):
        return value
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    here = re.fullmatch(r"<<-(\w+)\n(.*\n)\s*\1", value, re.S)
    return textwrap.dedent(here.group(2)) if here else value


@pytest.fixture
def parsed():
    """The block as python-hcl2 reads it."""
    hcl2 = pytest.importorskip("hcl2", reason="no python-hcl2")
    return plain(hcl2.loads(block("hcl")))


def declared(parsed):
    """Yield the names that the block may refer to."""
    for kind, prefix in (("variable", "var"), ("data", "data"), ("locals", "local")):
        for part in parsed[kind]:
            for name, content in part.items():
                if kind == "data":
                    yield from (f"data.{name}.{inner}" for inner in content)
                else:
                    yield f"{prefix}.{name}"


def test_each_reference_is_declared_and_each_declaration_is_used(parsed):
    used = set(re.findall(r"\b(?:data\.\w+\.\w+|(?:var|local)\.\w+)", json.dumps(parsed)))
    assert used == set(declared(parsed))


def provisioner(parsed):
    """Return the local-exec, and the one resource that it is part of."""
    (resource,) = parsed["resource"]
    (kind, named), = resource.items()
    (content,) = named.values()
    (provisioner,) = content["provisioner"]
    return kind, provisioner["local-exec"]


def test_the_machine_is_of_a_kind_that_needs_no_provider(parsed):
    assert provisioner(parsed)[0] == "terraform_data"


def tell(receiver, told):
    for state, code in told:
        receiver.tell(MACHINE, event(state, code, f"{state} {code}"))


def latest(receiver):
    return json.loads(ask(receiver, "GET", "/devices?per_page=1")[1])["last"]


def start_exec(parsed, url, after):
    """Start the command of the local-exec as Terraform does, with its values filled in."""
    needs("curl")
    content = provisioner(parsed)[1]
    values = {"${var.receiver}": url, "${var.machine}": MACHINE, "${local.after}": str(after)}
    environment = {name: values[value] for name, value in content["environment"].items()}
    return start_command("sh", "-c", content["command"], env=environment,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.parametrize("told, is_good", [(GOOD, True), (BAD, False)], ids=["good", "bad"])
def test_the_command_ends_as_the_machine_does(told, is_good, parsed, receiver):
    tell(receiver, BAD + GOOD)  # an earlier installation
    process = start_exec(parsed, receiver.url, latest(receiver))
    wait_for(lambda: receiver.waiting)
    tell(receiver, told)
    done = ended(process)
    assert (done.status == 0) == is_good, done
    assert is_good or '"body": "failed 1010"' in done.out


def test_the_command_fails_without_a_receiver(parsed):
    done = ended(start_exec(parsed, DEAD, 0))
    assert done.status != 0
    assert done.err


def applicable(receiver, folder):
    """Write the block in folder with what data "http" would have got in files beside it.

    Their provider has to be downloaded.
    """
    text = block("hcl").replace("http://127.0.0.1:8000", receiver.url)
    for name, url in re.findall(r'data "http" "(\w+)" \{\n  url = "(.*)"\n', text):
        path = url.replace("${var.receiver}", "").replace("${var.machine}", MACHINE)
        status, body = ask(receiver, "GET", path)
        assert status == 200
        (folder / name).write_bytes(body)
        text = text.replace(f"data.http.{name}.response_body", f'file("{name}")')
    text = re.sub(r'(?ms)^data "http".*?^\}\n', "", text)
    (folder / "main.tf").write_text(text + "\noutput \"user_data\" {\n"
                                    "  value = terraform_data.machine.output\n}\n")


@pytest.mark.parametrize("told, is_good", [(GOOD, True), (BAD, False)], ids=["good", "bad"])
def test_terraform_applies_the_block(told, is_good, receiver, tmp_path):
    needs("terraform", "curl")
    tell(receiver, BAD + GOOD)
    applicable(receiver, tmp_path)

    def terraform(*words):
        return start_command(
            find("terraform"), *words, cwd=str(tmp_path), stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={"CHECKPOINT_DISABLE": "1", "HOME": str(tmp_path)})
    for words in (["init"], ["validate"], ["fmt", "-check"]):
        done = ended(terraform(*words), 60)
        assert done.status == 0, done
    process = terraform("apply", "-auto-approve", "-no-color")
    wait_for(lambda: receiver.waiting)
    tell(receiver, told)
    done = ended(process, 60)
    assert (done.status == 0) == is_good, done
    if is_good:
        shown = ended(terraform("output", "-raw", "user_data"), 60).out
        assert shown == (tmp_path / "user_data").read_text()
        assert f"/devices/{MACHINE}/metadata\n" in shown
        assert run_command("sh", "-n", input=shown.encode()).status == 0
    else:
        assert '"body": "failed 1010"' in done.out + done.err
