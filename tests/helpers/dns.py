"""A small DNS server (RFC 1035) that does with each question what its test says, silence and lateness included."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from ipaddress import ip_address
from typing import TypeAlias

from helpers.waiting import PATIENCE, until

__all__ = ["AAAA", "A", "Dns", "Say", "serving_dns"]

A, AAAA = 1, 28
_CNAME = 5
_RESPONSE_RECURSIVE = 0x8180  # QR, RD, RA


class Say(Enum):
    """What to answer instead of addresses."""

    SERVFAIL = 2  # RCODE
    NXDOMAIN = 3
    REFUSED = 5
    NOTHING = -1  # not a word
    LATER = -2  # keep the question until `Dns.release`


What: TypeAlias = tuple[str, ...] | Say


class Dns:
    """Answers by table: (name, type) -> addresses, perhaps none, or a `Say`; NXDOMAIN for what is not in it.

    A list has one answer for each time that the question comes; the last one stays.

    Attributes:
        aliases: name -> what it is a CNAME for; an answer has the whole chain.
        asked: questions in their order.
        ttl: seconds, of every record.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.address: tuple[str, int] = sock.getsockname()
        self.table: dict[tuple[str, int], What | list[What]] = {}
        self.aliases: dict[str, str] = {}
        self.asked: list[tuple[str, int]] = []
        self.ttl = 60
        self._sock = sock
        self._held: dict[tuple[str, int], list[tuple[bytes, tuple[str, int]]]] = {}

    def add(self, name: str, a: What | list[What] = (), aaaa: What | list[What] = ()) -> str:
        """Say what both families get; gives the name."""
        self.table[name, A] = a
        self.table[name, AAAA] = aaaa
        return name

    def release(self, name: str, kind: int, addresses: tuple[str, ...]) -> None:
        """Answer what was kept back, once it has been asked."""
        until(lambda: self._held.get((name, kind)), f"the question for {name}")
        self.table[name, kind] = addresses
        for query, peer in self._held.pop((name, kind)):
            self._sock.sendto(self._answer(query, name, kind, addresses), peer)

    def serve(self) -> None:
        """Answer until an empty datagram comes."""
        while True:
            query, peer = self._sock.recvfrom(4096)
            if not query:
                return
            self._take(query, peer)

    def _take(self, query: bytes, peer: tuple[str, int]) -> None:
        name, kind = _question(query)
        self.asked.append((name, kind))  # who has the answer may look
        what = self.table.get((self._chain(name)[-1], kind), Say.NXDOMAIN)
        if isinstance(what, list):
            what = what.pop(0) if len(what) > 1 else what[0]
        if what is Say.LATER:
            self._held.setdefault((name, kind), []).append((query, peer))
        elif what is not Say.NOTHING:
            self._sock.sendto(self._answer(query, name, kind, what), peer)

    def _chain(self, name: str) -> list[str]:
        chain = [name]
        while chain[-1] in self.aliases:
            chain.append(self.aliases[chain[-1]])
        return chain

    def _answer(self, query: bytes, name: str, kind: int, what: What) -> bytes:
        end = query.index(0, 12) + 5  # of the question: no pointer is in it, and no label holds a zero byte
        chain = self._chain(name)
        records = [_record(chain[at], _CNAME, self.ttl, _labels(to)) for at, to in enumerate(chain[1:])]
        if not isinstance(what, Say):
            records += [_record(chain[-1], kind, self.ttl, ip_address(address).packed) for address in what]
        code = what.value if isinstance(what, Say) else 0
        head = query[:2] + struct.pack("!5H", _RESPONSE_RECURSIVE | code, 1, len(records), 0, 0)
        return head + query[12:end] + b"".join(records)


@contextmanager
def serving_dns(address: str, port: int = 53) -> Iterator[Dns]:
    """Run one on the host on which this is entered; port 0 takes any free one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, port))
        dns = Dns(sock)
        thread = threading.Thread(target=dns.serve, name="dns")
        thread.start()
        try:
            yield dns
        finally:
            sock.sendto(b"", dns.address)  # the end of `serve`
            thread.join(PATIENCE)
            assert not thread.is_alive()


def _question(query: bytes) -> tuple[str, int]:
    labels, place = [], 12
    while size := query[place]:
        labels.append(query[place + 1 : place + 1 + size].decode().lower())
        place += 1 + size
    return ".".join(labels), int.from_bytes(query[place + 1 : place + 3], "big")


def _record(name: str, kind: int, ttl: int, data: bytes) -> bytes:
    """RFC 1035 section 4.1.3; class 1 is Internet."""
    return _labels(name) + struct.pack("!HHIH", kind, 1, ttl, len(data)) + data


def _labels(name: str) -> bytes:
    """RFC 1035 section 3.1; the root ends it."""
    return b"".join(bytes((len(label),)) + label.encode() for label in (*name.split("."), ""))
