#!/usr/bin/env python3
"""Tell the platform, from inside a machine, how its installation is getting on.

    curl -fsSL http://files.example.com/userstate.py | python3 -I - running 1000 "hello"
    python3 userstate.py run 1010 "install nginx" -- apt-get install -y nginx

    import userstate
    with userstate.step(1010, "install nginx"):
        subprocess.check_call(["apt-get", "install", "-y", "nginx"])

Two blank lines part its sections: guard, constants and errors; public functions;
delivery, which tries again; one request; what its answer is worth; step; run; main.
"""
import atexit
import gc
import os
import sys

PACKAGES = "install python3 (Alpine, Debian, Fedora, OpenWrt), python3-modules (Yocto)"

def _leave(kind=Exception, error="incomplete download", trace=None):
    try:
        import select
        hint = f"; {PACKAGES}" if issubclass(kind, ImportError) else ""
        if select.select([], [2], [], 0)[1]:  # or it would block
            name = {KeyboardInterrupt: "interrupted"}.get(kind, kind.__name__)
            os.write(2, f"userstate: {str(error) or name}{hint}\n".encode())
        if kind is KeyboardInterrupt:
            _end(-2)
    finally:
        os._exit(1)

if __name__ == "__main__":
    atexit.register(_leave)
    # A file that was cut may parse and end with 0: only its last line passes this.
    sys.excepthook = _leave
    gc.set_threshold(50000)  # not 700: in the imports it finds nothing, slowly
    if not sys.flags.isolated:
        del sys.path[0]  # a json.py that lies there must not run as root

def _end(status):  # -2: by SIGINT itself, so that a shell script ends, too
    if status == -2:
        import signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(status if status >= 0 else 128 - status)  # whatever threads or stdout do

import _thread  # as threading takes longer to import
import email.utils
import errno
import functools
import getopt
import http.client  # as urllib.request redirects a POST as a GET, and asks proxies
import io
import json
import random
import re
import select
import signal
import socket
import struct
import time
from contextlib import suppress
from urllib.parse import urlsplit

__version__ = "2.0"
METADATA_URL = ("https://metadata.packet.net/metadata "
                "https://metadata.platformequinix.com/metadata")
SWITCHED_OFF = "this default was switched off on 2026-06-30: set USERSTATE_METADATA_URL"
STATES = "running", "succeeded", "failed"
CODES = range(1000, 1100)
TIMEOUT, DEADLINE = 10, 150  # seconds of one try, of a call
PAUSES = 1, 2, 4, 8, 15  # seconds between tries; the last one repeats
RETRY_AFTER_MOST = 30  # seconds
GRACE = 10  # seconds for a first report after the end of what it reports on
MOMENT = 0.25  # seconds within which a signal that comes twice is one
# (1, 0): close() resets, until there is an answer; (0, 0): it sends what is queued.
LINGER = socket.SOL_SOCKET, socket.SO_LINGER
METADATA_MOST, REFUSAL_MOST, LOG_MOST = 1 << 20, 1 << 16, 1 << 16  # bytes to read
NEVER, FEW, ALWAYS = 0, 3, float("inf")  # more tries, by fault; ALWAYS also: no limit

class UserStateError(Exception):
    """Base of the errors; their text is one line of printable ASCII."""
    status = 1  # of the command

    def __init__(self, text):
        super().__init__(_printable(text))

class EventError(UserStateError, ValueError):
    """An event, an option or an operand is invalid: nothing was sent."""
    status = 2

class RefusedError(UserStateError):
    """Trying again will not help."""

class DeadlineError(UserStateError):
    """Gave up at the deadline: trying again later may help."""
    status = 75  # EX_TEMPFAIL

class _Fault(Exception):
    """A try failed: why, how many more are worth it, how many seconds later."""
    def __init__(self, text, more, hint="", wait=0.0):
        super().__init__(text)
        self.more, self.hint, self.wait = more, hint, wait

    def told(self, url):
        hint = f" ({self.hint})" if self.hint else ""
        hint += f" ({SWITCHED_OFF})" if url in METADATA_URL.split() else ""
        return f"{_public(url)}: {self}{hint}"


def send_user_state_event(state, code, message, **options):
    """Put an event on the timeline of this machine.

    state: one of STATES; code: an int of CODES; message: a str, sent as it is. options:
    metadata_url, url (str), timeout, deadline (seconds, int or float), dry_run, verbose
    (bool), as on the command line. Raises EventError if any of it is invalid,
    RefusedError if trying again will not help, DeadlineError at the deadline.
    """
    _Delivery(**options).send(build_event(state, code, message))

def build_event(state, code, message):
    """Return the event, a dict of the three; raise EventError if one is invalid."""
    _check("state", state, state in STATES, "running, succeeded or failed")
    _check("code", code, type(code) is int and code in CODES, "an int, 1000 to 1099")
    _check("message", message, isinstance(message, str), "a string")
    return {"state": state, "code": code, "message": message}

def fetch_metadata(**options):
    """Return the metadata, a dict; options and errors as of send_user_state_event."""
    return _Delivery(**options).metadata(_document)

def user_state_url(**options):
    """Return the address for events, a str; options and errors as of the above."""
    return _Delivery(**options).user_state_url()

def post_event(event, url, **options):
    """Post event, a dict, to url, a str; RefusedError if no URL; else as above."""
    _Delivery(**options).post(event, url)

def _check(name, value, valid, must):
    if not valid:
        raise EventError(f"{name} {_hide(ascii(value))}: must be {must}")

def _hide(text):  # what looks like an address may hold a password
    return "(hidden: an address)" if re.search("://|@", text) else text[:100]

def _printable(text):
    return re.sub("[^!-~]+", " ", str(text)).strip()


class _Delivery:
    """The options of a call, checked, its deadline, and the tries until then."""
    def __init__(self, metadata_url=None, url=None, timeout=None, deadline=None,
                 dry_run=False, verbose=False, say=None, clock=time.monotonic,
                 sleep=time.sleep, **unknown):
        for name in unknown:
            raise EventError(f"option {_hide(name)}: there is none of this name")
        # An address of the metadata that is given wins over USERSTATE_URL.
        self.url = _setting("url", url) if metadata_url is None else url
        urls = _setting("metadata_url", metadata_url, METADATA_URL)
        self.urls = str(urls).split() or [""]
        for address in self.urls if self.url is None else [self.url]:
            _checked(address)
        self.timeout = _seconds("timeout", timeout, TIMEOUT)
        self.deadline = _seconds("deadline", deadline, DEADLINE)
        self.dry_run, self.verbose = dry_run, verbose
        self.tell, self.clock, self.sleep = say or _log, clock, sleep
        self.said = set()  # problems
        self.ends, self.until = clock() + self.deadline, lambda: ALWAYS

    def renewed(self, timeout=ALWAYS, deadline=ALWAYS, until=lambda: ALWAYS):
        other = object.__new__(_Delivery)  # the same options, from now on
        vars(other).update(vars(self))
        other.timeout = min(self.timeout, timeout)
        other.ends, other.until = self.clock() + min(self.deadline, deadline), until
        return other

    def say(self, line, problem=None):
        if problem is None or problem not in self.said:
            self.said.add(problem)
            self.tell(_printable(line))

    def send(self, event):
        self.post(event, self.url if self.dry_run else self.user_state_url())

    def post(self, event, url):
        try:
            body = json.dumps(event, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise EventError(f"event: {error}") from None
        if self.dry_run:
            return _print(body, self.deadline)
        # In the form of the IETF's draft. random itself may be seeded by others, and
        # os.urandom() may block at boot.
        key = f'"{random.Random().getrandbits(128):032x}"'
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        return self.persist("POST", [url], bytes, body.encode(), headers)

    def user_state_url(self):
        return self.url or self.metadata(self.event_url)

    def metadata(self, read):
        if self.dry_run:
            raise EventError("dry run: asks nobody, so --url has to say where")
        return self.persist("GET", self.urls, read)

    def event_url(self, answer):
        document = _document(answer)
        url, home = document.get("user_state_url"), document.get("phone_home_url")
        if not url and isinstance(home, str) and home.endswith("/phone-home"):
            url = home[:-len("phone-home")] + "events"
            self.say(f"no user_state_url: taking phone_home_url's {_public(url)}")
        if not isinstance(url, str) or not url:
            raise _Fault("no user_state_url" + _reason(document), FEW,
                         "Tinkerbell of today has none: set --url or USERSTATE_URL")
        return _checked(url)

    def persist(self, method, urls, read, *content):
        """Return what read makes of an answer; all urls share the tries and pauses."""
        urls, begun, tries, few, last = list(urls), self.clock(), 0, FEW, False
        while True:
            url, tries = urls.pop(0), tries + 1
            try:
                return self.attempt(method, url, read, *content)
            except _Fault as error:
                fault = error
            if fault.more != NEVER:
                urls.append(url)
            if fault.more == FEW:
                few -= 1
            told = fault.told(url)
            end = f"at try {tries} after {self.clock() - begun:.1f} s"
            if not urls or few < 0:
                raise RefusedError(f"{told}; refused {end}")
            left = min(self.ends, self.until()) - self.clock()
            if last or left <= fault.wait:
                raise DeadlineError(f"{told}; gave up {end}")
            pause = PAUSES[min(tries, len(PAUSES)) - 1] * random.uniform(0.5, 1)
            pause = max(pause, fault.wait)
            if pause >= left:
                last, pause = True, max(fault.wait, left - min(1, left / 2))
            self.say(f"{told}; trying again in {pause:.1f} s", f"{url} {fault}")
            self.sleep(pause)

    def attempt(self, method, url, read, *content):
        begun, answer, fault = self.clock(), None, None
        try:
            ends = min(self.ends, self.until(), begun + self.timeout)
            answer = read(_request(method, url, ends - begun, *content))
        except Exception as error:
            fault = _fault_of_error(error)
        if self.verbose:
            took = self.clock() - begun
            self.say(f"{method} {_public(url)}: {fault or 'accepted'}, {took:.3f} s")
        if fault is not None:
            raise fault
        return answer

def _setting(name, value, default=None):
    if value is None:
        value = os.environ.get("USERSTATE_" + name.upper(), "").strip() or default
    return value

def _seconds(name, value, default=None):
    value = _setting(name, value, default)
    valid = re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", str(value)) and float(value) > 0
    _check(name, value, valid, "seconds, like 10 or 0.5")
    return float(value)

def _checked(url):
    """Return url if it is an http(s) address with a host, or raise EventError."""
    with suppress(ValueError, TypeError, AttributeError):
        parts = urlsplit(re.fullmatch("https?://[!-~]+", url, re.I).group())
        labels = re.fullmatch(r"([^.]{1,63}\.)*[^.]{1,63}\.?", parts.hostname)
        if labels and parts.port != 0 and "@" not in parts.netloc:
            return url
    raise EventError(f"address {_public(url)!a}: must be http(s)://host, no user")

def _public(url):  # a password may hold any character
    return "(hidden: @)" if "@" in str(url) else re.split("[?#]", str(url))[0][:200]

def _log(line):
    with suppress(OSError):  # no descriptor left to import it
        import logging
        logging.getLogger("userstate").warning("%s", line)


def _request(method, url, limit, body=None, headers=None):
    """Make a request within limit seconds; return the body of a 2xx, b"" for a POST."""
    parts, ends = urlsplit(_checked(url)), time.monotonic() + limit
    host = parts.hostname.replace("%25", "%")  # of a zone: RFC 6874
    connection = _connect(host, parts.port or {"http": 80}.get(parts.scheme, 443), ends)
    try:
        if parts.scheme == "https":
            connection = _start_tls(connection, host, ends)
        http_connection = http.client.HTTPConnection(host, 80)  # not to be parsed
        http_connection.sock = wire = _Bounded(connection, ends)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Host": re.sub("%[^]]*", "", parts.netloc),  # without a zone
                   "User-Agent": f"userstate/{__version__}", **(headers or {})}
        with suppress(BrokenPipeError):  # after FIN and RST: the answer may be there
            http_connection.request(method, target, body, headers)
        with http_connection.getresponse() as reply:
            while reply.status < 200:  # http.client skips 100 alone
                reply.headers = None  # else begin() would not read another one
                reply.begin()
            if wire.cut:  # which http.client takes for the end of the headers
                raise http.client.IncompleteRead(b"")
            connection.setsockopt(*LINGER, struct.pack("ii", 0, 0))
            if reply.status >= 300:
                raise _fault_of_answer(method, reply)
            return _read(reply, METADATA_MOST) if body is None else b""
    finally:
        connection.close()

def _connect(host, port, ends):  # each address of host gets its share of the time
    ways = _resolve(host, port, ends)
    for left in range(len(ways), 0, -1):
        family, kind, protocol, _, address = ways[-left]
        try:
            with socket.socket(family, kind, protocol) as connection:
                connection.setsockopt(*LINGER, struct.pack("ii", 1, 0))
                connection.settimeout(max(0.001, ends - time.monotonic()) / left)
                connection.connect(address)
                return socket.socket(family, kind, protocol, connection.detach())
        except OSError:
            if left == 1:
                raise

def _resolve(host, port, ends):
    ways = []
    def ask(end=None):
        try:  # a name as bytes needs no idna codec, which thin Pythons lack
            kind = socket.SOCK_STREAM
            ways.extend(socket.getaddrinfo(host.encode(), port, type=kind))
        except Exception as error:
            ways.append(error)
    try:
        with _start(ask) as ours:  # as it can hang
            _wait(ours, ends - time.monotonic())
    except (OSError, RuntimeError, MemoryError):
        ask()  # no thread to be had
    if not ways:
        raise socket.timeout
    if isinstance(ways[0], Exception):
        raise ways[0]
    return ways

def _start(function):
    """Run function(end) in a thread; return the other end: each side closes its own."""
    ours, theirs = socket.socketpair()
    def run():
        with theirs:
            function(theirs)
            theirs.shutdown(socket.SHUT_RDWR)  # a child of a fork may hold it, too
    _thread.start_new_thread(run, ())
    return ours

def _wait(end, seconds):
    # A lock's time-out follows the wall clock before 3.9, a socket's is monotonic.
    end.settimeout(max(seconds, 0.001))
    with suppress(socket.timeout):
        return not end.recv(1)
    return False

def _start_tls(connection, host, ends):
    import ssl
    # Not create_default_context(), which fails if it cannot write SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    name = host.partition("%")[0].rstrip(".").encode()  # as above
    connection.settimeout(max(0.001, ends - time.monotonic()))
    try:
        return context.wrap_socket(connection, server_hostname=name)
    except (ssl.SSLError, ssl.CertificateError) as error:
        raise _fault_of_tls(error) from None

class _Bounded(io.RawIOBase):
    """A connection for http.client, all of whose operations end at the same moment."""
    def __init__(self, connection, ends):
        self.connection, self.ends, self.cut = connection, ends, False

    def in_time(self):
        left = self.ends - time.monotonic()
        if left <= 0:
            raise socket.timeout
        self.connection.settimeout(left)
        return self.connection

    def sendall(self, data):
        self.in_time().sendall(data)

    def readinto(self, buffer):
        count = self.in_time().recv_into(buffer)
        self.cut = not count
        return count

    def readable(self):
        return True

    def makefile(self, mode):
        return io.BufferedReader(self)

    def close(self):
        """Leave it open: http.client closes it before the body of some answers."""


def _read(reply, most):
    body = bytearray(most)  # after a chunk of -1 bytes read() would never end
    del body[reply.readinto(body):]
    if reply.length and len(body) < most:  # readinto() does not tell
        raise http.client.IncompleteRead(b"")
    return body

def _fault_of_error(error):
    if isinstance(error, _Fault):
        return error
    if isinstance(error, socket.timeout):
        return _Fault("timed out", ALWAYS)
    if isinstance(error, http.client.HTTPException):  # its text may quote the document
        return _Fault(f"broken answer ({type(error).__name__})", ALWAYS)
    if isinstance(error, (OSError, MemoryError)):
        text = getattr(error, "strerror", None) or str(error) or "out of memory"
        return _Fault(text, ALWAYS)
    if isinstance(error, ImportError):
        return _Fault(f"no ssl: {error}", NEVER, PACKAGES)
    if isinstance(error, EventError):  # an address that came from outside
        return _Fault(str(error), NEVER)
    return _Fault(f"bug: {type(error).__name__}: {error!s:.80}", NEVER)

WRONG_TIME = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
NO_AUTHORITY = 2, 18, 19, 20, 21  # X509_V_ERR_...: no issuer, or signed by itself
MORE = {400: FEW,  # the service says it for faults of its own upstream, too
        408: ALWAYS, 425: ALWAYS, 429: ALWAYS, 501: NEVER, 505: NEVER}

def _fault_of_tls(error):
    code, reason = getattr(error, "verify_code", None), getattr(error, "reason", None)
    text = f"certificate verify failed: {getattr(error, 'verify_message', error)}"
    # 3.6 has no code, and does not tell what is wrong: the clock often is, at boot.
    if code in WRONG_TIME or code is None and reason == "CERTIFICATE_VERIFY_FAILED":
        hint = time.strftime("is the clock right? It says %Y-%m-%d %H:%M")
        return _Fault(text, ALWAYS, hint)
    if code in NO_AUTHORITY:
        path = os.environ.get("SSL_CERT_FILE")
        hint = (f"its authority is not in ca-certificates, or SSL_CERT_FILE {path}"
                if path else "install ca-certificates, or set SSL_CERT_FILE")
        return _Fault(text, NEVER, hint)
    if code is not None or isinstance(error, ValueError):  # of another name, as a rule
        return _Fault(text, NEVER)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return _Fault(f"no TLS: {reason}", ALWAYS, "is it http?")
    return _fault_of_error(error)

def _fault_of_answer(method, reply):
    more = MORE.get(reply.status, ALWAYS if reply.status >= 500 else NEVER)
    if reply.status == 404 and method == "GET":  # this machine is not known yet
        more = FEW
    text = f"HTTP {reply.status} {reply.reason:.80}"
    if reply.getheader("Location"):
        text += f", redirect to {_public(reply.getheader('Location'))}"
    with suppress(_Fault, OSError, http.client.HTTPException):
        text += _reason(_document(_read(reply, REFUSAL_MOST)))
    return _Fault(text, more, wait=_retry_after(reply.getheader("Retry-After", "")))

def _retry_after(value):
    if re.fullmatch("[0-9]+", value):
        return min(float(value), RETRY_AFTER_MOST)
    try:
        date = email.utils.mktime_tz(email.utils.parsedate_tz(value))
    except (ValueError, TypeError, IndexError, OverflowError, AttributeError):
        return 0  # the exception for an odd date depends on the Python
    return max(0, min(date - time.time(), RETRY_AFTER_MOST))

def _document(body):
    with suppress(ValueError, RecursionError):  # a MiB of digits takes int() minutes
        document = json.loads(body.decode(), parse_int=lambda digits: int(digits[:999]))
        if isinstance(document, dict):
            return document
    raise _Fault("not JSON", FEW)

def _reason(document):
    if len(document) != 1:  # no error, and secret
        return ""
    reason = document.get("errors") or document.get("message") or document.get("error")
    reasons = reason if isinstance(reason, list) else [reason]
    return "".join(f" ({text:.200})" for text in reasons[:3] if isinstance(text, str))


class step:
    """Report around a block (with step(...):) or a plain function (@step(...)).

    It is running, then succeeded (also after sys.exit(0)), or failed with the type of
    the exception, which goes on. A report that fails is a warning of the logger
    "userstate". every: seconds (int, float) between repeats of running; else as above.
    Raises EventError, and RuntimeError if it is entered while it is in use.
    """
    def __init__(self, code, message, every=None, **options):
        build_event("running", code, message)
        self.code, self.message = code, message
        self.every = None if every is None else _seconds("every", every)
        self.options = options
        self.delivery = _Delivery(**{"sleep": self.pause, **options})
        self.in_use, self.ours = _thread.allocate_lock(), None
        self.bound = ALWAYS  # when the reports before the end have to be over

    def __enter__(self):
        if not self.in_use.acquire(blocking=False):
            raise RuntimeError("this step is in use: make another one")
        self.begin()
        return self

    def __exit__(self, kind, error, trace):
        succeeded = kind is None or kind is SystemExit and error.code in (None, 0)
        try:
            what = "done" if succeeded else kind.__name__
            self.end(succeeded, f"{what} after {self.took()}")
        finally:
            self.in_use.release()

    def __call__(self, function):
        @functools.wraps(function)
        def reported(*args, **kwargs):
            with step(self.code, self.message, self.every, **self.options):
                return function(*args, **kwargs)
        return reported

    def begin(self):
        self.begun, self.ours, self.bound = self.delivery.clock(), None, ALWAYS
        try:
            self.ours = _start(self.report_on)
        except (OSError, RuntimeError, MemoryError) as error:
            self.delivery.say(f"{error}: the report that it runs is left out")

    def report_on(self, told_end):
        self.told_end = told_end
        limits = {"timeout": GRACE, "until": lambda: self.bound}
        self.report("running", **limits)
        while self.every is not None:
            due = self.every - (self.delivery.clock() - self.begun) % self.every
            if _wait(told_end, due):
                break
            what = f": running for {self.took()}"
            self.report("running", what, deadline=self.every, **limits)

    def pause(self, seconds):  # between two tries; one begun before end() ends with it
        if self.bound == ALWAYS:
            _wait(self.told_end, seconds)
        else:
            time.sleep(seconds)

    def end(self, succeeded, what):
        self.bound = self.delivery.clock() + GRACE
        if self.ours is not None:
            with self.ours:
                self.ours.shutdown(socket.SHUT_WR)
                _wait(self.ours, GRACE + 1)
        self.report("succeeded" if succeeded else "failed", f": {what}")

    def report(self, state, what="", **limits):
        event = build_event(state, self.code, self.message + what)
        try:
            self.delivery.renewed(**limits).send(event)
        except UserStateError as error:
            self.delivery.say(error, "a repeat" if "deadline" in limits else None)

    def took(self):
        seconds = int(self.delivery.clock() - self.begun)
        hours, minutes = seconds // 3600, seconds // 60 % 60
        if hours:
            return f"{hours} h {minutes} min"
        return f"{minutes} min {seconds % 60} s" if minutes > 2 else f"{seconds} s"


def _run(report, command, log):
    """Run command; return its status, -N after signal N; log: a descriptor or None."""
    with _Signals() as signals:
        try:
            size = 0 if log is None else os.fstat(log).st_size
            child = _start_command(command, log, signals.restore_in_child)
        except (OSError, ValueError) as error:  # ValueError: a NUL
            status = 127 if isinstance(error, FileNotFoundError) else 126
            why = getattr(error, "strerror", error)
            what = f"cannot run {_hide(command[0])}: {why}"
            report.delivery.say(what)
        else:
            report.begin()
            status = signals.pass_on_to(child)
            what = f"{_ending(status)} after {report.took()}"
            if status and log is not None:
                what += _last_line(log, size)
        try:
            signals.listen()
            report.end(status == 0, what)
        except KeyboardInterrupt:
            report.delivery.say("interrupted: the end is not reported")
    return status

def _ending(status):
    if status < 0:
        names = {int(number): number.name for number in signal.Signals}
        return f"killed by {names.get(-status, -status)}"
    return f"exit status {status}" if status else "done"

def _start_command(command, log, prepare):
    import shutil
    import subprocess
    environment = dict(os.environ)
    with suppress(OSError), open("/proc/self/environ", errors="replace") as file:
        if environment.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):  # see PEP 538
            del environment["LC_CTYPE"]
            environment.update(re.findall("(?:^|\0)(LC_CTYPE)=([^\0]*)", file.read()))
    start = functools.partial(subprocess.Popen, stdout=log, stderr=log, close_fds=False,
                              preexec_fn=prepare, env=environment)
    try:
        return start(command)
    except OSError as error:
        path = shutil.which(command[0])
        if error.errno != errno.ENOEXEC or path is None:
            raise
    return start(["/bin/sh", path, *command[1:]])  # no #!: as execvp(3) does

def _last_line(log, size):
    text = b""
    with suppress(OSError):  # no regular file
        text = os.pread(log, LOG_MOST, max(size, os.fstat(log).st_size - LOG_MOST))
    text = re.sub("\x1b\\[[0-?]*[ -/]*[@-~]", "", text.decode("utf-8", "replace"))
    text = "".join(c if c.isprintable() else "\n" if c in "\r\n" else " " for c in text)
    lines = text.strip().split("\n")
    return f": {lines[-1].strip():.200}" if lines[-1] else ""

class _Signals:
    """The signals that would end us, blocked and passed on while a command runs."""
    # A handler of Python's would swallow one that comes between the fork and the exec.
    def __enter__(self):
        others = {getattr(signal, "SIG" + name) for name in (
            "KILL STOP CONT TSTP TTIN TTOU CHLD URG WINCH "  # do not end a process
            "SEGV BUS FPE ILL TRAP ABRT SYS").split()}  # are faults of our own
        now = {number: signal.getsignal(number) for number in range(1, signal.NSIG)}
        self.handlers = {number: now[number] for number in set(now) - others
                         if now[number] not in (None, signal.SIG_IGN)}
        self.handlers[signal.SIGCHLD] = now[signal.SIGCHLD] or signal.SIG_DFL
        self.last, self.last_at, self.counted = None, 0.0, 0
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.handlers)
        for number in self.handlers:  # if SIGCHLD is ignored, there is no status
            signal.signal(number, signal.SIG_DFL)
        return self

    def restore_in_child(self):
        signal.signal(signal.SIGCHLD, self.handlers[signal.SIGCHLD])
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def pass_on_to(self, child):
        not_told = signal.sigpending()  # as they came before the fork
        while child.poll() is None:
            got = signal.sigtimedwait(self.handlers, 1)  # a thread may eat SIGCHLD
            if got is not None and got.si_signo != signal.SIGCHLD:
                self.last, self.last_at = got.si_signo, time.monotonic()
                # A terminal, that is the kernel, tells these to the whole group.
                has_it = (got.si_signo in {signal.SIGINT, signal.SIGQUIT} - not_told
                          and got.si_code > 0 and os.getpgid(child.pid) == os.getpgrp())
                not_told.discard(got.si_signo)
                with suppress(OSError):  # it has become another user's
                    if not has_it:
                        child.send_signal(got.si_signo)
        return child.returncode

    def listen(self):  # the command has ended: the second signal from now on interrupts
        for number in set(self.handlers) - {signal.SIGCHLD}:
            signal.signal(number, self.count)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def count(self, number, frame):
        # One hang-up comes from bash and from the kernel, one timeout(1) sends two.
        now = time.monotonic()
        if number != self.last or now - self.last_at > MOMENT:
            self.last, self.last_at, self.counted = number, now, self.counted + 1
            if self.counted > 1:
                raise KeyboardInterrupt

    def __exit__(self, *error):
        signal.pthread_sigmask(signal.SIG_BLOCK, self.handlers)
        if __name__ != "__main__":  # else the process ends now, with its status
            for number, handler in self.handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


USAGE = """usage: userstate [OPTIONS] STATE CODE MESSAGE
       userstate [OPTIONS] run [--every SECONDS] [--log FILE] CODE MESSAGE [--] COMMAND
       userstate [OPTIONS] url
STATE: running, succeeded, failed, or an exit status, 0 to 255; CODE: 1000 to 1099
OPTIONS: -n, --dry-run: print the JSON only; -v, --verbose; -h, --help; --version;
  --metadata-url URL, or USERSTATE_METADATA_URL: where to ask for the address of events;
  --url URL, or USERSTATE_URL: that address itself;
  --timeout SECONDS, or USERSTATE_TIMEOUT: of one try, 10;
  --deadline SECONDS, or USERSTATE_DEADLINE: of one report, 150
status: 0 accepted, 1 refused, 2 invalid, 75 gave up, 130 interrupted, or COMMAND's"""
OPTIONS = "metadata-url= url= timeout= deadline= dry-run verbose help version".split()
LETTERS = {"-n": "--dry-run", "-v": "--verbose", "-h": "--help"}

def main(argv=None):
    """Run argv, a list of str, by default the command line; return the exit status."""
    status = _main(argv)
    return status if status >= 0 else 128 - status  # as a shell tells a signal

def _main(argv):
    words = texts = [str(word) for word in argv or []]
    if argv is None:  # what is not of the locale are surrogates
        words = sys.argv[1:]
        texts = [os.fsencode(word).decode("utf-8", "replace") for word in words]
    try:
        return _command(texts, words)
    except UserStateError as error:
        _warn(error)
        return error.status
    except KeyboardInterrupt:
        _warn("interrupted")
        return -signal.SIGINT

def _command(texts, words):
    options, operands = _options(texts, "nvh", OPTIONS)
    if operands[:1] == ["run"]:
        words = words[len(words) - len(operands) + 1:]
        around, words = _options(words, "h", ["every=", "log=", "help"])
        options.update(around)
    if "help" in options or "version" in options:
        text = USAGE if "help" in options else f"userstate {__version__}"
        return _print(text, DEADLINE)
    options["say"] = _warn
    if operands[:1] == ["run"]:
        return _run_command(texts[len(texts) - len(words):], words, **options)
    if operands == ["url"]:
        return _print(user_state_url(**options), _Delivery(**options).deadline)
    _check("operands", len(operands), len(operands) == 3, "STATE CODE MESSAGE, the "
           "MESSAGE quoted and options before them; see --help")
    state, code, message = operands
    if state in map(str, range(1, 256)):
        state, message = "failed", f"{message}: exit status {state}"
    elif state == "0":
        state = "succeeded"
    code = int(code) if code in map(str, CODES) else code
    send_user_state_event(state, code, message, **options)
    return 0

def _options(words, letters, names):
    try:
        given, operands = getopt.getopt(words, letters, names)
    except getopt.GetoptError as error:
        raise EventError(f"{_hide(str(error))}; see --help") from None
    options = {}
    for name, value in given:
        name = LETTERS.get(name, name)[2:]
        options[name.replace("-", "_")] = value if name + "=" in names else True
    return options, operands

def _run_command(operands, words, log=None, **options):
    import threading
    command = words[3:] if words[2:3] == ["--"] else words[2:]
    _check("operands", len(words), command, "CODE MESSAGE COMMAND; see --help")
    if threading.current_thread() is not threading.main_thread():
        raise EventError("run: must be in the main thread, which gets the signals")
    code = int(operands[0]) if operands[0] in map(str, CODES) else operands[0]
    report = step(code, operands[1], **options)
    if report.delivery.dry_run:
        report.delivery.send(build_event("running", code, operands[1]))
        return 0
    if log is None:
        return _run(report, command, None)
    try:
        descriptor = os.open(log, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", error)
        raise EventError(f"log {_hide(ascii(log))}: {why}") from None
    with open(descriptor, "rb", buffering=0):  # closes it
        return _run(report, command, descriptor)

def _warn(line):  # or lose it
    with suppress(RefusedError):
        _print(f"userstate: {_printable(line)}", 0, "stderr")

def _print(text, seconds, name="stdout"):
    stream, data = getattr(sys, name), text.encode() + b"\n"
    ends = time.monotonic() + seconds
    try:
        stream.flush()
        while data:
            if not select.select([], [stream], [], max(0, ends - time.monotonic()))[1]:
                raise OSError("nobody reads it")
            data = data[os.write(stream.fileno(), data[:select.PIPE_BUF]):]  # no block
    except io.UnsupportedOperation:  # in memory
        stream.write(text + "\n")
    except (OSError, ValueError, AttributeError) as error:
        raise RefusedError(f"cannot print: {error}") from None
    return 0

if __name__ == "__main__":
    _end(_main(None))
