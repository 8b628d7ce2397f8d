"""What the tests share: a real service, a peer that answers by script, real interpreters."""
import collections
import glob
import json
import os
import pwd
import random
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.request
from contextlib import suppress

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
SCRIPT = os.path.join(TOP, "userstate.py")
sys.path[:0] = [TOP, HERE]
sys.dont_write_bytecode = True
# What the tests inherit does not matter: variables, a HOME, how they were started.
for name in list(os.environ):
    if name.startswith(("USERSTATE_", "SSL_CERT", "OPENSSL_", "GIT_", "LC_", "PYTHON", "LANG")):
        del os.environ[name]
os.environ.setdefault("PATH", "/usr/local/bin:/usr/bin:/bin")
os.environ.setdefault("HOME", "/")
for number in range(1, signal.NSIG):
    by_python = number in (signal.SIGPIPE, signal.SIGXFSZ)
    if signal.getsignal(number) == signal.SIG_IGN and not by_python:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT
                      else signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_SETMASK, set())
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))

import userstate  # noqa: E402
from service import Service  # noqa: E402

with open(SCRIPT, "rb") as file:
    SOURCE = file.read()


def find_pythons():
    """Return the interpreters from 3.6 on that are installed, by version, oldest first."""
    found = {}
    names = [sys.executable, *(shutil.which(f"python3.{n}") or "" for n in range(6, 30)),
             "/usr/bin/python3"]
    with suppress(KeyError):  # a user without an entry
        home = pwd.getpwuid(os.getuid()).pw_dir
        names += glob.glob(f"{home}/.pyenv/versions/3.*/bin/python3")
    for name in filter(os.path.exists, names):
        with suppress(OSError):  # that it is there does not mean that it works
            run = subprocess.run([name, "-c", "import sys; print(*sys.version_info[:2])"],
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            version = tuple(map(int, run.stdout.split()))
            if version >= (3, 6):
                found.setdefault(version, name)
    return {"{}.{}".format(*version): found[version] for version in sorted(found)}


def pytest_collection_modifyitems(items):
    """ORDER=N shuffles the tests, by the seed N."""
    if os.environ.get("ORDER"):
        random.Random(os.environ["ORDER"]).shuffle(items)


def needs(*tools):
    """Skip the test if one of the tools is not installed."""
    for tool in tools:
        if not shutil.which(tool, path=os.environ["PATH"] + ":/usr/sbin"):
            pytest.skip(f"{tool} is not installed")


slow = pytest.mark.skipif(not os.environ.get("SLOW"), reason="slow: make test SLOW=1")
PYTHONS = find_pythons()
TOOLS = ["ansible", "bash", "busybox", "cc", "chromedriver", "chromium", "clickhouse-server",
         "cloud-init", "curl", "dash", "debconf-set-selections", "debootstrap", "jq", "ksh",
         "mksh", "openssl", "python3", "setpriv", "shellcheck", "sqlite3", "systemd-analyze",
         "timeout", "unshare", "wget", "zsh"]
FUZZ_TIMES = int(os.environ.get("FUZZ") or (3 if os.environ.get("SLOW") else 1))
FUZZ_SEED = int(os.environ.get("FUZZ_SEED") or random.SystemRandom().randrange(10**9))


def pytest_report_header():
    """Tell what was found, so that the reasons of skipped tests are no surprise."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    found = [name for name in TOOLS if shutil.which(name, path=path)]
    missing = [name for name in TOOLS if name not in found]
    return [f"interpreters: {', '.join(PYTHONS)}", f"tools: {', '.join(found)}",
            f"not installed: {', '.join(missing) or 'none of the tools'}",
            f"root: {'yes' if os.getuid() == 0 else 'no'}",
            f"order: {os.environ.get('ORDER') or 'as written; ORDER=N shuffles it'}"]


def pytest_report_collectionfinish(items):
    if any("test_fuzz.py" in item.nodeid for item in items):
        return f"seed of test_fuzz.py: FUZZ_SEED={FUZZ_SEED}"
    return []


@pytest.fixture(autouse=True)
def no_test_hangs():
    """End a test that waits for ever, as a fault in the program may make it do."""
    def give_up(number, frame):
        pytest.fail("the test does not end")  # no Exception, which the program may take
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(300 * FUZZ_TIMES + (900 if os.environ.get("SLOW") else 0))
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


OLDEST, NEWEST = list(PYTHONS.values())[0], list(PYTHONS.values())[-1]


@pytest.fixture(params=PYTHONS.values(), ids=PYTHONS.keys())
def python(request):
    """Each interpreter that is installed."""
    return request.param


@pytest.fixture(params=sorted({OLDEST, NEWEST}), ids=lambda path: path.split(os.sep)[-3])
def edge_python(request):
    """The oldest and the newest interpreter that is installed."""
    return request.param


NOBODY = socket.socket()
NOBODY.bind(("127.0.0.1", 0))  # and never listens, so that nobody else can
DEAD_PORT = NOBODY.getsockname()[1]
DEAD = f"http://127.0.0.1:{DEAD_PORT}/events"
Ended = collections.namedtuple("Ended", "status out err")


def run(*words, python=sys.executable, how="file", flags=(), env=None, cwd=None, **options):
    """Run the command line in a process with a small environment and return how it ended."""
    start = {"file": [SCRIPT], "pipe": ["-"], "-c": ["-c", SOURCE]}[how]
    if how == "pipe":
        options["input"] = SOURCE
    else:
        options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    ended = subprocess.run([python, "-B", *flags, *start, *words], cwd=cwd, timeout=60,
                           env=dict({"PATH": os.environ["PATH"]}, **env or {}), **options)
    out, err = ((text or b"").decode("utf-8", "replace")
                for text in (ended.stdout, ended.stderr))
    assert "Traceback" not in err, err
    return Ended(ended.returncode, out, err)


def get(url):
    """Return the body of what a browser without proxies gets from url."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=10) as reply:
        return reply.read()


class Platform(Service):
    """The local service, started, and what its timeline shows."""

    def __enter__(self):
        self.metadata_url = self.url + "/metadata"
        self.env = {"USERSTATE_METADATA_URL": self.metadata_url}
        self.thread = threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.shutdown()
        self.server_close()

    def shown(self, address="127.0.0.1"):
        """Return (type, state, body) of the events of a device, oldest first."""
        return [(event["type"], event["state"], event["body"])
                for event in self.timeline(self.device(address))[::-1]]


@pytest.fixture
def platform():
    with Platform() as service:
        yield service


def answer(status, body=b"", *headers):
    """Return the bytes of a whole answer."""
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


ACCEPTED = answer(200)


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
        self.listener.bind((host, 0))
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
        try:
            if self.wrap:
                connection = self.wrap(connection)
            with connection:
                if callable(script):
                    script(connection, self)
                else:
                    self.read(connection)
                    connection.sendall(script)
        except OSError:
            pass

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


def document(**keys):
    """Return the answer that carries a metadata document with these keys."""
    return answer(200, json.dumps(dict({"id": "x", "customdata": {"key": "s3cret"}},
                                       **keys)).encode())


class Time:
    """A clock that only sleep moves, for userstate's clock and sleep."""

    def __init__(self):
        self.now, self.pauses = 1000.0, []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def said():
    """What a call said; pass **said.options to it, and time passes only by its pauses."""
    lines, time = [], Time()
    return Said(lines, time, dict(say=lambda line: lines.append(str(line)),
                                  clock=time.clock, sleep=time.sleep))


Said = collections.namedtuple("Said", "lines time options")
assert userstate.__file__ == SCRIPT

class Root:
    """A tree to run commands in, in namespaces of its own but for the network."""

    def __init__(self, path):
        self.path = path

    def run(self, command, input=b"", **environment):
        words = ["unshare", "--mount", "--uts", "--ipc", "sh", "-ec",
                 'mount -t proc proc "$0/proc"; exec chroot "$0" "$@"', self.path, *command]
        return subprocess.run(
            words, input=input, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600,
            env=dict(environment, PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"))


@pytest.fixture(scope="session")
def debians():
    """Return a function of packages that returns the path of a Debian stable with them."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    for tool in ("debootstrap", "unshare"):
        if not shutil.which(tool, path=path) or os.getuid():
            pytest.skip(f"{tool} needs to be installed, and root")
    with tempfile.TemporaryDirectory(prefix="debian") as folder:
        trees = {(): os.path.join(folder, "0")}
        subprocess.run([shutil.which("debootstrap", path=path), "--variant=minbase",
                        "--include=python3-minimal", "stable", trees[()]],
                       check=True, stdout=subprocess.DEVNULL)

        def with_packages(*packages):
            if packages not in trees:
                before = with_packages(*packages[:-1])
                tree = os.path.join(folder, str(len(trees)))
                subprocess.run(["cp", "-a", before, tree], check=True)
                ended = Root(tree).run(["apt-get", "-qy", "--no-install-recommends", "install",
                                        packages[-1]], DEBIAN_FRONTEND="noninteractive")
                assert ended.returncode == 0, ended
                trees[packages] = tree
            return trees[packages]
        yield with_packages


@pytest.fixture
def debian(debians):
    """Return a function of packages that returns a copy, for one test, of a Debian."""
    with tempfile.TemporaryDirectory(prefix="debian") as folder:
        def copy(*packages):
            subprocess.run(["cp", "-a", debians(*packages), folder + "/root"], check=True)
            return Root(folder + "/root")
        yield copy


CONFIG = """
[ca]
default_ca = own
[own]
database = index
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
x509_extensions = host
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
keyUsage = critical, keyCertSign, cRLSign
[host]
subjectAltName = IP:127.0.0.1
authorityKeyIdentifier = keyid
[other]
authorityKeyIdentifier = keyid
subjectAltName = DNS:other.example
[zoned]
authorityKeyIdentifier = keyid
subjectAltName = IP:fe80::1
[named]
authorityKeyIdentifier = keyid
subjectAltName = DNS:good.example
"""
DATES = {"good": ("20200101000000Z", "20450101000000Z", "host"),
         "other": ("20200101000000Z", "20450101000000Z", "other"),
         "named": ("20200101000000Z", "20450101000000Z", "named"),
         "zoned": ("20200101000000Z", "20450101000000Z", "zoned"),
         "expired": ("20200101000000Z", "20210101000000Z", "host"),
         "future": ("20440101000000Z", "20450101000000Z", "host")}


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    """A folder with ca.pem, and for each of DATES a certificate and key in one file."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl command")
    folder = tmp_path_factory.mktemp("ca")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=str(folder), check=True,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    (folder / "config").write_text(CONFIG)
    (folder / "index").write_text("")
    (folder / "index.attr").write_text("unique_subject = no\n")
    (folder / "serial").write_text("01\n")
    openssl("req", "-x509", "-config", "config", "-extensions", "authority", "-newkey",
            "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "9000",
            "-subj", "/CN=authority")
    openssl("req", "-config", "config", "-newkey", "rsa:2048", "-nodes", "-keyout", "key",
            "-out", "request", "-subj", "/CN=127.0.0.1")
    for name, (start, end, extensions) in DATES.items():
        openssl("ca", "-batch", "-config", "config", "-cert", "ca.pem", "-keyfile", "ca.key",
                "-startdate", start, "-enddate", end, "-extensions", extensions, "-in",
                "request", "-out", "certificate", "-notext")
        (folder / name).write_text((folder / "certificate").read_text()
                                   + (folder / "key").read_text())
    return folder


def server_side(authority, name):
    """Return a wrap of a Peer that shows the certificate of this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(authority / name))
    return lambda connection: context.wrap_socket(connection, server_side=True)


def tls_peer(authority, name, *scripts):
    return Peer(*scripts or (ACCEPTED,), wrap=server_side(authority, name))
