#!/usr/bin/env python3
"""What an installation does: events and commands, and the timeline after them."""
import os
import shlex
import subprocess
import sys

from support.files import SOURCE
from support.receivers import Receiver, read_json

COMMANDS = (  # and the status that each has to end with
    (("running", "1000", "hey im still running"), 0),
    (("run", "1010", "unpack the disk image", "true"), 0),
    (("run", "1020", "install the boot loader", "sh", "-c", "exit 3"), 3),
    (("succeeded", "1001", "hey im done now :)"), 0),
)


def run_commands(receiver):
    """Show and run the commands; return whether all ended as they have to."""
    environment = dict(os.environ, **receiver.env)
    environment.pop("USERSTATE_URL", None)
    print(f"$ export USERSTATE_METADATA_URL={receiver.metadata_url}", flush=True)
    well = True
    for words, status in COMMANDS:
        shown = " ".join(shlex.quote(word) for word in words).replace("'", '"')
        print(f"$ cat userstate.py | python3 - {shown}", flush=True)
        done = subprocess.run([sys.executable, "-", *words], input=SOURCE, env=environment)
        well = well and done.returncode == status
    return well


def show_timeline(receiver):
    """Show the events as a table, the newest first."""
    device = read_json(receiver, "/metadata")["id"]
    print(f"\n{'TIME':10}{'TYPE':12}{'STATE':12}MESSAGE")
    for event in read_json(receiver, f"/devices/{device}/events")["events"]:
        print(f"{event['created_at'][11:19]:10}{event['type']:12}{event['state']:12}"
              f"{event['body']}")


def main():
    """Run the demo; return the exit status."""
    with Receiver() as receiver:
        well = run_commands(receiver)
        show_timeline(receiver)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
