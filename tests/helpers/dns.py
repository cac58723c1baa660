"""A small DNS server (RFC 1035) that does with each question what its test says, silence and lateness included."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from ipaddress import ip_address

from helpers.waiting import PATIENCE, until

__all__ = ["AAAA", "A", "Dns", "Say", "serving_dns"]

A, AAAA = 1, 28
_RESPONSE_RECURSIVE = 0x8180  # QR, RD, RA
_TTL = 60


class Say(Enum):
    """What to answer instead of addresses."""

    SERVFAIL = 2  # RCODE
    NXDOMAIN = 3
    REFUSED = 5
    NOTHING = -1  # not a word
    LATER = -2  # keep the question until `Dns.release`


class Dns:
    """Answers by table: (name, type) -> addresses, perhaps none, or a `Say`; NXDOMAIN for what is not in it."""

    def __init__(self, sock: socket.socket) -> None:
        self.table: dict[tuple[str, int], tuple[str, ...] | Say] = {}
        self.asked: list[tuple[str, int]] = []
        self._sock = sock
        self._held: dict[tuple[str, int], list[tuple[bytes, tuple[str, int]]]] = {}

    def add(self, name: str, a: tuple[str, ...] | Say = (), aaaa: tuple[str, ...] | Say = ()) -> str:
        """Say what both families get; gives the name."""
        self.table[name, A] = a
        self.table[name, AAAA] = aaaa
        return name

    def release(self, name: str, kind: int, addresses: tuple[str, ...]) -> None:
        """Answer what was kept back, once it has been asked."""
        until(lambda: self._held.get((name, kind)), f"the question for {name}")
        self.table[name, kind] = addresses
        for query, peer in self._held.pop((name, kind)):
            self._sock.sendto(_answer(query, kind, addresses), peer)

    def serve(self) -> None:
        """Answer until an empty datagram comes."""
        while True:
            query, peer = self._sock.recvfrom(4096)
            if not query:
                return
            self._take(query, peer)

    def _take(self, query: bytes, peer: tuple[str, int]) -> None:
        name, kind = _question(query)
        what = self.table.get((name, kind), Say.NXDOMAIN)
        if what is Say.LATER:
            self._held.setdefault((name, kind), []).append((query, peer))
        elif what is not Say.NOTHING:
            self._sock.sendto(_answer(query, kind, what), peer)
        self.asked.append((name, kind))


@contextmanager
def serving_dns(address: str) -> Iterator[Dns]:
    """Run one on port 53 of the host on which this is entered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        dns = Dns(sock)
        thread = threading.Thread(target=dns.serve, name="dns")
        thread.start()
        try:
            yield dns
        finally:
            sock.sendto(b"", (address, 53))  # the end of `serve`
            thread.join(PATIENCE)
            assert not thread.is_alive()


def _question(query: bytes) -> tuple[str, int]:
    labels, place = [], 12
    while size := query[place]:
        labels.append(query[place + 1 : place + 1 + size].decode().lower())
        place += 1 + size
    return ".".join(labels), int.from_bytes(query[place + 1 : place + 3], "big")


def _answer(query: bytes, kind: int, what: tuple[str, ...] | Say) -> bytes:
    end = query.index(0, 12) + 5  # of the question: no pointer is in it, and no label holds a zero byte
    addresses = what if isinstance(what, tuple) else ()
    code = what.value if isinstance(what, Say) else 0
    head = query[:2] + struct.pack("!5H", _RESPONSE_RECURSIVE | code, 1, len(addresses), 0, 0)
    records = b""
    for address in addresses:
        packed = ip_address(address).packed
        # 0xC00C: the name is the question's (RFC 1035 section 4.1.4); class 1 is Internet.
        records += struct.pack("!HHHIH", 0xC00C, kind, 1, _TTL, len(packed)) + packed
    return head + query[12:end] + records
