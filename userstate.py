#!/usr/bin/env python3
"""Tell the platform, from inside a machine, how its installation is getting on.

    curl -fsSL http://files.example.com/userstate.py | python3 -I - running 1000 "hello"
    python3 userstate.py run 1010 "install nginx" -- apt-get install -y nginx

    import userstate
    with userstate.step(1010, "install nginx"):
        subprocess.check_call(["apt-get", "install", "-y", "nginx"])

From top to bottom: guard, constants, errors, public functions, delivery (which tries
again), one request, waiting, what an answer is worth, step, run, the command line.
"""
import atexit
import gc
import os
import sys

PACKAGES = "install python3 (Alpine, Debian, Fedora, OpenWrt), python3-modules (Yocto)"


def _leave(kind=None, error=None, trace=None):  # the file was cut, or main not reached
    try:
        import select
        line = f"{kind.__name__}: {error}" if kind else "incomplete download"
        if kind is KeyboardInterrupt:
            line = "interrupted"
        if isinstance(error, ImportError):
            line += f"; {PACKAGES}"
        if select.select([], [2], [], 0)[1]:  # else the write would block
            os.write(2, f"userstate: {line}\n".encode("ascii", "replace"))
        if kind is KeyboardInterrupt:
            _interrupted()
    finally:
        os._exit(1)


if __name__ == "__main__":
    # A file that was cut may run to its end: only its last line does not come here.
    atexit.register(_leave)
    sys.excepthook = _leave
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        del sys.path[0]  # a json.py that lies there must not run as root
    if hasattr(gc, "set_threshold"):  # PyPy has none
        gc.set_threshold(50000)  # with 700 it takes 1 to 2 ms of 40, and finds nothing


def _interrupted():
    if __name__ == "__main__":  # ends by the signal, so that a shell script ends, too
        import signal
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.kill(os.getpid(), signal.SIGINT)
    return 130


import _thread  # as threading takes longer to import
import email.utils
import errno
import functools
import io
import json
import random
import re
import select
import signal
import socket
import struct
import time
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

if __name__ == "__main__":  # what the next two would import, for 4 and 0.5 ms of 40
    sys.modules["ssl"] = sys.modules["gettext"] = None  # type: ignore
import getopt  # as argparse would take a MESSAGE of -h for an option
import http.client  # as urllib.request makes a GET of a POST that is redirected

if __name__ == "__main__":
    del sys.modules["ssl"], sys.modules["gettext"]

__version__ = "2.1"
__all__ = ["send_user_state_event", "build_event", "fetch_metadata", "user_state_url",
           "post_event", "step", "main", "STATES", "CODES",
           "UserStateError", "EventError", "RefusedError", "DeadlineError"]
STATES = "running", "succeeded", "failed"
CODES = range(1000, 1100)
METADATA_URL = ("https://metadata.packet.net/metadata "
                "https://metadata.platformequinix.com/metadata")
SWITCHED_OFF = "this default was switched off on 2026-06-30: set USERSTATE_METADATA_URL"
TIMEOUT, DEADLINE = 10, 150  # seconds of one try, of a call
PAUSES = 1, 2, 4, 8, 15  # seconds between tries; the last one repeats
RETRY_AFTER_MOST = 30  # seconds
GRACE = 10  # seconds for a first report after the end of what it reports on
SAME_SIGNAL = 0.25  # seconds within which equal ones are one: timeout(1) sends two
FOREVER = float("inf")
RETRY_NEVER, RETRY_FEW, RETRY_UNTIL_DEADLINE = "never", "few", "until the deadline"
MORE_TRIES = 3  # that faults worth few get in all
RETRY_OF_STATUS = {  # 400: the service says it for faults of its own upstream, too
    400: RETRY_FEW, 501: RETRY_NEVER, 505: RETRY_NEVER,
    408: RETRY_UNTIL_DEADLINE, 425: RETRY_UNTIL_DEADLINE, 429: RETRY_UNTIL_DEADLINE}
METADATA_MOST, REFUSAL_MOST, LOG_MOST = 1 << 20, 1 << 16, 1 << 16  # bytes to read
RESET_ON_CLOSE = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
SEND_ON_CLOSE = socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0)
WRONG_TIME = 9, 10  # X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_CERT_HAS_EXPIRED
NO_AUTHORITY = 2, 18, 19, 20, 21  # X509_V_ERR_...: no issuer known, signed by itself


class UserStateError(Exception):
    """Base of the errors, each one line of printable ASCII; __cause__ tells why.

    url (str or None), http_status (int or None), tries (int): of the last request.
    """
    status = 1  # of the command

    def __init__(self, text, url=None, http_status=None, tries=0):
        super().__init__(_printable(text))
        self.url, self.http_status, self.tries = url, http_status, tries


class EventError(UserStateError, ValueError):
    """An event, an option or an operand is invalid: nothing was sent."""
    status = 2


class RefusedError(UserStateError):
    """Trying again will not help."""


class DeadlineError(UserStateError):
    """Gave up at the deadline: trying again later may help."""
    status = 75  # EX_TEMPFAIL


class _Fault(Exception):  # why a try failed
    def __init__(self, text, retry, hint="", least_pause=0.0, http_status=None):
        super().__init__(text)
        self.retry, self.hint = retry, f" ({hint})" if hint else ""
        self.least_pause, self.http_status = least_pause, http_status


def send_user_state_event(state, code, message, *, metadata_url=None, url=None,
                          timeout=None, deadline=None, dry_run=False, verbose=False,
                          say=None, clock=time.monotonic, sleep=time.sleep, **rest):
    """Put an event on the timeline of this machine.

    state: one of STATES; code: an int of CODES; message: a str, sent as it is. url: a
    str, where to post, by default USERSTATE_URL or what the metadata says.
    metadata_url: a str, where to ask, or several parted by spaces, by default
    USERSTATE_METADATA_URL or METADATA_URL. timeout, deadline: seconds (int, float) of a
    try and of the call, by default USERSTATE_TIMEOUT or 10, USERSTATE_DEADLINE or 150.
    dry_run: a bool, only print the JSON; verbose: a bool, tell of each try. say: a
    function of a line, by default a warning of the logger "userstate". clock, sleep: as
    in time. Raises EventError if something is invalid, and nothing was sent;
    RefusedError if trying again will not help; DeadlineError at the deadline.
    """
    event = build_event(state, code, message)
    delivery = _Delivery(timeout, deadline, verbose, say, clock, sleep, rest)
    delivery.aim(url, metadata_url)
    if dry_run:
        _print(json.dumps(event), delivery.deadline)
    else:
        delivery.send(event)


def build_event(state, code, message):
    """Return the event, a dict of state, code and message; nothing is converted.

    state: one of STATES; code: an int of CODES, also an IntEnum; message: a str.
    Raises EventError if one of them is anything else.
    """
    _check("state", state, state in STATES, "running, succeeded or failed, in small "
           "letters (on the command line also an exit status, 0 to 255)")
    _check("code", code, isinstance(code, int) and code in CODES, "an int 1000 to 1099")
    _check("message", message, isinstance(message, str), "a string")
    return {"state": state, "code": code, "message": message}


def fetch_metadata(*, metadata_url=None, url=None, timeout=None, deadline=None,
                   dry_run=False, verbose=False, say=None, clock=time.monotonic,
                   sleep=time.sleep, **rest):
    """Return the metadata document of this machine, a dict.

    Options and errors are as for an event, but url does not count, dry_run is an error.
    """
    delivery = _Delivery(timeout, deadline, verbose, say, clock, sleep, rest)
    delivery.ask(metadata_url, dry_run)
    return delivery.persist("GET", delivery.metadata_urls, _document)


def user_state_url(*, metadata_url=None, url=None, timeout=None, deadline=None,
                   dry_run=False, verbose=False, say=None, clock=time.monotonic,
                   sleep=time.sleep, **rest):
    """Return the address that events are posted to, a str.

    Options and errors are as for an event; dry_run is an error if it has to ask.
    """
    delivery = _Delivery(timeout, deadline, verbose, say, clock, sleep, rest)
    delivery.aim(url, metadata_url, dry_run)
    return delivery.user_state_url()


def post_event(event, url, *, metadata_url=None, timeout=None, deadline=None,
               dry_run=False, verbose=False, say=None, clock=time.monotonic,
               sleep=time.sleep, **rest):
    """Post event, anything of which json makes text, to url (str).

    Options and errors are as for an event, but metadata_url does not count.
    """
    delivery = _Delivery(timeout, deadline, verbose, say, clock, sleep, rest)
    address = _checked_address("url", url)
    try:
        text = json.dumps(event, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise EventError(f"event: {error}") from error
    if dry_run:
        _print(text, delivery.deadline)
    else:
        delivery.post(text, address)


def _check(name, value, is_valid, must):
    if not is_valid:
        raise EventError(f"{name} {_hide(ascii(value))}: must be {must}")


class _Delivery:  # the options of one call, checked, and the tries until its deadline
    def __init__(self, timeout, deadline, verbose, say, clock, sleep, rest):
        for name in rest:
            raise EventError(f"option {_hide(name)}: there is none of this name")
        self.timeout = _seconds("timeout", timeout, TIMEOUT)
        self.deadline = _seconds("deadline", deadline, DEADLINE)
        self.verbose, self.tell = verbose, say or _log
        self.clock, self.sleep = clock, sleep
        self.url, self.metadata_urls = None, []
        self.subject, self.told = "", set()  # the event that lines are about; lines
        self.renew()

    def aim(self, url, metadata_url, dry_run=False):  # at url, or what metadata says
        name = "url"
        if metadata_url is None:  # which wins over the variable for url
            name, url = _setting(name, url)
        if url is None:
            self.ask(metadata_url, dry_run)
        else:
            self.url = _checked_address(name, url)

    def ask(self, metadata_url, dry_run):
        name, urls = _setting("metadata_url", metadata_url, METADATA_URL)
        urls = str(urls).split() or [""]
        self.metadata_urls = [_checked_address(name, url) for url in urls]
        if dry_run:
            raise EventError("dry run: asks nobody, so --url has to say where")

    def renew(self, deadline=FOREVER, timeout=FOREVER, pause=None):
        self.deadline_at = self.clock() + min(self.deadline, deadline)
        self.try_most, self.pause = min(self.timeout, timeout), pause or self.sleep

    def seconds_left(self):
        return self.deadline_at - self.clock()

    def say(self, line, problem=None):  # of the same problem only the first line
        if problem is None or problem not in self.told:
            self.told.add(problem)
            self.tell(_printable(line))

    def send(self, event):
        self.subject = f"{event['state'][:]} {int(event['code'])}: "  # [:] of an Enum
        self.post(json.dumps(event), self.user_state_url())

    def user_state_url(self):
        return self.url or self.persist("GET", self.metadata_urls, self.event_url)

    def event_url(self, answer):
        document = _document(answer)
        url, home = document.get("user_state_url"), document.get("phone_home_url")
        if not url and isinstance(home, str) and home.strip().endswith("/phone-home"):
            url = home.strip()[:-len("phone-home")] + "events"
            self.say(f"{self.subject}taking {_public(url)}, by phone_home_url")
        if not isinstance(url, str) or not url.strip():
            raise _Fault("no user_state_url" + _reason(document), RETRY_FEW,
                         "Tinkerbell of today has none: set --url or USERSTATE_URL")
        return _checked_address("user_state_url", url.strip())

    def post(self, text, url):
        # In the form of draft-ietf-httpapi-idempotency-key-header. A program may seed
        # the generator of random itself, and os.urandom() may block at boot.
        key = f'"{random.Random().getrandbits(128):032x}"'
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        self.persist("POST", [url], bytes, text.encode(), headers)  # any 2xx will do

    def persist(self, method, urls, read, *content):  # return what read makes of it
        urls, begun_at = list(urls), self.clock()
        tries, more_tries = 0, MORE_TRIES
        seconds, is_last = self.seconds_left(), False
        while True:
            url, tries = urls.pop(0), tries + 1
            answer, fault = self.attempt(seconds, method, url, read, *content)
            if fault is None:
                return answer
            limit = f"for {self.seconds_left():.1f} s at most"
            if fault.retry == RETRY_FEW:
                more_tries -= 1
                limit = f"{more_tries + 1} times at most"
            if fault.retry != RETRY_NEVER:
                urls.append(url)
            line = f"{self.subject}{_public(url)}: {fault}{fault.hint}"
            end = f"at try {tries} after {self.clock() - begun_at:.1f} s"
            details = _public(url), fault.http_status, tries
            if not urls or more_tries < 0:
                raise RefusedError(f"{line}; refused {end}", *details) from fault
            if is_last or self.seconds_left() <= fault.least_pause:
                raise DeadlineError(f"{line}; gave up {end}", *details) from fault
            pause, is_last = self.next_pause(tries, fault.least_pause)
            self.say(f"{line}; trying again in {pause:.1f} s, {limit}", problem=line)
            self.pause(pause)
            seconds = self.seconds_left()
            if seconds <= 0:  # was frozen: one last try, for as long as it is late
                seconds, is_last = -seconds, True

    def next_pause(self, tries, least):  # seconds, and whether the last try follows
        seconds_left = self.seconds_left()
        pause = max(least, PAUSES[min(tries, len(PAUSES)) - 1] * random.uniform(0.5, 1))
        if pause < seconds_left:
            return pause, False
        return max(least, seconds_left - min(1, seconds_left / 2)), True

    def attempt(self, seconds, method, url, read, *content):
        begun_at, answer, fault = self.clock(), None, None
        try:
            answer = read(_request(method, url, min(seconds, self.try_most), *content))
        except Exception as error:
            fault = _fault_of_error(error)
            if not isinstance(error, _Fault):
                fault.__cause__ = error
            known = (_Fault, EventError, OSError, MemoryError, ImportError,
                     http.client.HTTPException)
            if self.verbose and not isinstance(error, known):  # a bug
                _tell_traceback(self.tell)
            if url in METADATA_URL.split():
                fault.hint += f" ({SWITCHED_OFF})"
                is_all = set(self.metadata_urls) <= set(METADATA_URL.split())
                if fault.retry == RETRY_UNTIL_DEADLINE and is_all:
                    fault.retry = RETRY_FEW
        if self.verbose:
            result = "accepted" if fault is None else fault
            taken = self.clock() - begun_at
            self.say(f"{self.subject}{method} {_public(url)}: {result}, {taken:.3f} s")
        return answer, fault  # which is None after an answer that is of use


def _setting(name, value, default=None):  # name and value, maybe of the variable
    variable = f"USERSTATE_{name.upper()}"
    if value is None and os.environ.get(variable, "").strip():
        return variable, os.environ[variable].strip()
    return name, default if value is None else value


def _seconds(name, value, default=None):
    name, value = _setting(name, value, default)
    is_valid = re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", str(value)) and float(value) > 0
    _check(name, value, is_valid, "seconds, above 0 and below 100000, like 10 or 0.5")
    return float(value)


def _checked_address(name, url):
    if isinstance(url, str) and re.fullmatch("https?://[!-~]+", url, re.I):
        with suppress(ValueError):  # of a port, or of brackets
            parts = urlsplit(url)
            host = re.fullmatch(r"([^.,]{1,63}\.)*[^.,]{1,63}\.?", parts.hostname or "")
            if host and parts.port != 0 and "@" not in parts.netloc:
                return url
    raise EventError(f"{name} {_public(url)!a}: must be http(s)://host, without a user")


def _public(url):  # what may be shown of it: a password may hold any character
    return "(hidden: @)" if "@" in str(url) else re.split("[?#]", str(url))[0][:200]


def _hide(text):  # what looks like an address may hold a password
    return "(hidden: an address)" if re.search("://|@", text) else text[:100]


def _printable(text):  # without user and query of an address that others wrote
    return re.sub(r"[^!-~]+|(?<=://)\S*[@?]\S*", " ", str(text)).strip()


def _tell_traceback(tell):
    import traceback
    for line in traceback.format_exc().splitlines():
        tell(_printable(line))


def _log(line):
    with suppress(OSError, ImportError):  # no descriptor left, or Python is ending
        import logging
        logging.getLogger("userstate").warning("%s", line)


def _request(method, url, seconds, body=None, headers=()):  # the body of a 2xx to a GET
    parts, end_at = urlsplit(url), time.monotonic() + seconds
    host = parts.hostname.replace("%25", "%")  # of a zone: RFC 6874
    port = parts.port or (80 if parts.scheme == "http" else 443)
    connection = _connect(host, port, end_at)
    try:
        if parts.scheme == "https":
            connection = _start_tls(connection, host, end_at)
        http_connection = http.client.HTTPConnection(host, 80)  # not to be parsed
        http_connection.sock = wire = _Wire(connection, end_at)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"Host": re.sub("%[^]]*", "", parts.netloc),  # without a zone
                   "User-Agent": f"userstate/{__version__}", **dict(headers)}
        with suppress(BrokenPipeError):  # the answer may be there all the same
            http_connection.request(method, target, body, headers)
        with http_connection.getresponse() as reply:
            while reply.status < 200:  # http.client skips 100 alone
                reply.headers = None  # type: ignore  # else begin() reads no other
                reply.begin()
            if wire.is_at_end:  # which http.client takes for the end of the headers
                raise http.client.IncompleteRead(b"")
            connection.setsockopt(*SEND_ON_CLOSE)  # it is answered
            if reply.status >= 300:
                raise _fault_of_answer(method, reply)
            return _read(reply, METADATA_MOST) if body is None else b""
    finally:
        connection.close()


def _connect(host, port, end_at):  # each address of host gets its share of the time
    found = _resolve(host, port, end_at)
    for index, (family, kind, protocol, _, address) in enumerate(found):
        share = (end_at - time.monotonic()) / (len(found) - index)
        connection = None
        try:
            connection = socket.socket(family, kind, protocol)
            connection.setsockopt(*RESET_ON_CLOSE)  # a try given up leaves nothing
            connection.settimeout(max(0.001, share))
            connection.connect(address)
            return connection
        except OSError:
            if connection is not None:
                connection.close()
            if index == len(found) - 1:
                raise


def _resolve(host, port, end_at):  # in a thread, as getaddrinfo() can hang
    found: list = [socket.timeout()]  # as long as nothing else is known

    def ask(side=None):
        try:  # a name as bytes needs no idna codec, which thin Pythons lack
            found[:] = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
        except Exception as error:
            found[:] = [error]
    try:
        with _start(ask) as side:
            _is_closed(side, end_at - time.monotonic())
    except (OSError, RuntimeError, MemoryError):  # no thread to be had
        ask()
    if isinstance(found[0], Exception):
        raise found[0]
    return found


def _start_tls(connection, host, end_at):
    import ssl
    # Not create_default_context(), which fails if it cannot write SSLKEYLOGFILE.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_default_certs()
    name = host.partition("%")[0].rstrip(".").encode()  # bytes: no idna codec, either
    connection.settimeout(max(0.001, end_at - time.monotonic()))
    try:
        return context.wrap_socket(connection, server_hostname=name)
    except (ssl.SSLError, ssl.CertificateError) as error:
        raise _fault_of_tls(error) from error


class _Wire(io.RawIOBase):  # for http.client: each operation ends at the same moment
    def __init__(self, connection, end_at):
        self.connection, self.end_at, self.is_at_end = connection, end_at, False

    def in_time(self):
        seconds_left = self.end_at - time.monotonic()
        if seconds_left <= 0:
            raise socket.timeout
        self.connection.settimeout(seconds_left)
        return self.connection

    def sendall(self, data):
        self.in_time().sendall(data)

    def readinto(self, buffer):
        count = self.in_time().recv_into(buffer)
        self.is_at_end = count == 0
        return count

    def readable(self):
        return True

    def makefile(self, mode):
        return io.BufferedReader(self)

    def close(self):
        """Leave it open: http.client closes it before the body of some answers."""


def _read(reply, most):
    body = bytearray(most + 1)  # as read() would never end after a chunk of -1 bytes
    count = reply.readinto(body)
    if count > most:
        raise _Fault(f"more than {most} bytes", RETRY_FEW)
    if reply.length:  # readinto() does not tell that it was cut
        raise http.client.IncompleteRead(b"")
    return bytes(body[:count])


def _start(function):  # function(side) in a thread; return the other side
    ours, theirs = socket.socketpair()

    def run():
        with theirs:
            function(theirs)
            theirs.shutdown(socket.SHUT_RDWR)  # a child of a fork may hold it, too
    _thread.start_new_thread(run, ())
    return ours


def _is_closed(side, seconds):  # wait until the other one is, so many at most
    side.settimeout(max(seconds, 0.001))  # monotonic, as a lock's is from 3.9 on only
    with suppress(socket.timeout):
        return not side.recv(1)
    return False


def _fault_of_error(error):
    if isinstance(error, _Fault):
        return error
    if isinstance(error, socket.timeout):
        return _Fault("timed out", RETRY_UNTIL_DEADLINE)
    if isinstance(error, http.client.HTTPException):  # its text may quote the document
        return _Fault(f"broken answer ({type(error).__name__})", RETRY_UNTIL_DEADLINE)
    if isinstance(error, (OSError, MemoryError)):
        text = getattr(error, "strerror", None) or str(error) or "out of memory"
        return _Fault(text, RETRY_UNTIL_DEADLINE)
    if isinstance(error, ImportError):
        return _Fault(f"no ssl: {error}", RETRY_NEVER, PACKAGES)
    if isinstance(error, EventError):  # an address that the document has
        return _Fault(str(error), RETRY_NEVER)
    return _Fault(f"bug: {type(error).__name__}: {error!s:.80}", RETRY_NEVER)


def _fault_of_tls(error):
    code, reason = getattr(error, "verify_code", None), getattr(error, "reason", None)
    text = f"certificate verify failed: {getattr(error, 'verify_message', error)}"
    # 3.6 has no code, and one reason for all certificates: at boot the clock, often.
    if code in WRONG_TIME or code is None and reason == "CERTIFICATE_VERIFY_FAILED":
        hint = time.strftime("is the clock right? It says %Y-%m-%d %H:%M")
        return _Fault(text, RETRY_UNTIL_DEADLINE, hint)
    if code in NO_AUTHORITY:
        path = os.environ.get("SSL_CERT_FILE")
        hint = (f"its authority is not in ca-certificates, or SSL_CERT_FILE {path}"
                if path else "install ca-certificates, or set SSL_CERT_FILE")
        return _Fault(text, RETRY_NEVER, hint)
    if code is not None or isinstance(error, ValueError):  # of another name, as a rule
        return _Fault(text, RETRY_NEVER)
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return _Fault(f"no TLS: {reason}", RETRY_UNTIL_DEADLINE, "is it http?")
    return _fault_of_error(error)


def _fault_of_answer(method, reply):
    text = f"HTTP {reply.status} {reply.reason:.80}"
    location = reply.getheader("Location")
    if location:
        text += f", redirect to {_public(location)}"
    with suppress(_Fault, OSError, http.client.HTTPException):
        text += _reason(_document(_read(reply, REFUSAL_MOST)))
    retry = RETRY_UNTIL_DEADLINE if reply.status >= 500 else RETRY_NEVER
    retry = RETRY_OF_STATUS.get(reply.status, retry)
    if reply.status == 404 and method == "GET":  # this machine is not known there yet
        retry = RETRY_FEW
    return _Fault(text, retry, "", _retry_after(reply), reply.status)


def _retry_after(reply):  # seconds; for no date each Python raises something else
    value = reply.getheader("Retry-After", "").strip()
    if re.fullmatch("[0-9]+", value):
        return min(float(value), RETRY_AFTER_MOST)
    date = reply.getheader("Date") or email.utils.formatdate(usegmt=True)  # ours errs
    with suppress(ValueError, TypeError, IndexError, OverflowError, AttributeError):
        until, now = map(email.utils.parsedate_to_datetime, (value, date))
        return max(0, min((until - now).total_seconds(), RETRY_AFTER_MOST))
    return 0


def _document(body):
    def number(digits):  # int() takes minutes for a MiB of them; 1e999 is inf, too
        return int(digits) if len(digits) < 1000 else float(digits)
    with suppress(ValueError, RecursionError):
        document = json.loads(body.decode("utf-8-sig"), parse_int=number)
        if isinstance(document, dict):
            return document
    raise _Fault("not JSON", RETRY_FEW)


def _reason(document):
    if len(document) != 1:  # this is no error document, and secret
        return ""
    reason = document.get("errors") or document.get("message") or document.get("error")
    reasons = reason if isinstance(reason, list) else [reason]
    return "".join(f" ({text:.200})" for text in reasons[:3] if isinstance(text, str))


class step:
    """Report around a block (with step(...):) or a plain function (@step(...)).

    every: seconds (int, float) between repeats of running, by default none; all else
    is as for an event. It is running, then succeeded (also after sys.exit(0)), or
    failed with the type of the exception, which goes on; a report that fails is a line.
    Raises EventError before the block, and RuntimeError if it is in use already.
    """
    def __init__(self, code, message, every=None, *, metadata_url=None, url=None,
                 timeout=None, deadline=None, dry_run=False, verbose=False, say=None,
                 clock=time.monotonic, sleep=time.sleep, **rest):
        build_event("running", code, message)
        self._code, self._message, self._dry_run = code, message, dry_run
        self._every = None if every is None else _seconds("every", every)
        self._delivery = _Delivery(timeout, deadline, verbose, say, clock, sleep, rest)
        self._delivery.aim(url, metadata_url)
        with suppress(OSError):  # before 3.9 its importer's thread becomes the main one
            import threading  # noqa: F401
        self._in_use, self._early_side = _thread.allocate_lock(), None

    def __enter__(self):
        if not self._in_use.acquire(blocking=False):
            raise RuntimeError("this step is in use: make another one")
        self._begun_at, self._early_side = self._delivery.clock(), None
        self._delivery.renew(timeout=GRACE, pause=self._pause)
        try:
            self._early_side = _start(self._report_early)
        except (OSError, RuntimeError, MemoryError) as error:
            self._say("running", f"{error}: the report that it runs is left out")
        return self

    def __exit__(self, kind, error, trace):
        state, what = "succeeded", "done"
        if kind is not None and not (kind is SystemExit and error.code in (None, 0)):
            state, what = "failed", kind.__name__
        try:
            self._end(state, f"{what} after {self._taken()}")
        finally:
            self._in_use.release()

    def __call__(self, function):
        @functools.wraps(function)
        def reported(*args, **kwargs):
            import copy
            another = copy.copy(self)
            another._delivery = copy.copy(self._delivery)
            another._in_use = _thread.allocate_lock()
            with another:
                return function(*args, **kwargs)
        return reported

    def _report_early(self, side):  # until the other side is closed
        self._main_side, self._is_hurried = side, False
        self._report("running")
        while self._every is not None:
            taken = self._delivery.clock() - self._begun_at
            if _is_closed(side, self._every - taken % self._every):
                break
            self._delivery.renew(self._every, GRACE, self._pause)
            if not _is_closed(side, 0):  # else the end did not hurry this deadline
                self._report("running", f": running for {self._taken()}", "a repeat")

    def _pause(self, seconds):  # between early tries; the end cuts one of them short
        if self._is_hurried:
            time.sleep(seconds)
        else:
            self._is_hurried = _is_closed(self._main_side, seconds)

    def _say(self, state, line):
        self._delivery.say(f"{state} {int(self._code)}: {line}")

    def _end(self, state, what):
        delivery = self._delivery
        if self._early_side is not None:
            with self._early_side:  # waited for by seconds: all may be frozen
                self._early_side.shutdown(socket.SHUT_WR)  # _report_early() sees it
                delivery.renew(min(GRACE, delivery.seconds_left()), GRACE, self._pause)
                any(_is_closed(self._early_side, 1) for _ in range(GRACE + 1))
        delivery.renew()
        self._report(state, f": {what}")

    def _report(self, state, what="", problem=None):
        event = build_event(state, self._code, self._message + what)
        try:
            if self._dry_run:
                _print(json.dumps(event), self._delivery.deadline)
            else:
                self._delivery.send(event)
        except UserStateError as error:
            self._delivery.say(error, problem)

    def _taken(self):
        seconds = int(self._delivery.clock() - self._begun_at)
        hours, minutes = seconds // 3600, seconds // 60 % 60
        if hours:
            return f"{hours} h {minutes} min"
        return f"{minutes} min {seconds % 60} s" if minutes > 2 else f"{seconds} s"


def _run(report, command, writer, reader):  # return the status, as a shell does
    with _Signals() as signals:
        try:
            child = _start_command(command, writer, signals.restore_in_child)
        except (OSError, ValueError) as error:  # ValueError: a NUL
            status = 127 if isinstance(error, FileNotFoundError) else 126
            why = getattr(error, "strerror", error)
            what = f"cannot run {_hide(command[0])}: {why}"
            report._say("failed", what)
        else:
            report.__enter__()  # _end() follows below, without __exit__()
            status = signals.pass_on_to(child)
            what = f"{_ending(status)} after {report._taken()}"
            if status != 0 and reader is not None:
                with suppress(OSError):  # its disk fails
                    what += _last_line(reader)
        state = "failed" if status else "succeeded"
        try:
            signals.count_from_now()
            report._end(state, what)
        except KeyboardInterrupt:
            report._say(state, "interrupted: it is not reported")
    if status == -signal.SIGINT:
        return _interrupted()
    return status if status >= 0 else 128 - status


def _ending(status):
    if status < 0:
        names = {int(number): number.name for number in signal.Signals}
        return f"killed by {names.get(-status, -status)}"
    return f"exit status {status}" if status else "done"


def _start_command(command, writer, prepare):  # as the shell that we stand in for would
    import shutil
    import subprocess
    environment = dict(os.environ)
    with suppress(OSError), open("/proc/self/environ", errors="replace") as file:
        if environment.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):  # PEP 538
            del environment["LC_CTYPE"]
            environment.update(re.findall("(?:^|\0)(LC_CTYPE)=([^\0]*)", file.read()))
    start = functools.partial(subprocess.Popen, stdout=writer, stderr=writer,
                              close_fds=False, preexec_fn=prepare, env=environment)
    try:
        return start(command)
    except OSError as error:
        path = shutil.which(command[0])
        if error.errno != errno.ENOEXEC or path is None:
            raise
    return start(["/bin/sh", path, *command[1:]])  # no #!: as execvp(3) does


def _open_log(path, files, is_kept):  # to write to it, and to read what is new in it
    is_new = not os.path.exists(path)
    # As a shell's >>: never the terminal of our session, never a reader of a pipe,
    # which would keep it from breaking. A FIFO that nobody reads is not waited for.
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOCTTY | os.O_NONBLOCK
    writer = os.open(path, flags, 0o600)
    files.callback(os.closerange, writer, writer + 1)  # no error, as of a full disk
    os.set_blocking(writer, True)
    if is_new and not is_kept:
        os.unlink(os.path.realpath(path))
    reader = None
    with suppress(OSError):
        if os.path.isfile(path):
            reader = os.open(path, os.O_RDONLY)
            files.callback(os.closerange, reader, reader + 1)
            os.lseek(reader, 0, os.SEEK_END)
    with suppress(OSError):
        if os.path.sameopenfile(writer, 2):  # not to overwrite it with lines
            os.dup2(writer, 2)
    return writer, reader


def _last_line(log):  # of what was written since it was opened, by no report
    size, begin = os.fstat(log).st_size, os.lseek(log, 0, os.SEEK_CUR)
    begin = max(begin if begin <= size else 0, size - LOG_MOST)  # 0: it was cut
    text = os.pread(log, LOG_MOST, begin).decode("utf-8", "replace")
    text = re.sub(NAME + "[a-z]+ 10[0-9]+: .*\n|\x1b\\[[0-?]*[ -/]*[@-~]", "", text)
    for line in reversed(re.split("[\r\n]", text)):
        line = "".join(c if c.isprintable() else " " for c in line).strip()
        if line and not line.startswith(NAME):  # which is of a report
            return f": {line:.200}"
    return ""


class _Signals:  # those that would end us, blocked and passed on while a command runs
    # A handler of Python's would swallow one that comes between the fork and the exec.

    def __enter__(self):
        left_alone = {getattr(signal, "SIG" + name) for name in (
            "KILL STOP CONT TSTP TTIN TTOU CHLD URG WINCH "  # do not end a process
            "SEGV BUS FPE ILL TRAP ABRT SYS").split()}  # are faults of our own
        found = {number: signal.getsignal(number) for number in range(1, signal.NSIG)}
        self.handlers = {number: found[number] for number in set(found) - left_alone
                         if found[number] not in (None, signal.SIG_IGN)}
        self.handlers[signal.SIGCHLD] = found[signal.SIGCHLD] or signal.SIG_DFL
        self.latest, self.latest_at, self.counted = None, 0.0, 0
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, self.handlers)
        for number in self.handlers:  # if SIGCHLD is ignored, there is no status
            signal.signal(number, signal.SIG_DFL)
        return self

    def restore_in_child(self):
        signal.signal(signal.SIGCHLD, self.handlers[signal.SIGCHLD])
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def pass_on_to(self, child):
        only_ours = signal.sigpending()  # they came before the fork
        while child.poll() is None:
            got = signal.sigtimedwait(self.handlers, 1)  # a thread may eat SIGCHLD
            if got is None or got.si_signo == signal.SIGCHLD:
                continue
            self.latest, self.latest_at = got.si_signo, time.monotonic()
            # The kernel (si_code > 0) sends those of a terminal to the whole group.
            has_it = (got.si_signo in {signal.SIGINT, signal.SIGQUIT} - only_ours
                      and got.si_code > 0 and os.getpgid(child.pid) == os.getpgrp())
            only_ours.discard(got.si_signo)
            with suppress(OSError):  # it has become another user's
                if not has_it:
                    child.send_signal(got.si_signo)
        return child.returncode

    def count_from_now(self):  # the command has ended: the second from here interrupts
        for number in set(self.handlers) - {signal.SIGCHLD}:
            signal.signal(number, self.count)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def count(self, number, frame):
        now = time.monotonic()
        if number != self.latest or now - self.latest_at > SAME_SIGNAL:
            self.latest, self.latest_at = number, now
            self.counted += 1
            if self.counted == 2:
                raise KeyboardInterrupt

    def __exit__(self, *error):
        signal.pthread_sigmask(signal.SIG_BLOCK, self.handlers)
        if __name__ != "__main__":  # else the process ends now, with its status
            for number, handler in self.handlers.items():
                signal.signal(number, handler)
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)


NAME = "userstate: "  # before each line
USAGE = """\
usage: userstate [OPTIONS] STATE CODE MESSAGE
 or: userstate [OPTIONS] run [--every SECONDS] [--log FILE] CODE MESSAGE [--] COMMAND
 or: userstate [OPTIONS] url
The first puts an event on the timeline. STATE: running, succeeded, failed, or an exit
  status (0: succeeded, 1 to 255: failed); CODE: 1000 to 1099; MESSAGE: any text.
run reports that COMMAND is running, and how it ended. Its status is that of COMMAND.
  --every SECONDS: report as often that it is still running
  --log FILE: append its output to FILE; if it fails, report the last line
url prints the address that events are posted to.
OPTIONS: -n, --dry-run: print the JSON only; -v, --verbose; -h, --help; --version;
  --url URL, or USERSTATE_URL: the address that events are posted to;
  --metadata-url URL, or USERSTATE_METADATA_URL: where to ask for that address;
  --timeout SECONDS, or USERSTATE_TIMEOUT: of one try, 10;
  --deadline SECONDS, or USERSTATE_DEADLINE: of one report, all tries, 150
status: 0 accepted, 1 refused, 2 invalid, 75 gave up, 130 interrupted, or COMMAND's"""
OPTIONS = "metadata-url= url= timeout= deadline= dry-run verbose help version".split()
RUN_OPTIONS = "every= log= help".split()
KNOWN = f"--{' --'.join(OPTIONS)}; behind run --{' --'.join(RUN_OPTIONS)}"
LETTERS = {"-n": "--dry-run", "-v": "--verbose", "-h": "--help"}


def main(argv=None):
    """Run argv, a list of str, by default the command line; return the exit status."""
    options = {}
    try:
        words = sys.argv[1:] if argv is None else [str(word) for word in argv]
        options, operands = _options(words, "nvh", OPTIONS)
        return _command(options, operands, argv is None)
    except UserStateError as error:
        _warn(error)
        return error.status
    except KeyboardInterrupt:
        _warn("interrupted")
        return _interrupted()
    except Exception as error:
        _warn(f"bug: {type(error).__name__}: {error}")
        if "verbose" in options:
            _tell_traceback(_warn)
        return UserStateError.status


def _options(words, letters, names):
    try:
        given, operands = getopt.getopt(words, letters, names)
    except getopt.GetoptError as error:
        raise EventError(f"{_hide(str(error))}; there are {KNOWN}") from None
    options = {}
    for name, value in given:
        name = LETTERS.get(name, name)[2:]
        options[name.replace("-", "_")] = value if name + "=" in names else True
    return options, operands


def _command(options, operands, from_process):
    if operands[:1] == ["run"]:
        run_options, operands[1:] = _options(operands[1:], "h", RUN_OPTIONS)
        options.update(run_options)
    if "help" in options or "version" in options:
        text = USAGE if "help" in options else f"userstate {__version__}"
        return _print(text, DEADLINE)
    options["say"] = _warn
    if operands == ["url"]:
        seconds = _seconds("deadline", options.get("deadline"), DEADLINE)
        return _print(user_state_url(**options), seconds)
    state, code, message, command = _operands(operands, from_process)
    if state == "run":
        return _run_command(code, message, command, **options)
    if state in map(str, range(1, 256)):
        state, message = "failed", f"{message}: exit status {state}"
    elif state == "0":
        state = "succeeded"
    send_user_state_event(state, code, message, **options)
    return 0


def _operands(operands, from_process):
    is_run = operands[:1] == ["run"]
    if is_run and operands[3:] in ([], ["--"]):
        raise EventError("run: must be followed by CODE MESSAGE COMMAND; see --help")
    if not is_run and (len(operands) != 3 or operands[0] == "url"):
        raise EventError(f"operands: {len(operands)}, must be STATE CODE MESSAGE, the "
                         "MESSAGE quoted and options before them; see --help")
    state, code, message, *command = operands
    if code in map(str, CODES):
        code = int(code)
    if from_process:  # what is not of the locale are surrogates
        message = os.fsencode(message).decode("utf-8", "replace")
    return state, code, message, command


def _run_command(code, message, command, every=None, log=None, **options):
    import threading
    if command[0] == "--":
        command = command[1:]
    elif command[0].startswith("-"):
        raise EventError(f"option {_hide(command[0])}: must be before CODE MESSAGE, "
                         "or behind -- if it is the COMMAND; see --help")
    if threading.current_thread() is not threading.main_thread():
        raise EventError("run: must be in the main thread")
    if not hasattr(signal, "sigtimedwait"):
        raise EventError("run: needs signal.sigtimedwait, as Linux has it")
    report = step(code, message, every, **options)
    is_dry, writer, reader = "dry_run" in options, None, None
    with ExitStack() as files:
        try:
            if log is not None:
                writer, reader = _open_log(log, files, not is_dry)
        except (OSError, ValueError) as error:  # ValueError: a NUL
            why = getattr(error, "strerror", error)
            report._say("running", f"log {_hide(ascii(log))}: {why}; it is not written")
        if not is_dry:
            return _run(report, command, writer, reader)
    send_user_state_event("running", code, message, **options)
    return 0


def _warn(line):  # or lose it
    with suppress(RefusedError):
        _print(f"{NAME}{_printable(line)}", 0, "stderr")


def _print(text, seconds, name="stdout"):
    stream, data = getattr(sys, name), text.encode() + b"\n"
    end_at = time.monotonic() + seconds
    try:
        stream.flush()
        while data:
            seconds_left = max(0, end_at - time.monotonic())
            if not select.select([], [stream], [], seconds_left)[1]:
                raise OSError("nobody reads it")
            count = os.write(stream.fileno(), data[:select.PIPE_BUF])  # so much is free
            data = data[count:]
    except io.UnsupportedOperation:  # in memory
        stream.write(text + "\n")
    except (OSError, ValueError, AttributeError) as error:
        raise RefusedError(f"cannot print: {error}") from error
    return 0


if __name__ == "__main__":  # os._exit() waits for no thread and no buffer
    os._exit(main())
