"""What the kernel's table of TCP sockets says, and targets that do not answer."""

import errno
import fcntl
import os
import socket
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import IO

import pytest

from helpers.socks import LINGER_ZERO
from helpers.waiting import PATIENCE, until

__all__ = ["Backlog", "dialling", "full_backlog", "reset_in_queue", "socket_between", "unread"]

_SYN_SENT = "02"  # include/net/tcp_states.h


def _peers(port: int) -> Iterator[tuple[str, str]]:
    """Tell of the sockets of this host whose peer has this port: where it is, as the table has it, and the state."""
    wanted = f":{port:04X} "
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            if wanted in line:  # there may be thousands that wait for nothing but their end
                _, local, remote, state, *_ = line.split()
                if remote.endswith(wanted.strip()):
                    yield local, state


def _place(text: str) -> tuple[str, int]:
    """Read an address, words in the order of bytes that this machine has, and a port (proc_pid_net(5))."""
    host, _, port = text.partition(":")
    packed = b"".join(int(host[at : at + 8], 16).to_bytes(4, sys.byteorder) for at in range(0, len(host), 8))
    return str(ip_address(packed)), int(port, 16)


def dialling(port: int) -> int:
    """Count the sockets of this host that wait for an answer from `port`."""
    return sum(state == _SYN_SENT for _, state in _peers(port))


def reset_in_queue(client: socket.socket) -> None:
    """Reset a connection that nobody has accepted yet, and wait until that is known there: no table has it then."""
    near, far = client.getsockname()[1], client.getpeername()[1]
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    client.close()
    until(lambda: far not in {_place(local)[1] for local, _ in _peers(near)}, "the reset to arrive")


def socket_between(local: tuple[str, int], peer: tuple[str, int]) -> socket.socket:
    """Duplicate the one socket of this process that has these two ends."""
    for name in os.listdir("/proc/self/fd"):
        try:
            fd = os.dup(int(name))
        except OSError:  # the listing's own, or closed meanwhile
            continue
        try:
            sock = socket.socket(fileno=fd)
        except OSError:  # it is none
            os.close(fd)
            continue
        try:
            if (sock.getsockname()[:2], sock.getpeername()[:2]) == (local, peer):
                return sock
        except OSError:  # it listens, or is no stream
            pass
        sock.close()
    raise AssertionError(f"this process has no socket from {local} to {peer}")


def unread(sock: socket.socket | IO[bytes]) -> int:
    """Count the bytes that have arrived and were not read (SIOCINQ, tcp(7)); of a pipe, either end tells (pipe(7))."""
    return int.from_bytes(fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)


class Backlog:
    """A listener whose queue is full: who dials it gets no answer until `let_in`."""

    def __init__(self, host: str) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=0, reuse_port=True)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self._fillers: list[socket.socket] = []
        while self._one_more(family):
            pass

    def _one_more(self, family: int) -> bool:
        """Take a place in the queue; False when there was none."""
        filler = socket.socket(family)
        filler.setblocking(False)
        filler.connect_ex(self.address)
        if filler.connect_ex(self.address) not in (0, errno.EISCONN):  # on loopback it is decided by now
            filler.close()
            return False
        self._fillers.append(filler)
        return True

    def let_in(self) -> socket.socket:
        """Answer the next that dials, at once: by a SYN of ours (RFC 9293 section 3.5, figure 7).

        If there was room in the queue instead, its own SYN would come again only in a second or so. Skips the test
        where the kernel opens no connection so.
        """
        dialler = until(self._dialler, f"a SYN to {self.address}")
        if (reason := _why_no_simultaneous_open()) is not None:
            pytest.skip(reason)
        return self.answer(dialler)

    def answer(self, dialler: tuple[str, int]) -> socket.socket:
        """Dial one that dials here; give our end."""
        sock = socket.socket(self._listener.family)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(self.address)
            sock.settimeout(PATIENCE)
            sock.connect(dialler)
        except OSError:
            sock.close()
            raise
        return sock

    def _dialler(self) -> tuple[str, int] | None:
        return next((_place(local) for local, state in _peers(self.address[1]) if state == _SYN_SENT), None)

    def wait(self) -> None:
        """Wait until somebody dials."""
        until(lambda: dialling(self.address[1]), f"a SYN to {self.address}")

    def wait_for_none(self) -> None:
        """Wait until nobody dials any more."""
        until(lambda: not dialling(self.address[1]), f"the end of the SYNs to {self.address}")

    def close(self) -> None:
        """Close all."""
        for sock in (*self._fillers, self._listener):
            sock.close()


@contextmanager
def full_backlog(host: str = "127.0.0.1") -> Iterator[Backlog]:
    """Run a target that answers nobody yet."""
    backlog = Backlog(host)
    try:
        yield backlog
    finally:
        backlog.close()


@cache
def _why_no_simultaneous_open() -> str | None:
    """Try it once. Say what is amiss, or None."""
    with full_backlog() as backlog, socket.socket() as dialler:
        dialler.setblocking(False)
        dialler.connect_ex(backlog.address)
        try:
            backlog.answer(dialler.getsockname()).close()
        except OSError as error:
            return f"this kernel opens no connection by two SYNs that cross: {error}"
    return None
