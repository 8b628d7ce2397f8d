"""The receiver, in this process or in one of its own, and what is asked of it."""
import concurrent.futures
import http.client
import json
import os
import re
import resource
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import ExitStack, closing, contextmanager

from support.files import TESTS, TOP
from support.processes import ended, fresh, run_command, start_command

sys.path.append(TOP)  # for userstate, which the receiver imports

from receiver.handler import Receiver as ReceiverOfAddress
from receiver.machines import Machines
from receiver.metrics import Metrics
from receiver.store import Store
from receiver.views import event_view

RECEIVER_SCRIPT = os.path.join(TESTS, "receiver")
TAKEN = (200, b"")  # the answer to an event that is taken


class Receiver(ReceiverOfAddress):
    """The receiver in this process: started by `with`, and what its timeline shows.

    names: {address: name}; other options as those of the command line.
    """

    def __init__(self, names=None, only=None, data=None, quiet_after=3600, keep=None,
                 **options):
        metrics = Metrics()
        with names_file(names) as path:
            machines = Machines(only, path)
        super().__init__(lambda: Store(data, quiet_after, keep, machines.name), machines,
                         metrics, **options)
        self.store.observers.append(metrics.count_change)

    def __enter__(self):
        self.metadata_url = self.url + "/metadata"
        self.env = {"USERSTATE_METADATA_URL": self.metadata_url}
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.thread.join()
        self.server_close()

    @property
    def events(self):
        """What a Peer would have as its events, so that reported() takes both."""
        return [{"state": state, "message": body} for _, state, body in self.shown()]

    def shown(self, machine="127.0.0.1"):
        """Return (type, state, body) of the events of a machine, oldest first."""
        return [(event["type"], event["state"], event["body"])
                for event in self.timeline(machine)]

    def timeline(self, machine="127.0.0.1"):
        """Return the events of a machine as they are shown, oldest first."""
        _, numbers = self.store.numbers({"machine": machine}, 0, 10**6)
        return [event_view(self.store.event(number)) for number in numbers[::-1]]

    def tell(self, machine, event, key=None):
        """Take an event, a dict, as if machine, an address, had posted it."""
        self.put(machine, machine, event, key)

    def execute(self, statement, values=()):
        """Return the rows of a statement of SQL, which may change what has happened."""
        connection = self.store.writers.get()
        try:
            return [tuple(row) for row in connection.execute(statement, values)]
        finally:
            self.store.writers.put(connection)


@contextmanager
def names_file(names):
    """Give a file of {address: name}, or None without names."""
    if names is None:
        yield None
        return
    with tempfile.NamedTemporaryFile("w", suffix=".hosts") as file:
        file.write("".join(f"{address} {name}\n" for address, name in names.items()))
        file.flush()
        yield file.name


def make_archive(folder):
    """Return the path of the receiver as one file, made in folder by the Makefile."""
    for name in ("Makefile", "userstate.py"):
        shutil.copy(os.path.join(TOP, name), str(folder))
    shutil.copytree(RECEIVER_SCRIPT, os.path.join(str(folder), "tests", "receiver"))
    made = run_command("make", "receiver.pyz", f"PYTHON={sys.executable}", cwd=str(folder))
    assert made == (0, "", "")
    return os.path.join(str(folder), "receiver.pyz")


def start_receiver(*words, limit=None, **options):
    """Start the receiver on a free port, in a process as start_command() makes it.

    limit: one of resource's limits, and what it is to be. If the tests run under -X dev,
    so does the receiver, which then says on stderr what it leaves open.
    """
    flags = ["-B", "-X", "dev"] if sys.flags.dev_mode else ["-B"]

    def first():
        fresh()
        if limit:
            name, most = limit
            resource.setrlimit(name, (most, most))
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return start_command(sys.executable, *flags, RECEIVER_SCRIPT, "--port", "0", *words,
                         first=first, **options)


def run_receiver(*words, **options):
    """Start the receiver, which is not to go on by itself, and tell how it ended."""
    return ended(start_receiver(*words, **options))


class ReceiverProcess:
    """The receiver in a process of its own, started by `with` as start_receiver() does."""

    def __init__(self, *words, **options):
        self.words, self.options = words, options

    def __enter__(self):
        self.process = start_receiver(*self.words, **self.options)
        # The two lines that it says when it can be asked, or nothing.
        self.announced = [self.process.stdout.readline().decode() for _ in range(2)]
        found = re.search(r"(https?://(\S+):(\d+))/", self.announced[0])
        if not found:
            raise AssertionError(ended(self.process))
        self.url = found.group(1)
        self.server_address = found.group(2), int(found.group(3))
        return self

    def __exit__(self, *exception):
        if self.process.returncode is None:
            self.process.kill()
            self.process.communicate()

    def end(self, number):
        """Send it a signal, and tell how it ended."""
        self.process.send_signal(number)
        return ended(self.process)

    def busy(self):
        """Return the seconds of processor that it has used; Linux only."""
        with open(f"/proc/{self.process.pid}/stat") as file:
            return sum(map(int, file.read().split()[13:15])) / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Return the most memory that it has had, in MiB; Linux only."""
        with open(f"/proc/{self.process.pid}/status") as file:
            return int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1)) / 1024


def event(state, code=1000, message=""):
    """Return an event as a dict."""
    return {"state": state, "code": code, "message": message}


@contextmanager
def requested(receiver, method, path, body=None, headers=(), source=None):
    """Give the answer to a request, as http.client has it; source: from which address."""
    with closing(http.client.HTTPConnection(
            *receiver.server_address[:2], timeout=10,
            source_address=source and (source, 0))) as connection:
        connection.request(method, path, body, dict(headers))
        with connection.getresponse() as reply:
            yield reply


def ask(receiver, method, path, body=None, headers=(), source=None):
    """Return the status of the answer to a request, and its body."""
    with requested(receiver, method, path, body, headers, source) as reply:
        return reply.status, reply.read()


def post(receiver, body=b"{}", headers=(), source=None):
    """Post an event; return the status of the answer, and its body."""
    return ask(receiver, "POST", "/events", body, headers, source)


def get(url, *handlers):
    """Return the body of what a browser without proxies gets from url."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), *handlers)
    with opener.open(url, timeout=10) as reply:
        return reply.read()


def read_page(receiver, path="/"):
    return get(receiver.url + path).decode()


def read_json(receiver, path):
    return json.loads(read_page(receiver, path))


def connect(receiver):
    """Return a connection on which nothing has been said."""
    return socket.create_connection(receiver.server_address[:2], timeout=10)


def begin_to_wait(receiver, device="10.9.9.9"):
    """Return a connection on which a machine is waited for."""
    connection = connect(receiver)
    connection.sendall(f"GET /devices/{device}/wait HTTP/1.1\r\n\r\n".encode())
    return connection


@contextmanager
def clients(number, begin, receiver):
    """Give as many connections as are said, each made by begin(receiver)."""
    with ExitStack() as stack:
        yield [stack.enter_context(begin(receiver)) for _ in range(number)]


def read_to_end(connection):
    with connection.makefile("rb") as file:
        return file.read()


def exchange(receiver, request):
    """Send these bytes and no more on a connection; return all that comes back."""
    with connect(receiver) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return read_to_end(connection)


def in_threads(number, function):
    """Call function(n) for n from 0 in as many threads at once; return what they return."""
    with concurrent.futures.ThreadPoolExecutor(number) as pool:
        return list(pool.map(function, range(number)))


def query(data, statement):
    """Return what sqlite3 reads of the file beside the receiver."""
    with closing(sqlite3.connect(data)) as connection:
        return connection.execute(statement).fetchall()


@contextmanager
def held(data, *statements):
    """Hold the database by these statements, as another program may do."""
    with closing(sqlite3.connect(data, isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement)
        yield
