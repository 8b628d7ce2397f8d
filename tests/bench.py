#!/usr/bin/env python3
"""What an event costs, side by side: the classic script, the least Python, userstate.py.

Whole processes in turn, A B C A B C ..., against the local service in a process of its own.
Prints medians and their ratios, as the tables of the README. Then what the service takes,
beside a server of http.server that answers 200 and keeps nothing.
"""
import base64
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
import threading
import time
import urllib.request

from service import Service, event_row

HERE = os.path.dirname(os.path.abspath(__file__))
SCRIPT = os.path.join(os.path.dirname(HERE), "userstate.py")
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
EVENT = ["running", "1000", "hey im still running"]
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
print(f"# http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
"""
LOAD = """
import socket, sys, threading, time
port, clients, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
body = '{"state":"running","code":1000,"message":"hey im still running"}'
begun, accepted = time.monotonic(), []
def post(client, number):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall((f"POST /events HTTP/1.1\\r\\nHost: 127.0.0.1:{port}\\r\\n"
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
        subprocess.run(command, env=environment, stdin=script, cwd=os.path.dirname(SCRIPT),
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


def serve():
    """Be the service, which tells on a line of input how many bytes it has got and sent."""
    class Counted(Service):
        carried = 0

        def shutdown_request(self, request):
            if hasattr(socket, "TCP_INFO"):
                info = request.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                Counted.carried += sum(struct.unpack_from("=QQ", info, TCP_INFO_BYTES))
            super().shutdown_request(request)

    service = Counted()
    threading.Thread(target=service.serve_forever, daemon=True).start()
    print(service.url, flush=True)
    while sys.stdin.readline():
        print(Counted.carried, flush=True)
    return 0


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
    status = subprocess.run([PYTHON, "-c", code, *EVENT], env=environment, check=True,
                            stdout=subprocess.PIPE).stdout.decode()
    return int(re.search(r"VmHWM:\s*(\d+)", status).group(1)) / 1024


def start(*words):
    """Start a server with the Python of the bench; return the process and its address."""
    process = subprocess.Popen([sys.executable, "-B", *words], stdout=subprocess.PIPE)
    return process, re.search(r"http\S+(?=/)", process.stdout.readline().decode()).group()


def rate(url, clients):
    """Return how many events a second are accepted, with new connections each."""
    words = url.rpartition(":")[2], str(clients), str(LOAD_SECONDS)
    ended = subprocess.run([sys.executable, "-c", LOAD, *words], stdout=subprocess.PIPE,
                           check=True)
    return float(ended.stdout)


def memory(process):
    """Return the peak memory of a process, in MiB; Linux only."""
    with open(f"/proc/{process.pid}/status") as file:
        return int(re.search(r"VmHWM:\s*(\d+)", file.read()).group(1)) / 1024


def bench_service(folder):
    """Print what the service accepts, beside a server that keeps nothing."""
    program = os.path.join(HERE, "service.py"), "--port", "0"
    servers = {"answers 200, keeps nothing": start("-c", BARE),
               "in memory": start(*program),
               "on disk": start(*program, "--data", os.path.join(folder, "rates"))}
    rates = {(name, clients): [] for name in servers for clients in (1, 64)}
    try:
        for _ in range(LOAD_ROUNDS):
            for name, clients in rates:
                rates[name, clients].append(rate(servers[name][1], clients))
        bare = rates["answers 200, keeps nothing", 64]
        print("\n| events per second | 1 client | 64 clients | x | MiB |\n"
              "|---|---|---|---|---|")
        for name, (process, _) in servers.items():
            one, many = rates[name, 1], rates[name, 64]
            ratio = statistics.median(many) / statistics.median(bare)
            print(f"| {name} | {statistics.median(one):.0f} | {statistics.median(many):.0f} "
                  f"| {ratio:.2f} | {memory(process):.0f} |")
    finally:
        for process, _ in servers.values():
            process.kill()
            process.wait()


def bench_page(folder):
    """Print how long the page of 1000 devices with 100 events each takes."""
    data = os.path.join(folder, "devices")
    service = Service(data=data)
    event = {"state": "running", "code": 1000, "message": "hey im still running"}
    for _ in range(100):
        service.store.insert([event_row(f"10.0.{n // 250}.{n % 250}", event)
                              for n in range(1000)])
    service.server_close()
    process, url = start(os.path.join(HERE, "service.py"), "--port", "0", "--data", data)
    try:
        taken = []
        for _ in range(ROUNDS):
            begun = time.perf_counter()
            with urllib.request.urlopen(url + "/") as reply:
                size = len(reply.read())
            taken.append(time.perf_counter() - begun)
        print(f"\nThe page of 1000 devices with 100 events each: "
              f"{statistics.median(taken):.3f} s, {size / 1000:.0f} kB; "
              f"{memory(process):.0f} MiB.")
    finally:
        process.kill()
        process.wait()


def main():
    """Measure and print; return the exit status."""
    environment = {"PATH": os.environ["PATH"], "PYTHON": PYTHON, "PYTHONPATH": ""}
    service = subprocess.Popen([sys.executable, "-B", __file__, "serve"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def carried():
        service.stdin.write(b"\n")
        service.stdin.flush()
        return int(service.stdout.readline())
    try:
        url = service.stdout.readline().decode().strip()
        environment["USERSTATE_METADATA_URL"] = url + "/metadata"
        version = subprocess.run([PYTHON, "-V"], stdout=subprocess.PIPE).stdout.decode()
        tools = all(map(shutil.which, ("bash", "curl", "jq")))
        jq = "the classic script is skipped: it needs bash, curl and jq"
        if tools:
            jq = subprocess.run(["jq", "--version"], stdout=subprocess.PIPE).stdout.decode()
        print(f"{version.strip()}, {platform.system()} {platform.machine()}, "
              f"{os.cpu_count()} cores, {jq.strip()}; medians of {ROUNDS} rounds.")
        classic = {"classic": ["bash", "-c", CLASSIC, "bash", "1"]} if tools else {}
        compare("one event", {
            **classic, "urllib": [PYTHON, "-c", URLLIB], "http.client": [PYTHON, "-c", FLOOR],
            "`python3 -c pass`": [PYTHON, "-c", "pass"],
            "`python3 -c 'import http.client, json'`": [
                PYTHON, "-c", "import http.client, json"],
            "`userstate.py`": [PYTHON, SCRIPT, *EVENT],
            "`userstate.py`, piped": [PYTHON, "-", *EVENT]}, ("classic", "http.client"),
            environment)
        with tempfile.TemporaryDirectory() as folder:  # where the module may be cached
            shutil.copy(SCRIPT, folder)
            environment["PYTHONPATH"] = folder
            classic = {"classic": ["bash", "-c", CLASSIC, "bash", "10"]} if tools else {}
            compare("ten events", {
                **classic, "ten calls": ["sh", "-c", LOOP, "sh", "10"],
                "one process": [PYTHON, "-c", MANY, "10"]}, ("classic",), environment)
            grow(environment, carried)
        with open(SCRIPT, "rb") as script:
            source = script.read()
        if os.path.exists("/proc/self/status"):
            ours = peak(source.decode().replace("_end(_main(None))", "_main(None)")
                        + "\natexit.unregister(_leave)", environment)
            floor = peak(FLOOR, environment)
            print(f"\nPeak memory of one event: {ours:.1f} MiB, "
                  f"{ours / floor:.2f} x http.client's {floor:.1f}.")
    finally:
        service.kill()
        service.wait()
    packed = len(base64.b64encode(gzip.compress(source, 9)))
    print(f"\nThe file: {len(source)} bytes, {len(source.splitlines())} lines, "
          f"{packed} bytes as gzip and base64.")
    with tempfile.TemporaryDirectory() as folder:
        bench_service(folder)
        bench_page(folder)
    return 0


if __name__ == "__main__":
    sys.exit(serve() if sys.argv[1:] == ["serve"] else main())
