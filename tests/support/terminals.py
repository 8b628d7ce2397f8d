"""Terminals, and outputs that block."""
import fcntl
import os
import pty
import socket
import termios
from contextlib import contextmanager

from support.processes import Ended, fresh, start_command
from support.waiting import PATIENCE


class Terminal:
    """A terminal, the command that leads the session at it, and the person who types."""

    def __init__(self, *command, **options):
        self.descriptor, of_command = pty.openpty()
        self.process = start_command(
            *command, stdin=of_command, stdout=of_command, stderr=of_command,
            start_new_session=True, first=self.lead, **options)
        os.close(of_command)

    @staticmethod
    def lead():
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        fresh()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.hang_up()
        self.process.kill()
        self.process.wait()

    def hang_up(self):
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def type(self, keys):
        os.write(self.descriptor, keys)

    def read(self):
        """Return what it shows next; nothing at the end."""
        try:
            return os.read(self.descriptor, 1000)
        except OSError:  # as Linux tells the end
            return b""

    def read_until(self, word):
        """Return what it shows until word, which has to come."""
        shown = b""
        while word not in shown:
            more = self.read()
            assert more, shown
            shown += more
        return shown

    def ended(self):
        """Wait for the end, and tell how the command ended and what was still shown."""
        shown = b"".join(iter(self.read, b"")).decode("utf-8", "replace")
        assert "Traceback" not in shown, shown
        return Ended(self.process.wait(PATIENCE), shown, "")


@contextmanager
def full_pipe(blocking=True, room=0):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    for size in (4096, 1):
        try:
            while True:
                os.write(writer, b"x" * size)
        except BlockingIOError:
            pass
    if room:  # in the last page of it
        os.read(reader, 4096)
        os.write(writer, b"x" * (4096 - room))
    os.set_blocking(writer, blocking)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)


@contextmanager
def full_socket():
    reader, writer = socket.socketpair()  # as the journal of systemd
    with reader, writer:
        writer.setblocking(False)
        try:
            while True:
                writer.send(b"x" * 512)
        except BlockingIOError:
            writer.setblocking(True)
        yield writer.fileno()


@contextmanager
def stopped_terminal():
    master, slave = pty.openpty()
    os.write(master, b"\x13")  # Ctrl-S
    termios.tcflow(slave, termios.TCOOFF)
    try:
        yield slave
    finally:
        os.close(master)
        os.close(slave)


BLOCKED = {"full pipe": full_pipe, "full pipe with room for 10": lambda: full_pipe(room=10),
           "full pipe that does not block": lambda: full_pipe(blocking=False),
           "full socket": full_socket, "stopped terminal": stopped_terminal}
