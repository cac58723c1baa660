"""The control plane's half of the express lane (`tabi.relay.lane`): it teaches doors and logins, and answers requests.

What is plain is decided here: a CONNECT that policy allows, from where the kernel chooses and not by an upstream, to an
address or to a name whose addresses are known, of a user and by a rule without a limit on new sessions a second. A
permit lasts until the minute ends, for rules may know the time of day, or until one of the answers about its name is
too old.

What is taught stands until `forget`: a reload begins with that, and so does whoever finds the tables full. A failed
login takes the passes of its client away, for what it does to others behind the same address is not for the lane to
know. The lane of each worker sees it by a count in shared memory, before the answer to that login is sent.
"""

import itertools
import time
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from tabi.addr import Address, Endpoint, Name, unmap
from tabi.machine.server import CredentialsReceived, RequestReceived, ServerMachine, ServerOptions
from tabi.net.clock import minute_of_week
from tabi.policy.criteria import METHOD_WORDS
from tabi.policy.verdict import Context, Request, Verdict
from tabi.relay.lane import NONE, PASSWORD, Ask, Call, Counter, Door, Handover, LaneEngine, Permit
from tabi.server.admission import ClientKey, client_key
from tabi.server.record import Facts
from tabi.server.sharedtable import NUMBERS, SharedTable
from tabi.wire.socks5 import Command, Method, Reply
from tabi.wire.userpass import Credentials
from tabi.wire.version import Version

if TYPE_CHECKING:
    from tabi.server.server import Server
    from tabi.server.session import Session

__all__ = ["ExpressLane"]

_MOST_DOORS: Final = 4096  # as many as the engine takes
_PATIENCE: Final = 1.0  # seconds; whoever is slower is served here, at no loss but of our processor's time
_LASTS: Final = 60.0  # seconds

# Seconds that the lane waits for a target. The first is where the next address is tried anyway (RFC 8305 section 5).
_ONLY_ADDRESS: Final = 0.25
_MORE_ADDRESSES: Final = 0.1

_GREETING: Final = b"\x05\x01\x00"  # RFC 1928 section 3
_ANYTHING: Final = ServerOptions(methods=frozenset({Method.NONE}), socks4=True)

_METHODS: Final = {Method.NONE: NONE, Method.USERPASS: PASSWORD}


class _Visitor(NamedTuple):
    """Who comes in by a door, and where."""

    client: Endpoint
    listener: Endpoint
    place: tuple[int, str, str]


class _Choice(NamedTuple):
    """Where a request leads, and by whose leave."""

    address: Address
    verdict: Verdict
    until: float
    is_only: bool


class ExpressLane:
    """What one server does for the lane of its engine; nothing until `open`.

    Args:
        server: whose sessions the lane hands over to.
    """

    def __init__(self, server: "Server") -> None:
        self._server = server
        self._engine: LaneEngine | None = None
        self._numbers = itertools.count(1)
        self._visitors: dict[int, _Visitor] = {}  # by number of their door
        self._doors: dict[tuple[int, str, str], int] = {}
        self._calls: deque[Call] = deque()

    def open(self, engine: LaneEngine, table: SharedTable) -> None:
        """Open the lane, which counts in `table`, and numbers sessions as that does."""
        patience = min(_PATIENCE, self._server.settings.time.handshake / 2)
        engine.open_lane(table.rows, numbers=NUMBERS, patience=patience)
        self._engine = engine
        self._table = table

    @property
    def is_open(self) -> bool:
        """Whether there is one."""
        return self._engine is not None

    # calls

    def take_calls(self, most: int | None = None) -> bool:
        """Take what the engine wants, so many calls at once; say whether there are more."""
        engine = self._engine
        if engine is None:
            return False
        self._calls.extend(engine.calls())
        taken = 0
        while self._calls and taken != most:
            taken += 1
            call = self._calls.popleft()
            if isinstance(call, Ask):
                engine.answer(call.arrival, self._answer(call))
            elif isinstance(call, Handover):
                self._server.receive(call)
            else:
                self._server.exhausted(call)
        return bool(self._calls)

    def call_in(self) -> None:
        """Have every connection that is in the lane, and no tunnel yet, among the server's sessions."""
        if self._engine is not None:
            self._engine.call_in()
            self.take_calls()

    def forget(self) -> None:
        """Have the lane forget what it was taught; what was under way there is among the server's sessions then."""
        if self._engine is not None:
            self._engine.forget()
            self._visitors.clear()
            self._doors.clear()
            self._table.let_go()
            self.take_calls()

    # teaching

    def teach_door(self, session: "Session") -> int | None:
        """Let a client be served by the lane from now on.

        Args:
            session: of that client, which has got what it asked for.

        Returns:
            the number of its door, None where it cannot have one.
        """
        arrived = session.arrived
        if self._engine is None or arrived is None:
            return None
        place = (arrived.listener, arrived.local[0], arrived.client[0])
        return self._doors.get(place) or self.open_door(place, session.listener, session.client)

    def open_door(self, place: tuple[int, str, str], listener: Endpoint, client: Endpoint) -> int | None:
        """Open the door of a client.

        Args:
            place: descriptor of the listener, address there, address of the client, as the socket module writes them.
            listener: our end of a connection.
            client: the client's; its port does not count.

        Returns:
            the number, None where the client cannot have one.
        """
        counters = self._server.admission.counters(client_key(_address(client)))
        if self._engine is None or counters is None:
            return None
        if len(self._doors) >= _MOST_DOORS:
            self._server.loop.call_soon(self._make_room)
            return None
        options = self._server.options_for(listener, _address(client))
        methods = sum(_METHODS[method] for method in options.methods)
        number = self._doors[place] = next(self._numbers)
        self._visitors[number] = _Visitor(Endpoint(client.host, 0), listener, place)
        self._engine.teach_door(Door(number, *place, methods, options.takes_socks4, counters))
        return number

    def _make_room(self) -> None:
        if len(self._doors) >= _MOST_DOORS:
            self.forget()

    def teach_login(self, session: "Session", credentials: CredentialsReceived) -> None:
        """Let this login pass in the lane, where it would be let in at once here as well."""
        engine = self._engine
        accounts = self._server.accounts
        if engine is None or accounts is None:
            return
        row = self._table.failures(client_key(_address(session.client)))
        failures = Counter(row, self._table.rows.total(row))  # before it is vouched for: what fails after that is seen
        until = accounts.vouch(credentials.username, credentials.password, session.client)
        if until and (door := self.teach_door(session)) is not None:
            message = Credentials(credentials.username, credentials.password).encode()
            engine.teach_pass(door, message, credentials.username, until, failures)

    def shut_out(self, client: ClientKey) -> None:
        """Let no login of a client pass by what any lane was taught, in whatever worker."""
        if self._engine is not None:
            self._table.rows.add(self._table.failures(client), 1)

    # answering

    def _answer(self, ask: Ask) -> Permit | None:
        try:
            return self._permit(ask)
        except Exception:  # noqa: BLE001  policy may be anybody's code; the session that is handed over tells of it
            return None

    def _permit(self, ask: Ask) -> Permit | None:
        visitor = self._visitors.get(ask.door)
        event = _read(ask.message)
        if visitor is None or event is None:
            return None
        method = Method.NONE if ask.user is None else Method.USERPASS
        groups = frozenset[str]() if ask.user is None else self._server.groups(ask.user)
        if groups is None:
            return None
        context = Context(
            client=visitor.client,
            listener=visitor.listener,
            version=event.version,
            method=method,
            user=ask.user,
            userid=event.userid,
            groups=groups,
            minute_of_week=minute_of_week(),
        )
        choice = self._choose(event, context)
        return None if choice is None else self._made_out(event, context, choice)

    def _choose(self, event: RequestReceived, context: Context) -> _Choice | None:
        """Judge, and find the address that dialling would try first."""
        verdict = self._server.judge(Request(event.command, event.target), context)
        if not verdict.allow or verdict.by_name:
            return None
        until = time.monotonic() + min(_LASTS, 60 - time.time() % 60)
        host = event.target.host
        if not isinstance(host, Name):
            return _Choice(host, verdict, until, is_only=True)
        prefer = verdict.grants.prefer or 6
        answers = [self._server.resolver.known(host, family) for family in ((4, 6) if prefer == 4 else (6, 4))]
        known = [answer for answer in answers if answer is not None]
        if len(known) < len(answers):
            return None
        addresses = [unmap(one) for answer in known for one in answer.addresses if not one.is_unspecified]
        for address in addresses:
            about = self._server.judge(Request(event.command, event.target, address), context)
            if about.allow:
                if not verdict.tentative and verdict.rule != about.rule:  # it is counted with both, for a moment
                    return None
                until = min(until, *(answer.until for answer in known))
                return _Choice(address, about, until, is_only=len(addresses) == 1)
        return None

    def _made_out(self, event: RequestReceived, context: Context, choice: _Choice) -> Permit | None:
        """Write a permit."""
        address, verdict, until, is_only = choice
        grants = verdict.grants
        if grants.egress is not None or grants.via:
            return None
        counters = self._server.limits.counters(context.user, verdict)
        if counters is None:
            return None
        terms = self._server.limits.terms(context.user, verdict)
        facts = Facts(
            session=0,
            accepted=0.0,
            client=str(context.client).rpartition(":")[0],
            listener=str(context.listener),
            socks=event.version.value,
            method=METHOD_WORDS[context.method],
            user=context.user,
            userid=event.userid or None,
            command=event.command.name.lower(),
            target=str(event.target),
            to=str(Endpoint(address, event.target.port)),
            verdict="allow",
            rule=verdict.rule,
            reply=int(Reply.SUCCEEDED),
            lifetime=terms.limit,
            level=grants.log,
        )
        connect = self._server.settings.time.connect if grants.connect is None else grants.connect
        return Permit(
            until=until,
            address=str(address),
            port=event.target.port,
            shows_target=event.version is Version.SOCKS4A,
            limits=terms.flow._replace(lifetime=terms.lifetime) if terms.lifetime else terms.flow,
            patience=min(_ONLY_ADDRESS if is_only else _MORE_ADDRESSES, connect),
            counters=counters,
            facts=facts.pack(),
            tuning=terms.tuning,
        )


@lru_cache(maxsize=1024)
def _read(message: bytes) -> RequestReceived | None:
    """Read a request as the server does, after whatever greeting; None: it would be refused, or is none.

    Many clients ask for the same target.
    """
    machine = ServerMachine(_ANYTHING)
    machine.receive_data(message if message[0] == 4 else _GREETING + message)
    event = machine.next_event()
    return event if isinstance(event, RequestReceived) and event.command is Command.CONNECT else None


def _address(endpoint: Endpoint) -> Address:
    if isinstance(endpoint.host, Name):
        raise TypeError("a client has an address")
    return endpoint.host
