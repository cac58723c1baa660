"""Who an answer comes from, for the datagrams of one association (RFC 1928 section 7).

A datagram goes to a name, and the proxy says of the answer which address it came from. The program has sent to the
address that stands for the name and expects the answer from there. So a lane remembers who was sent to at which port,
and has one name at most for each. A program that speaks with two names at the same port from one socket has two lanes,
which are two associations: of the others nothing would be certain.
"""

from typing import TypeVar

from tabi.addr import Address, Endpoint, Name

__all__ = ["Lane"]

K = TypeVar("K")
V = TypeVar("V")

_MOST = 1024  # entries of each table; the oldest go first


class Lane:
    """The targets of one association, and what is known of their answers. Knows no time and sends nothing."""

    def __init__(self) -> None:
        self._addresses: dict[Endpoint, None] = {}  # that were sent to as addresses
        self._stand_ins: dict[int, Address] = {}  # port -> the address that stands for the name that was sent to
        self._names: dict[Name, Address] = {}
        self._hosts: dict[Address, Address] = {}  # that answered for a name

    def takes(self, address: Address, host: Address | Name, port: int) -> bool:
        """Take a target, unless there is a name at its port already.

        Args:
            address: where the program sends.
            host: what the proxy is asked for: a name, or the same address.
            port: of both.
        """
        if not isinstance(host, Name):
            _put(self._addresses, Endpoint(host, port), None)
            return True
        if self._stand_ins.get(port, address) != address:
            return False
        _put(self._stand_ins, port, address)
        _put(self._names, host, address)
        return True

    def sender(self, source: Endpoint) -> Address | None:
        """Say where the program is to see an answer come from.

        Somebody who was never sent to is shown as who it is: at the proxy's address the program is there for all.

        Returns:
            None: a name that was never sent to, so nobody here can say who that is.
        """
        host = source.host
        if isinstance(host, Name):
            return self._names.get(host)
        if source in self._addresses:
            return host
        stand_in = self._stand_ins.get(source.port)
        if stand_in is None:
            return self._hosts.get(host, host)
        _put(self._hosts, host, stand_in)
        return stand_in


def _put(table: dict[K, V], key: K, value: V) -> None:
    """Make an entry the newest."""
    if key in table:
        del table[key]
    elif len(table) >= _MOST:
        del table[next(iter(table))]
    table[key] = value
