"""A SOCKS5 client's UDP association, and datagram sockets, typed from RFC 1928 section 7."""

import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from helpers.serving import Running
from helpers.socks import address5, ask5, greet5, read_reply5, request5
from helpers.waiting import PATIENCE, until
from tabi.net.tasks import pending

LARGEST4 = 65_507  # 65,535 less the headers of IPv4 (20) and UDP (8)
LARGEST6 = 65_527  # 65,535 less the header of UDP; IPv6 does not count its own


@contextmanager
def datagrams(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """Open a bound UDP socket whose waits are bounded and that has room for the largest datagrams."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.settimeout(PATIENCE)
        sock.bind((host, port))
        yield sock


def address_of(sock: socket.socket) -> tuple[str, int]:
    """Give its own address and port."""
    host, port = sock.getsockname()[:2]
    return host, port


def header(host: str | bytes, port: int, frag: int = 0, rsv: int = 0) -> bytes:
    """RFC 1928 section 7."""
    return rsv.to_bytes(2, "big") + bytes((frag,)) + address5(host) + port.to_bytes(2, "big")


def read_datagram(data: bytes) -> tuple[str, int, bytes]:
    """Take apart what the relay sent: source address, source port, data."""
    assert data[:3] == b"\0\0\0", data[:30]  # RSV, and we never fragment
    size = {1: 4, 4: 16}[data[3]]
    raw, port = data[4 : 4 + size], data[4 + size : 6 + size]
    return str(ip_address(raw)), int.from_bytes(port, "big"), data[6 + size :]


class Association:
    """A client with its control connection, the relay's address and a socket for datagrams.

    Args:
        proxy: where the server listens.
        host: address of the client.
        declare: whether the request names the address and port of the client's socket; or a tuple to name instead.
    """

    def __init__(
        self, proxy: tuple[str, int], host: str = "127.0.0.1", *, declare: bool | tuple[str, int] = False
    ) -> None:
        self._datagrams = datagrams(host)
        self.sock = self._datagrams.__enter__()
        self.control = greet5(proxy, (host, 0))
        named = declare if isinstance(declare, tuple) else address_of(self.sock) if declare else _anything(host)
        self.control.sendall(request5(3, *named))
        self.relay: tuple[str, int] = ("", 0)

    def __enter__(self) -> "Association":
        self.granted()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def granted(self) -> "Association":
        """Wait for the reply, which must be a success."""
        reply, host, port = read_reply5(self.control)
        assert reply == 0, reply
        self.relay = (host, port)
        return self

    def close(self) -> None:
        """End it by closing the control connection."""
        self.control.close()
        self._datagrams.__exit__(None, None, None)

    def send(self, host: str | bytes, port: int, data: bytes, *, frag: int = 0, rsv: int = 0) -> None:
        """Send data to a target."""
        self.send_raw(header(host, port, frag, rsv) + data)

    def send_raw(self, datagram: bytes) -> None:
        """Send a datagram to the relay as it is."""
        self.sock.sendto(datagram, self.relay)

    def receive(self) -> tuple[str, int, bytes]:
        """Wait for a datagram from the relay: the source that it names, and its data."""
        datagram, sender = self.sock.recvfrom(1 << 16)
        assert sender[:2] == self.relay
        return read_datagram(datagram)

    def talk(self, target: socket.socket, data: bytes = b"ping", answer: bytes = b"pong") -> tuple[str, int]:
        """Send to a target that must get just this next, and get its answer; gives the relay's address there.

        What was sent before on the same ways has been judged by then: datagrams keep their order on loopback.
        """
        self.send(*address_of(target), data)
        got, egress = target.recvfrom(1 << 16)
        assert got == data, got
        target.sendto(answer, egress)
        assert self.receive() == (*address_of(target), answer)
        return egress[:2]


def _anything(host: str) -> tuple[str, int]:
    return ("::" if ":" in host else "0.0.0.0", 0)


def refused(proxy: tuple[str, int], host: str = "0.0.0.0", port: int = 0) -> int:
    """Ask for an association that must not be granted; gives REP."""
    sock, reply, _, _ = ask5(proxy, 3, host, port)
    with sock:
        assert sock.recv(1) == b""
    return reply


def stranger(relay: tuple[str, int], datagram: bytes, host: str = "127.0.0.2") -> None:
    """Send a datagram from another address."""
    with datagrams(host) as sock:
        sock.sendto(datagram, relay)


def drops(running: Running) -> str:
    """Give what the log says was dropped in the one association there was."""
    return str(running.only_line().get("note", "nothing"))


def is_quiet(sock: socket.socket) -> bool:
    """Say whether nothing waits to be read."""
    return not select.select([sock], [], [], 0)[0]


def looked_up(running: Running) -> None:
    """Wait until no look-up of a datagram's name is under way."""

    def names() -> list[str]:
        return [task.get_name() for task in running.call_sync(pending) if "look-up" in task.get_name()]

    until(lambda: not names(), "the look-ups")


def listener_for(running: Running, host: str) -> tuple[str, int]:
    """Give the listener of the client's family."""
    address = running.addresses[1 if ":" in host else 0]
    return str(address.host), address.port
