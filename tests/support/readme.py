"""The blocks of the README, and how they are made those of a test."""
import hashlib
import os
import re

import pytest

from support.files import SOURCE, TOP
from support.peers import DEAD_PORT

with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
    WHOLE = file.read()
# The receiver has tests of its own.
README, _, RECEIVER = WHOLE.partition("\n## A receiver\n")
RECEIVER, _, rest = RECEIVER.partition("\n## ")
README += "\n## " + rest
SENTENCES = " ".join(README.split())  # wherever its lines end
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.M | re.S)
RECEIVER_BLOCKS = re.findall(r"^```([\w-]+)\n(.*?)^```$", RECEIVER, re.M | re.S)
MARKS = {"demo": "make demo", "two": "userstate.py run 1010", "fetched": "python3 -I - ",
         "script": "#!/bin/sh", "trap": "trap 'python3", "old": "send_user_state_event() {",
         "curl": "curl -fsS -d", "carries": "gz+b64", "image": "install -D",
         "once": "USERSTATE_URL=$(python3"}
SHELL = {name: text for name, mark in MARKS.items() for kind, text in BLOCKS
         if kind == "sh" and mark in text}
CHECKSUM = hashlib.sha256(SOURCE).hexdigest()


def block(kind, mark="", blocks=BLOCKS):
    """Return the one block of this kind that has mark in it."""
    found, = [text for name, text in blocks if name == kind and mark in text]
    return found


def adapted(text, metadata_url, folder, port=DEAD_PORT):
    """Return text with its addresses, checksum and places made those of a test.

    port: of the file server; there is none, unless it is given.
    """
    pairs = {"http://files.example.com": f"http://127.0.0.1:{port}",
             "http://metadata.example.com/metadata": metadata_url,
             "http://127.0.0.1:8000/metadata": metadata_url,
             "http://127.0.0.1:8000/userstate.py":
                 metadata_url.replace("/metadata", "/userstate.py"),
             "0123456789abcdef" * 4: CHECKSUM, "/srv/app": f"{folder}/app",
             "/var/lib/": f"{folder}/", "/run/": f"{folder}/"}
    for old, new in pairs.items():
        text = text.replace(old, new)
    return text


def replaced(text, old, new):
    """Return text with new in place of old, which has to be there once."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def joined(text):
    """Return text with the lines that end with a backslash joined to the next ones."""
    return text.replace("\\\n", "")


def yaml_of(text):
    return pytest.importorskip("yaml", reason="no yaml module").safe_load(text)


def sections(name):
    """Return the sections of the kickstart of this name."""
    return re.findall(rf"^%{name}.*?\n(.*?)^%end", block("kickstart"), re.M | re.S)


def lines_of(events):
    """Return a line for each of events, (type, state, body), durations as N s."""
    return [re.sub("after [0-9]+ s", "after N s", " ".join(event)) for event in events]


def timeline(receiver):
    """Return what receiver shows, oldest first, as lines_of() does."""
    return lines_of(receiver.shown())
