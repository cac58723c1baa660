"""The server: listeners, sessions, the engine, and the log lines of all that ended.

::

    async with Server(Settings(listen=(Endpoint.parse("127.0.0.1:0"),))) as server:
        print(server.addresses)
"""

import asyncio
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Self, TypeAlias

from tabi.addr import Address, Endpoint, Name, unmap
from tabi.config.settings import Settings
from tabi.config.upstreams import Upstream
from tabi.dial.wishes import Family
from tabi.errors import DialError, Reply, Stage
from tabi.machine.server import ServerOptions
from tabi.net import tasks
from tabi.net.deadlines import Deadlines
from tabi.net.linger import Lingerer, turn_away
from tabi.net.listeners import Acceptor, open_listeners
from tabi.net.ports import same_family
from tabi.net.resolver import Resolver
from tabi.net.watch import Watch
from tabi.policy import loopback
from tabi.policy.verdict import Context, Limits, Policy, Request, Verdict
from tabi.relay import Engine, make_engine, make_lane_engine
from tabi.relay.lane import Exhausted, Handover, LaneEngine
from tabi.server import associate, bind, connect, resolve
from tabi.server.accounts import Accounts
from tabi.server.admission import Admission, client_key
from tabi.server.auth import WRONG, Authenticator, Login
from tabi.server.counts import Counts, LocalCounts
from tabi.server.endings import Endings
from tabi.server.journal import Journal
from tabi.server.lane import ExpressLane
from tabi.server.legs import Leg, OwnLeg, SharedPort
from tabi.server.limits import SessionLimits
from tabi.server.line import LogFormat
from tabi.server.outcome import Outcome
from tabi.server.races import Races
from tabi.server.record import Facts
from tabi.server.session import Commands, Session, address_of
from tabi.server.sharedtable import SharedTable
from tabi.server.tunnels import Tunnels
from tabi.server.upstreams import Upstreams
from tabi.wire.socks5 import Command, Method

__all__ = ["Access", "Server"]

COMMANDS: Final[Commands] = {
    Command.CONNECT: connect.serve,
    Command.BIND: bind.serve,
    Command.UDP_ASSOCIATE: associate.serve,
    Command.RESOLVE: resolve.serve,
    Command.RESOLVE_PTR: resolve.serve_ptr,
}

_CALLS: Final = 64  # of the express lane that are taken at once, so that running sessions get their turn
_POLL: Final = 0.02  # seconds between looks at what is left while draining
_SETTLE: Final = 2.0  # seconds for cancelled tasks to clean up
_EXHAUSTED_EVERY: Final = 60.0  # seconds between two warnings that descriptors ran out

Access: TypeAlias = Callable[[Endpoint, Address], ServerOptions]

_logger = logging.getLogger("tabi")


class Server:
    """A SOCKS server on the running event loop. Use it as an async context manager, or `start` and `stop`.

    Args:
        settings: where to listen, limits and caps.
        policy: who may do what; the default allows clients on this host everything and refuses the rest.
        authenticator: judges user names and passwords; where there is one, every client must log in.
        write_log: takes log lines, one or several joined by newlines; must not block.
        log_format: text or json.
        access: what a client is offered, by our end of its connection and its address; the default is the same for all:
            to log in where there is an authenticator, else nothing.
        user_limits: by user name, how much the sessions of a user may do together.
        counts: where connections and sessions are counted; a `tabi.server.sharedtable.SharedTable` has caps and limits
            hold over all workers.
        numbers: of the sessions, each another one; the default counts from 1, or as the table of the lane does.
        upstreams: by name, what rules call by `via`.
        workers: processes that share what the system grants a user, such as pipes.
        lane: whether the engine serves the plain case by itself (`tabi.relay.lane`); None: unless TABI_LANE is 0.
    """

    policy: Policy  # an attribute and not a method: it is called without self

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        policy: Policy = loopback.judge,
        authenticator: Authenticator | None = None,
        write_log: Callable[[str], None] | None = None,
        log_format: LogFormat = "text",
        access: Access | None = None,
        user_limits: Mapping[bytes, Limits] = MappingProxyType({}),
        counts: Counts | None = None,
        numbers: Iterator[int] | None = None,
        upstreams: Mapping[str, Upstream] = MappingProxyType({}),
        workers: int = 1,
        lane: bool | None = None,
    ) -> None:
        self.settings: Settings = settings or Settings()
        self.policy = policy
        self.commands = COMMANDS
        self.upstreams: Upstreams = Upstreams(upstreams)
        self.races: Races = Races(self.settings.race)
        self.lane: ExpressLane = ExpressLane(self)
        wants_lane = _wants_lane() if lane is None else lane
        self._own_table = SharedTable.create(1) if wants_lane and counts is None else None
        if counts is None:
            counts = LocalCounts() if self._own_table is None else self._own_table
        self._table = counts if wants_lane and isinstance(counts, SharedTable) else None
        self.admission: Admission = Admission(self.settings.cap, counts)
        self.limits: SessionLimits = SessionLimits(user_limits, counts, self.settings.time, self.settings.tunnel)
        method = Method.USERPASS if authenticator else Method.NONE
        options = ServerOptions(methods=frozenset({method}), tor_resolve=self.settings.tor_resolve)
        self.options_for: Access = access or (lambda _listener, _client: options)
        self._authenticator = authenticator
        self.journal: Journal = Journal(write_log, self.settings.log, log_format)
        self._acceptors: list[Acceptor] = []
        self._sessions: dict[int, Session] = {}
        self._shared_ports: dict[Address, SharedPort] = {}
        if self._table is not None:  # whose numbers the lane takes, too
            numbers = self._table.numbers()
        self._numbers = itertools.count(1) if numbers is None else numbers
        self._workers = workers
        self._last_exhausted = -_EXHAUSTED_EVERY
        self._at_once = asyncio.Event()
        self._is_stopping = False
        self._will_ring = False
        self._more_calls: asyncio.Handle | None = None
        self._unheard: asyncio.Handle | None = None  # a call of `_hear`
        self._tells_together = False
        self.has_failed: bool = False  # the engine has died of a bug: the process is of no use any more
        self.on_failure: Callable[[], None] | None = None  # called in the loop when that happens; `stop` then, and end

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def addresses(self) -> tuple[Endpoint, ...]:
        """Where the server listens, with the ports that it was given."""
        return tuple(acceptor.endpoint for acceptor in self._acceptors)

    def __len__(self) -> int:
        """Sessions: in their handshake, being served, relayed, or being closed in order."""
        return len(self.admission)

    # life

    async def start(self, listeners: Sequence[socket.socket] | None = None) -> None:
        """Open every listener and begin to accept.

        Args:
            listeners: sockets that listen already, in place of the addresses of the settings.

        Raises:
            ConfigError: a listener cannot be opened; none is, then.
        """
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        listeners = open_listeners(self.settings.listen) if listeners is None else listeners
        self._accepting: LaneEngine | None = None
        spin = self.settings.tunnel.spin
        if self._table is None:
            self.engine: Engine = make_engine(workers=self._workers, spin=spin)
        else:
            self.engine = self._accepting = make_lane_engine(workers=self._workers, spin=spin)
        self.engine.start()
        self.tunnels: Tunnels = Tunnels(self.engine)
        self.endings: Endings = Endings(
            self.engine, self.tunnels, self.admission, self.limits, self.journal, self.races
        )
        self.limits.start(self.engine, self._make_room)
        self._set_pace()
        if self._table is not None and self._accepting is not None:
            self.lane.open(self._accepting, self._table)
            if self.accounts is not None:
                self.accounts.believer = self.lane
        self.loop.add_reader(self.engine.fileno(), self._on_news)
        self.watch: Watch = Watch(self.loop)
        self.handshakes: Deadlines[Session] = self._handshakes()
        self.lingerer: Lingerer = Lingerer(self.loop)
        self.resolver: Resolver = Resolver(query_timeout=self.settings.time.resolve)
        self._acceptors = [self._accept_from(sock) for sock in listeners]

    def stop_accepting(self) -> None:
        """Close the listeners; whoever waits in their queues, or in the express lane, is a session then."""
        closing, self._acceptors = self._acceptors, []
        for acceptor in closing:
            acceptor.close()
        self.lane.call_in()

    async def stop(self, drain: float | None = None) -> None:
        """Stop accepting, let sessions finish for `drain` seconds (default: as set), reset what is left.

        `stop_at_once` from elsewhere cuts the wait short. Stopping twice is stopping once.
        """
        if self._is_stopping:
            return
        self._is_stopping = True
        self.stop_accepting()
        await self._drained(self.settings.time.drain if drain is None else drain)
        self.engine.stop()
        self._take_ends()
        for session in tuple(self._sessions.values()):
            session.cancel(Outcome("tabi", "bug" if self.has_failed else "shutdown"), abort=True)
        self.lingerer.close_all()
        for later in (self._more_calls, self._unheard):
            if later is not None:
                later.cancel()
        self.loop.remove_reader(self.engine.fileno())
        self.engine.close()
        self.watch.close()
        self.handshakes.close()
        self.journal.close()
        for shared in self._shared_ports.values():
            shared.close()
        await self.resolver.close()
        try:
            async with asyncio.timeout(_SETTLE):
                await tasks.settle()
        except TimeoutError:
            names = ", ".join(task.get_name() for task in tasks.pending())
            _logger.error("these tasks do not end although they were cancelled: %s", names)
        if self._own_table is not None:
            self._own_table.close()

    def reconfigure(
        self,
        settings: Settings,
        *,
        policy: Policy,
        access: Access,
        upstreams: Mapping[str, Upstream],
        user_limits: Mapping[bytes, Limits],
        rule_limits: Mapping[str, Limits],
        since: str,
    ) -> None:
        """Live by other settings, rules and limits from now on; refusals that come of it say `since` when.

        `tabi.server.review` tells those that are there; handshakes under way keep their time limit.
        """
        self.lane.forget()
        self.settings = settings
        self.policy = policy
        self.options_for = access
        if upstreams != self.upstreams.table:  # else it stays known which of them rest
            self.upstreams = Upstreams(upstreams)
        self.races.replace(settings.race)
        self.admission.caps = settings.cap
        self.limits.replace(user_limits, rule_limits, settings.time, settings.tunnel)
        self._set_pace()
        self.journal.replace(settings.log)
        self.endings.forget()
        self.resolver.allow(settings.time.resolve)
        if settings.time.handshake != self.handshakes.seconds:
            self.handshakes = self._handshakes()  # those under way keep their time
        for session in self._sessions.values():
            session.forget_verdicts(since)

    def listen_on(self, listeners: Sequence[socket.socket]) -> None:
        """Accept from these from now on; what is not among them is closed once its queue has been accepted."""
        known = {acceptor.listener: acceptor for acceptor in self._acceptors}
        for listener in known.keys() - set(listeners):
            known[listener].close()
        self._acceptors = [known.get(sock) or self._accept_from(sock) for sock in listeners]

    def take_over(self, left: Sequence[socket.socket]) -> None:
        """Accept what waits in the queues of listeners that are to be closed, and close them."""
        for sock in left:
            self._accept_from(sock).close()

    def judge(self, request: Request, context: Context) -> Verdict:
        """Ask policy, by the rules of the day."""
        return self.policy(request, context)

    def sessions(self) -> list[Session]:
        """List the sessions that the engine does not have."""
        return list(self._sessions.values())

    def acceptors(self) -> list[Acceptor]:
        """List the listeners that are accepted from."""
        return list(self._acceptors)

    def _handshakes(self) -> Deadlines[Session]:
        return Deadlines(self.settings.time.handshake, Session.handshake_expired, loop=self.loop)

    def _accept_from(self, listener: socket.socket) -> Acceptor:
        return Acceptor(listener, self._on_accept, self._on_exhausted, self.loop, self._accepting)

    def _engine_failed(self, bug: Exception) -> None:
        """Tell the bug and accept no more: no tunnel that is promised now would ever carry a byte."""
        self.has_failed = True
        self.report_bug("the engine, all tunnels are cut", bug)
        self.engine.stop()  # which waits until it has given up the last connection: those that it had are sessions here
        for acceptor in self._acceptors:
            acceptor.abandon()
        self._acceptors.clear()
        self._take_ends()
        self.lane.take_calls()
        self.stop_at_once()
        if self.on_failure is not None:
            self.on_failure()

    def stop_at_once(self) -> None:
        """Do not wait for sessions any longer."""
        self._at_once.set()

    async def _drained(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while len(self) and not self._at_once.is_set() and time.monotonic() < deadline:
            try:
                async with asyncio.timeout(_POLL):
                    await self._at_once.wait()
            except TimeoutError:
                continue

    # connections

    def receive(self, arrived: Handover) -> None:
        """Go on with a connection that the express lane does not serve."""
        family = socket.AF_INET6 if ":" in arrived.local[0] else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM, 0, arrived.fd)
        sock.setblocking(False)
        client, listener = Endpoint.from_sockaddr(arrived.client), Endpoint.from_sockaddr(arrived.local)
        if arrived.counted or self._admit(sock, client, listener, arrived.number):
            session = Session(self, sock, client, listener, arrived.number, arrived)
            self._sessions[arrived.number] = session
            session.take_over(arrived)

    def exhausted(self, call: Exhausted) -> None:
        """The express lane has no descriptors left."""
        for acceptor in self._acceptors:
            if acceptor.listener.fileno() == call.listener:
                acceptor.exhausted(OSError(call.errno, os.strerror(call.errno)))

    def _on_accept(self, sock: socket.socket, client: Endpoint, listener: Endpoint) -> None:
        number = next(self._numbers)
        if self._admit(sock, client, listener, number):
            session = self._sessions[number] = Session(self, sock, client, listener, number)
            session.start()

    def _admit(self, sock: socket.socket, client: Endpoint, listener: Endpoint, number: int) -> bool:
        """Count a connection in, or turn it away."""
        key = client_key(address_of(client))
        cap = self.admission.admit(key)
        if cap is not None:
            self._make_room()
            cap = self.admission.admit(key)
        if cap is not None:
            facts = Facts(number, time.time(), str(client), str(listener))
            turn_away(sock)
            self.journal.tell_failure(key, facts, Outcome("tabi", f"cap:{cap}"))
        return cap is None

    def _on_exhausted(self, error: OSError | None) -> None:
        now = time.monotonic()
        if error is not None and now - self._last_exhausted >= _EXHAUSTED_EVERY:
            self._last_exhausted = now
            _logger.warning(
                "out of descriptors with %d sessions (%s): accepting pauses; raise LimitNOFILE or ulimit -n",
                len(self),
                error.strerror,
            )

    def released(self, session: Session) -> None:
        """A session's socket is closed."""
        del self._sessions[session.number]
        self.admission.release(session.key)

    def adopt(self, session: Session, outbound: int, pending: bytes, error: int) -> None:
        """Give a session's pair of sockets to the engine; what is known of it goes along, packed.

        Args:
            session: which is gone then.
            outbound: the connection to the target.
            pending: what the client is still owed.
            error: errno that its socket has told already, 0: none.
        """
        terms = session.judgement.terms()
        session.notes.lifetime = terms.limit
        record = session.notes.facts().pack()
        del self._sessions[session.number]
        early = session.machine.take_early()
        inbound = session.sock.detach()
        self.engine.adopt(
            inbound, outbound, early, pending, terms.flow, record, error=error, ring=False, tuning=terms.tuning
        )
        if not self._will_ring:
            self._will_ring = True
            self.loop.call_soon(self._ring)

    def _ring(self) -> None:
        """Wake the engine for all that one turn of the loop gave it.

        Woken for each, its thread contends for the GIL with the rest of the turn at every system call.
        """
        self._will_ring = False
        self.engine.ring()

    @property
    def accounts(self) -> Accounts | None:
        """The accounts, where there are any."""
        return self._authenticator if isinstance(self._authenticator, Accounts) else None

    def groups(self, user: bytes) -> frozenset[str] | None:
        """Give the groups of a user as they are now; None: there is no such user."""
        return frozenset() if self.accounts is None else self.accounts.groups(user)

    async def verify(self, username: bytes, password: bytes, client: Endpoint) -> Login:
        """Ask the authenticator; without one there is no login."""
        if self._authenticator is None:
            return Login(ok=False, reason="nobody can log in here")
        answer = await self._authenticator.verify(username, password, client)
        if isinstance(answer, Login):
            return answer
        return Login(ok=True) if answer is True else Login(ok=False, reason=WRONG)

    async def look_up(self, name: Name, client: bytes, *, only4: bool = False) -> tuple[Address, ...]:
        """Look up a name where one address will do: IPv4 first, for there is no race that would find out what works.

        Raises:
            DialError: it has no address, or nobody could say.
        """
        families: tuple[Family, ...] = (4,) if only4 else (4, 6)
        answers = await asyncio.gather(
            *(self.resolver.lookup(name, family, client) for family in families), return_exceptions=True
        )
        found: list[Address] = []
        for answer in answers:
            if isinstance(answer, tuple):
                found += (unmap(address) for address in answer if not address.is_unspecified)  # as in dial.direct
            elif not isinstance(answer, DialError):
                raise answer
        if found:
            return tuple(found)
        errors = (answer for answer in answers if isinstance(answer, DialError))
        nothing = DialError(f"no address for {name}", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE)
        raise next(errors, nothing)

    async def open_leg(self, session: Session, declared: int | None) -> Leg:
        """Open the client's side of a UDP association.

        Raises:
            DialError: no port to be had.
        """
        udp = self.settings.udp
        local = same_family(udp.address, address_of(session.listener))
        client = address_of(session.client)
        if udp.shared_port is None:
            sockname = session.sock.getsockname()
            scope = sockname[3] if len(sockname) == 4 and local.is_link_local else 0
            return OwnLeg(local, client, udp.ports, loop=self.loop, scope=scope)
        shared = self._shared_ports.get(local)
        if shared is None:
            shared = self._shared_ports[local] = SharedPort(local, udp.shared_port, loop=self.loop)
        return await shared.claim(client, declared)

    # the log

    def log_session(self, session: Session, outcome: Outcome) -> None:
        """Write the line of a session that ended here."""
        outcome = outcome._replace(total=session.notes.milliseconds())
        if session.tally is not None:
            up, down, note = session.tally()
            outcome = outcome._replace(up=up, down=down, note="; ".join(filter(None, (outcome.note, note))))
        self.journal.tell(session.key, session.notes.facts(), outcome)

    def report_bug(self, where: str, error: Exception) -> None:
        """Log an error that is nobody's but ours, with its traceback."""
        _logger.error("bug in %s: %s; please report it", where, type(error).__name__, exc_info=error)

    def _on_news(self) -> None:
        self._take_ends()
        if self._more_calls is None:
            self._take_calls()

    def _set_pace(self) -> None:
        """Have ends told together where nobody could be refused for what is over, in this worker or another."""
        is_on = self.admission.is_roomy and not self.limits.has_sessions
        if is_on != self._tells_together:
            self._tells_together = is_on
            self.engine.tell_together(is_on)

    def _make_room(self) -> None:
        """Count out what is over, before anybody is refused: the engine tells of ends together.

        Taking them silences the engine, which may have told of calls or of its own failure too: those are next.
        """
        self.endings.take()
        if self._unheard is None:
            self._unheard = self.loop.call_soon(self._hear)

    def _hear(self) -> None:
        self._unheard = None
        self._on_news()

    def _take_calls(self) -> None:
        self._more_calls = self.loop.call_soon(self._take_calls) if self.lane.take_calls(_CALLS) else None

    def _take_ends(self) -> None:
        self.endings.take()
        self._set_pace()
        if self.engine.failure is not None and not self.has_failed:
            self._engine_failed(self.engine.failure)


def _wants_lane() -> bool:
    return os.environ.get("TABI_LANE", "") != "0"
