"""A UDP relay's judgement over datagrams (RFC 1928 section 7), without sockets.

The association belongs to one client: the address of its control connection, at once, and one port. What
comes from elsewhere is a stranger's and changes nothing. Towards the targets it keeps the addresses that the
client has sent to; what comes from others is dropped (address and port dependent filtering, RFC 4787 section
5) unless policy grants a full cone. Every table has a bound, and the oldest entry goes first.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple, TypeAlias

from tabi.addr import Address, Endpoint, Name, parse_host, unmap
from tabi.errors import AddressError, ProtocolError
from tabi.machine.reassembly import Reassembly
from tabi.wire.udp import Datagram, encode_header

__all__ = [
    "MAX_MAPPINGS", "MAX_ROUTES", "MAX_WAITING",
    "Association", "Drop", "Dropped", "Forward", "Held", "LookUp", "Outcome",
]  # fmt: skip

MAX_ROUTES = 1024  # targets whose verdict and address are remembered
MAX_MAPPINGS = 1024  # addresses that may answer
MAX_WAITING = 16  # datagrams that wait for a name: with 64 KiB each, one MiB
ROUTE_LIFETIME = 30.0  # seconds; as long as the resolver keeps an answer

Judge: TypeAlias = Callable[[Endpoint, Address | None], bool]
"""(target as asked, address that a name led to or None) -> whether datagrams may go there."""


class Drop(Enum):
    """Why a datagram was dropped; the words of the log."""

    STRANGER = "stranger"  # not from the client, or not from an address that the client has sent to
    MALFORMED = "malformed"
    DENIED = "denied"
    UNKNOWN_NAME = "unknown-name"
    FRAGMENT = "fragment"  # a fragment whose sequence was given up
    WAITING = "waiting"  # pushed out by newer ones while its name was looked up
    TOO_LARGE = "too-large"
    OVER_RATE = "over-rate"  # of the bytes that a user or a rule may move in a second
    UNSENDABLE = "unsendable"  # the kernel would not send it (no route, no buffer)


@dataclass(frozen=True, slots=True)
class Forward:
    """Send `data` to the target at `address` and `port`."""

    address: Address
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look `name` up, then call `looked_up`; stop looking up `instead`, for nothing waits for it any more."""

    name: Name
    instead: Name | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """The datagram waits: for its other fragments, or for a name that is being looked up.

    Stop looking up `instead`, for nothing waits for it any more.
    """

    instead: Name | None = None


@dataclass(frozen=True, slots=True)
class Dropped:
    """The datagram was dropped, and counted."""

    why: Drop


Outcome: TypeAlias = Forward | LookUp | Held | Dropped


class _Route(NamedTuple):
    address: Address | None  # None: refused
    until: float


class _Waiting(NamedTuple):
    name: Name
    port: int
    data: bytes


class Association:
    """Judge the datagrams of one association.

    Args:
        client: address of the control connection's peer.
        declared_port: port that the request named together with that address; None: the first well-formed
            datagram from the client's address fixes it, for good.
        judge: policy, pure; asked for the target as asked, then for each address that a name led to.
        full_cone: let any address answer, not only those that the client has sent to.
        used: gives the targets that datagrams were sent to without asking here, in the order of their last use; asked
            before one may answer no more.
    """

    def __init__(
        self,
        *,
        client: Address,
        judge: Judge,
        declared_port: int | None = None,
        full_cone: bool = False,
        used: Callable[[], Iterable[tuple[Address, int]]] = tuple,
    ) -> None:
        self.client = client
        self.client_port = declared_port or None  # port 0 declares nothing
        self.drops: Counter[Drop] = Counter()
        self.forgotten: int = 0  # addresses that might answer and may not any more, pushed out by newer ones
        self._judge = judge
        self._full_cone = full_cone
        self._used = used
        self._fragments = Reassembly()
        self._routes: dict[Endpoint, _Route] = {}
        self._mappings: dict[tuple[Address, int], None] = {}
        self._waiting: deque[_Waiting] = deque()

    def drop(self, why: Drop, count: int = 1) -> Dropped:
        """Count datagrams that were dropped, here or by the caller."""
        if count:
            self.drops[why] += count
        return Dropped(why)

    def is_client(self, source: Address, port: int) -> bool:
        """Say whether a datagram from there would be the client's."""
        return source == self.client and self.client_port in (None, port)

    def from_client(self, data: bytes, source: Address, port: int, now: float) -> Outcome:
        """Judge a datagram that reached the client's side of the relay.

        Args:
            data: header and payload.
            source: where it came from, IPv4-mapped addresses already unmapped.
            port: its source port.
            now: seconds on a monotonic clock.
        """
        if not self.is_client(source, port):
            return self.drop(Drop.STRANGER)
        try:
            datagram = Datagram.decode(data)
            host = datagram.host if not isinstance(datagram.host, bytes) else parse_host(datagram.host)
        except (ProtocolError, AddressError):
            return self.drop(Drop.MALFORMED)
        if datagram.port == 0 or (not isinstance(host, Name) and unmap(host).is_unspecified):
            return self.drop(Drop.MALFORMED)  # nobody's port or address; the kernel takes 0.0.0.0 for itself
        self.client_port = port
        if datagram.frag:
            joined = self._fragments.add(datagram, now)
            self.drop(Drop.FRAGMENT, joined.lost)
            if joined.datagram is None:
                return Held() if self._fragments else Dropped(Drop.FRAGMENT)
            datagram = joined.datagram
        else:
            self.drop(Drop.FRAGMENT, self._fragments.abandon())
        if isinstance(host, Name):
            return self._towards_name(host, datagram.port, datagram.data, now)
        return self._towards_address(unmap(host), datagram.port, datagram.data, now)

    def forget_verdicts(self) -> None:
        """Have every target judged anew, as rules may have changed; who may answer stays as it is."""
        self._routes.clear()

    def refresh(self) -> None:
        """Take note of the targets that datagrams were sent to without asking here."""
        for mapping in self._used():
            if mapping in self._mappings:
                del self._mappings[mapping]
                self._mappings[mapping] = None

    def looked_up(self, name: Name, addresses: Iterable[Address], now: float) -> list[Forward]:
        """Take the answer to a `LookUp`.

        Args:
            name: as in the `LookUp`.
            addresses: what the name leads to; none: it is unknown.
            now: seconds on the clock of `from_client`.

        Returns:
            the datagrams that waited for the name, each to the first address that policy allows.
        """
        found = tuple(addresses)
        waited = [waiting for waiting in self._waiting if waiting.name == name]
        self._waiting = deque(waiting for waiting in self._waiting if waiting.name != name)
        forwards = []
        for waiting in waited:
            target = Endpoint(name, waiting.port)
            address = next((address for address in found if self._judge(target, address)), None)
            if found:
                self._remember(target, address, now)
            if address is None:
                self.drop(Drop.DENIED if found else Drop.UNKNOWN_NAME)
            else:
                forwards.append(self._forward(address, waiting.port, waiting.data))
        return forwards

    def header_for(self, source: Address, port: int) -> bytes | None:
        """Judge a datagram that came from a target.

        Args:
            source: where it came from, IPv4-mapped addresses already unmapped.
            port: its source port.

        Returns:
            the header that goes before its data on the way to the client, or None: it was dropped and
            counted.
        """
        if self.client_port is None or not (self._full_cone or (source, port) in self._mappings):
            self.drop(Drop.STRANGER)
            return None
        return encode_header(source, port)

    def _towards_address(self, address: Address, port: int, data: bytes, now: float) -> Outcome:
        target = Endpoint(address, port)
        route = self._route(target, now)
        if route is None:
            route = self._remember(target, address if self._judge(target, None) else None, now)
        if route.address is None:
            return self.drop(Drop.DENIED)
        return self._forward(address, port, data)

    def _towards_name(self, name: Name, port: int, data: bytes, now: float) -> Outcome:
        target = Endpoint(name, port)
        route = self._route(target, now)
        if route is None and not self._judge(target, None):
            route = self._remember(target, None, now)
        if route is None:
            return self._wait(_Waiting(name, port, data))
        if route.address is None:
            return self.drop(Drop.DENIED)
        return self._forward(route.address, port, data)

    def _wait(self, new: _Waiting) -> LookUp | Held:
        is_asked = self._awaits(new.name)
        instead = None
        if len(self._waiting) >= MAX_WAITING:
            oldest = self._waiting.popleft().name
            self.drop(Drop.WAITING)
            if oldest != new.name and not self._awaits(oldest):
                instead = oldest
        self._waiting.append(new)
        return Held(instead) if is_asked else LookUp(new.name, instead)

    def _awaits(self, name: Name) -> bool:
        return any(waiting.name == name for waiting in self._waiting)

    def _forward(self, address: Address, port: int, data: bytes) -> Forward:
        self._mappings.pop((address, port), None)  # to the end: the least recently used is the oldest
        if len(self._mappings) >= MAX_MAPPINGS:
            self.refresh()
            del self._mappings[next(iter(self._mappings))]
            self.forgotten += 1
        self._mappings[address, port] = None
        return Forward(address, port, data)

    def _route(self, target: Endpoint, now: float) -> _Route | None:
        route = self._routes.get(target)
        return route if route is not None and now < route.until else None

    def _remember(self, target: Endpoint, address: Address | None, now: float) -> _Route:
        self._routes.pop(target, None)
        if len(self._routes) >= MAX_ROUTES:
            del self._routes[next(iter(self._routes))]
        route = self._routes[target] = _Route(address, now + ROUTE_LIFETIME)
        return route
