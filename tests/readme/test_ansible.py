"""The recipe for Ansible."""
import shutil

import pytest

from support.files import SCRIPT
from support.peers import DEAD
from support.processes import ended
from support.readme import adapted, block, replaced, timeline
from support.scripts import start_play


def play(task, metadata_url, folder, *changes):
    """Play the recipe with this command as its task; tell how it ended."""
    shutil.copy(SCRIPT, str(folder))
    text = adapted(block("ansible"), metadata_url, folder)
    text = replaced(text, 'command: "true"', f'command: "{task}"')
    for old, new in changes:
        text = replaced(text, old, new)
    return ended(start_play(text, folder), 120)


@pytest.mark.parametrize("task, status, end", [
    ("true", 0, "user.1060 succeeded configured"),
    ("false", 2, "user.1060 failed not configured")])
def test_the_playbook_reports_and_keeps_its_status(task, status, end, tmp_path, receiver):
    done = play(task, receiver.metadata_url, tmp_path)
    assert done.status == status, done
    assert timeline(receiver) == ["user.1060 running configuring", end]


@pytest.mark.parametrize("task, status", [("true", 0), ("false", 2)])
def test_the_playbook_keeps_its_status_without_a_receiver(task, status, tmp_path):
    done = play(task, DEAD, tmp_path, ("--deadline 20", "--deadline 0.2"))
    assert done.status == status, done
    assert done.out.count('"rc": 75') == 2  # of both reports
    assert "Connection refused" in done.out
