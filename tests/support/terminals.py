"""Terminals, and outputs that block."""
import os
import pty
import socket
import termios
from contextlib import contextmanager

from support.processes import fresh, small_environment


def at_terminal(*command, env=None):
    """Start command as the leader of a session at a terminal; return both."""
    pid, terminal = pty.fork()
    if not pid:
        try:
            fresh()
            os.execvpe(command[0], command, small_environment(env))
        finally:
            os._exit(99)
    return pid, terminal


def read_until(terminal, word):
    """Return what the terminal shows until word, or until the end."""
    shown = b""
    while word is None or word not in shown:
        try:
            part_of_it = os.read(terminal, 1000)
        except OSError:
            part_of_it = b""
        if not part_of_it:
            assert word is None, shown
            return shown
        shown += part_of_it
    return shown


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
    yield writer
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
    yield slave
    os.close(master)
    os.close(slave)


BLOCKED = {"full pipe": full_pipe, "full pipe with room for 10": lambda: full_pipe(room=10),
           "full pipe that does not block": lambda: full_pipe(blocking=False),
           "full socket": full_socket, "stopped terminal": stopped_terminal}
