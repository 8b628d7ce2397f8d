"""What is asked for behind the ? of an address."""
import datetime
import re
import urllib.parse

from receiver.events import time_text, utc_now

PER_PAGE_MOST = 1000  # as of the platform's API
PAGE_MOST = 100000  # the last page that can be asked for, as there
WAIT_MOST = 86400  # seconds to wait for a machine


def read_parameters(query, known):
    """Return the parameters in query as {name: value}.

    known: {name: function of a text}. Raises ValueError for a name that is not known or
    comes twice, and for a value that its function refuses.
    """
    given = urllib.parse.parse_qs(query, keep_blank_values=True)
    values = {}
    for name, texts in given.items():
        if name not in known:
            names = ", ".join(known) or "none"
            raise ValueError(f"{name:.50}: there is no such parameter here; known: {names}")
        if len(texts) > 1:
            raise ValueError(f"{name}: comes twice")
        try:
            values[name] = known[name](texts[0])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return values


def number(least, most):
    """Return a function that reads a number from least to most."""
    def read(text):
        if not re.fullmatch("[0-9]{1,19}", text) or not least <= int(text) <= most:
            raise ValueError(f"must be a number from {least} to {most}")
        return int(text)
    return read


def code(text):
    """Return text as a code, an int of 64 bits."""
    if not re.fullmatch("-?[0-9]{1,19}", text) or not -2**63 <= int(text) < 2**63:
        raise ValueError("must be a number like 1000")
    return int(text)


def wait_seconds(text):
    """Return text as the seconds to wait."""
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]+)?", text) or float(text) > WAIT_MOST:
        raise ValueError(f"must be seconds, at most {WAIT_MOST}")
    return float(text)


def moment(text):
    """Return the time that text says in the way of RFC 3339, as of time_text."""
    # A + that was not written as %2B has become a space.
    match = re.fullmatch(r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt]([0-9]{2}:[0-9]{2}:[0-9]{2})"
                         r"(\.[0-9]+)?([Zz]|[-+ ][0-9]{2}:[0-9]{2})", text)
    if not match:
        raise ValueError("must be a time like 2026-01-31T12:00:00Z")
    date, clock, fraction, zone = match.groups()
    zone = "+00:00" if zone in "Zz" else zone.replace(" ", "+")
    # A whole second is meant as a whole: what is newer comes behind its end.
    fraction = f"{fraction}000000"[:7] if fraction else ".999999"
    try:
        return time_text(datetime.datetime.fromisoformat(f"{date}T{clock}{fraction}{zone}"))
    except (ValueError, OverflowError):
        raise ValueError("there is no such time") from None


def past(text):
    """Return the time that text says, which has to be in the past."""
    at = moment(text)
    if at[:19] > time_text(utc_now())[:19]:
        raise ValueError("is in the future, by the receiver's clock; ask with after=NUMBER")
    return at
