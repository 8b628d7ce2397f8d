"""The recipe for Ansible."""
import os
import shutil
import subprocess

import pytest

from support.files import SCRIPT
from support.peers import DEAD, Peer
from support.readme import adapted, block, timeline
from support.tools import needs


@pytest.mark.parametrize("task, status", [("true", 0), ("false", 2)])
@pytest.mark.parametrize("service", ["", "dead"])
def test_the_playbook_reports_and_keeps_its_status(service, task, status, tmp_path, receiver):
    needs("ansible-playbook")
    shutil.copy(SCRIPT, str(tmp_path))
    text = adapted(block("ansible"), receiver, Peer(b""), tmp_path)
    text = text.replace('command: "true"', f'command: "{task}"')
    if service:
        text = text.replace(receiver.metadata_url, DEAD)
        text = text.replace("--deadline 20", "--deadline 0.2")
    (tmp_path / "playbook.yaml").write_text(text)
    ended = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", "playbook.yaml"],
        cwd=str(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        env=dict(os.environ, ANSIBLE_LOCALHOST_WARNING="0"))
    assert ended.returncode == status, ended.stdout.decode()
    end = "failed not configured" if status else "succeeded configured"
    assert timeline(receiver) == ([] if service else
                               ["user.1060 running configuring", f"user.1060 {end}"])
