#!/usr/bin/env python3
"""Tell the platform, from inside a machine, how its installation is getting on."""
import atexit
import os
import sys

WHOLE = "install python3 (Alpine, Debian, Fedora, OpenWrt) or python3-modules (Yocto)"


def leave(kind=Exception, error="incomplete download", trace=None):
  hint = f"; {WHOLE}" if issubclass(kind, ImportError) else ""
  try:
    os.write(2, f"userstate: {str(error) or 'interrupted'}{hint}\n".encode())
  finally:
    os._exit(130 if kind is KeyboardInterrupt else 1)


if __name__ == "__main__":
  # Half a download may parse: only the last line passes this.
  atexit.register(leave)
  sys.excepthook = leave
  if not sys.flags.isolated:
    del sys.path[0]  # a json.py that lies there must not run as root
import email.utils
import getopt
import json
import random
import re
import time
from contextlib import suppress
from http import client
from threading import Event, Thread
from urllib.parse import urlsplit, urlunsplit

__version__ = "1.0"
METADATA_URL = ("https://metadata.packet.net/metadata "
                "https://metadata.platformequinix.com/metadata")
STATES = "running", "succeeded", "failed"
CODES = range(1000, 1100)
PAUSES = 1, 2, 4, 8, 15
FEW, ALWAYS = 3, 9**9
FAULTS = (  # text, more tries that it is worth, hint
  (r"\w+ HTTP 400|GET (HTTP 404|no user|not JSON)", FEW, ""),
  (r"\w+ HTTP (408|425|429|5(?!0[15])|[^345])", ALWAYS, ""),
  (r"\w+ (HTTP|address)|.*match", 0, ""),
  (r".*(not yet valid|expired|failed \()", ALWAYS, "is the clock right? It says %F %R"),
  (".*VERIFY_FAILED", 0, "install ca-certificates or set SSL_CERT_FILE"),
  (".*WRONG_VERSION", ALWAYS, "is it http?"),
  (".*HTTPSConnection", 0, "no ssl: " + WHOLE),
  ("", ALWAYS, ""))


class UserStateError(Exception):
  """Base of the errors, whose text is a line of ASCII."""

  status = 1

  def __init__(self, text, wait=0):
    super().__init__(re.sub("[^!-~]+", " ", text).strip())
    self.wait = wait


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

  state: one of STATES; code: an int of CODES; message: a str; options: those of the
  command line. Raises EventError, RefusedError, DeadlineError.
  """
  event, call = build_event(state, code, message), call or step(1000, "", **options)
  post_event(event, call.dry_run or user_state_url(call), call)


def build_event(state, code, message):
  """Return the event, a dict; raise EventError."""
  _check("state", state, state in STATES, "running, succeeded or failed")
  _check("code", code, type(code) is int and code in CODES, "an int, 1000 to 1099")
  _check("message", message, isinstance(message, str), "a string")
  return {"state": state, "code": code, "message": message}


def fetch_metadata(**options):
  """Return the metadata, a dict; raise likewise."""
  return _persist(step(1000, "", **options), _document)


def user_state_url(call=None, **options):
  """Return the address that takes events; raise likewise."""
  def read(answer):
    document = _document(answer)
    url, home = document.get("user_state_url"), str(document.get("phone_home_url"))
    if not url and home.endswith("/phone-home"):
      url = home[:-10] + "events"
      call.say(f"no user_state_url: phone_home_url's {_public(url)}")
    if not isinstance(url or None, str):
      raise UserStateError("no user_state_url" + _reason(document))
    return _checked(url)
  call = call or step(1000, "", **options)
  return call.url or _persist(call, read)


def post_event(event, url, call=None, **options):
  """Post event, from build_event, to url; raise likewise."""
  _persist(call or step(1000, "", **options), bytes, [url], json.dumps(event).encode())


def _log(line):
  import logging
  logging.getLogger("userstate").warning("%s", line)


class step:
  """Report around a block: running, then succeeded, or failed with the exception.

  every: seconds between reports that it still runs. Raises EventError.
  """

  def __init__(self, code, message, every=None, metadata_url=None, url=None,
               timeout=None, deadline=None, dry_run=False, verbose=False, say=_log,
               clock=time.monotonic, sleep=time.sleep):
    build_event("running", code, message)
    if metadata_url is None:  # it wins
      url = _env("url", url)
    urls = str(_env("metadata_url", metadata_url, METADATA_URL)).split()
    for address in (urls or [""]) if url is None else [url]:
      _checked(address)
    timeout = _seconds("timeout", timeout, 10)
    deadline = _seconds("deadline", deadline, 150)
    every = every if every is None else _seconds("every", every)
    ends, said, ended = clock() + deadline, set(), Event()
    vars(self).update(locals())
    self.reports = Thread(target=self.report_on, daemon=True)

  def __enter__(self):
    self.begun, self.sleep = self.clock(), self.ended.wait
    self.timeout = min(self.timeout, 10)
    with suppress(RuntimeError):
      self.reports.start()
    return self

  def __exit__(self, kind, *error):
    self.end(kind, f"{kind.__name__ if kind else 'done'} after {self.took()}")

  def end(self, failed, what):
    self.ends = min(self.ends, self.clock() + 10)
    self.ended.set()
    if self.reports.is_alive():
      self.reports.join()
    self.sleep = time.sleep
    self.report("failed" if failed else "succeeded", ": " + what)

  def report_on(self):
    self.report("running")
    while not self.ended.wait(
        self.every and self.every - (self.clock() - self.begun) % self.every):
      self.report("running", f": running for {self.took()}", self.every)

  def report(self, state, what="", most=ALWAYS):
    self.ends = self.clock() + min(most, self.deadline)
    try:
      send_user_state_event(state, self.code, self.message + what, self)
    except UserStateError as error:
      self.say(error)

  def took(self):
    seconds = int(self.clock() - self.begun)
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return (f"{hours} h {minutes} min" if hours else
            f"{minutes} min {seconds % 60} s" if minutes > 2 else f"{seconds} s")


def _env(name, value, default=None):
  if value is None:
    return os.environ.get("USERSTATE_" + name.upper()) or default
  return value


def _seconds(name, value, default=None):
  value = _env(name, value, default)
  valid = re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", str(value)) and float(value)
  return _check(name, value, valid, "seconds, like 10 or 0.5")


def _checked(url):
  with suppress(ValueError, AttributeError, TypeError):
    parts = urlsplit(url)
    if (re.fullmatch("https?://[!-~]+", url, re.I) and parts.port != 0
        and "@" not in parts.netloc and parts.hostname.encode("idna")):
      return url
  raise EventError(f"address {_public(url)!a}: must be http(s)://host, no user")


def _public(url):
  return "(hidden: @)" if "@" in str(url) else re.split("[?#]", str(url))[0][:200]


def _check(name, value, valid, must):
  if not valid:
    raise EventError(f"{name} {value!a:.80}: must be {must}")
  return valid


def _persist(call, read, urls=None, body=None):
  if call.dry_run:
    _check("dry run", "url", body, "without network")
    return _print(body.decode())
  begun, tries, few, last = call.clock(), 0, 0, False
  urls, method = [*(urls or call.urls)], "POST" if body else "GET"
  while True:
    url, tries = urls.pop(0), tries + 1
    try:
      return read(_attempt(call, method, _checked(url), body))
    except UserStateError as error:
      fault, now = error, call.clock()
    more, hint = next(f[1:] for f in FAULTS if re.match(f[0], f"{method} {fault}"))
    urls += [url] * (more > 0)
    few += more == FEW
    fact = f"{_public(url)}: {fault}"
    hint = hint and time.strftime(f" ({hint})")
    left, refused = call.ends - now, not urls or few > FEW
    if refused or last or left <= fault.wait:
      kind, end = (RefusedError, "refused") if refused else (DeadlineError, "gave up")
      raise kind(f"{fact}{hint}; {end} at try {tries} after {now - begun:.1f} s")
    pause = max(fault.wait, PAUSES[:tries][-1] * random.uniform(0.5, 1))
    if pause >= left:
      last, pause = True, left - min(1, left / 2)
    if fact not in call.said:
      call.said.add(fact)
      call.say(f"{fact}{hint}; trying again in {pause:.1f} s")
    last = call.sleep(pause) or last  # True: the step has ended


def _attempt(call, method, url, body):
  begun, parts, over = call.clock(), urlsplit(url), Event()
  limit = max(0, min(call.timeout, call.ends - begun))
  outcome, line = (UserStateError("timed out"), None), None

  def exchange():
    # urllib.request redirects a POST as a GET, asks proxies and hides the socket.
    nonlocal outcome, line
    try:
      connection = getattr(client, parts.scheme.upper() + "Connection")(
        parts.netloc, timeout=limit / 2)  # one address may be dead
      connection.connect()
      line = connection.sock
      line.settimeout(limit)
      if over.is_set():
        return
      target = urlunsplit(("", "", parts.path or "/", parts.query, ""))
      connection.request(method, target, body, {"Content-Type": "application/json"})
      with connection.getresponse() as reply:
        if 200 <= reply.status < 300:
          outcome = None, b"" if body else _read(reply, 1 << 20)
        else:
          outcome = _refusal(reply, b""), None
          with suppress(OSError, client.HTTPException):
            outcome = _refusal(reply, _read(reply, 1 << 16)), None
    except Exception as error:
      text = getattr(error, "strerror", None) or str(error)
      if isinstance(error, client.HTTPException):  # may quote the document
        text = f"broken answer ({type(error).__name__})"
      outcome = UserStateError(text), None
    finally:
      hang_up()

  def hang_up():  # or it delivers later
    over.set()
    with suppress(OSError, AttributeError, TypeError), line:
      line.shutdown(2)

  try:
    Thread(target=exchange, daemon=True).start()
    over.wait(limit)
    fault, answer = outcome
  except RuntimeError as error:
    fault = UserStateError(str(error))
  finally:
    hang_up()
  if call.verbose:
    call.say(f"{method} {_public(url)}: {fault or 'accepted'}, "
             f"{call.clock() - begun:.3f} s")
  if fault:
    raise fault
  return answer


def _read(reply, most):
  answer = bytearray(most)  # after a chunk of -1 bytes read() would never end
  del answer[reply.readinto(answer):]
  if reply.length and len(answer) < most:  # readinto() does not tell
    raise client.IncompleteRead(b"")
  return answer


def _refusal(reply, answer):
  text = f"HTTP {reply.status} {reply.reason:.80}"
  if reply.getheader("Location"):
    text += f", redirect to {_public(reply.getheader('Location'))}"
  with suppress(UserStateError):
    text += _reason(_document(answer))
  wait, after = 0, reply.getheader("Retry-After", "")
  with suppress(Exception):  # an odd date
    wait = (float(after) if after.isdigit() else
            email.utils.mktime_tz(email.utils.parsedate_tz(after)) - time.time())
  return UserStateError(text, max(0, min(wait, 30)))


def _document(answer):
  with suppress(ValueError, RecursionError):  # and without int() of a whole MiB
    document = json.loads(answer, parse_int=lambda digits: int(digits[:999]))
    if isinstance(document, dict):
      return document
  raise UserStateError("not JSON")


def _reason(document):
  reason = document.get("errors") or document.get("message") or document.get("error")
  reasons = reason if isinstance(reason, list) else [reason]
  return "".join(f" ({r:.200})" for r in reasons[:3 * (len(document) == 1)]
                 if isinstance(r, str))


def _run(report, command):
  import signal
  import subprocess
  ours, seen = {1, 2, 15}, []  # HUP, INT, TERM
  waited = ours | {signal.SIGCHLD}
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would hide the status
  with suppress(OSError), open("/proc/self/environ", "rb") as file:
    if b"\0LC_CTYPE=" not in b"\0" + file.read():
      os.environ.pop("LC_CTYPE", None)  # Python's own (PEP 538)
  signal.pthread_sigmask(signal.SIG_BLOCK, waited)
  try:
    child = subprocess.Popen(command, close_fds=False, preexec_fn=lambda:
                             signal.pthread_sigmask(signal.SIG_UNBLOCK, waited))
  except OSError as error:
    status = 127 if isinstance(error, FileNotFoundError) else 126
    what = f"cannot run {command[0]}: {error.strerror}"
    report.say(UserStateError(what))
  else:
    report.__enter__()
    while child.poll() is None:
      got = signal.sigwaitinfo(waited)
      if got.si_signo in ours:
        seen.append(got)
        # A Ctrl-C of the terminal (si_code > 0) has reached its whole group.
        if (got.si_signo != 2 or got.si_code <= 0
            or os.getpgid(child.pid) != os.getpgrp()):
          with suppress(OSError):  # not ours
            child.send_signal(got.si_signo)
    status = child.returncode
    what = f"exit status {status}" if status else "done"
    if status < 0:
      names = {n: n.name for n in signal.Signals}
      what, status = f"killed by {names.get(-status, -status)}", 128 - status
    what += f" after {report.took()}"

  def again(number, frame):
    seen.append(number)
    if len(seen) > 1:
      os._exit(status)
  for number in ours:
    signal.signal(number, again)
  signal.pthread_sigmask(signal.SIG_UNBLOCK, ours)
  report.end(status, what)
  return status


USAGE = """usage: userstate [OPTIONS] STATE CODE MESSAGE
       userstate [OPTIONS] run [--every SECONDS] CODE MESSAGE [--] COMMAND ...
       userstate [OPTIONS] url
STATE: running, succeeded, failed, 0 to 255; CODE: 1000 to 1099; OPTIONS:
--metadata-url URL ($USERSTATE_METADATA_URL), --url URL ($USERSTATE_URL),
--timeout SECONDS=10 ($USERSTATE_TIMEOUT), --deadline SECONDS=150 ($USERSTATE_DEADLINE),
-n --dry-run, -v --verbose, -h --help, --version
status: 0 accepted, 1 refused, 2 invalid, 75 gave up, 130 interrupted"""
OPTIONS = "every= metadata-url= url= timeout= deadline= dry-run verbose help version".split()


def main(argv=None):
  """Run the command line, by default sys.argv[1:]; return its status."""
  try:
    return _main(argv)
  except (UserStateError, getopt.GetoptError, KeyboardInterrupt) as error:
    _warn(UserStateError(str(error) or "interrupted"))
    return getattr(error, "status", 2 if hasattr(error, "opt") else 130)


def _main(argv):
  words, options = sys.argv[1:] if argv is None else argv, {"say": _warn}
  given, words = getopt.getopt(words, "nvh", OPTIONS[1:])
  run = words[:1] == ["run"]
  if run:
    every, words[1:] = getopt.getopt(words[1:], "", OPTIONS[:1])
    given += every
  for name, value in given:
    name = {"-n": "--dry-run", "-v": "--verbose", "-h": "--help"}.get(name, name)[2:]
    options[name.replace("-", "_")] = value if name + "=" in OPTIONS else True
  if "help" in options or "version" in options:
    return _print(USAGE if "help" in options else f"userstate {__version__}")
  if words == ["url"]:
    return _print(user_state_url(**options))
  command = words[4 if words[3:4] == ["--"] else 3:]
  _check("operands", words, command if run else len(words) == 3,
         "STATE CODE MESSAGE, MESSAGE quoted; see --help")
  state, code, message = words[:3]
  if argv is None:  # not of the locale: surrogates
    message = os.fsencode(message).decode("utf-8", "replace")
  code = int(code) if re.fullmatch("[0-9]{4}", code) else code
  if run:
    return _run(step(code, message, **options), command)
  if state in map(str, range(256)):
    message += f": exit status {state}" * (state != "0")
    state = "failed" if state != "0" else "succeeded"
  send_user_state_event(state, code, message, **options)
  return 0


def _warn(problem):
  with suppress(UserStateError):
    _print(f"userstate: {problem}", "stderr")


def _print(text, name="stdout"):
  stream = getattr(sys, name)
  try:
    stream.write(text + "\n")
    stream.flush()
  except (OSError, ValueError, AttributeError) as error:
    raise UserStateError(f"cannot print: {error}") from error
  return 0


if __name__ == "__main__":
  os._exit(main())
