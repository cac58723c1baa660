"""The one call that policy is: ``judge(request, context) -> Verdict``, sync and pure.

A request for a name is judged twice: before any look-up with `Request.address` None, then once for each
address that the name led to. Addresses that are refused are struck out; when none is left the request is
refused. What was judged is what is connected.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from tabi.addr import Address, Endpoint, Name
from tabi.errors import Reply
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

__all__ = [
    "ALL_PORTS", "DIRECT", "NO_GRANTS", "Context", "Grants", "Knobs", "Limits", "LogLevel", "Picks", "Policy",
    "Request", "Resolves", "Verdict", "is_trusted",
]  # fmt: skip

LogLevel: TypeAlias = Literal["none", "debug", "info", "warning"]
"""How much a session's line matters, by growing weight; none: it leaves no line."""

Resolves: TypeAlias = Literal["here", "upstream"]
"""Who looks up the names that go to an upstream."""

Picks: TypeAlias = Literal["order", "weight", "race"]
"""Which of several upstreams serves a session: the first that does not fail, in the rule's order or in one by chance;
or the first of all that is connected."""

ALL_PORTS: Final = ((0, 0xFFFF),)
"""What an upstream is trusted with unless it is told otherwise: first and last of each range of ports."""

DIRECT: Final = "direct"
"""The name, among those of upstreams, of the way without one; it can only race."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for.

    Args:
        command: what it wants done.
        target: DST.ADDR and DST.PORT, normalised; None for a UDP association as such, where they name the client and
            each datagram is judged with a target of its own.
        address: where `target` is a name, the address that is judged together with it; None before the
            look-up.
    """

    command: Command
    target: Endpoint | None
    address: Address | None = None

    @property
    def ip(self) -> Address | None:
        """The address that would be connected to, as far as it is known."""
        if self.target is None:
            return None
        return self.target.host if not isinstance(self.target.host, Name) else self.address

    @property
    def shown(self) -> str:
        """The host that is asked for, and where a name led, for people."""
        if self.target is None:
            return "the association"
        known = self.address is not None and isinstance(self.target.host, Name)
        return f"{self.address} ({self.target.host})" if known else str(self.target.host)


@dataclass(frozen=True, slots=True)
class Context:
    """Who asks, and how.

    Args:
        client: source address and port of the control connection, IPv4-mapped already unmapped.
        listener: our end of it.
        version: protocol of the client.
        method: authentication that took place.
        user: authenticated user name, None without authentication.
        userid: what a SOCKS4 client claims to be; proves nothing.
        groups: groups of the user.
        minute_of_week: local time of the request, in minutes since Monday 00:00; policy itself has no clock.
    """

    client: Endpoint
    listener: Endpoint
    version: Version
    method: Method
    user: bytes | None = None
    userid: bytes = b""
    groups: frozenset[str] = frozenset()
    minute_of_week: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the sessions of one user, or those that one rule allows, may do together; None is no limit.

    Args:
        sessions: at once.
        rate: new sessions per second.
        bandwidth: bytes per second, both directions together.
        lifetime: seconds that a session may last.
    """

    sessions: int | None = None
    rate: float | None = None
    bandwidth: int | None = None
    lifetime: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Knobs:
    """How the two sockets of a tunnel are used; None is as the server has it.

    Args:
        congestion: ``auto``, ``system``, or the name of a congestion control.
        keepalive: seconds of silence before a peer is asked whether it lives; 0: it is not.
        send_buffer: bytes; 0: what the kernel finds right.
        receive_buffer: likewise.
        splice: whether bulk goes through pipes.
    """

    congestion: str | None = None
    keepalive: int | None = None
    send_buffer: int | None = None
    receive_buffer: int | None = None
    splice: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """What an allowed request may do.

    Args:
        any_peer: BIND only: with 0.0.0.0 or :: as DST.ADDR, take any peer.
        full_cone: UDP only: let any address answer the client.
        egress: local address, or name of the interface, that connections come from; None: the kernel chooses.
        prefer: family that is tried first; None: IPv6 (RFC 8305).
        connect: seconds to reach the target; None: the server's.
        idle: seconds without a byte before a tunnel is cut; None: the server's.
        half_open: the same with one direction closed; None: the server's.
        limits: shared by all sessions that the rule allows.
        knobs: of their tunnels.
        log: level of the session's line.
        via: names of upstreams, of which one is taken, and perhaps `DIRECT`; none: directly.
        pick: which of them.
        resolve: who looks up a name that goes to an upstream.
    """

    any_peer: bool = False
    full_cone: bool = False
    egress: Address | str | None = None
    prefer: Literal[4, 6] | None = None
    connect: float | None = None
    idle: float | None = None
    half_open: float | None = None
    limits: Limits = Limits()
    knobs: Knobs = Knobs()
    log: LogLevel = "info"
    via: tuple[str, ...] = ()
    pick: Picks = "order"
    resolve: Resolves = "here"

    @property
    def upstreams(self) -> tuple[str, ...]:
        """The upstreams for what does not race, in their order; none where the direct way is the first."""
        return () if self.via[:1] == (DIRECT,) else tuple(name for name in self.via if name != DIRECT)

    def way(self, command: Command) -> tuple[str, ...]:
        """Say what all rules have in common that send a command the same way: only CONNECT races."""
        return self.via if command is Command.CONNECT else self.upstreams


NO_GRANTS = Grants()
"""Nothing beyond the connection itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What policy says.

    Args:
        allow: whether the request may go on.
        rule: name of the rule that decided, for the log.
        reply: what a refused client hears.
        grants: what an allowed request may do; of a refused one only `Grants.log` counts.
        number: of the rule in its list, counted from 1; 0 where no rule of the list decided.
        note: what a refused request lacked.
        tentative: the name may be looked up; the addresses decide.
        by_name: the name may go to the upstream as it is: no address of it could be refused, or the rule leaves it to
            the upstream to look names up, and only names are judged.
    """

    allow: bool
    rule: str
    reply: Reply = Reply.NOT_ALLOWED
    grants: Grants = NO_GRANTS
    number: int = 0
    note: str = ""
    tentative: bool = False
    by_name: bool = False

    def refusal(self, since: str = "") -> str:
        """Say for the log what refused a request, and what would do.

        Args:
            since: when: what stands behind the name of the rule.
        """
        what = f'refused by rule "{self.rule}"' if self.number else self.rule
        return f"{what}{f' {since}' if since else ''}{f': {self.note}' if self.note else ''}"


Policy: TypeAlias = Callable[[Request, Context], Verdict]


def is_trusted(ports: Collection[tuple[int, int]], port: int | None) -> bool:
    """Say whether an upstream that is trusted with some ports may be asked for one; None: for whatever comes."""
    return any(first <= port <= last for first, last in ports) if port is not None else ALL_PORTS[0] in ports
