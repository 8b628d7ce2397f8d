"""What is answered to which request: a table of routes, and what holds for all."""
import contextlib
import csv
import http.client
import http.server
import io
import ipaddress
import json
import queue
import re
import socket
import ssl
import threading
import time
import urllib.parse

from receiver import metadata, pages, program, views
from receiver.events import read_event, utc_now
from receiver.machines import device_id, device_link, is_address, place, usual_address
from receiver.parameters import (
    PAGE_MOST,
    PER_PAGE_MOST,
    code,
    moment,
    number,
    past,
    read_parameters,
    wait_seconds,
)
from receiver.server import Room, Server, cut_off, host_port
from receiver.store import StoreError, TooManyError

BODY_MOST = 4 << 20  # bytes of an event; the real service documents no limit
LARGE = 64 << 10  # bytes of an event that takes memory to read, and
READ_MOST = 2  # how many of those are made an event of at once, for 45 MiB each
SHOWN_MOST = 2  # how many of those are in an answer at once, for 150 MiB each
SHOWN_PATIENCE = 5  # seconds after which one of them makes room for another
HEAD_MOST = 32 << 10  # bytes of the header lines of a request
DRAIN_MOST = 3  # seconds to read what a client sends that has been refused
LOOK_EVERY = 2  # seconds after which one who waits looks whether its client has gone
WAIT = 600  # seconds to wait for a machine by default
MACHINES_MOST = 20000  # that no option names: anybody can make up NAMEs
CSV_BLOCK = 100  # events whose numbers are looked up at once
PER_PAGE = 10  # of JSON, as of the platform's API
ROWS, EVENTS = 100, 100  # of a page for people: devices or steps, events of a device

# RFC 9112, 5: no white space before the colon, no line that goes on, no bare CR.
REQUEST_LINE = re.compile(rb"[^\r\n]*(\r?\n)?")
HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n]*)?\r?\n")
HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([\w.-]+))(?::[0-9]{1,5})?",
                  re.ASCII)
PAGING = {"page": number(1, PAGE_MOST), "per_page": number(1, PER_PAGE_MOST)}
NUMBER = number(0, 2**63 - 1)
EVENTS_WANTED = {"state": str, "code": code, "after": NUMBER, "since": past,
                 "until": moment, "q": str}
DEVICES_WANTED = {"state": str, "q": str}


class Receiver(Server):
    """The receiver at (host, port), port 0 for a free one; serve with serve_forever().

    open_store: a function that returns a Store, called when the port is had, so that one
    which is taken leaves no file; machines: a Machines; metrics: a Metrics; host_names:
    more names by which it may be asked; proxy: an address whose X-Forwarded-For is believed;
    allow_delete: whether other hosts than its own may delete; tls: an ssl.SSLContext.
    Raises OSError, OverflowError (a port).
    """

    def __init__(self, open_store, machines, metrics, host="127.0.0.1", port=0,
                 host_names=(), proxy=None, allow_delete=False, tls=None):
        self.machines, self.metrics = machines, metrics
        own = socket.gethostname()
        self.host_names = {name.lower().rstrip(".") for name in (
            "localhost", own, own.partition(".")[0], *host_names)}
        self.proxy, self.allow_delete = proxy, allow_delete
        self.reading = threading.BoundedSemaphore(READ_MOST)
        self.large_answers = Room(SHOWN_MOST, SHOWN_PATIENCE)
        self.store = None
        super().__init__(host, port, Handler, tls)
        try:
            self.store = open_store()
        except BaseException:  # a signal, too
            self.server_close()
            raise

    def knows_host(self, host):
        """Return whether host, of a header, is an address or a name of this receiver."""
        match = HOST.fullmatch(host)
        if not match:
            return False
        try:
            usual_address(match.group(1) or match.group(2))
        except ValueError:
            return host.partition(":")[0].lower().rstrip(".") in self.host_names
        return True

    def put(self, machine, address, event, key=None):
        """Put event on the timeline of machine, if that is known.

        address: where it came from; key: a str, which the machine uses once for an
        event and again for a repetition. Raises StoreError if nothing of it is kept.
        """
        if self.machines.is_known(machine):
            most = MACHINES_MOST + len(self.machines.expected)
            self.store.put(machine, address, event, key,
                           None if self.machines.is_listed(machine) else most)
        else:
            self.warnings.warn(f"an event of {machine} was dropped: it is not in --only",
                               client=address)

    def end_waits(self):
        self.store.let_go()

    def server_close(self):
        super().server_close()
        if self.store is not None:
            self.store.close()


class RequestError(Exception):
    """A request is not taken: a status, and the reason as one line."""


class UnknownError(Exception):
    """There is no such machine: what was asked for."""


class _Reader(io.BufferedReader):
    """Keeps the lines of a head as they came, as email.parser forgives too much."""

    lines = None

    def readline(self, size=-1):
        line = super().readline(size)
        if self.lines is not None:
            self.lines.append(line)
            if sum(map(len, self.lines)) > HEAD_MOST:
                raise http.client.HTTPException("the header lines are too long")
        return line


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers one client."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "userstate", ""
    rbufsize = 0  # _Reader has its buffer
    wbufsize = -1  # head and body in one packet

    def setup(self):
        if isinstance(self.request, ssl.SSLSocket):
            self.request.do_handshake()
        super().setup()
        self.rfile = _Reader(self.rfile)

    def handle_one_request(self):
        self.address = usual_address(self.client_address[0])
        self.server.watch(self.connection)
        super().handle_one_request()

    def parse_request(self):
        self.server.watch(self.connection)  # the time before does not count
        self.head = self.rfile.lines = []
        is_well = super().parse_request()
        self.rfile.lines = None
        return is_well

    def handle_expect_100(self):
        # Else the client would send what is then refused.
        if self.refused():
            return False
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def log_message(self, format, *args):
        """Say nothing: the timeline is the log."""

    def send_error(self, code, message=None, explain=None):
        """Refuse what is no request."""
        self.close_connection = True
        self.refuse(code, explain or message or "no request")
        self.wfile.flush()
        self.drain()

    def answer(self):
        if self.refused():
            return
        length = int(self.headers.get("Content-Length", "0"))
        is_large = length > LARGE
        with self.server.room.place(self.connection) if is_large else NO_PLACE:
            self.body = self.rfile.read(length)
            if len(self.body) < length:
                self.close_connection = True
                return
            if is_large and self.match[0] in WRITING:
                self.server.room.keep(self.connection)  # until it is committed
                self.reply_to_body()
                return
        self.reply_to_body()

    def reply_to_body(self):
        self.server.answering.add(self.connection)
        try:
            self.dispatch()
        except RequestError as refusal:
            self.refuse(*refusal.args)
        except UnknownError as missing:
            self.reply_missing(*missing.args)
        except TooManyError as error:
            self.refuse(429, f"{error}; name them by --names or --only, or DELETE some")
        except StoreError as error:
            self.server.warnings.warn("the database fails, the answer is 500", f": {error}")
            self.reply_error(500, str(error))
        finally:
            try:
                self.wfile.flush()
            finally:
                self.server.answering.discard(self.connection)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = answer

    def refused(self):
        """Refuse what no request may be, and return True; else note whose it is."""
        self.route, _, self.query = self.path.partition("?")
        refusal = self.head_refusal() or self.size_refusal()
        try:
            if re.match("https?://", self.route):  # RFC 9112, 3.2.2
                self.route = urllib.parse.urlsplit(self.route).path or "/"
        except ValueError:
            refusal = 400, "the target must be a path"
        try:
            self.address = self.find_address()
        except ValueError:
            refusal = 400, "X-Forwarded-For: the last entry must be an address"
        self.match = self.find_route()
        refusal = refusal or self.site_refusal()
        if refusal is None:
            return False
        self.close_connection = True
        self.refuse(*refusal)
        self.wfile.flush()
        self.drain()
        return True

    def drain(self):
        """End the answer, and read what still comes: a reset would overtake it."""
        ends_at = time.monotonic() + DRAIN_MOST
        cut_off(self.connection, socket.SHUT_WR)
        self.connection.settimeout(DRAIN_MOST)
        while time.monotonic() < ends_at and self.rfile.read1(LARGE):
            pass

    def head_refusal(self):
        if not (REQUEST_LINE.fullmatch(self.raw_requestline)
                and all(map(HEADER_LINE.fullmatch, self.head))):
            return 400, "a header line is malformed"
        return None

    def size_refusal(self):
        lengths = {length.strip(" \t")
                   for length in self.headers.get_all("Content-Length", ["0"])}
        length = lengths.pop()
        if "Transfer-Encoding" in self.headers:
            return 411, "Transfer-Encoding: a Content-Length is needed"
        if lengths or not re.fullmatch("[0-9]+", length):
            return 400, "Content-Length: must be one number"
        if len(length) > 9 or int(length) > BODY_MOST:
            return 413, f"more than {BODY_MOST} bytes"
        return None

    def find_route(self):
        """Return (the function that answers, the names in the path that it takes)."""
        path, names = self.route, []
        match = re.fullmatch("/devices/([^/]+)(/.*)?", path)
        if match:
            path = f"/devices/NAME{match.group(2) or ''}"
            names = [urllib.parse.unquote(match.group(1))]
        for methods, known, function in ROUTES:
            if known == path and (methods is None or self.command in methods):
                return function, names
        return Handler.reply_not_found, []

    def site_refusal(self):
        """Refuse what a page on another site makes the browser of a visitor do."""
        return self.host_refusal() or self.origin_refusal()

    def host_refusal(self):
        host = self.headers.get("Host", "")
        if host and not HOST.fullmatch(host) or len(self.headers.get_all("Host", ())) > 1:
            return 400, "Host: must be a name or an address"
        function = self.match[0]
        is_of_a_machine = function in POSTS and "Origin" not in self.headers
        if not host or is_of_a_machine or function in FOR_MACHINES:
            return None
        if not self.server.knows_host(host):
            return 403, f"Host: if {host:.100} is this receiver, start it with --host-name"
        return None

    def origin_refusal(self):
        if self.match[0] not in WRITING:
            return None
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return 403, "Origin: another site"
        if self.headers.get("Sec-Fetch-Site") == "cross-site":
            return 403, "Sec-Fetch-Site: another site"
        return None

    def find_address(self):
        """Return the address of the machine; raise ValueError if a proxy tells none."""
        address = usual_address(self.client_address[0])
        forwarded = self.headers.get_all("X-Forwarded-For")
        if forwarded and address == self.server.proxy:
            address = usual_address(forwarded[-1].rpartition(",")[2].strip())
        return address

    def dispatch(self):
        function, names = self.match
        function(self, *names)

    # What machines ask and tell.

    def metadata(self):
        self.show_metadata(self.address, self.own_url())

    def named_metadata(self, text):
        machine = self.find_machine(text)
        self.show_metadata(machine, self.own_url() + device_link(machine))

    def show_metadata(self, machine, url):
        if self.command != "GET":
            self.reply_json(405, {"message": "method not allowed"}, "Allow: GET")
        elif not self.server.machines.is_known(machine):
            self.reply_not_found()
        else:
            name = self.server.machines.name(machine)
            self.reply_json(200, metadata.document(device_id(machine), self.address, name,
                                                   self.own_url(), url))

    def find_machine(self, text):
        """Return the machine that text names, by its name, its address or its id.

        Raises UnknownError for what is neither of these.
        """
        try:
            machine = self.server.machines.named(text)
        except ValueError:
            raise UnknownError(text) from None
        if re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", machine):
            row = self.server.store.device(machine)
            return row["machine"] if row else machine
        return machine

    def event(self):
        self.take_event(self.address)

    def named_event(self, text):
        self.take(text, self.take_event)

    def phone_home(self):
        self.take_phone_home(self.address)

    def named_phone_home(self, text):
        self.take(text, self.take_phone_home)

    def take(self, text, function):
        """Call function of the machine that text names, if this client may post there."""
        machine = self.find_machine(text)
        if is_address(machine) and machine != self.address:
            raise RequestError(403, f"only {machine} itself may post there")
        function(machine)

    def take_event(self, machine):
        is_large = len(self.body) > LARGE
        with self.server.reading if is_large else contextlib.nullcontext():
            try:
                event = read_event(self.body)
            except ValueError as error:
                self.warn_of(400, f"no event: {error}")
                self.reply(400)
            else:
                self.body = b""  # as it takes memory
                self.put(machine, event)

    def take_phone_home(self, machine):
        self.put(machine, {"state": "", "code": None, "message": "phoned home"})

    def put(self, machine, event):
        key = self.headers.get("Idempotency-Key", "").strip()  # an empty one is none
        self.server.put(machine, self.address, event, key or None)
        self.reply(200)

    # What machines fetch.

    def own_url(self):
        """Return the address of the receiver as this client knows it."""
        scheme = self.server.scheme
        proxied = usual_address(self.client_address[0]) == self.server.proxy
        if proxied and self.headers.get("X-Forwarded-Proto") == "https":
            scheme = "https"
        host = self.headers.get("Host") or host_port(*self.connection.getsockname()[:2])
        return f"{scheme}://{host}"

    def program(self):
        tag = f'"{program.sha256()}"'
        headers = f"ETag: {tag}", ASK_ANEW
        known = re.findall(r'"[^"]*"|\*', self.headers.get("If-None-Match", ""))
        if tag in known or "*" in known:
            self.reply(304, b"", None, *headers)
            return
        self.reply(200, program.source(), "text/x-python; charset=us-ascii", *headers)

    def user_data(self):
        self.reply_script(self.own_url())

    def named_user_data(self, text):
        self.reply_script(self.own_url() + device_link(self.find_machine(text)))

    def reply_script(self, url):
        script = program.script(self.own_url(), url + "/metadata")
        self.reply(200, script.encode(), "text/plain; charset=us-ascii")

    def install(self):
        self.parameters({})
        self.reply_html(pages.install_page(*self.install_values()))

    def install_values(self):
        url = self.own_url()
        return url, program.sha256(), program.script(url, url + "/metadata")

    # What people and their programs ask.

    def parameters(self, known):
        """Return the parameters of the request; raise RequestError."""
        try:
            return read_parameters(self.query, known)
        except ValueError as error:
            raise RequestError(400, str(error)) from None

    def paging(self, values, usual):
        """Return how many things a page has, and how many come before it."""
        per_page = values.get("per_page", usual)
        return per_page, (values.get("page", 1) - 1) * per_page

    def meta(self, values, per_page, total):
        """Return the paging of a list, whose links keep all other parameters."""
        given = urllib.parse.parse_qsl(self.query, keep_blank_values=True)
        kept = [(name, value) for name, value in given if name not in PAGING]
        path = f"{self.route}?" + "".join(
            urllib.parse.urlencode([pair]) + "&" for pair in kept)
        return views.meta_view(path, values.get("page", 1), per_page, total)

    def devices_page(self):
        values = self.parameters({**DEVICES_WANTED, **PAGING})
        now = utc_now()
        total, devices, counts = self.find_devices(values, ROWS, now)
        meta = self.meta(values, values.get("per_page", ROWS), total)
        steps = {device["device"]: self.steps_of(device["device"]) for device in devices}
        install = None
        if not self.server.store.last():
            install = pages.install_parts(*self.install_values())
        self.reply_html(pages.devices_page(
            devices, steps, counts, meta, values.get("state"), values.get("q", ""), now,
            install=install))

    def devices_json(self):
        values = self.parameters({**DEVICES_WANTED, **PAGING})
        last = self.server.store.last()
        total, devices, counts = self.find_devices(values, PER_PAGE, utc_now())
        meta = self.meta(values, values.get("per_page", PER_PAGE), total)
        self.reply_json(200, {"devices": devices, "counts": counts, "meta": meta,
                              "last": last})

    def devices_csv(self):
        values = self.parameters(DEVICES_WANTED)
        self.reply_csv(CSV_DEVICE, self.all_devices(values))

    def all_devices(self, values):
        """Give the views of all machines that are as wanted, each as it is at its turn."""
        now, state, text = utc_now(), values.get("state"), values.get("q", "")
        if state != "never":
            for machine in self.server.store.devices_in_order(now, state, text):
                row = self.server.store.device(machine, now)
                if row is not None:  # else it has been deleted meanwhile
                    yield self.device_view(row)
        yield from self.silent_devices(state, text)

    def find_devices(self, values, per_page, now):
        """Return how many machines are as wanted, the views of some, and all counts."""
        per_page, offset = self.paging(values, per_page)
        state, text = values.get("state"), values.get("q", "")
        store = self.server.store
        total, rows = 0, []
        if state != "never":
            total, rows = store.devices(now, offset, per_page, state, text)
        devices = [self.device_view(row) for row in rows]
        silent = self.silent_devices(state, text)
        begin = max(0, offset - total)
        devices += silent[begin:begin + per_page - len(devices)]
        counts = views.counts_view(store.counts(now), len(self.silent_machines()))
        return total + len(silent), devices, counts

    def silent_machines(self):
        """Return the machines that are expected and have told nothing, a set."""
        expected = self.server.machines.expected
        return expected - self.server.store.machines() if expected else expected

    def silent_devices(self, state, text):
        """Return the views of silent machines that are as wanted, in their order."""
        if state not in (None, "never"):
            return []
        name, path = self.server.machines.name, self.server.machines.path
        return [views.never_view(machine, name(machine), path(machine))
                for machine in sorted(self.silent_machines(), key=place)
                if text.lower() in f"{machine}\n{name(machine)}".lower()]

    def device_view(self, row):
        machines, machine = self.server.machines, row["machine"]
        return views.device_view(row, machines.name(machine), machines.path(machine))

    def steps_of(self, machine):
        return [views.step_view(row) for row in self.server.store.steps(machine)]

    def device_page(self, text):
        values = self.parameters(PAGING)
        row = self.find_device(text)
        machine, now = row["machine"], utc_now()
        per_page, offset = self.paging(values, EVENTS)
        total, numbers = self.server.store.numbers({"machine": machine}, offset, per_page)
        rows = self.rows(numbers, pages.TEXT + 1)
        self.reply_html(pages.device_page(
            self.device_view(row), self.steps_of(machine), map(views.event_view, rows),
            self.meta(values, per_page, total), now))

    def find_device(self, text):
        """Return the row of the machine that text names; raise UnknownError."""
        row = self.server.store.device(self.find_machine(text))
        if row is None:
            raise UnknownError(text)
        return row

    def rows(self, numbers, most):
        """Give the events of numbers that have not been deleted, messages cut to most."""
        return filter(None, (self.server.store.event(found, most) for found in numbers))

    def views_of(self, numbers):
        """Give the views of the events of numbers that have not been deleted."""
        for row in self.rows(numbers, LARGE + 1):
            with self.whole(row) as view:
                yield view
                del view  # as it may be large

    @contextlib.contextmanager
    def whole(self, row):
        """Give the view of an event, row, whose message is cut to LARGE + 1 characters.

        One that is larger is read while there is a place for it, as it takes memory.
        """
        if len(row["message"]) <= LARGE:
            yield views.event_view(row)
        else:
            with self.server.large_answers.place(self.connection):
                yield views.event_view(self.server.store.event(row["number"]) or row)

    def device_steps(self, text):
        self.parameters({})
        row = self.find_device(text)
        self.reply_json(200, {"steps": self.steps_of(row["machine"]),
                              "last": self.server.store.last()})

    def delete_device(self, text):
        self.parameters({})
        own = usual_address(self.connection.getsockname()[0])
        is_own = self.address == own or ipaddress.ip_address(
            self.address.partition("%")[0]).is_loopback
        if not (is_own or self.server.allow_delete):
            raise RequestError(403, "DELETE: only from the receiver's own host, or with "
                               "its option --allow-delete")
        if not self.server.store.forget(self.find_device(text)["machine"]):
            raise UnknownError(text)
        self.reply(204)

    def fleet(self):
        values = self.parameters(PAGING)
        per_page, offset = self.paging(values, ROWS)
        last = self.server.store.last()
        total, rows = self.server.store.fleet(offset, per_page)
        kinds = list(map(self.fleet_view, rows))
        meta = self.meta(values, per_page, total)
        if self.wants_page():
            self.reply_html(pages.steps_page(kinds, meta, utc_now()))
        else:
            self.reply_json(200, {"steps": kinds, "meta": meta, "last": last})

    def fleet_view(self, row):
        machines, slowest = self.server.machines, row["slowest"]
        if slowest is None:
            return views.fleet_view(row, "", "")
        return views.fleet_view(row, machines.name(slowest), machines.path(slowest))

    def wants_page(self):
        return "text/html" in self.headers.get("Accept", "")

    def events_json(self):
        self.show_events(self.parameters({**EVENTS_WANTED, "device": str, **PAGING}))

    def device_events(self, text):
        values = self.parameters({**EVENTS_WANTED, **PAGING})
        if self.find_machine(text) != self.address:  # one may always ask for its own
            self.find_device(text)
        self.show_events({**values, "device": text})

    def wanted(self, values):
        """Return which events are wanted, as the store takes it."""
        wanted = {name: values[name] for name in EVENTS_WANTED if name in values}
        if "device" in values:
            wanted["machine"] = self.wanted_machine(values["device"])
        return wanted

    def wanted_machine(self, text):
        """Return the machine that text names; raise RequestError if that cannot be one."""
        try:
            return self.find_machine(text)
        except UnknownError:
            raise RequestError(400, f"{text:.100}: no address and no name") from None

    def show_events(self, values):
        per_page, offset = self.paging(values, PER_PAGE)
        last = self.server.store.last()
        total, numbers = self.server.store.numbers(self.wanted(values), offset, per_page)
        meta = self.meta(values, per_page, total)
        self.reply_parts("application/json", self.json_parts(last, meta, numbers))

    def json_parts(self, last, meta, numbers):
        """Give the list of events as texts, as a thousand of 4 MiB do not fit in memory."""
        yield f'{{"last": {last}, "meta": {json.dumps(meta)},\n"events": ['
        separator = "\n"
        for view in self.views_of(numbers):
            yield separator + json.dumps(view)
            del view  # as it may be large
            separator = ",\n"
        yield "]}\n"

    def events_csv(self):
        values = self.parameters({**EVENTS_WANTED, "device": str})
        self.reply_csv(CSV_EVENT, self.all_events(
            self.wanted(values), self.server.store.last() + 1))

    def all_events(self, wanted, before):
        """Give the views of all events before a number, as wanted, the newest first."""
        while True:
            numbers = self.server.store.numbers_before(before, wanted, CSV_BLOCK)
            if not numbers:
                return
            before = numbers[-1]
            yield from self.views_of(numbers)

    def reply_csv(self, names, shown):
        self.reply_parts("text/csv; charset=utf-8; header=present",
                         csv_parts(names, shown))

    def wait(self, text):
        values = self.parameters({"code": code, "timeout": wait_seconds, "since": past,
                                  "after": NUMBER})
        machine = self.wanted_machine(text)
        timeout = values.pop("timeout", WAIT)
        ends_at = time.monotonic() + timeout
        with self.server.store.listen(machine) as arrivals:
            row = self.outcome(text, values)
            if row is None:
                self.close_connection = True
                if not self.server.let_wait(self.connection):
                    self.reply_error(503, "too many clients wait",
                                     "Retry-After: 10")
                    return
                row = self.next_outcome(text, values, arrivals, ends_at)
                if row is not GOING:  # else the end waits until that is told
                    self.server.watch(self.connection)
        if row is None:
            self.reply_error(504, f"nothing has ended within {timeout:g} s")
            return
        if row is GOING:
            self.reply_error(503, "the receiver ends", "Retry-After: 5")
            return
        with self.whole(row) as view:
            self.reply_json(200 if row["state"] == "succeeded" else 409, view)
            self.wfile.flush()

    def outcome(self, text, values):
        # Found anew, as an id is of no machine before the first event.
        return self.server.store.outcome(self.find_machine(text), LARGE + 1, **values)

    def next_outcome(self, text, values, arrivals, ends_at):
        """Return the event by which a machine ends; None when time ends; or GOING.

        Raises OSError if the client has gone.
        """
        seconds_left = ends_at - time.monotonic()
        while seconds_left > 0:
            try:
                is_news = arrivals.get(timeout=min(seconds_left, LOOK_EVERY))
            except queue.Empty:
                self.check_client()
            else:
                if not is_news:
                    return GOING
            row = self.outcome(text, values)  # also without news: a name may be new
            if row is not None:
                return row
            seconds_left = ends_at - time.monotonic()
        return None

    def check_client(self):
        """Raise OSError if the client has gone; what else it says is lost."""
        self.connection.setblocking(False)
        try:
            if not self.connection.recv(1):
                raise OSError("the client has gone")
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        self.connection.setblocking(True)

    def show_metrics(self):
        self.parameters({})
        store = self.server.store
        counts = views.counts_view(store.counts(utc_now()), len(self.silent_machines()))
        text = self.server.metrics.text(counts, store.size())
        self.reply(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    def health(self):
        try:
            self.server.store.check()
        except StoreError as error:
            self.reply_error(503, str(error))
            return
        self.reply_json(200, {"status": "ok"})

    # How it is answered.

    def reply_not_found(self):
        self.reply_json(404, {"message": "resource not found"})

    def reply_missing(self, text):
        if self.wants_page():
            self.reply_html(pages.missing_page(text), 404)
        else:
            self.reply_not_found()

    def refuse(self, status, reason):
        """Answer that the request is not taken, and tell the operator."""
        self.warn_of(status, reason)
        self.reply_error(status, reason)

    def warn_of(self, status, reason):
        self.server.warnings.warn(f"refused {self.address}: {status}, {reason!a:.300}",
                                  client=self.address)

    def reply_error(self, status, reason, *headers):
        self.reply_json(status, {"errors": [reason]}, *headers)

    def reply_json(self, status, value, *headers):
        self.reply(status, json.dumps(value, indent=2).encode(), "application/json",
                   *headers)

    def reply_html(self, page, status=200):
        self.reply(status, page, "text/html; charset=utf-8",
                   f"Content-Security-Policy: {pages.POLICY}")

    def reply(self, status, body=b"", kind=None, *headers):
        if status not in (204, 304):  # RFC 9110, 8.6
            headers = f"Content-Length: {len(body)}", *headers
        self.start_reply(status, kind, *headers)
        if self.command != "HEAD":
            self.wfile.write(body)

    def reply_parts(self, kind, parts):
        """Reply with texts, each made when it is its turn, with a time of its own.

        Where the database fails, the last chunk is missing (RFC 9112, 8); HTTP/1.0 has no
        chunks, and no such sign.
        """
        is_chunked = self.request_version == "HTTP/1.1"
        self.close_connection = True
        self.start_reply(200, kind, *["Transfer-Encoding: chunked"] if is_chunked else [])
        if self.command == "HEAD":
            return
        try:
            with contextlib.closing(parts):  # else a large one might keep its place
                for part in parts:
                    data = part.encode("utf-8", "replace")
                    if is_chunked:
                        self.wfile.write(b"%x\r\n" % len(data))
                        data += b"\r\n"
                    self.wfile.write(data)
                    del part, data  # before the next one takes memory
                    self.server.watch(self.connection)
        except StoreError as error:
            self.server.warnings.warn("the database fails, a list is cut short", f": {error}")
            return
        if is_chunked:
            self.wfile.write(b"0\r\n\r\n")

    def start_reply(self, status, kind, *headers):
        self.server.metrics.count_reply(status)
        self.send_response(status)
        for header in headers:
            self.send_header(*header.split(": ", 1))
        if kind:
            self.send_header("Content-Type", kind)
            self.send_header("X-Content-Type-Options", "nosniff")
            if ASK_ANEW not in headers:
                self.send_header("Cache-Control", "no-store")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()


def csv_parts(names, shown):
    """Give the lines of CSV as texts, names first, then one for each of the views shown."""
    yield csv_line(names)
    for view in shown:
        yield csv_line([views.csv_cell(view[name]) for name in names])
        del view  # as it may be large


def csv_line(cells):
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


NO_PLACE = contextlib.nullcontext()
ASK_ANEW = "Cache-Control: no-cache"  # with the ETag of what one has
GOING = {"state": "the receiver ends"}  # instead of an event
CSV_EVENT = ("number", "created_at", "device", "ip", "state", "code", "message")
CSV_DEVICE = ("device", "hostname", "ip", "state", "code", "message", "steps_failed",
              "events", "run_began_at", "state_since", "last_event_at")
READ = ("GET", "HEAD")
# Methods (None: any, as the real service took events), path (NAME: any machine), answer.
ROUTES = (
    (READ, "/events", Handler.events_json),
    (None, "/events", Handler.event),
    (("POST",), "/phone-home", Handler.phone_home),
    (None, "/metadata", Handler.metadata),
    (READ, "/userstate.py", Handler.program),
    (READ, "/user-data", Handler.user_data),
    (READ, "/install", Handler.install),
    (READ, "/", Handler.devices_page),
    (READ, "/devices", Handler.devices_json),
    (READ, "/devices.csv", Handler.devices_csv),
    (READ, "/events.csv", Handler.events_csv),
    (READ, "/steps", Handler.fleet),
    (READ, "/metrics", Handler.show_metrics),
    (READ, "/healthz", Handler.health),
    (READ, "/devices/NAME", Handler.device_page),
    (("DELETE",), "/devices/NAME", Handler.delete_device),
    (READ, "/devices/NAME/events", Handler.device_events),
    (None, "/devices/NAME/events", Handler.named_event),
    (("POST",), "/devices/NAME/phone-home", Handler.named_phone_home),
    (None, "/devices/NAME/metadata", Handler.named_metadata),
    (READ, "/devices/NAME/user-data", Handler.named_user_data),
    (READ, "/devices/NAME/steps", Handler.device_steps),
    (READ, "/devices/NAME/wait", Handler.wait),
)
POSTS = {Handler.event, Handler.named_event, Handler.phone_home, Handler.named_phone_home}
# What a page on another site might make the browser of a visitor do.
WRITING = POSTS | {Handler.delete_device}
# What may be asked by any Host, as a DNS name in a recipe; and POSTS, but not by a page.
FOR_MACHINES = {Handler.metadata, Handler.named_metadata, Handler.program,
                Handler.user_data, Handler.named_user_data, Handler.health}
