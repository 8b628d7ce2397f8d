#!/usr/bin/env python3
"""A receiver of user state events: the metadata service and the timelines of machines.

    python3 tests/receiver [--host ADDRESS] [--port N] [--data FILE] [...]

Answers GET /metadata and POST /events as the servers behind metadata.packet.net did.
"""
import argparse
import atexit
import errno
import functools
import ipaddress
import os
import re
import signal
import socket
import sys
import threading

if not __package__:  # run as a folder: the modules are those of the package receiver
    FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    sys.path[0] = FOLDER
    sys.path.append(os.path.dirname(FOLDER))  # userstate.py

from receiver import notify
from receiver.addresses import own_addresses
from receiver.handler import Receiver
from receiver.lines import say
from receiver.machines import Machines, NamesError, usual_address
from receiver.metrics import Metrics
from receiver.server import allow_descriptors, host_port, read_tls, return_memory
from receiver.store import SWEEP_EVERY, StartError, Store, StoreError

QUIET_AFTER = 3600  # seconds of silence that are too long for a machine that is running


def seconds(text):
    """Return text as a number of seconds; raise ValueError for what is none."""
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", text) or float(text) == 0:
        raise ValueError(text)
    return float(text)


def days(text):
    """Return text as a number of days, at most a hundred years."""
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", text) or not 0 < float(text) <= 36500:
        raise ValueError(text)
    return float(text)


def host_name(text):
    """Return text as a name without scheme and port."""
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", text, re.ASCII):
        raise ValueError(text)
    return text


def states(text):
    """Return the states in text, parted by commas."""
    found = text.split(",")
    if not set(found) <= set(notify.STATES):
        raise ValueError(text)
    return found


def option(read, wanted):
    """Return a function that reads an option by read, and says what is wanted if it cannot."""
    def read_or_say(text):
        try:
            return read(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"invalid value {text!a:.100}: must be {wanted}"
                                             ) from None
    return read_or_say


def parse(argv):
    """Return the options in argv."""
    parser = argparse.ArgumentParser(
        prog="receiver",
        description="A receiver of user state events: metadata, events, timelines.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", metavar="ADDRESS",
        help="the address to listen on (127.0.0.1); who reaches it can post and read")
    add("--port", type=option(int, "a number"), default=8000, metavar="N",
        help="the port, 0 for a free one (8000)")
    add("--data", metavar="FILE",
        help="keep the events in this file, a database of SQLite; else in memory")
    add("--keep", type=option(days, "days, more than 0 and at most 36500"), metavar="DAYS",
        help="delete events that are older")
    add("--only", nargs="+", metavar="MACHINE",
        help="the machines that are known: addresses, NAMEs, and @FILEs of them; without "
             "it every address and every NAME is one")
    add("--names", metavar="FILE",
        help="names of machines, as in /etc/hosts: an address and a name on each line; "
             "SIGHUP reads this and the files of --only again")
    add("--quiet-after", type=option(seconds, "seconds, more than 0"), default=QUIET_AFTER,
        metavar="SECONDS",
        help="a machine that is running is quiet when it has said nothing for so long; "
             "the next event, unless it ends an open step, begins a new run (3600)")
    add("--notify", metavar="URL",
        help="post a message to this address when a machine fails or is quiet")
    add("--notify-on", type=option(states, "of failed,quiet,succeeded"),
        default=states("failed,quiet"), metavar="STATES",
        help="of failed, quiet, succeeded, parted by commas (failed,quiet)")
    add("--host-name", type=option(host_name, "a name, without scheme and port"),
        action="append", default=[], metavar="NAME",
        help="a name by which a browser asks for this receiver, besides its addresses, "
             "localhost and the name of this host; may be given again")
    add("--allow-delete", action="store_true",
        help="let other hosts than this one DELETE machines")
    add("--tls-cert", metavar="FILE", help="serve https with this certificate (PEM)")
    add("--tls-key", metavar="FILE", help="and its key (PEM, without a password)")
    add("--trust-proxy", type=option(usual_address, "an address, as 10.0.0.1"),
        metavar="ADDRESS",
        help="a proxy in front of this receiver: from there the last entry of "
             "X-Forwarded-For is the machine, and X-Forwarded-Proto is believed; it has "
             "to pass on Host")
    return parser.parse_args(argv)


def start(options):
    """Return the Receiver of options, started; raise StartError."""
    try:
        tls = read_tls(options.tls_cert, options.tls_key)
        machines = Machines(options.only, options.names)
        if options.notify is not None:
            notify.check(options.notify)
    except (ValueError, NamesError) as error:
        raise StartError(error) from None
    metrics = Metrics()
    open_store = functools.partial(Store, options.data, options.quiet_after, options.keep,
                                   machines.name)
    try:
        receiver = Receiver(open_store, machines, metrics, options.host, options.port,
                            options.host_name, options.trust_proxy,
                            options.allow_delete, tls)
    except (OSError, OverflowError, UnicodeError) as error:
        is_taken = getattr(error, "errno", None) == errno.EADDRINUSE
        advice = "; another --port?" if is_taken else ""
        raise StartError(f"cannot start on {options.host} port {options.port}: {error}"
                         f"{advice}") from None
    store = receiver.store
    store.observers.append(metrics.count_change)
    if options.notify is not None:
        notifier = notify.Notifier(options.notify, options.notify_on, store, machines,
                                   urls(receiver)[0], receiver.warnings.warn)
        store.observers.append(notifier.note_change)
        atexit.register(notifier.say_unsent)
    if options.keep is not None:
        threading.Thread(target=sweep_hourly, args=[store], daemon=True).start()
    return receiver


def sweep_hourly(store):
    """Delete what is older than the days to keep, until the process ends."""
    while True:
        try:
            store.sweep()
        except StoreError as error:
            say(f"--keep: {error}")
        threading.Event().wait(SWEEP_EVERY)


def urls(receiver):
    """Return the addresses by which machines reach receiver; at least one."""
    host, port = receiver.server_address[:2]
    hosts = [host]
    if ipaddress.ip_address(host.partition("%")[0]).is_unspecified:
        hosts = own_addresses(receiver.address_family) or [
            "127.0.0.1" if receiver.address_family == socket.AF_INET else "::1"]
    return [f"{receiver.scheme}://{host_port(host, port)}" for host in hosts]


def announce(receiver):
    """Say on stdout where receiver is; raise StartError if that cannot be written."""
    first, *others = urls(receiver)
    text = (f"# the timeline: {first}/\n"
            f"export USERSTATE_METADATA_URL={first}/metadata")
    for url in others:
        text += f"\n# also: {url}/"
    try:
        print(text, flush=True)
    except OSError as error:
        # Python would try again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StartError(f"cannot write to stdout: {error.strerror}") from None


def read_again(receiver):
    """Read the files of names and machines again, or say why not."""
    try:
        receiver.machines.read()
    except NamesError as error:
        say(f"{error}; the names and machines of before stay")


def serve(options):
    """Serve until KeyboardInterrupt; raise StartError."""
    receiver = start(options)
    try:
        if hasattr(signal, "SIGHUP"):
            signal.signal(signal.SIGHUP, lambda number, frame: read_again(receiver))
        host = receiver.server_address[0].partition("%")[0]
        if not ipaddress.ip_address(host).is_loopback:
            say(f"whoever reaches {urls(receiver)[0]} can post and read")
        for word in filter(os.path.isfile, options.only or ()):
            say(f"--only {word}: it is a NAME; for the file of this name: @{word}")
        announce(receiver)
        receiver.serve_forever()
    finally:
        # A second one ends it at once.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        receiver.server_close()


def main(argv=None):
    """Serve until Ctrl-C or SIGTERM, and exit with the status."""
    options = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is what it reads again
    status = 0
    try:
        allow_descriptors()
        return_memory()
        try:
            serve(options)
        except StartError as error:
            say(error)
            status = 1
    except KeyboardInterrupt:  # during the start, too
        pass
    sys.exit(status)


if __name__ == "__main__":
    main()
