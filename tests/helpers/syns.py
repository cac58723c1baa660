"""Watching who is asked for a connection: the TCP SYNs that reach a host, whether anybody there answers them or not."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

from helpers.waiting import until

_ETH_P_ALL = 3  # linux/if_ether.h
_PACKET_OUTGOING = 4  # linux/if_packet.h
_TCP = 6
_SYN, _ACK = 0x02, 0x10


class Syns:
    """What a packet socket has seen since it was made."""

    def __init__(self) -> None:
        # SOCK_DGRAM: the kernel takes the link's header off.
        self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, socket.htons(_ETH_P_ALL))
        self._seen: list[tuple[str, int]] = []

    def seen(self, port: int) -> list[str]:
        """Give the addresses that were asked on a port, in order, each once."""
        while True:
            try:
                packet, (_, _, kind, *_) = self._sock.recvfrom(65_536)
            except BlockingIOError:
                break
            if kind != _PACKET_OUTGOING and (asked := _syn(packet)):
                self._seen.append(asked)
        return list(dict.fromkeys(address for address, to in self._seen if to == port))

    def count(self, port: int) -> int:
        """Count the SYNs to a port, those that came again as well."""
        self.seen(port)
        return sum(to == port for _, to in self._seen)

    def forget(self) -> None:
        """Begin anew."""
        self.seen(0)
        self._seen.clear()

    def wait(self, address: str, port: int) -> None:
        """Wait until an address is asked."""
        until(lambda: address in self.seen(port), f"a SYN to {address} port {port}")

    def close(self) -> None:
        """Stop watching."""
        self._sock.close()


@contextmanager
def watching() -> Iterator[Syns]:
    """Watch the host on which this is entered."""
    syns = Syns()
    try:
        yield syns
    finally:
        syns.close()


def _syn(packet: bytes) -> tuple[str, int] | None:
    """Give destination and port of a packet that is a SYN (RFC 791, RFC 8200, RFC 9293 section 3.1)."""
    if packet[0] >> 4 == 4:
        protocol, address, segment = packet[9], packet[16:20], packet[(packet[0] & 15) * 4 :]
    else:
        protocol, address, segment = packet[6], packet[24:40], packet[40:]
    if protocol != _TCP or segment[13] & (_SYN | _ACK) != _SYN:
        return None
    return str(ip_address(address)), int.from_bytes(segment[2:4], "big")
