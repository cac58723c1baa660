"""Through one proxy or several, of any kind and in any order: connect, bind, associate.

A proxy is asked only when the connection to it stands, the first over a plan of the caller's (`direct`, say), each
further one through those before it. Every request is made before anything is opened, so what cannot be said is an error
and nothing has been sent. No answer is read past its last byte: what the target says first stays in the socket.

Who resolves a name says the scheme of the proxy that would be asked for it (`Scheme.takes_names`). A name that is
resolved here has its addresses tried one by one, each over a new connection.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from typing import TypeAlias

from tabi.addr import Endpoint, Host, Name
from tabi.dial.lookup import look_up
from tabi.dial.wishes import (
    Close,
    Connection,
    Family,
    Peek,
    Plan,
    Read,
    Send,
    Sleep,
    Steps,
    fulfil,
)
from tabi.dial.within import within
from tabi.errors import (
    DialError,
    DialTimeoutError,
    HopName,
    PeerClosedError,
    ProxyUnreachableError,
    Reply,
    Side,
    Stage,
    TabiError,
    UsageError,
)
from tabi.machine import base as machine_base
from tabi.machine.base import NeedData
from tabi.machine.client import Accepted, ClientEvent, Granted
from tabi.machine.hop import Hop, HopMachine, blame
from tabi.machine.http import HttpMachine
from tabi.wire.socks5 import Command

__all__ = [
    "MOST_ADDRESSES", "Bound", "Reach", "accept", "associate", "associate_with_all", "bind", "connect",
    "is_about_address", "resolve",
]  # fmt: skip

MOST_ADDRESSES = 8  # of one name that are tried through proxies, each of which costs a whole handshake
PEEK = 4096  # bytes of an HTTP answer that are looked at together

_SOME_ADDRESS = IPv4Address("192.0.2.1")

Reach: TypeAlias = Callable[[Endpoint], Plan]
"""Makes a fresh plan of a connection that no proxy has part in."""

# About the address that was asked for; another address of the same name may fare better.
_OF_THE_ADDRESS = frozenset({
    Reply.GENERAL_FAILURE,
    Reply.NETWORK_UNREACHABLE,
    Reply.HOST_UNREACHABLE,
    Reply.CONNECTION_REFUSED,
    Reply.TTL_EXPIRED,
    Reply.ADDRESS_TYPE_NOT_SUPPORTED,
})  # fmt: skip


_LISTENING = (Command.BIND, Command.UDP_ASSOCIATE)  # for which the proxy opens something, and tells where


@dataclass(frozen=True, slots=True)
class Bound(Connection):
    """The last proxy listens for us at `local`; `accept` waits for its second reply.

    Args:
        machine: what talks to the proxy.
        hop: its name in errors.
    """

    machine: HopMachine = field(repr=False)
    hop: HopName


def connect(
    hops: Sequence[Hop], target: Endpoint, *, reach: Reach, timeout: float, prefer: Family = 6
) -> Plan:
    """Plan a TCP connection to `target` through `hops`.

    Args:
        hops: the proxies, the nearest first; none: `reach` does it all.
        target: where to.
        reach: how to come to the nearest proxy.
        timeout: seconds for all of it.
        prefer: which addresses of a name that is resolved here are tried first.

    Raises:
        UsageError: what a proxy's protocol cannot say; now, before the plan is begun.
        TabiError: from the plan; where a proxy is to blame, `hop` says which. See `tabi.errors`.
    """
    if not hops:
        return within(reach(target), timeout)
    chain = _Chain(hops, reach, prefer)
    chain.check(Command.CONNECT, target)
    return within(chain.ask(len(hops), Command.CONNECT, target), timeout)


def bind(
    hops: Sequence[Hop], peer: Endpoint, *, reach: Reach, timeout: float, prefer: Family = 6
) -> Steps[Bound]:
    """Plan to have the last of `hops` listen for one connection from `peer` (RFC 1928 section 4, SOCKS4.protocol).

    Where it says 0.0.0.0 or :: its own address is meant, and told in `Bound.local`.

    Raises:
        UsageError, TabiError: as `connect`; also where there is no proxy.
    """
    return within(_asked(hops, Command.BIND, peer, reach, prefer), timeout)


def accept(bound: Bound, *, timeout: float) -> Plan:
    """Plan to wait for the second reply of BIND; `remote` is then who has come.

    Raises:
        TabiError: nobody came, or not who was meant; the connection is not closed by the plan.
    """
    return within(_accept(bound), timeout)


def associate(
    hops: Sequence[Hop], source: Endpoint, *, reach: Reach, timeout: float, prefer: Family = 6
) -> Steps[Bound]:
    """Plan a UDP association with the last of `hops` (RFC 1928 section 4); it lasts as long as the connection.

    The plan's connection has the proxy as `remote`, and the relay as `local`, as the proxy tells it: whether to
    believe it is for `tabi.dial.relay` to say.

    Args:
        source: where our datagrams will come from, as far as we know it; 0.0.0.0:0 where we do not.

    Raises:
        UsageError, TabiError: as `connect`; also where there is no proxy.
    """
    return within(_asked(hops, Command.UDP_ASSOCIATE, source, reach, prefer), timeout)


def resolve(
    hops: Sequence[Hop], host: Host, *, reach: Reach, timeout: float, prefer: Family = 6
) -> Steps[Host]:
    """Plan to ask the last of `hops` for the address of a name, or for the name of an address.

    RESOLVE and RESOLVE_PTR are Tor's (socks-extensions.txt section 2). That proxy gets the name, whatever its scheme
    says of others.

    Raises:
        UsageError, TabiError: as `connect`; also where there is no proxy.
    """
    named = [*hops[:-1], *(replace(hop, scheme=hop.scheme.with_names) for hop in hops[-1:])]
    command = Command.RESOLVE if isinstance(host, Name) else Command.RESOLVE_PTR
    return within(_answered(_asked(named, command, Endpoint(host, 0), reach, prefer)), timeout)


def _answered(plan: Steps[Bound]) -> Steps[Host]:
    bound = yield from plan
    yield (Close(bound), Sleep(0))
    return bound.local.host


def associate_with_all(
    hops: Sequence[Hop], source: Endpoint, *, reach: Reach, timeout: float, prefer: Family = 6
) -> Steps[tuple[Bound, ...]]:
    """Plan an association with each of `hops`, reached through those before it, for datagrams that take that way.

    Args:
        source: as for `associate`.

    Raises:
        UsageError, TabiError: as `associate`.
    """
    chain = _Chain(hops, reach, prefer)
    for hop in hops:  # one that relays no datagrams would have to be gone around
        _check(hop, Command.UDP_ASSOCIATE, source)
    return within(_associations(chain, len(hops), source), timeout)


def _associations(chain: "_Chain", total: int, source: Endpoint) -> Steps[tuple[Bound, ...]]:
    found: tuple[Bound, ...] = ()
    for number in range(1, total + 1):
        found += ((yield from chain.ask(number, Command.UDP_ASSOCIATE, source)),)
    return found


def _asked(
    hops: Sequence[Hop], command: Command, target: Endpoint, reach: Reach, prefer: Family
) -> Steps[Bound]:
    if not hops:
        raise UsageError(f"{command} needs a proxy")
    chain = _Chain(hops, reach, prefer)
    chain.check(command, target)
    return chain.ask(len(hops), command, target)


class _Chain:
    """The hops, and the way through the first so many of them."""

    def __init__(self, hops: Sequence[Hop], reach: Reach, prefer: Family) -> None:
        self._hops = tuple(hops)
        self._reach_first = reach
        self._prefer = prefer

    def check(self, command: Command, target: Endpoint) -> None:
        """Raise UsageError for a request that some hop cannot make."""
        for hop, following in zip(self._hops[:-1], self._hops[1:], strict=True):
            _check(hop, Command.CONNECT, following.proxy)
        _check(self._hops[-1], command, target)

    def ask(self, number: int, command: Command, target: Endpoint) -> Steps[Bound]:
        """Ask hop `number` (from 1), reached through those before it, for `command` to `target`."""
        hop = self._hops[number - 1]
        if hop.scheme.takes_names or not isinstance(target.host, Name):
            return (yield from self._ask_once(number, command, target))
        failure: TabiError | None = None
        families: tuple[Family, ...] = (6, 4) if self._prefer == 6 else (4, 6)
        addresses = yield from look_up(target.host, tuple(filter(hop.takes_family, families)))
        for address in addresses[:MOST_ADDRESSES]:
            try:
                return (yield from self._ask_once(number, command, Endpoint(address, target.port)))
            except TabiError as error:
                if not is_about_address(error, number):
                    raise
                failure = failure or error
        assert failure is not None, "there is at least one address"
        raise failure

    def _ask_once(self, number: int, command: Command, target: Endpoint) -> Steps[Bound]:
        name = self._name(number)
        machine = self._hops[number - 1].machine(command, target)
        connection = yield from self._reach(number)
        try:
            event = yield from _negotiate(connection, machine)
            assert isinstance(event, Granted)
            bound = _substitute(event.bound, connection.remote, command)
        except TabiError as error:
            yield (Close(connection), Sleep(0))
            raise blame(error, name, target) from None
        remote = target if command is Command.CONNECT else connection.remote
        return Bound(connection.handle, remote, bound, machine, name)

    def _reach(self, number: int) -> Plan:
        proxy = self._hops[number - 1].proxy
        try:
            if number == 1:
                return (yield from self._reach_first(proxy))
            return (yield from self.ask(number - 1, Command.CONNECT, proxy))
        except DialError as error:
            raise self._unreachable(error, number) from None

    def _unreachable(self, error: DialError, number: int) -> DialError:
        """Say of an error on the way to a proxy that it is about that proxy; the one that reported it stays named."""
        if isinstance(error, ProxyUnreachableError):
            return error
        own = self._name(number)
        text = str(error) if error.hop is not None else f"{own} cannot be reached: {error}"
        told: DialError
        if isinstance(error, DialTimeoutError):
            told = _late(error, text, error.stage)
        else:
            told = ProxyUnreachableError(text, stage=error.stage, reply=error.reply, retryable=error.retryable)
        told.hop = error.hop or own
        return told

    def _name(self, number: int) -> HopName:
        return HopName(number, len(self._hops), str(self._hops[number - 1]))


def is_about_address(error: TabiError, number: int) -> bool:
    """Say whether hop `number` (from 1) says this of the address that it was asked for, and not of anything else."""
    if isinstance(error, ProxyUnreachableError) or not isinstance(error, DialError):
        return False
    if isinstance(error, DialTimeoutError) and error.limit:
        return False  # our time, not the proxy's
    return error.hop is not None and error.hop.number == number and error.reply in _OF_THE_ADDRESS


def _check(hop: Hop, command: Command, target: Endpoint) -> None:
    if isinstance(target.host, Name) and not hop.scheme.takes_names:
        target = Endpoint(_SOME_ADDRESS, target.port)  # it will be an address that fits
    hop.machine(command, target)


def _substitute(bound: Endpoint, proxy: Endpoint, command: Command) -> Endpoint:
    """Put the proxy's own address where 0.0.0.0 or :: stands for it (SOCKS4.protocol, and servers in the field)."""
    if command not in _LISTENING or isinstance(bound.host, Name) or not bound.host.is_unspecified:
        return bound
    return Endpoint(proxy.host, bound.port)


def _accept(bound: Bound) -> Plan:
    try:
        event = yield from _negotiate(bound, bound.machine)
    except TabiError as error:
        raise blame(error, bound.hop, bound.remote) from None
    assert isinstance(event, Accepted)
    return Connection(bound.handle, event.peer, bound.local)


def _negotiate(connection: Connection, machine: HopMachine) -> Steps[ClientEvent]:
    """Carry bytes to and fro until the proxy's next answer is whole."""
    while True:
        event = machine.next_event()
        try:
            if out := machine.data_to_send():
                yield from fulfil(Send(connection, out))
            if isinstance(event, NeedData):
                machine.receive_data((yield from _receive(connection, machine, event.need)))
        except DialError as error:
            raise _broken_off(machine, error) from None
        if isinstance(event, machine_base.Failed):
            raise event.error
        if not isinstance(event, NeedData):
            return event


def _receive(connection: Connection, machine: HopMachine, need: int) -> Steps[bytes]:
    if isinstance(machine, HttpMachine):
        peeked = yield from fulfil(Peek(connection, PEEK))
        assert isinstance(peeked, bytes)
        need = machine.belonging(peeked)
        if not need:
            return b""
    data = yield from fulfil(Read(connection, need))
    assert isinstance(data, bytes)
    return data


def _broken_off(machine: HopMachine, error: DialError) -> TabiError:
    """Say why a proxy is not heard to the end; some say VER and REP alone and then reset, or fall silent."""
    stage = machine.stage
    machine.receive_data(b"")
    event = machine.next_event()
    if isinstance(event, machine_base.Failed) and not isinstance(event.error, PeerClosedError):
        return event.error
    if not isinstance(error, DialTimeoutError):
        return PeerClosedError(f"the connection broke in the {stage.value}: {error}", stage=stage, side=Side.OUTBOUND)
    return _late(error, f"no answer in the {stage.value}: {error}", stage)


def _late(error: DialTimeoutError, text: str, stage: Stage) -> DialTimeoutError:
    told = DialTimeoutError(text, stage=stage)
    told.limit = error.limit
    return told
