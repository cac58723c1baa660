"""The client's half of SOCKS5 UDP associations: headers around what is sent, and off what comes (RFC 1928 section 7).

Through a chain each datagram has one header for each association, the outermost for the nearest relay. What does not
come from the relay that it should come from, or is no datagram at all, is dropped without a word, as the RFC has it for
relays. Fragments are put together; none are ever sent.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tabi.addr import Endpoint, Name, parse_host, unmap
from tabi.errors import AddressError, ProtocolError
from tabi.machine.reassembly import Reassembly
from tabi.wire.address import WireHost
from tabi.wire.udp import Datagram, encode_header

__all__ = ["ClientDatagrams", "Received"]


class Received(NamedTuple):
    """One datagram, and who sent it."""

    data: bytes
    source: Endpoint


class ClientDatagrams:
    """Wrap and unwrap the datagrams of one association.

    Args:
        further: relays behind the one that datagrams are physically sent to, the nearest first; none without a chain.
            Of a relay that is known by name alone, only the port can be compared.
    """

    def __init__(self, further: Sequence[Endpoint] = ()) -> None:
        self._further = tuple(further)
        self._reassembly = tuple(Reassembly() for _ in range(len(self._further) + 1))

    def wrap(self, data: bytes, target: Endpoint) -> bytes:
        """Give what is to be sent to the nearest relay for `data` to reach `target`.

        Raises:
            UsageError: a port out of range.
        """
        headers = (encode_header(_wire(one), one.port) for one in (*self._further, target))
        return b"".join((*headers, data))

    def unwrap(self, raw: bytes, now: float) -> Received | None:
        """Read what came from the nearest relay; None where it is to be dropped, or is not whole yet.

        Args:
            raw: one datagram.
            now: seconds on any monotonic clock.
        """
        received = self._peel(0, raw, now)
        for number, relay in enumerate(self._further, 1):
            if received is None or not _is_from(received.source, relay):
                return None
            received = self._peel(number, received.data, now)
        return received

    def _peel(self, number: int, raw: bytes, now: float) -> Received | None:
        try:
            datagram = Datagram.decode(raw)
            queue = self._reassembly[number]
            if datagram.frag:
                whole = queue.add(datagram, now).datagram
                if whole is None:
                    return None
                datagram = whole
            else:
                queue.abandon()
            host = datagram.host
            source = parse_host(host) if isinstance(host, bytes) else unmap(host)
        except (ProtocolError, AddressError):
            return None
        return Received(datagram.data, Endpoint(source, datagram.port))


def _wire(endpoint: Endpoint) -> WireHost:
    return endpoint.host.text.encode() if isinstance(endpoint.host, Name) else endpoint.host


def _is_from(source: Endpoint, relay: Endpoint) -> bool:
    return source.port == relay.port and (isinstance(relay.host, Name) or source.host == relay.host)
