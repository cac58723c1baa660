"""The gate's name server on its sockets: DNS over UDP and over TCP (RFC 1035 section 4.2, RFC 7766).

Every answer is known at once, so a datagram is answered in the turn in which it is read. A TCP connection is answered
in order, and not read from while the client does not take what was said. There are so many connections at a time;
another one takes the place of the one that has been silent for longest.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence

from tabi.addr import Endpoint
from tabi.net.deadlines import Deadlines
from tabi.net.listeners import Acceptor
from tabi.wrap import zone
from tabi.wrap.dns import Frames
from tabi.wrap.names import Names

__all__ = ["IDLE", "MOST_CLIENTS", "OnAnswer", "Responder"]

IDLE = 10.0  # seconds that a connection may be silent, or take nothing; "a few" (RFC 7766 section 6.2.3)
MOST_CLIENTS = 64  # connections

BATCH = 64  # datagrams per wake-up, so that others get their turn
_SIZE = 65_536
_CHUNK = 16_384  # bytes of queries that are read together; an answer is hardly longer than its query

OnAnswer = Callable[[Endpoint, zone.Answer], None]
"""Is told of each answer, and who asked."""


def _ignore(_client: Endpoint, _answer: zone.Answer) -> None:
    """Tell nobody."""


class Responder:
    """Answers from when it is made until it is closed; its sockets are closed with it.

    Args:
        names: what has addresses.
        udp: bound sockets, non-blocking.
        tcp: listening sockets, non-blocking.
        on_answer: see `OnAnswer`.
        idle: seconds.
        most: connections at a time.
    """

    def __init__(
        self,
        names: Names,
        udp: Sequence[socket.socket],
        tcp: Sequence[socket.socket],
        *,
        on_answer: OnAnswer = _ignore,
        idle: float = IDLE,
        most: int = MOST_CLIENTS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._names = names
        self._udp = list(udp)
        self._on_answer = on_answer
        self._most = most
        self._clients: dict[_Client, None] = {}  # the longest silent first
        self._silent: Deadlines[_Client] = Deadlines(idle, self._end, loop=self._loop)
        for sock in self._udp:
            self._loop.add_reader(sock.fileno(), self._on_datagrams, sock)
        self._acceptors = [Acceptor(sock, self._on_accept, lambda _error: None, self._loop) for sock in tcp]

    def __len__(self) -> int:
        """Connections that stand."""
        return len(self._clients)

    def close(self) -> None:
        """End all connections, and close all sockets; the second time nothing happens."""
        while self._acceptors:
            self._acceptors.pop().abandon()
        while self._udp:
            sock = self._udp.pop()
            self._loop.remove_reader(sock.fileno())
            sock.close()
        for client in tuple(self._clients):
            self._end(client)
        self._silent.close()

    def _on_datagrams(self, sock: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                message, client = sock.recvfrom(_SIZE)
            except BlockingIOError:
                return
            except OSError:  # an ICMP error for an answer whose asker has gone
                continue
            said = self.answer(message, Endpoint.from_sockaddr(client))
            if said is None:
                continue
            try:
                sock.sendto(said, client)
            except OSError:  # no room, or nobody there: a resolver asks again
                continue

    def answer(self, message: bytes, client: Endpoint) -> bytes | None:
        """Answer one message; None: it must not be answered."""
        said = zone.answer(message, self._names)
        if said is None:
            return None
        encoded = said.encode()
        self._on_answer(client, said)  # whatever becomes of what is told, the answer is there
        return encoded

    def _on_accept(self, sock: socket.socket, peer: Endpoint, _local: Endpoint) -> None:
        if len(self._clients) >= self._most:
            self._end(next(iter(self._clients)))
        client = _Client(sock, peer, self)
        self.heard(client)

    def heard(self, client: "_Client") -> None:
        """Let the silence of a connection begin now."""
        self._clients.pop(client, None)
        self._clients[client] = None
        self._silent.end(client)
        self._silent.begin(client)

    def gone(self, client: "_Client") -> None:
        """Forget a connection that has ended."""
        self._silent.end(client)
        self._clients.pop(client, None)

    def _end(self, client: "_Client") -> None:
        client.close()


class _Client:
    """One TCP connection."""

    def __init__(self, sock: socket.socket, peer: Endpoint, responder: Responder) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._peer = peer
        self._responder = responder
        self._frames = Frames()
        self._rest = memoryview(b"")
        self._loop.add_reader(sock.fileno(), self._on_readable)

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._responder.gone(self)

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:  # reset
            data = b""
        if not data:
            self.close()
            return
        answers = [self._responder.answer(message, self._peer) for message in self._frames.receive(data)]
        said = [Frames.frame(answer) for answer in answers if answer is not None]
        if said:
            self._rest = memoryview(b"".join(said))
            self._responder.heard(self)
            self._send()
        if None in answers:  # it does not speak DNS, and what follows would be no better
            self.close()

    def _send(self) -> None:
        """Send what is left; read on when nothing is."""
        try:
            self._rest = self._rest[self._sock.send(self._rest) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._rest:
            self._loop.remove_reader(self._sock.fileno())
            self._loop.add_writer(self._sock.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        self._responder.heard(self)
        self._send()
        if not self._rest and self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock.fileno())
            self._loop.add_reader(self._sock.fileno(), self._on_readable)
