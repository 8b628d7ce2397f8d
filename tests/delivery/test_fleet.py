"""Many machines at once: all deliver, and none floods the service."""
import collections
import os
import random
import socket
import threading

import userstate
from support.clocks import Time
from support.peers import ACCEPTED, document

METADATA = document(user_state_url="http://service.example/events")


def serve_quickly(listener):
    """Answer like the platform, one connection after the other, until the end."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            asked = connection.recv(65536)
            connection.sendall(METADATA if asked.startswith(b"GET ") else ACCEPTED)


def test_many_machines_deliver_and_do_not_flood(monkeypatch):
    """The service is down for 60 s; MACHINES=10000 gives the figures of the README."""
    machines = int(os.environ.get("MACHINES", "2000"))
    dice = random.Random(1)
    requests = collections.Counter()  # in each second
    machine, waits = Time(), []
    monkeypatch.setattr(random, "uniform", dice.uniform)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        server = threading.Thread(target=serve_quickly, args=(listener,), daemon=True)
        server.start()
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", listener.getsockname())]

        def getaddrinfo(*args, **options):
            requests[int(machine.now)] += 1
            if machine.now < 60:
                raise OSError("Connection refused")
            machine.now += 0.01
            return found
        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        for number in range(machines):
            machine.now = begun = (number + dice.random()) * 10 / machines
            userstate.send_user_state_event(
                "running", 1000, "x", metadata_url="http://service.example/metadata",
                clock=machine.clock, sleep=machine.sleep, say=str)
            assert machine.now < begun + 150
            waits.append(machine.now - 60)
        listener.shutdown(socket.SHUT_RDWR)
        server.join()
    peak = max(count for second, count in requests.items() if second >= 30)
    assert peak < machines / 5
    assert max(waits) < 16
    assert sum(requests.values()) > 5 * machines  # it was down, and asked
    print(f"peak {peak} requests in a second, the last delivered {max(waits):.1f} s after, "
          f"{sum(requests.values()) / machines:.1f} requests a machine")
