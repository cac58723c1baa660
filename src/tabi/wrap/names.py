"""The names that the program behind the gate asked for, and the addresses that stand for them.

The program gets an address of a range that nobody on the Internet has (198.18.0.0/15 is for benchmarks, RFC 2544; below
fd00::/8 everybody may choose, RFC 4193), connects to it, and the proxy is asked for the name. A name keeps its
addresses for the whole session, so that what programs remember of their own accord stays true.

There are at most 65,536 names. The next one takes the place of the one that has gone unused for longest: to ask for a
name and to send to its address is to use it. Connections that stand need no name. An address that has lost its name is
nobody's: `host_of` says so, and the gate refuses it, until it is given to another name. That is only after 65,536
others have been used, and in IPv6 never.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

from tabi.addr import Address, Host, Name
from tabi.dial.wishes import Family

__all__ = ["MOST_NAMES", "Names", "is_reserved"]

MOST_NAMES = 65_536

# 198.18.0.0/24 and fd00:5ec::/64 are the link between the program and the gate; what stands for names lies behind.
_RESERVED4 = int(IPv4Address("198.18.0.0")) >> 17
_RESERVED6 = int(IPv6Address("fd00:5ec::")) >> 65
_FIRST4 = int(IPv4Address("198.18.1.0"))
_FIRST6 = int(IPv6Address("fd00:5ec:0:1::"))
_PER_BLOCK = 254  # of 256: without those that end in 0 and 255, which some programs take for broadcast addresses
_PLACES = 511 * _PER_BLOCK


def is_reserved(address: Address) -> bool:
    """Whether an address is of our ranges, the gate's own ones included: no proxy can be asked for it."""
    if address.version == 4:
        return int(address) >> 17 == _RESERVED4
    return int(address) >> 65 == _RESERVED6


class _Pair(NamedTuple):
    v4: IPv4Address
    v6: IPv6Address


class Names:
    """Names and addresses of one session, both ways.

    Args:
        most: names at a time.
    """

    def __init__(self, most: int = MOST_NAMES) -> None:
        self._most = min(most, MOST_NAMES)
        self._pairs: dict[Name, _Pair] = {}  # the longest unused first
        self._names: dict[Address, Name] = {}
        self._given = 0  # names in all

    def __len__(self) -> int:
        """Names that have addresses."""
        return len(self._pairs)

    def address_of(self, name: Name, family: Family) -> Address:
        """Give the address that stands for a name; from the first time on the same."""
        pair = self._pairs.pop(name, None) or self._make(name)
        self._pairs[name] = pair
        return pair.v4 if family == 4 else pair.v6

    def name_of(self, address: Address) -> Name | None:
        """Give the name that an address stands for; None for any other address."""
        name = self._names.get(address)
        if name is not None:
            self._pairs[name] = self._pairs.pop(name)
        return name

    def host_of(self, address: Address) -> Host | None:
        """Say what a proxy is to be asked for when the program goes to `address`.

        Returns:
            its name; the address itself where it is none of ours; None where it is ours and stands for nothing.
        """
        return self.name_of(address) or (None if is_reserved(address) else address)

    def _make(self, name: Name) -> _Pair:
        if len(self._pairs) >= self._most:
            for address in self._pairs.pop(next(iter(self._pairs))):
                del self._names[address]
        while (v4 := _place(self._given)) in self._names:  # in the second round: a name that is used all the time
            self._given += 1
        pair = _Pair(v4, IPv6Address(_FIRST6 + self._given + 1))
        self._given += 1
        for address in pair:
            self._names[address] = name
        return pair


def _place(number: int) -> IPv4Address:
    block, place = divmod(number % _PLACES, _PER_BLOCK)
    return IPv4Address(_FIRST4 + (block << 8) + place + 1)
