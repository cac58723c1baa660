"""The gate: every TCP connection of the program is held here until the proxy has answered.

It is given sockets that lie in the gate's network namespace (`GateSockets`) and dials from its own. What the program's
kernel sends first, the SYN, is dropped on arrival by a static rule, and shown to us by a packet socket; what becomes of
it, `tabi.wrap.held` tells. Nothing else is in the way, no address is translated, and no packet of an established
connection comes past here: its two sockets belong to the engine then.

There is no way around: where nobody reads the packet socket any more, a SYN is dropped and that is all.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from tabi.addr import Address, Endpoint, Host, Name, address_text
from tabi.dial import chain
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.wishes import Connection, Plan
from tabi.errors import DialError, Reply, Stage
from tabi.machine.hop import Hop
from tabi.net.driver import drive
from tabi.net.linger import reset
from tabi.net.system_resolver import SystemResolver
from tabi.relay import End, FlowLimits, make_engine
from tabi.wrap.doors import Doors, Listen
from tabi.wrap.held import Decided, Held
from tabi.wrap.names import is_reserved
from tabi.wrap.packets import Flow, Syn
from tabi.wrap.settled import Settled

__all__ = ["Gate", "GateOptions", "GateSockets", "KnowsNames", "Watcher"]

_BATCH = 64  # SYNs per turn of the loop
_LONGEST = 65_536  # bytes of a packet
_OUTGOING = 4  # PACKET_OUTGOING, linux/if_packet.h: what the gate itself has sent

# The engine ends nothing that the two ends would not: a program sees what it would see without us.
_NO_LIMITS = FlowLimits(half_open=0.0)

_log = logging.getLogger("tabi")


class GateSockets(Protocol):
    """The sockets of the gate's namespace that TCP needs, all non-blocking."""

    @property
    def syns(self) -> socket.socket:
        """A packet socket (SOCK_DGRAM) that shows what comes from the program, SYNs at least, whole."""

    @property
    def raw4(self) -> socket.socket:
        """IPPROTO_RAW."""

    @property
    def raw6(self) -> socket.socket:
        """IPPROTO_RAW."""

    @property
    def listener4(self) -> socket.socket | None:
        """A listener to which each SYN is led that we send (tproxy), or None."""

    @property
    def listener6(self) -> socket.socket | None:
        """The same for IPv6; of AF_UNIX where this kernel has no IPv6."""


class KnowsNames(Protocol):
    """Who has given addresses out for names."""

    def host_of(self, address: Address) -> Host | None:
        """Say what a proxy is to be asked for; None where that is an address of ours that stands for nothing."""


class Watcher:
    """What a gate tells; override what is of interest. Each is called in the loop, and shall be quick."""

    def decided(self, decided: Decided) -> None:
        """Hear how a connect has ended."""

    def ended(self, end: End) -> None:
        """Hear that a connection is over; its `record` is `SOURCE TARGET`."""

    def crowded(self, most: int) -> None:
        """Hear, once, that more connects are under way than are held; those beyond wait until their SYN comes again."""
        _log.warning("more than %d connects at once: the program's others wait until they are tried again", most)

    def failed(self, error: Exception) -> None:
        """Hear of a bug of ours that has ended all connections, and will end all later ones: end the program."""
        _log.critical("the relay has failed", exc_info=error)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOptions:
    """Times and bounds.

    Args:
        timeout: seconds for the way to a target, proxies and all. The program's kernel gives up after 127 s, or 131 s
            with tcp_syn_linear_timeouts, and then knows best what to say.
        delay_unreachable: seconds that the program is kept from hearing that a target cannot be reached. Programs that
            try addresses side by side take that news as a reason to hurry.
        patience: seconds for the program's own part of the handshake, once its target has answered.
        most: connects that are held at once; each has a socket towards the proxy.
    """

    timeout: float = 135.0
    delay_unreachable: float = 0.0
    patience: float = 3.0
    most: int = 4096


class Gate(AbstractAsyncContextManager["Gate"]):
    """Holds, dials, lets pass or answers. A context manager: it works from enter to exit, and nothing of it stays.

    Args:
        sockets: they stay the caller's.
        hops: the proxies, the nearest first; none: the gate's own host connects, which has to be meant.
        names: who knows the names that addresses stand for.
        listen: makes a listener for one target, needed where there is no tproxy.
        options: times and bounds.
        watcher: hears what happens.
    """

    def __init__(
        self,
        sockets: GateSockets,
        hops: Sequence[Hop],
        names: KnowsNames,
        *,
        listen: Listen | None = None,
        options: GateOptions = GateOptions(),
        watcher: Watcher | None = None,
    ) -> None:
        self._sockets = sockets
        self._hops = tuple(hops)
        self._names = names
        self._listen = listen
        self._options = options
        self._watcher = watcher or Watcher()
        self._held: dict[Flow, Held] = {}
        self._settled = Settled()
        self._engine = make_engine()
        self._resolver = SystemResolver()
        self._is_crowded = False
        self._has_failed = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._doors = Doors(self._common(), self._listen, self._enter)
        self._engine.start()
        self._loop.add_reader(self._engine.fileno(), self._take_ends)
        self._loop.add_reader(self._sockets.syns.fileno(), self._read_syns)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let nobody in any more, give up what is held, and reset what is connected."""
        self._loop.remove_reader(self._sockets.syns.fileno())
        self._doors.close()
        tasks = [held.task for held in self._held.values()]
        for held in tuple(self._held.values()):
            held.give_up()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._engine.stop()
        self._take_ends()
        self._loop.remove_reader(self._engine.fileno())
        self._engine.close()

    def __len__(self) -> int:
        """Count the connects that are held."""
        return len(self._held)

    @property
    def connections(self) -> int:
        """How many connections are relayed."""
        return len(self._engine)

    @property
    def moved(self) -> int:
        """How many bytes the connections that stand have moved, both ways together."""
        return sum(flow.up + flow.down for flow in self._engine.snapshot())

    def adopt(self, inbound: socket.socket, outbound: socket.socket, source: Endpoint, target: Endpoint) -> None:
        """Relay between two connected sockets; both belong to the engine from here on.

        Args:
            inbound: of whoever began.
            outbound: of the other.
            source: who began.
            target: to whom.
        """
        self._engine.adopt(inbound.detach(), outbound.detach(), b"", b"", _NO_LIMITS, f"{source} {target}".encode())

    async def dial(self, target: Endpoint) -> Connection:
        """See `tabi.wrap.held.Desk`."""
        if not isinstance(target.host, Name) and is_reserved(target.host):
            text = f"{target}: an address of the gate, or of a name that nobody has asked for, or not for long"
            raise DialError(text, stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE, retryable=False)
        timeout = self._options.timeout
        plan = chain.connect(self._hops, target, reach=self._reach, timeout=timeout)
        return await drive(plan, resolver=self._resolver, client=None)

    async def open_door(self, target: Endpoint) -> Callable[[], None]:
        """See `tabi.wrap.held.Desk`."""
        return await self._doors.open(target)

    def send(self, packet: bytes, target: Endpoint) -> None:
        """See `tabi.wrap.held.Desk`."""
        assert not isinstance(target.host, Name), "packets have no names"
        raw = self._sockets.raw4 if target.host.version == 4 else self._sockets.raw6
        try:
            raw.sendto(packet, (address_text(target.host), 0))
        except OSError as error:  # the program's kernel sends its SYN again, and then we try again
            _log.warning("a packet for %s could not be sent: %s", target, error)

    def relay(self, held: Held, inbound: socket.socket, outbound: socket.socket) -> None:
        """See `tabi.wrap.held.Desk`."""
        self.adopt(inbound, outbound, held.syn.flow.source, held.target)

    def over(self, held: Held, decided: Decided | None, packet: bytes | None) -> None:
        """See `tabi.wrap.held.Desk`."""
        if self._held.get(held.syn.flow) is held:  # not if the program has begun anew meanwhile
            del self._held[held.syn.flow]
            self._settled.settle(held.syn, packet)
        if decided is not None:
            self._watcher.decided(decided)

    def _common(self) -> tuple[socket.socket, ...] | None:
        listener4, listener6 = self._sockets.listener4, self._sockets.listener6
        if listener4 is None or listener6 is None:
            return None
        return tuple(one for one in (listener4, listener6) if one.family != socket.AF_UNIX)

    def _reach(self, proxy: Endpoint) -> Plan:
        return direct(proxy, permit=_anything, options=DirectOptions(timeout=self._options.timeout))

    def _read_syns(self) -> None:
        for _ in range(_BATCH):
            try:
                packet, (_, _, kind, *_) = self._sockets.syns.recvfrom(_LONGEST)
            except BlockingIOError:
                return
            except OSError as error:  # the link has gone, and the program with it
                _log.debug("the link to the program: %s", error)
                return
            if kind != _OUTGOING and (syn := Syn.parse(packet)) is not None:
                self._hold(syn)

    def _hold(self, syn: Syn) -> None:
        held = self._held.get(syn.flow)
        if held is not None and held.syn.sequence == syn.sequence:
            held.again()
        elif self._settled.knows(syn):
            if (answer := self._settled.answer(syn)) is not None:
                self.send(answer, syn.flow.source)
        elif held is None and len(self._held) >= self._options.most:
            self._tell_crowded()
        else:
            if held is not None:  # the program has closed that socket, and connects from the same port again
                held.give_up()
            target = self._asked(syn.flow.target)
            options = self._options
            self._held[syn.flow] = Held(
                syn, target, self, delay=options.delay_unreachable, patience=options.patience
            )

    def _asked(self, target: Endpoint) -> Endpoint:
        assert not isinstance(target.host, Name), "packets have no names"
        return Endpoint(self._names.host_of(target.host) or target.host, target.port)

    def _tell_crowded(self) -> None:
        if not self._is_crowded:
            self._is_crowded = True
            self._watcher.crowded(self._options.most)

    def _enter(self, sock: socket.socket, peer: Endpoint, local: Endpoint) -> None:
        held = self._held.get(Flow(peer, local))
        if held is None or not held.take(sock):
            reset(sock)  # it comes too late, or nobody has let it in

    def _take_ends(self) -> None:
        for end in self._engine.ends():
            self._watcher.ended(end)
        if self._engine.failure is not None and not self._has_failed:
            self._has_failed = True
            self._watcher.failed(self._engine.failure)


def _anything(_address: Address) -> bool:
    return True
