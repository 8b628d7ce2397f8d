"""Sockets and threads: how many clients there may be, how long, and how it ends."""
import contextlib
import http.server
import math
import queue
import socket
import socketserver
import ssl
import sys
import threading
import time

from receiver import lines

THREADS_MOST = 1500  # clients at once, a thread each: a thousand that idle, a storm
WAITING_MOST = 1000  # clients that wait for a machine, beyond those
REQUEST_MOST = 20  # seconds for a request and its answer, whatever the client does
CROWDED_MOST = 3  # seconds for the same while others cannot get in
IDLE_MOST = 10  # seconds that a thread lives without a client
SWEEP = 0.25  # seconds between two looks for clients that are over their time
FULL_PAUSE = 0.05  # seconds before the next try to let a client in
LARGE_MOST = 8  # large bodies that are read at once, 4 MiB each
LARGE_PATIENCE = 1  # seconds after which one of them makes room for another
M_MMAP_THRESHOLD, LARGE_BLOCK = -3, 256 << 10  # for glibc, as of its malloc.h; bytes
END_MOST = 3  # seconds for those who wait to be told that the receiver ends


def host_port(host, port):
    """Return host and port as an address of the web has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def cut_off(connection, how=socket.SHUT_RDWR):
    """Wake the thread that reads or writes connection: there is nothing more."""
    with contextlib.suppress(OSError):
        # Not SSLSocket's, which would take the TLS away from its thread.
        socket.socket.shutdown(connection, how)


class Room:
    """Places for what is large; one who holds one for long makes room for another."""

    def __init__(self, most, patience):
        self._most, self._patience = most, patience
        self._changed = threading.Condition()
        self._begun_at = {}  # of the connections that have a place; inf: all has come

    @contextlib.contextmanager
    def place(self, connection):
        """Hold a place for connection."""
        with self._changed:
            while len(self._begun_at) >= self._most:
                oldest = min(self._begun_at, key=self._begun_at.get)
                seconds_left = self._begun_at[oldest] + self._patience - time.monotonic()
                if seconds_left <= 0:
                    del self._begun_at[oldest]
                    cut_off(oldest)
                else:
                    self._changed.wait(min(seconds_left, self._patience))
            self._begun_at[connection] = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                self._begun_at.pop(connection, None)
                self._changed.notify()

    def keep(self, connection):
        """Let connection keep its place, as its body has come: it costs memory."""
        with self._changed:
            if connection in self._begun_at:
                self._begun_at[connection] = math.inf


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """A server of handler at (host, port), port 0 for a free one, with serve_forever().

    tls: an ssl.SSLContext, or None. Raises OSError, OverflowError (a port).
    """

    daemon_threads = True
    request_queue_size = 1024  # clients not yet let in; the system may allow less

    def __init__(self, host, port, handler, tls=None):
        self.tls = tls
        self.scheme = "http" if tls is None else "https"
        self.warnings = lines.Warnings()
        self.clients = queue.SimpleQueue()  # (connection, address), each for a thread
        self.idle = threading.Semaphore(0)  # how many threads have none
        self.serving = {}  # connection: when its request began, of those with a thread
        self.waiting = set()  # connections of those that wait for a machine
        self.entering = threading.Lock()  # of waiting
        self.answering = set()  # connections whose request has come whole
        self.room = Room(LARGE_MOST, LARGE_PATIENCE)  # for large bodies
        self.crowded_at = self.swept_at = -math.inf
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), handler)  # which closes all if it fails

    @property
    def url(self):
        """The address of the server, without a slash at its end."""
        return f"{self.scheme}://{host_port(*self.server_address[:2])}"

    def server_bind(self):
        # HTTPServer's asks DNS for the name of the host, which can take long.
        socketserver.TCPServer.server_bind(self)

    def get_request(self):
        """Let a client in; raise OSError if there is no thread or descriptor for it."""
        if len(self.serving) >= THREADS_MOST:
            self.be_crowded(f"all {THREADS_MOST} threads are taken; more clients wait")
            raise OSError("no thread")
        try:
            connection, address = super().get_request()
        except OSError as error:
            self.be_crowded(f"cannot let clients in: {error.strerror}")
            raise
        if self.tls is not None:  # the handshake is for its thread
            connection = self.tls.wrap_socket(connection, server_side=True,
                                              do_handshake_on_connect=False)
        self.watch(connection)
        return connection, address

    def be_crowded(self, line):
        """Warn, and give clients less time for a while, as others cannot get in."""
        self.warnings.warn(line)
        self.crowded_at = time.monotonic()
        time.sleep(FULL_PAUSE)  # as the client that cannot get in stays ready

    def process_request(self, request, client_address):
        """Give a client to a thread that is idle, or to a new one."""
        # A new thread for each client would halve the events per second, as
        # Thread.start waits until it runs.
        if not self.idle.acquire(blocking=False):
            threading.Thread(target=self.work, daemon=True).start()
        self.clients.put((request, client_address))

    def work(self):
        """Serve clients until none comes for a while, or None for the end."""
        while True:
            try:
                client = self.clients.get(timeout=IDLE_MOST)
            except queue.Empty:
                if self.idle.acquire(blocking=False):
                    return
                continue  # one is on its way
            if client is None:
                self.clients.put(None)  # for the next thread
                return
            self.process_request_thread(*client)
            self.idle.release()

    def watch(self, connection):
        """Start the time for a request on connection, and for its answer."""
        self.serving[connection] = time.monotonic()

    def let_wait(self, connection):
        """Return whether connection may wait for a machine, now without a time."""
        most = waiting_most()
        with self.entering:
            is_room = len(self.waiting) < most
            if is_room:
                self.waiting.add(connection)
                del self.serving[connection]
        if not is_room:
            self.warnings.warn(f"{most} clients wait for machines; more are refused")
        return is_room

    def service_actions(self):
        """Cut off clients whose time is over; called by serve_forever all the time."""
        now = time.monotonic()
        if now - self.swept_at < SWEEP:
            return
        self.swept_at = now
        most = CROWDED_MOST if now - self.crowded_at < 4 * SWEEP else REQUEST_MOST
        for connection, since in list(self.serving.items()):
            if now - since > most:
                cut_off(connection)

    def shutdown_request(self, request):
        super().shutdown_request(request)
        self.serving.pop(request, None)
        with self.entering:
            self.waiting.discard(request)

    def server_close(self):
        """Let nobody in, wait for the answers that are on their way, cut off the rest."""
        super().server_close()
        self.clients.put(None)
        ends_at = time.monotonic() + END_MOST
        while self.answering and time.monotonic() < ends_at:
            self.end_waits()
            time.sleep(FULL_PAUSE)
        for connection in list(self.serving):
            cut_off(connection)

    def end_waits(self):
        """Tell those who wait for a machine that the server ends."""

    def handle_error(self, request, client_address):
        """Say nothing of a client that went away."""
        kind, error, _ = sys.exc_info()
        if not issubclass(kind, OSError):
            self.warnings.warn(f"cannot answer: {kind.__name__}", f": {str(error)!a}")


def read_tls(certificate, key):
    """Return the context for https, or None without a certificate.

    Raises ValueError, as one line, if they cannot be used.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ValueError("--tls-cert and --tls-key belong together")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A password, as OpenSSL would ask the terminal for it.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot use {certificate} and {key}: {error}") from None
    return context


def allow_descriptors():
    """Allow as many descriptors as there may be clients, if the system lets us."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource  # not in every system
        least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = THREADS_MOST + WAITING_MOST + 100  # files and what the system needs
        if most != resource.RLIM_INFINITY:
            wanted = min(wanted, most)
        if least != resource.RLIM_INFINITY and least < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def return_memory():
    """Have large blocks of memory returned to the system as soon as they are free."""
    # Else glibc keeps what each of the threads has freed, some 40 MiB a large event.
    with contextlib.suppress(ImportError, OSError, AttributeError, TypeError):
        import ctypes
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)


def waiting_most():
    """Return how many clients may wait: others have half of the descriptors."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if most != resource.RLIM_INFINITY:
            return min(WAITING_MOST, most // 2)
    return WAITING_MOST
