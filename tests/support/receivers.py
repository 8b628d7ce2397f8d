"""The receiver, in this process or in one of its own, and what is asked of it."""
import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import urllib.request

from service import Service
from support.files import TESTS


def get(url):
    """Return the body of what a browser without proxies gets from url."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as reply:
        return reply.read()


class Receiver(Service):
    """The receiver, started, and what its timeline shows."""

    def __enter__(self):
        self.metadata_url = self.url + "/metadata"
        self.env = {"USERSTATE_METADATA_URL": self.metadata_url}
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    @property
    def events(self):
        """What a Peer would have as its events, so that reported() takes both."""
        return [{"state": state, "message": body} for _, state, body in self.shown()]

    def shown(self, address="127.0.0.1"):
        """Return (type, state, body) of the events of a device, oldest first."""
        return [(event["type"], event["state"], event["body"])
                for event in self.timeline(self.device(address))[::-1]]


class Process:
    """The service in a process of its own, started with these words; `limit`: resource's."""

    def __init__(self, *words, limit=None):
        code = "import service, sys; sys.exit(service.main(sys.argv[1:]))"
        if limit:
            code = f"import resource; resource.setrlimit(resource.{limit}); {code}"
        self.process = subprocess.Popen(
            [sys.executable, "-B", "-c", code, "--port", "0", *words], cwd=TESTS,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.url = re.search(r"http\S+(?=/)", self.process.stdout.readline().decode()).group()
        self.server_address = re.search(r"//(.*):", self.url).group(1), int(
            self.url.rpartition(":")[2])

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.end(signal.SIGKILL)

    def end(self, number):
        self.process.send_signal(number)
        self.process.wait(20)

    def errors(self):
        return self.process.stderr.read().decode()

    def post(self, body):
        return ask(self, "POST", "/events", body)[0]

    def busy(self):
        """Return the seconds of processor that it has used; Linux only."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            return sum(map(int, file.read().split()[13:15])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Return the most memory that it has had, in MiB; Linux only."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1)) / 1024


def ask(receiver, method, path, body=None, headers=()):
    connection = http.client.HTTPConnection(*receiver.server_address[:2], timeout=10)
    connection.request(method, path, body, dict(headers))
    reply = connection.getresponse()
    got = reply.status, reply.read()
    connection.close()
    return got


def read_json(receiver, path):
    return json.loads(get(receiver.url + path).decode())


def state(state, code=1000, message=""):
    return {"state": state, "code": code, "message": message}


def begin_to_wait(address, device="10.9.9.9"):
    connection = socket.create_connection(address)
    connection.sendall(f"GET /devices/{device}/wait HTTP/1.1\r\n\r\n".encode())
    return connection


def select(data, statement):
    """Return what sqlite3 reads of the file beside the service."""
    connection = sqlite3.connect(data)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def in_threads(number, function):
    """Call function(n) for n from 0 in as many threads at once; return what they return."""
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        return list(pool.map(function, range(number)))
