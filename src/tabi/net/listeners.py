"""Opening listeners and accepting from them without ever waiting for a client."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv6Address
from typing import Protocol, TypeAlias

from tabi.addr import Endpoint, Name
from tabi.errors import ConfigError
from tabi.net.linger import turn_away
from tabi.net.sockopts import prepare_listener

__all__ = ["Accepting", "Acceptor", "OnExhausted", "open_listener", "open_listeners"]

BACKLOG = 4096  # the kernel cuts it to net.core.somaxconn
BATCH = 64  # connections per wake-up, so that running sessions get their turn
PAUSE = 0.2  # seconds without accepting once descriptors have run out

OnAccept: TypeAlias = Callable[[socket.socket, Endpoint, Endpoint], None]
"""Called with a connection, the client's end and ours."""

OnExhausted: TypeAlias = Callable[[OSError | None], None]
"""Called with the error when descriptors run out, with None when accepting goes on."""

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def open_listeners(endpoints: Sequence[Endpoint]) -> list[socket.socket]:
    """Open all or none.

    ``[::]`` also takes IPv4 unless an IPv4 listener on the same port is asked for.

    Raises:
        ConfigError: one cannot be opened; the text says which and what would help.
    """
    ports4 = {endpoint.port for endpoint in endpoints if not isinstance(endpoint.host, IPv6Address)}
    opened: list[socket.socket] = []
    try:
        for endpoint in endpoints:
            sock = open_listener(endpoint, v6only=endpoint.port in ports4)
            opened.append(sock)
    except ConfigError:
        for sock in opened:
            sock.close()
        raise
    return opened


def open_listener(endpoint: Endpoint, *, v6only: bool = False, share: bool = False) -> socket.socket:
    """Open one TCP listener, non-blocking; with `share` beside others of this user on the same port (SO_REUSEPORT).

    Raises:
        ConfigError: address in use, not ours, not permitted, or a name instead of an address.
    """
    if isinstance(endpoint.host, Name):
        raise ConfigError(f"listen address {endpoint} is a name; write an address, such as 127.0.0.1:{endpoint.port}")
    is_v6 = isinstance(endpoint.host, IPv6Address)
    try:
        sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise ConfigError(f"cannot listen on {endpoint}: {os.strerror(error.errno or 0)}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only or not endpoint.host.is_unspecified)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        prepare_listener(sock)
        sock.bind((str(endpoint.host), endpoint.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"cannot listen on {endpoint}: {_advice(error)}") from None
    return sock


def _advice(error: OSError) -> str:
    known = {
        errno.EADDRINUSE: "address in use; stop the program that has it (ss -ltnp shows it) or choose another port",
        errno.EADDRNOTAVAIL: "no interface of this host has that address (ip address shows them)",
        errno.EACCES: "permission denied; ports below net.ipv4.ip_unprivileged_port_start need CAP_NET_BIND_SERVICE",
    }
    code = error.errno or 0
    return known.get(code, os.strerror(code))


class Accepting(Protocol):
    """Whoever accepts in an acceptor's stead, from a listener that stays the acceptor's."""

    def accept_from(self, listener: int) -> None:
        """Begin; `Acceptor.exhausted` is to be called when it has ended for want of descriptors."""

    def stop_accepting(self, listener: int) -> None:
        """End, before this returns."""


class Acceptor:
    """Accept from one listener and hand each connection on; never waits for a client.

    When descriptors run out it gives up its reserve to refuse one waiting client cleanly (an end of stream, instead of
    a connection that hangs in the queue), pauses for `PAUSE` seconds and goes on.
    """

    def __init__(
        self,
        listener: socket.socket,
        on_accept: OnAccept,
        on_exhausted: OnExhausted,
        loop: asyncio.AbstractEventLoop,
        accepting: Accepting | None = None,
    ) -> None:
        self.listener = listener
        self.endpoint: Endpoint = Endpoint.from_sockaddr(listener.getsockname())
        self._has_address = not isinstance(self.endpoint.host, Name) and not self.endpoint.host.is_unspecified
        self._on_accept = on_accept
        self._on_exhausted = on_exhausted
        self._loop = loop
        self._reserve = _open_reserve()
        self._resume: asyncio.TimerHandle | None = None
        self._accepting = accepting
        self._listen()

    def close(self) -> None:
        """Accept what waits in the queue, and close the listener: whoever had been let in by the kernel is served."""
        if self._resume is None:
            if self._accepting is not None:
                self._leave()
            self._accept_all()
        self.abandon()

    def abandon(self) -> None:
        """Close the listener without accepting what waits in its queue: another process may, or nobody can."""
        if self._resume is not None:
            self._resume.cancel()
        self._leave()
        self.listener.close()
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _accept_all(self) -> None:
        while self._accept():
            pass

    def _accept(self) -> bool:
        """Accept a batch, and say whether there may be more."""
        for _ in range(BATCH):
            try:
                sock, peer = self.listener.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self.exhausted(error)
                    return False
                continue  # accept(2): errors of the one connection, which has gone; the next may be fine
            sock.setblocking(False)
            local = self.endpoint if self._has_address else Endpoint.from_sockaddr(sock.getsockname())
            self._on_accept(sock, Endpoint.from_sockaddr(peer), local)
        return True

    def exhausted(self, error: OSError) -> None:
        """Do what is to be done when descriptors have run out."""
        self._on_exhausted(error)
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
            try:
                turn_away(self.listener.accept()[0])
            except OSError:  # nobody waits any more, or another thread took the descriptor first
                pass
            self._reserve = _open_reserve()
        self._leave()
        self._resume = self._loop.call_later(PAUSE, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        if self._reserve is None:
            self._reserve = _open_reserve()
        if self._reserve is None:  # still none to be had
            self._resume = self._loop.call_later(PAUSE, self._go_on)
            return
        self._on_exhausted(None)
        self._listen()

    def _listen(self) -> None:
        if self._accepting is None:
            self._loop.add_reader(self.listener, self._accept)
        else:
            self._accepting.accept_from(self.listener.fileno())

    def _leave(self) -> None:
        if self._accepting is None:
            self._loop.remove_reader(self.listener)
        else:
            self._accepting.stop_accepting(self.listener.fileno())


def _open_reserve() -> int | None:
    try:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in _EXHAUSTED:
            raise
        return None
