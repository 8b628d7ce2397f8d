#!/usr/bin/env python3
"""What an event costs, side by side: the classic script, the least Python, userstate.py.

Whole processes in turn, A B C A B C ..., against the receiver in a process of its own.
Prints medians and their ratios, as the tables of the README. Then what the receiver takes,
beside a server of http.server that answers 200 and keeps nothing.
"""
import base64
import concurrent.futures
import gzip
import os
import platform
import re
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

from support.files import SCRIPT, SOURCE, TOP
from support.interpreters import EDGES
from support.processes import start_command
from support.receivers import Receiver, ReceiverProcess, event, get

ROUNDS = 30
PYTHON = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
CLASSIC = """
for n in $(seq "$1"); do
  url=$(curl -sf "$USERSTATE_METADATA_URL" | jq -r .user_state_url)
  data=$(jq -n '{state: "running", code: 1000, message: "hey im still running"}')
  curl -sf -X POST -d "$data" "$url"
done
"""
URLLIB = """
import json, os, urllib.request
url = json.load(urllib.request.urlopen(os.environ["USERSTATE_METADATA_URL"]))["user_state_url"]
event = {"state": "running", "code": 1000, "message": "hey im still running"}
urllib.request.urlopen(urllib.request.Request(url, json.dumps(event).encode()))
"""
FLOOR = """
import http.client, json, os, urllib.parse
def ask(url, *request):
    url = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(url.netloc)
    connection.request(request[0], url.path, *request[1:])
    return connection.getresponse()
url = json.load(ask(os.environ["USERSTATE_METADATA_URL"], "GET"))["user_state_url"]
event = {"state": "running", "code": 1000, "message": "hey im still running"}
assert ask(url, "POST", json.dumps(event)).status == 200
"""
MANY = """
import sys, userstate
for _ in range(int(sys.argv[1])):
    userstate.send_user_state_event("running", 1000, "hey im still running")
"""
EVENT_WORDS = ["running", "1000", "hey im still running"]
LOOP = ('for n in $(seq "$1"); do "$PYTHON" userstate.py running 1000 '
        '"hey im still running" || exit; done')
LOAD_ROUNDS, LOAD_SECONDS = 5, 2
BARE = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *words):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1024
server = Server(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
"""
LOAD = """
import socket, sys, threading, time
port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
begun, accepted = time.monotonic(), []
def post(client, number):  # each client is a machine with steps that open and end
    state, step = ("running", "succeeded")[number % 2], number // 2 % 20
    body = f'{{"state":"{state}","code":{1000 + step},"message":"install part {step}"}}'
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall((f"POST /devices/n{client}/events HTTP/1.1\\r\\n"
            f"Host: 127.0.0.1:{port}\\r\\n"
            f'Idempotency-Key: "{begun}.{client}.{number}"\\r\\nConnection: close\\r\\n'
            f"Content-Length: {len(body)}\\r\\n\\r\\n{body}").encode())
        return connection.recv(1000)[9:12] == b"200"
def run(client):
    number = 0
    while time.monotonic() - begun < seconds:
        assert post(client, number)
        number += 1
    accepted.append(number)
threads = [threading.Thread(target=run, args=(client,)) for client in range(clients)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert len(accepted) == clients
print(sum(accepted) / (time.monotonic() - begun))
"""


def measure(command, environment):
    """Run command with the script on its standard input; return the seconds it took."""
    with open(SCRIPT, "rb") as script:
        begun = time.perf_counter()
        subprocess.run(command, env=environment, stdin=script, cwd=TOP,
                       stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - begun


def compare(title, commands, bases, environment):
    """Run commands, {name: argv}, in turn; print a table with ratios to those of bases."""
    taken = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            taken[name].append(measure(command, environment))
    bases = [name for name in bases if name in commands]
    print(f"\n| {title} | ms |" + "".join(f" x {name} |" for name in bases))
    print("|---|---|" + "---|" * len(bases))
    median = {name: statistics.median(runs) for name, runs in taken.items()}
    for name in taken:
        ratios = "".join(f" {median[name] / median[other]:.2f} |" for other in bases)
        print(f"| {name} | {median[name] * 1000:.1f} |{ratios}")


TCP_INFO_BYTES = 120  # where bytes_acked and bytes_received are in Linux's struct tcp_info


class Counting(Receiver):
    """A receiver that counts the bytes that its connections have got and sent."""

    carried = 0

    def shutdown_request(self, request):
        if hasattr(socket, "TCP_INFO"):
            info = request.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            self.carried += sum(struct.unpack_from("=QQ", info, TCP_INFO_BYTES))
        super().shutdown_request(request)


def serve():
    """Be a receiver that tells on a line of input how many bytes it has got and sent."""
    with Counting() as receiver:
        print(receiver.url, flush=True)
        while sys.stdin.readline():
            print(receiver.carried, flush=True)
    return 0


class CountingProcess(ReceiverProcess):
    """The same in a process of its own."""

    def __enter__(self):
        self.process = start_command(sys.executable, "-B", os.path.abspath(__file__), "serve",
                                     stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.url = self.process.stdout.readline().decode().strip()
        return self

    def carried(self):
        """Return how many bytes it has got and sent."""
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


class BareProcess(ReceiverProcess):
    """A server of http.server that answers 200 and keeps nothing."""

    def __enter__(self):
        self.process = start_command(sys.executable, "-B", "-c", BARE, stdout=subprocess.PIPE)
        self.url = self.process.stdout.readline().decode().strip()
        return self


def grow(environment, carried):
    """Print how time and traffic grow with the number of events."""
    events = environment["USERSTATE_METADATA_URL"].replace("/metadata", "/events")
    print("\n| events | separate calls | with `USERSTATE_URL` exported | one process |\n"
          "|---|---|---|---|")
    for count in (1, 10, 100):
        loop = ["sh", "-c", LOOP, "sh", str(count)]
        cells = []
        for command, env in (
                (loop, environment), (loop, dict(environment, USERSTATE_URL=events)),
                ([PYTHON, "-c", MANY, str(count)], environment)):
            before = carried()
            seconds = measure(command, env)
            cells.append(f"{seconds:.2f} s, {(carried() - before) / 1000:.1f} kB")
        print(f"| {count} | {' | '.join(cells)} |")


def peak(code, environment):
    """Return the peak memory, in MiB, of a Python that runs code; Linux only."""
    code += "\nprint(open('/proc/self/status').read())"
    status = subprocess.run([PYTHON, "-c", code, *EVENT_WORDS], env=environment, check=True,
                            stdout=subprocess.PIPE).stdout.decode()
    return int(re.search(r"VmHWM:\s*(\d+)", status).group(1)) / 1024


def rate(url, clients):
    """Return how many events a second are accepted, with new connections each."""
    words = url.rpartition(":")[2], str(clients), str(LOAD_SECONDS)
    done = subprocess.run([sys.executable, "-c", LOAD, *words], stdout=subprocess.PIPE,
                          check=True)
    return float(done.stdout)


def bench_receiver():
    """Print what the receiver accepts, beside a server that keeps nothing."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        data = os.path.join(folder, "events")
        servers = {"answers 200, keeps nothing": stack.enter_context(BareProcess()),
                   "in memory": stack.enter_context(ReceiverProcess()),
                   "on disk": stack.enter_context(ReceiverProcess("--data", data))}
        rates = {(name, clients): [] for name in servers for clients in (1, 64)}
        for _ in range(LOAD_ROUNDS):
            for name, clients in rates:
                rates[name, clients].append(rate(servers[name].url, clients))
        bare = statistics.median(rates["answers 200, keeps nothing", 64])
        print("\n| events per second | 1 client | 64 clients | x | MiB |\n"
              "|---|---|---|---|---|")
        for name, server in servers.items():
            one, many = (statistics.median(rates[name, clients]) for clients in (1, 64))
            print(f"| {name} | {one:.0f} | {many:.0f} | {many / bare:.2f} "
                  f"| {server.memory():.0f} |")


def fill(data, machines, count):
    """Put count events of each of so many machines into a database at data."""
    with Receiver(data=data) as receiver:
        def tell(n):
            for number in range(count):
                state = ("running", "succeeded")[number % 2]
                receiver.tell(f"10.0.{n // 250}.{n % 250}",
                              event(state, 1000 + number // 2, f"step {number // 2}"))
        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            list(pool.map(tell, range(machines)))


def bench_pages():
    """Print how long the pages of many machines take."""
    for machines, count in ((1000, 100), (10000, 20)):
        with tempfile.TemporaryDirectory() as folder:
            data = os.path.join(folder, "devices")
            fill(data, machines, count)
            with ReceiverProcess("--data", data) as receiver:
                print(f"\n{machines} machines with {count} events each:")
                for path in ("/", "/steps", "/devices", "/events?state=succeeded"):
                    taken = []
                    for _ in range(ROUNDS // 3):
                        begun = time.perf_counter()
                        page = get(receiver.url + path)
                        taken.append(time.perf_counter() - begun)
                    print(f"{path}: {statistics.median(taken):.3f} s, "
                          f"{len(page) / 1000:.0f} kB")
                print(f"{receiver.memory():.0f} MiB")


def said_by(*command):
    """Return the line that command says."""
    return subprocess.run(command, stdout=subprocess.PIPE).stdout.decode().strip()


def bench_events(environment, carried):
    """Print what one event and what ten events take, and how that grows."""
    jq = "the classic script is skipped: it needs bash, curl and jq"
    classic = {}
    if all(map(shutil.which, ("bash", "curl", "jq"))):
        jq = said_by("jq", "--version")
        classic = {"classic": ["bash", "-c", CLASSIC, "bash"]}
    print(f"{said_by(PYTHON, '-V')}, {platform.system()} {platform.machine()}, "
          f"{os.cpu_count()} cores, {jq}; medians of {ROUNDS} rounds.")
    compare("one event", {
        **{name: [*command, "1"] for name, command in classic.items()},
        "urllib": [PYTHON, "-c", URLLIB], "http.client": [PYTHON, "-c", FLOOR],
        "`python3 -c pass`": [PYTHON, "-c", "pass"],
        "`python3 -c 'import http.client, json'`": [PYTHON, "-c", "import http.client, json"],
        "`userstate.py`": [PYTHON, SCRIPT, *EVENT_WORDS],
        "`userstate.py`, piped": [PYTHON, "-", *EVENT_WORDS]}, ("classic", "http.client"),
        environment)
    with tempfile.TemporaryDirectory() as folder:  # where the module may be cached
        shutil.copy(SCRIPT, folder)
        environment = dict(environment, PYTHONPATH=folder)
        compare("ten events", {
            **{name: [*command, "10"] for name, command in classic.items()},
            "ten calls": ["sh", "-c", LOOP, "sh", "10"],
            "one process": [PYTHON, "-c", MANY, "10"]}, ("classic",), environment)
        grow(environment, carried)


def bench_pythons(environment):
    """Print what one event takes with the oldest and the newest Python that is here."""
    for version, python in EDGES.items():
        compare(f"one event, Python {version}", {
            "http.client": [python, "-c", FLOOR],
            "`userstate.py`": [python, SCRIPT, *EVENT_WORDS]}, ("http.client",), environment)


def bench_memory(environment):
    """Print the memory that one event takes."""
    program = SOURCE.decode().replace("os._exit(main())", "main()")
    ours = peak(program + "\natexit.unregister(_leave)", environment)
    floor = peak(FLOOR, environment)
    print(f"\nPeak memory of one event: {ours:.1f} MiB, "
          f"{ours / floor:.2f} x http.client's {floor:.1f}.")


def tell_size():
    """Print how large the file is."""
    packed = len(base64.b64encode(gzip.compress(SOURCE, 9)))
    print(f"\nThe file: {len(SOURCE)} bytes, {len(SOURCE.splitlines())} lines, "
          f"{packed} bytes as gzip and base64.")


def main():
    """Measure and print; return the exit status."""
    with CountingProcess() as receiver:
        environment = {"PATH": os.environ["PATH"], "PYTHON": PYTHON, "PYTHONPATH": "",
                       "USERSTATE_METADATA_URL": receiver.url + "/metadata"}
        bench_events(environment, receiver.carried)
        bench_pythons(environment)
        if os.path.exists("/proc/self/status"):
            bench_memory(environment)
    tell_size()
    bench_receiver()
    bench_pages()
    return 0


if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1:] == ["serve"] else main())
