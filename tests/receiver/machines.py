"""Which machine it is: by its address, or by a NAME that it is given; and who is known."""
import functools
import ipaddress
import os
import re
import socket
import urllib.parse
import uuid

CACHED = 10000  # addresses, about 1 MiB


class NamesError(Exception):
    """A file of names or machines cannot be used, as one line."""


@functools.lru_cache(CACHED)
def usual_address(text):
    """Return the address in text in its usual form, IPv4 in IPv6 as IPv4.

    Raises ValueError if it is none.
    """
    # ipaddress knows no zone before Python 3.9, and takes any text for one.
    match = re.fullmatch(r"([0-9A-Fa-f:.]+)(%[\w.-]{1,15})?", text, re.ASCII)
    if not match:
        raise ValueError(f"no address: {text:.50}")
    address = ipaddress.ip_address(match.group(1))
    address = getattr(address, "ipv4_mapped", None) or address
    return f"{address}{match.group(2) or ''}"


@functools.lru_cache(CACHED)
def is_address(machine):
    """Return whether machine, in its usual form, is an address."""
    try:
        return usual_address(machine) == machine
    except ValueError:
        return False


@functools.lru_cache(CACHED)
def usual_name(text):
    """Return the NAME or the address in text in its usual form; ValueError if none."""
    try:
        return usual_address(text)
    except ValueError:
        if re.fullmatch(r"[0-9A-Za-z._:-]{1,63}", text) and text not in (".", ".."):
            return text.lower()
        raise ValueError("a machine is an address, or a NAME of 1 to 63 letters, "
                         "digits, . _ : -") from None


@functools.lru_cache(CACHED)
def device_id(machine):
    """Return the id of a machine (its address or NAME in the usual form), a UUID."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"device:{machine}"))


def device_link(machine):
    """Return the path of the page of a machine."""
    return "/devices/" + urllib.parse.quote(machine, safe=":")


@functools.lru_cache(CACHED)
def place(machine):
    """Return by what machines are sorted: addresses as numbers, then NAMEs."""
    try:
        number = ipaddress.ip_address(machine.partition("%")[0])
    except ValueError:
        return b"n" + machine.encode()
    return bytes([number.version]) + number.packed


class Machines:
    """Who is known, and by which names: --only and --names.

    only: addresses, NAMEs and @FILEs of them, None for all; names: a file like hosts(5),
    or None. Raises NamesError if one of them cannot be read.
    """

    def __init__(self, only=None, names=None):
        self._only, self._names = only, names
        self.read()

    def read(self):
        """Read the files, again if they have changed; NamesError leaves all as it was."""
        shown, machines, nobody = {}, {}, set()
        if self._names is not None:
            shown, machines, nobody = _read_names(self._names)
        only = None
        if self._only is not None:
            only = frozenset(machines.get(name, name) for name in _read_only(self._only))
        self.only, self._shown, self._machines = only, shown, machines
        expected = only
        if only is None:
            expected = frozenset(filter(_may_report, shown)) - nobody
        self.expected = expected  # to report, as far as options and files name them

    def named(self, text):
        """Return the machine that text, an address, a NAME or a name of --names, means."""
        name = usual_name(text)
        return self._machines.get(name, name)

    def is_known(self, machine):
        """Return whether events of machine are kept."""
        return self.only is None or machine in self.only

    def is_listed(self, machine):
        """Return whether a file or an option names machine."""
        return machine in self._shown or self.only is not None and machine in self.only

    def name(self, machine):
        """Return what machine is called, or "" if nobody has named it."""
        return self._shown.get(machine) or ("" if is_address(machine) else machine)

    def path(self, machine):
        """Return the path of the page of machine.

        By its id, if it is a NAME by which --names calls another machine.
        """
        is_another = self._machines.get(machine, machine) != machine
        return device_link(device_id(machine) if is_another else machine)


def _may_report(address):
    return not ipaddress.ip_address(address.partition("%")[0]).is_multicast


def _read_only(words):
    for word in words:
        if not word.startswith("@"):
            yield _usual_word(word)
            continue
        for number, line in _lines(word[1:]):
            try:
                yield from map(usual_name, line.split())
            except ValueError as error:
                raise NamesError(f"{word[1:]}, line {number}: {error}") from None


def _usual_word(word):
    try:
        return usual_name(word)
    except ValueError as error:
        advice = f"; for the file: @{word}" if os.path.isfile(word) else ""
        raise NamesError(f"--only {word}: {error}{advice}") from None


def _is_nobody(name):  # as /etc/hosts has them
    return name in ("localhost", "broadcasthost", socket.gethostname().lower()
                    ) or name.startswith("ip6-")


def _read_names(path):
    shown, machines, nobody = {}, {}, set()
    for number, line in _lines(path):
        words = line.split()
        if not words:
            continue
        try:
            machine, (name, *others) = usual_address(words[0]), words[1:]
        except ValueError:
            raise NamesError(f"{path}, line {number}: must be an address and a name"
                             ) from None
        shown.setdefault(machine, name)
        for alias in (name.lower(), *map(str.lower, others)):
            machines.setdefault(alias, machine)
            if _is_nobody(alias):
                nobody.add(machine)
    return shown, machines, nobody


def _lines(path):  # without comments, numbered
    try:
        with open(path, encoding="utf-8") as file:
            return [(number, line.partition("#")[0])
                    for number, line in enumerate(file, 1)]
    except OSError as error:
        raise NamesError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise NamesError(f"cannot read {path}: it is not UTF-8") from None
