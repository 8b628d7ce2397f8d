#!/usr/bin/env python3
"""What an installation does: events and commands, and the timeline after them."""
import json
import os
import shlex
import subprocess
import sys
import threading
import urllib.request

from service import Service

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "userstate.py")
COMMANDS = (
    ("running", "1000", "hey im still running"),
    ("run", "1010", "unpack the disk image", "true"),
    ("run", "1020", "install the boot loader", "sh", "-c", "exit 3"),
    ("succeeded", "1001", "hey im done now :)"),
)


def main():
    """Run the demo; return the exit status."""
    with open(SCRIPT, "rb") as file:
        script = file.read()
    service = Service()
    threading.Thread(target=service.serve_forever, daemon=True).start()
    environment = dict(os.environ, USERSTATE_METADATA_URL=service.url + "/metadata")
    environment.pop("USERSTATE_URL", None)
    print(f"$ export USERSTATE_METADATA_URL={service.url}/metadata", flush=True)
    status = 0
    for words in COMMANDS:
        shown = " ".join(shlex.quote(word) for word in words).replace("'", '"')
        print(f"$ cat userstate.py | python3 - {shown}", flush=True)
        ended = subprocess.run([sys.executable, "-", *words], input=script, env=environment)
        status |= ended.returncode != (3 if "exit 3" in words else 0)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(service.url + "/metadata") as reply:
        device = json.loads(reply.read().decode())["id"]
    with opener.open(f"{service.url}/devices/{device}/events") as reply:
        events = json.loads(reply.read().decode())["events"]
    print(f"\n{'TIME':10}{'TYPE':12}{'STATE':12}MESSAGE")
    for event in events:
        print(f"{event['created_at'][11:19]:10}{event['type']:12}{event['state']:12}"
              f"{event['body']}")
    service.shutdown()
    service.server_close()
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
