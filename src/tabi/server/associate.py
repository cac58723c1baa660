"""UDP ASSOCIATE: a relay for one client's datagrams (RFC 1928 section 7).

One leg towards the client (`tabi.server.legs`), one socket per family towards the targets, opened at the first datagram
that needs it and never connected: who may answer is `tabi.machine.association`'s to say. In their place stand our own
associations with the proxies of an upstream (`tabi.net.associations`), where the rule has one. Ends with its control
connection, or when nothing was relayed for too long.
"""

import asyncio
import errno
import socket
import time

from tabi.addr import Address, Endpoint, Name, socket_address
from tabi.errors import Reply, TabiError
from tabi.machine.association import Association, Drop, Dropped, Forward, Held, LookUp
from tabi.machine.datagrams import Received
from tabi.machine.server import RequestReceived
from tabi.net.associations import Associations
from tabi.net.ports import told_address
from tabi.net.tasks import spawn
from tabi.policy.verdict import Grants, Request
from tabi.relay.ferry import KNOWN_FOR, Ferry
from tabi.server.legs import BATCH, Leg
from tabi.server.outcome import CutShortError, Outcome, Tally, client_gone
from tabi.server.session import Session, address_of
from tabi.server.upstream_leg import open_upstream_leg

__all__ = ["serve"]

_BUFFER = memoryview(bytearray(65_536))  # the loop has one thread: one buffer serves every association
_HEADROOM = 22  # the longest header that goes before an answer: an IPv6 address (RFC 1928 section 7)
_DISCARD = 4096


async def serve(session: Session, event: RequestReceived) -> None:
    """Open the relay, say where it is, relay until the control connection ends.

    Raises:
        DeniedError: policy refuses the association as such; each datagram is judged again.
        LimitReachedError: the user or the rule has no room for it.
        DialError: no port to be had.
        TabiError: an upstream is to blame, as its `hop` says.
        CutShortError: the client ended it, or nothing was relayed for too long.
    """
    judgement = session.judgement
    verdict = judgement.require(Request(event.command, None))  # DST.ADDR is the client's own, no target to judge
    judgement.claims.claim_rule(verdict)  # of several rules that may allow its datagrams, the first
    client = address_of(session.client)
    declared = event.target.port if event.target.host == client and event.target.port else None
    leg = await _open_leg(session, declared)
    try:
        upstream = await open_upstream_leg(session, verdict) if verdict.grants.upstreams else None
    except BaseException:
        leg.close()
        raise
    session.unwatch()
    relay = Relay(session, event, leg, declared, verdict.grants, upstream)
    session.tally = relay.tally
    judgement.on_new_rules = relay.live_by_new_rules
    try:
        session.machine.take_early()  # the control connection carries nothing after the request
        session.notes.mark_resolved()
        advertise = session.server.settings.udp.advertise
        told = told_address(advertise, address_of(leg.bound), address_of(session.listener))
        session.succeed(Endpoint(told, leg.bound.port))
        session.send_all()
        outcome = await relay.run()
    finally:
        relay.close()
    raise CutShortError(outcome)


async def _open_leg(session: Session, declared: int | None) -> Leg:
    """Open the client's side; on a shared port that may have to wait, as long as the handshake would have had."""
    limit = session.server.settings.time.handshake
    session.watch(fin=True)
    try:
        async with asyncio.timeout(max(0.0, limit - session.notes.milliseconds() / 1000)):
            leg = await session.server.open_leg(session, declared)
    except TimeoutError:
        note = "shared UDP port: another association of this address has not sent a datagram yet; declare the port"
        raise CutShortError(Outcome("tabi", "limit:handshake", note=note), reply=Reply.GENERAL_FAILURE) from None
    session.unwatch()
    return leg


class Relay:
    """The sockets of one association, its counters and its idle limit."""

    def __init__(
        self,
        session: Session,
        event: RequestReceived,
        leg: Leg,
        declared: int | None,
        grants: Grants,
        upstream: Associations | None,
    ) -> None:
        self._session = session
        self._event = event
        self._leg = leg
        self._upstreams = grants.upstreams
        self._upstream = upstream
        self._loop = session.server.loop
        self._targets: dict[int, socket.socket] = {}  # by IP version
        self._look_ups: dict[Name, asyncio.Task[None]] = {}
        self._over: asyncio.Future[Outcome] = self._loop.create_future()
        self._terms = session.judgement.terms()
        self._last = time.monotonic()
        self._life: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._up = 0
        self._down = 0
        self._ferry: Ferry | None = None
        self._forgotten = 0
        self.association: Association = Association(
            client=address_of(session.client),
            judge=self._judge,
            declared_port=declared,
            full_cone=grants.full_cone,
            used=self._used,
        )

    async def run(self) -> Outcome:
        """Relay until it is over, and say how it ended."""
        if self.association.client_port is not None:
            self._leg.fix(self.association.client_port)
            self._board()
        self._leg.start(self._from_client)
        if self._upstream is not None:
            self._upstream.start(self._from_upstream, self._upstream_gone)
        self._loop.add_reader(self._session.sock, self._on_control)
        self._set_timers()
        return await self._over

    def live_by_new_rules(self) -> None:
        """Have every target judged anew, and keep to the limits that hold now."""
        self.association.forget_verdicts()
        self._carry_nothing()
        judgement = self._session.judgement
        if judgement.verdict is not None:
            judgement.claims.carry(judgement.verdict.rule)
        self._terms = judgement.terms()
        if not self._over.done():
            self._set_timers()

    def tally(self) -> Tally:
        """Say what was moved and what was dropped, for the log."""
        drops = ", ".join(f"{why.value} {count}" for why, count in self.association.drops.items() if count)
        return Tally(self._up, self._down, f"dropped: {drops}" if drops else "")

    def close(self) -> None:
        """Close every socket and stop every look-up; the control connection stays the session's."""
        self._loop.remove_reader(self._session.sock)
        for timer in (self._timer, self._life):
            if timer is not None:
                timer.cancel()
        for task in self._look_ups.values():
            task.cancel()
        for sock in self._targets.values():
            self._loop.remove_reader(sock)
            sock.close()
        if self._upstream is not None:
            self._upstream.close()
        self._leg.close()

    # the control connection and the idle limit

    def _on_control(self) -> None:
        try:
            data = self._session.sock.recv(_DISCARD)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(client_gone(error))
            return
        if not data:
            self._end(Outcome("client", "fin"))

    def _set_timers(self) -> None:
        for timer in (self._timer, self._life):
            if timer is not None:
                timer.cancel()
        self._check_idle()
        if self._terms.lifetime:
            end = Outcome("tabi", f"limit:{self._terms.limit}")
            self._life = self._loop.call_later(self._terms.flow.lifetime, self._end, end)

    def _check_idle(self) -> None:
        left = self._last + self._session.server.settings.time.udp_idle - time.monotonic()
        if left <= 0:
            self._end(Outcome("tabi", "limit:udp_idle"))
        else:
            self._timer = self._loop.call_later(left, self._check_idle)

    def _end(self, outcome: Outcome) -> None:
        if not self._over.done():
            self._over.set_result(outcome)

    # client -> targets

    def _judge(self, target: Endpoint, address: Address | None) -> bool:
        verdict = self._session.judgement.judge(Request(self._event.command, target, address))
        if verdict.grants.upstreams != self._upstreams:  # what is to go another way is not sent this one
            return False
        leaves = verdict.grants.resolve == "upstream" and address is None and isinstance(target.host, Name)
        return verdict.allow and not leaves  # whose answer could not be told from a stranger's

    def _from_client(self, data: bytes, source: Address, port: int) -> None:
        was_fixed = self.association.client_port is not None
        outcome = self.association.from_client(data, source, port, time.monotonic())
        if not was_fixed and self.association.client_port is not None:
            self._fix(port)
        match outcome:
            case Forward():
                self._send(outcome)
                self._teach(data, outcome)
            case LookUp(name, instead):
                self._stop_look_up(instead)
                self._look_ups[name] = spawn(self._look_up(name), name=f"session {self._session.number} look-up")
            case Held(instead):
                self._stop_look_up(instead)
                self._carry_nothing()  # the next datagram that stands alone has a queue of fragments given up
            case Dropped():
                pass  # counted

    def _fix(self, port: int) -> None:
        try:
            self._leg.fix(port)
        except OSError as error:
            self._end(Outcome("tabi", "failed", note=f"no route back to the client: {error.strerror}"))
        else:
            self._board()

    # the ferry

    def _board(self) -> None:
        """Have a ferry, where there is one and datagrams are sent on as they are."""
        if self._upstream is None:
            self._ferry = self._leg.board(self._count_up)

    def _teach(self, data: bytes, forward: Forward) -> None:
        """Have what comes to the same target from now on carried, and what it answers; limited bytes never are."""
        sock = self._targets.get(forward.address.version)
        if self._ferry is None or sock is None or data[2] or self._terms.flow.buckets:
            return
        if self.association.forgotten != self._forgotten:
            self._forgotten = self.association.forgotten
            self._carry_nothing()
        header, until = data[: len(data) - len(forward.data)], time.monotonic() + KNOWN_FOR
        host = str(forward.address)
        self._ferry.allow(header, sock.fileno(), host, forward.port, until)
        self._ferry.welcome(host, forward.port, until)

    def _used(self) -> list[tuple[Address, int]]:
        """Say what the ferry has sent to."""
        if self._ferry is None:
            return []
        return [(socket_address(host), port) for host, port in self._ferry.take_used()]

    def _carry_nothing(self) -> None:
        if self._ferry is not None:
            self.association.refresh()
            self._ferry.forget()

    def _count_up(self) -> None:
        self._up += self._carried()

    def _carried(self) -> int:
        """Count what came of a batch; give the bytes."""
        assert self._ferry is not None
        size, too_large, unsendable = self._ferry.counts()
        self.association.drop(Drop.TOO_LARGE, too_large)
        self.association.drop(Drop.UNSENDABLE, unsendable)
        if size:
            self._last = time.monotonic()
        return size

    def _send(self, forward: Forward) -> None:
        if not self._has_tokens(len(forward.data)):
            return
        try:
            if self._upstream is not None:
                self._upstream.send(forward.data, Endpoint(forward.address, forward.port))
            else:
                sock = self._target_socket(forward.address)
                sock.sendto(forward.data, (str(forward.address), forward.port))
        except OSError as error:
            self.association.drop(Drop.TOO_LARGE if error.errno == errno.EMSGSIZE else Drop.UNSENDABLE)
            return
        self._up += len(forward.data)
        self._last = time.monotonic()

    def _has_tokens(self, size: int) -> bool:
        """Take tokens for a datagram, which nobody can hold back: over the rate it is dropped, and counted."""
        buckets = self._terms.flow.buckets
        if buckets and not self._session.server.limits.spend(buckets, size):
            self.association.drop(Drop.OVER_RATE)
            return False
        return True

    def _target_socket(self, address: Address) -> socket.socket:
        sock = self._targets.get(address.version)
        if sock is None:
            is_v6 = address.version == 6
            sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            udp = self._session.server.settings.udp
            egress = udp.egress6 if is_v6 else udp.egress4
            try:
                sock.bind((str(egress) if egress else "::" if is_v6 else "0.0.0.0", 0))
            except OSError:
                sock.close()
                raise
            self._targets[address.version] = sock
            self._loop.add_reader(sock, self._from_targets, sock)
        return sock

    def _stop_look_up(self, name: Name | None) -> None:
        if name is not None and (task := self._look_ups.pop(name, None)) is not None:
            task.cancel()

    async def _look_up(self, name: Name) -> None:
        try:
            found = await self._session.server.look_up(name, self._session.key)
        except TabiError:  # SOCKS has no word for it: the datagrams that waited are dropped and counted
            found = ()
        self._look_ups.pop(name, None)
        for forward in self.association.looked_up(name, found, time.monotonic()):
            self._send(forward)

    # targets -> client

    def _from_targets(self, sock: socket.socket) -> None:
        if self._ferry is not None:
            self._carry_down(self._ferry, sock)
            return
        for _ in range(BATCH):
            try:
                size, source = sock.recvfrom_into(_BUFFER[_HEADROOM:])
            except BlockingIOError:
                return
            except OSError:  # an ICMP error that came back: it concerns one datagram, which was sent
                continue
            self._answer(size, socket_address(source[0]), source[1])

    def _from_upstream(self, received: Received) -> None:
        data, source = received
        if isinstance(source.host, Name):  # nobody was sent to by a name
            self.association.drop(Drop.STRANGER)
            return
        if len(data) > len(_BUFFER) - _HEADROOM:  # of many fragments
            self.association.drop(Drop.TOO_LARGE)
            return
        _BUFFER[_HEADROOM : _HEADROOM + len(data)] = data
        self._answer(len(data), source.host, source.port)

    def _upstream_gone(self, note: str) -> None:
        self._end(Outcome("tabi", "upstream", note=f'upstream "{self._session.notes.via}": {note}'))

    def _carry_down(self, ferry: Ferry, sock: socket.socket) -> None:
        if not ferry.receive(sock.fileno()):
            return
        now = time.monotonic()
        while (stray := ferry.carry_down(now)) is not None:
            data, host, port = stray
            _BUFFER[_HEADROOM : _HEADROOM + len(data)] = data
            if self._answer(len(data), socket_address(host), port) and not self._terms.flow.buckets:
                ferry.welcome(host, port, now + KNOWN_FOR)
        self._down += self._carried()

    def _answer(self, size: int, source: Address, port: int) -> bool:
        """Send what lies in the buffer to the client, with its header before it; say whether it was."""
        header = self.association.header_for(source, port)
        if header is None or not self._has_tokens(size):
            return False
        begin = _HEADROOM - len(header)
        _BUFFER[begin:_HEADROOM] = header
        try:
            self._leg.send(_BUFFER[begin : _HEADROOM + size])
        except OSError as error:
            self.association.drop(Drop.TOO_LARGE if error.errno == errno.EMSGSIZE else Drop.UNSENDABLE)
            return False
        self._down += size
        self._last = time.monotonic()
        return True
