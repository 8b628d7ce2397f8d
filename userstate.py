#!/usr/bin/env python3
"""Tell the platform, from inside a machine, how its installation is getting on.

    curl -fsS ADDRESS | python3 -I - running 1000 "installing packages"
"""
import atexit
import os
import sys


def leave(problem, status):
    try:
        os.write(2, f"userstate: {problem}\n".encode())
    finally:
        os._exit(status)


if __name__ == "__main__":
    # Half a download may parse and do nothing: only the last line of all passes this.
    atexit.register(leave, "incomplete download, nothing was sent", 1)
    sys.excepthook = lambda kind, error, trace: leave(
        str(error) or "interrupted", 130 if kind is KeyboardInterrupt else 1)
    if not getattr(sys.flags, "safe_path", sys.flags.isolated):
        del sys.path[0]  # a json.py that lies there must not run as root
import email.utils
import getopt
import http.client
import json
import random
import re
import socket
import threading
import time
import urllib.parse

__version__ = "1.0"
METADATA_URL = ("https://metadata.packet.net/metadata "
                "https://metadata.platformequinix.com/metadata")
STATES = "running", "succeeded", "failed"
CODES = range(1000, 1100)
PAUSES = 1, 2, 4, 8, 15  # seconds; the last is repeated

# More tries that an answer is worth. Not named: none for 3xx and 4xx, else ALWAYS.
FEW, ALWAYS = 3, 9**9
EVENT_RETRIES = {400: FEW,  # also said when its own upstream fails
                 408: ALWAYS, 425: ALWAYS, 429: ALWAYS, 501: 0, 505: 0}
METADATA_RETRIES = {**EVENT_RETRIES, 404: FEW}  # 404: the machine is not known yet


class UserStateError(Exception):
    """Base of the errors; its text is one printable line."""

    status = 1

    def __init__(self, text, retries=0, wait=0):
        text = "".join(c if c.isprintable() else " " for c in text)
        super().__init__(" ".join(text.split()))
        self.retries, self.wait = retries, wait


class EventError(UserStateError, ValueError):
    """Invalid argument or option: nothing was sent."""

    status = 2


class RefusedError(UserStateError):
    """Trying again will not help."""


class DeadlineError(UserStateError):
    """Gave up: trying again later may help."""

    status = 75  # EX_TEMPFAIL


def send_user_state_event(state, code, message, call=None, **options):
    """Put an event on the timeline of this machine.

    state is one of STATES, code an int in CODES, message a str. Options, as on the
    command line: metadata_url, url (str), timeout, deadline (seconds), dry_run, verbose
    (bool). Raises EventError, RefusedError, DeadlineError; logs what it retries.
    """
    event, call = build_event(state, code, message), call or _Call(**options)
    post_event(event, call.dry_run or user_state_url(call), call)


def build_event(state, code, message):
    """Return the event as the dict that is sent as JSON; raise EventError."""
    _check("state", state, state in STATES, "running, succeeded or failed")
    _check("code", code, type(code) is int and code in CODES, "an int, 1000 to 1099")
    _check("message", message, isinstance(message, str), "a string")
    return {"state": state, "code": code, "message": message}


def fetch_metadata(**options):
    """Return the metadata document, a dict; raise as send_user_state_event."""
    return _persist(_Call(**options), _document)


def user_state_url(call=None, **options):
    """Return the address that takes events; raise as send_user_state_event."""
    def read(answer):
        document = _document(answer)
        url, home = document.get("user_state_url"), document.get("phone_home_url")
        if not (url and isinstance(url, str)):
            if not (isinstance(home, str) and home.endswith("/phone-home")):
                reason = _reason(document) if len(document) == 1 else ""
                raise UserStateError("no user_state_url" + reason, FEW)
            url = home[:-10] + "events"  # as Ignition does
            call.warn(f"no user_state_url: using phone_home_url's {_public(url)}")
        return _checked(url)
    call = call or _Call(**options)
    return call.url or _persist(call, read)


def post_event(event, url, call=None, **options):
    """Post event, from build_event, to url; raise as send_user_state_event."""
    call = call or _Call(**options)
    body = json.dumps(event)  # ASCII: lone surrogates are escaped
    if call.dry_run:
        _print(body, sys.stdout)
    else:
        _persist(call, bytes, [url], body.encode())


def _log(line):
    import logging  # slow, and the command line does without
    logging.getLogger("userstate").warning("%s", line)


class _Call:
    """The options of a call, and when it ends."""

    def __init__(self, metadata_url=None, url=None, timeout=None, deadline=None,
                 dry_run=False, verbose=False, say=_log,
                 clock=time.monotonic, sleep=time.sleep):
        def setting(value, name, default=None):
            if value is None:
                return os.environ.get("USERSTATE_" + name) or default
            return value
        self.urls = str(setting(metadata_url, "METADATA_URL", METADATA_URL)).split()
        # Who names a metadata address wants it asked.
        self.url = setting(url, "URL") if metadata_url is None else url
        for address in self.urls or [""] if metadata_url or self.url is None else []:
            _checked(address)
        if self.url is not None:
            _checked(self.url)
        self.timeout = _seconds("timeout", setting(timeout, "TIMEOUT", 10))
        self.ends = clock() + _seconds("deadline", setting(deadline, "DEADLINE", 150))
        self.dry_run, self.verbose, self.say, self.said = dry_run, verbose, say, set()
        self.clock, self.sleep = clock, sleep

    def warn(self, fact, what_next=""):
        if fact not in self.said:
            self.said.add(fact)
            self.say(fact + what_next)


def _persist(call, read, urls=None, body=None):
    """Try until read takes an answer, trying is useless or time is up."""
    if call.dry_run:
        raise EventError("a dry run cannot ask the network")
    urls, tries, few, last, begun = list(urls or call.urls), 0, 0, False, call.clock()
    while True:
        url, tries = urls.pop(0), tries + 1
        try:
            return read(_attempt(call, _checked(url), body))
        except UserStateError as error:
            fault = error
        if fault.retries:
            urls.append(url)  # each try takes the next address
        few += fault.retries == FEW
        left, wait = call.ends - call.clock(), max(0, min(fault.wait, 30))
        pause = max(wait, PAUSES[:tries][-1] * random.uniform(0.5, 1))
        fact = f"{_public(url)}: {fault}"
        end = f"at try {tries} after {call.clock() - begun:.1f} s"
        if not urls or few > FEW:
            raise RefusedError(f"{fact}; refused {end}") from fault
        if last or left <= wait:
            raise DeadlineError(f"{fact}; gave up {end}") from fault
        if pause >= left:
            last, pause = True, left - min(1, left / 2)  # for a last try
        call.warn(fact, f"; trying again in {pause:.1f} s")
        call.sleep(pause)


def _attempt(call, url, body):
    # urllib.request redirects a POST as a GET, asks proxies and hides the socket.
    begun, parts = call.clock(), urllib.parse.urlsplit(url)
    limit, tls = max(0, min(call.timeout, call.ends - begun)), parts.scheme == "https"
    outcome = line = over = refusal = None
    method = "POST" if body else "GET"

    def exchange():
        nonlocal outcome, line, refusal
        connection = http.client.HTTPConnection(
            parts.hostname, parts.port or (443 if tls else 80),
            timeout=limit / 2)  # of 2 addresses 1 may be dead
        try:
            connection.connect()
            connection.sock.settimeout(limit)
            line = connection.sock.dup()
            if over:
                return
            if tls:
                _start_tls(connection)
            target = (parts.path or "/") + ("?" + parts.query if parts.query else "")
            connection.request(method, target, body, {
                "Host": parts.netloc, "Connection": "close",
                "Content-Type": "application/json"})
            with connection.getresponse() as reply:
                if not 200 <= reply.status < 300:
                    outcome = refusal = _refusal(reply, body)
                    outcome = _refusal(reply, body, _read(reply, 1 << 16))
                elif body:
                    outcome = b""
                else:
                    outcome = _read(reply, 1 << 20)
        except socket.timeout:
            pass  # no outcome
        except Exception as error:  # the other thread tells
            outcome = refusal or _failure(error)
        finally:
            connection.close()
            if line:
                line.close()

    thread = threading.Thread(target=exchange, daemon=True)
    try:
        thread.start()
        thread.join(limit)
        result = outcome
    except RuntimeError as error:  # no thread
        result = _failure(error)
    finally:
        over = True  # or it could deliver later
        try:
            line.shutdown(socket.SHUT_RDWR)
        except (OSError, AttributeError):
            pass
    seconds = call.clock() - begun
    if result is None:
        result = UserStateError(f"no answer in {seconds:.1f} s", ALWAYS)
    fault = isinstance(result, Exception) and result
    if call.verbose:
        call.say(f"{method} {_public(url)}: {fault or 'accepted'}, {seconds:.3f} s")
    if fault:
        raise fault
    return result


def _start_tls(connection, flags=0):
    import ssl  # slow, and some Pythons have none
    context = ssl.create_default_context()
    context.verify_flags |= flags
    try:
        connection.sock = context.wrap_socket(
            connection.sock, server_hostname=connection.host)
    except ssl.SSLError as error:
        if flags or "VERIFY_FAILED" not in str(error) or hasattr(error, "verify_code"):
            raise
        # Python 3.6 does not tell: is all but the time right?
        connection.connect()
        _start_tls(connection, 0x200000)  # X509_V_FLAG_NO_CHECK_TIME
        error.verify_code = 10
        raise


def _read(reply, most):
    answer = bytearray(most)  # after a chunk of -1 bytes read() would never end
    answer = bytes(answer[:reply.readinto(answer)])
    if reply.length and len(answer) < most:  # readinto() does not tell
        raise http.client.IncompleteRead(answer, reply.length)
    return answer


def _failure(error):
    retries = 0 if isinstance(error, (ValueError, ImportError)) else ALWAYS
    name = type(error).__name__
    text = getattr(error, "strerror", None) or f"{name}: {error}"
    if isinstance(error, socket.gaierror):
        text = "name not resolved (is the network up?)"
    elif isinstance(error, ConnectionRefusedError):
        text = "connection refused (is the service up?)"
    elif isinstance(error, http.client.HTTPException):
        text = f"broken answer ({name})"
    elif isinstance(error, ImportError):
        text = f"this Python has no TLS: {error}"
    elif "WRONG_VERSION_NUMBER" in text:
        text += " (is it http?)"
    elif "CERTIFICATE_VERIFY_FAILED" in text:
        retries, code = 0, getattr(error, "verify_code", 0)
        if code in (9, 10):  # of x509_vfy.h: not yet valid, expired
            retries = ALWAYS
            text += time.strftime(" (is the clock right? It says %F %R)")
        elif code not in (62, 64):  # another host
            text += " (install ca-certificates or set SSL_CERT_FILE)"
    return UserStateError(text, retries)


def _refusal(reply, body, answer=b""):
    status, after = reply.status, reply.headers.get("Retry-After", "")
    text = f"HTTP {status} {reply.reason:.80}"
    if "Location" in reply.headers:
        text += f", redirect to {_public(reply.headers['Location'])} not followed"
    try:
        text += _reason(_document(answer))
    except UserStateError:
        pass
    try:
        wait = (float(after) if after.isdigit() else
                email.utils.mktime_tz(email.utils.parsedate_tz(after)) - time.time())
    except (TypeError, ValueError, OverflowError, IndexError):
        wait = 0
    retries = EVENT_RETRIES if body else METADATA_RETRIES
    return UserStateError(
        text, retries.get(status, 0 if 300 <= status < 500 else ALWAYS), wait)


def _document(answer):
    try:  # without int() of a whole MiB
        document = json.loads(answer, parse_int=lambda digits: int(digits[:999]))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UserStateError("not a JSON object", FEW)
    return document


def _reason(document):
    reason = document.get("errors") or document.get("message") or document.get("error")
    reasons = reason if isinstance(reason, list) else [reason]
    return "".join(f" ({r:.200})" for r in reasons[:3] if isinstance(r, str))


def _checked(url):
    try:
        parts = urllib.parse.urlsplit(url)
        valid = (re.fullmatch("https?://[!-~]+", url, re.I) and parts.port != 0
                 and "@" not in parts.netloc and parts.hostname.encode("idna"))
    except (ValueError, AttributeError, TypeError):
        valid = False
    _check("address", _public(url), valid, "http(s)://host in ASCII, no user")
    return url


def _public(url):
    return "(hidden: @)" if "@" in str(url) else re.split("[?#]", str(url))[0][:200]


def _seconds(name, value):
    valid = re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", str(value)) and float(value)
    _check(name, value, valid, "seconds, like 10 or 0.5")
    return float(value)


def _check(name, value, valid, must):
    if not valid:
        raise EventError(f"{name} {value!r:.80}: must be {must}")


USAGE = """usage: userstate [OPTIONS] STATE CODE MESSAGE
       userstate [OPTIONS] url
STATE: running, succeeded, failed or an exit status; CODE: 1000 to 1099
--metadata-url URL, or $USERSTATE_METADATA_URL
--url URL, or $USERSTATE_URL
--timeout SECONDS of a try (10), or $USERSTATE_TIMEOUT
--deadline SECONDS of all (150), or $USERSTATE_DEADLINE
-n --dry-run, -v --verbose, -h --help, --version
status: 0 accepted, 1 refused, 2 invalid, 75 gave up, 130 interrupted"""
OPTIONS = "metadata-url= url= timeout= deadline= dry-run verbose help version".split()
SHORT = {"-n": "--dry-run", "-v": "--verbose", "-h": "--help"}


def main(argv=None):
    """Run the command line, by default sys.argv[1:]; return its status."""
    try:
        return _main(argv)
    except (UserStateError, KeyboardInterrupt) as error:
        _complain(str(error) or "interrupted")
        return getattr(error, "status", 130)


def _main(argv):
    try:
        words = sys.argv[1:] if argv is None else argv
        given, words = getopt.getopt(words, "nvh", OPTIONS)
    except getopt.GetoptError as error:
        raise EventError(f"{error}; see --help") from None
    options = {"say": _complain}
    for name, value in given:
        name = SHORT.get(name, name)[2:]
        options[name.replace("-", "_")] = value if name + "=" in OPTIONS else True
    for name, text in (("help", USAGE), ("version", f"userstate {__version__}")):
        if name in options:
            return _print(text, sys.stdout)
    if words == ["url"]:
        return _print(user_state_url(**options), sys.stdout)
    _check("operands", words, len(words) == 3, "STATE CODE MESSAGE, MESSAGE quoted")
    state, code, message = words
    if argv is None:  # not of the locale: surrogates
        message = os.fsencode(message).decode("utf-8", "replace")
    if re.fullmatch("[0-9]{1,3}", state) and int(state) < 256:
        if int(state):
            message += f": exit status {int(state)}"
        state = "failed" if int(state) else "succeeded"
    code = int(code) if re.fullmatch("[0-9]{4}", code) else code
    send_user_state_event(state, code, message, **options)
    return 0


def _complain(problem):
    try:
        _print(f"userstate: {problem}", sys.stderr)
    except UserStateError:
        pass


def _print(text, stream):
    try:
        stream.write(text + "\n")
        stream.flush()
    except (OSError, ValueError, AttributeError) as error:  # full, or closed: None
        raise UserStateError(f"cannot print: {error}") from error
    return 0


if __name__ == "__main__":
    os._exit(main())
