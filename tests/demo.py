#!/usr/bin/env python3
"""What an installation does: two events to the local service, and the timeline after it."""
import json
import os
import subprocess
import sys
import threading
import urllib.request

from service import Service

SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), os.pardir, "userstate.py")
COMMANDS = (
    ("running", "1000", "hey im still running"),
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
        print(f'$ cat userstate.py | python3 - {words[0]} {words[1]} "{words[2]}"', flush=True)
        status |= subprocess.run([sys.executable, "-", *words], input=script,
                                 env=environment).returncode
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
