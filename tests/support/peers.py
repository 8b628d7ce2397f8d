"""Servers on the loopback that answer by a script: bytes, or a function of a few lines."""
import atexit
import json
import re
import socket
import struct
import threading
from contextlib import ExitStack, contextmanager, suppress

NOBODY = socket.socket()
NOBODY.bind(("127.0.0.1", 0))  # and never listens, so that nobody else can
atexit.register(NOBODY.close)
DEAD_PORT = NOBODY.getsockname()[1]
DEAD = f"http://127.0.0.1:{DEAD_PORT}/events"


def answer(status, body=b"", *headers):
    """Return the bytes of a whole answer."""
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


ACCEPTED = answer(200)


def document(**keys):
    """Return the answer that carries a metadata document with these keys."""
    return answer(200, json.dumps(dict({"id": "x", "customdata": {"key": "s3cret"}},
                                       **keys)).encode())


class Peer:
    """A server that answers each connection by the next of its scripts, then by the last.

    A script is the bytes of the answer, or a function of (connection, peer). `requests`
    are the bytes of every whole request, `events` the JSON of every POST.
    """

    def __init__(self, *scripts, host="127.0.0.1", wrap=None):
        self.scripts, self.wrap = list(scripts), wrap
        self.requests, self.closed = [], threading.Semaphore(0)
        self.over = threading.Event()
        self.listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            self.listener.bind((host, 0))
        except OSError:  # no IPv6 here, say
            self.listener.close()
            raise
        self.listener.listen(50)
        name = f"[{host}]" if ":" in host else host
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https' if wrap else 'http'}://{name}:{self.port}/events"

    def __enter__(self):
        threading.Thread(target=self.serve, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.over.set()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            script = self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0]
            threading.Thread(target=self.answer, args=(connection, script),
                             daemon=True).start()

    def answer(self, connection, script):
        with suppress(OSError), connection:  # which is closed also if the wrap fails
            if self.wrap:
                with self.wrap(connection) as wrapped:
                    self.follow(script, wrapped)
            else:
                self.follow(script, connection)

    def follow(self, script, connection):
        if callable(script):
            script(connection, self)
        else:
            self.read(connection)
            connection.sendall(script)

    def read(self, connection):
        """Read one request, record it and return it."""
        request = b""
        while b"\r\n\r\n" not in request:
            part = connection.recv(65536)
            if not part:
                raise OSError("the client went away")
            request += part
        head, _, body = request.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        while length and len(body) < int(length.group(1)):
            part = connection.recv(65536)
            if not part:
                raise OSError("the client went away")
            body += part
        self.requests.append(head + b"\r\n\r\n" + body)
        return self.requests[-1]

    def wait_closed(self, connection):
        """Wait until the client has closed connection."""
        connection.settimeout(20)
        try:
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
        self.closed.release()

    @property
    def bodies(self):
        return [r.partition(b"\r\n\r\n")[2] for r in self.requests if r[:4] == b"POST"]

    @property
    def events(self):
        return [json.loads(body.decode()) for body in self.bodies]


def reported(peer):
    """Return (state, message) of the events that peer got, durations as 0 s."""
    return [(event["state"], re.sub(r"\d+ s\b", "0 s", event["message"]))
            for event in peer.events]


# What the reports of a step or command of the message "m" are, if it ends well.
WELL = [("running", "m"), ("succeeded", "m: done after 0 s")]


def reset_at_once(connection, peer):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def reset_after_request(connection, peer):
    peer.read(connection)
    reset_at_once(connection, peer)


def then_reset(content):
    """Return a script that sends content, and then resets the connection."""
    def script(connection, peer):
        peer.read(connection)
        connection.sendall(content)
        reset_at_once(connection, peer)
    return script


def hang_up(connection, peer):
    peer.read(connection)


def hang_before_request(connection, peer):
    peer.wait_closed(connection)


def part(content, rest=None):
    """Return a script that sends content, then `rest` for ever, every 0.05 s, or nothing."""
    def script(connection, peer):
        peer.read(connection)
        connection.sendall(content)
        try:
            while rest and not peer.over.wait(0.05):
                connection.sendall(rest)
        except ConnectionError:
            pass
        peer.wait_closed(connection)
    return script


def flood(content, rest):
    """Return a script that sends content, then `rest` for ever, as fast as it is read."""
    def script(connection, peer):
        peer.read(connection)
        connection.sendall(content)
        while not peer.over.is_set():
            connection.sendall(rest)
    return script


def gated():
    """Return a script that answers when the event that is its `gate` is set."""
    def script(connection, peer):
        peer.read(connection)
        script.gate.wait(20)
        connection.sendall(ACCEPTED)
    script.gate = threading.Event()
    return script


@contextmanager
def black_hole():
    """Yield the port of a listener whose backlog is full: who connects gets no answer."""
    with socket.socket() as dead:
        dead.bind(("127.0.0.1", 0))
        dead.listen(0)
        with ExitStack() as waiting:
            for _ in range(3):
                client = waiting.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(dead.getsockname())
            yield dead.getsockname()[1]


def hang(connection, peer):
    peer.read(connection)
    peer.over.wait(600)
