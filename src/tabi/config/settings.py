"""What a server can be told, as frozen dataclasses. Durations are seconds; 0 means no limit where that is allowed.

Values are checked when a settings object is made; `ConfigError` names the key, what was found and what is accepted.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from tabi.addr import Address, Endpoint
from tabi.errors import ConfigError
from tabi.policy.networks import NetworkSet
from tabi.policy.verdict import LogLevel

__all__ = [
    "BindSettings",
    "Caps",
    "LogSettings",
    "RaceSettings",
    "Settings",
    "TimeLimits",
    "TunnelSettings",
    "UdpSettings",
]

DEFAULT_LISTEN = (Endpoint(IPv4Address("127.0.0.1"), 1080), Endpoint(IPv6Address("::1"), 1080))


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeLimits:
    """How long each stage may take. A session that one of them ends is logged as ``limit:NAME``.

    Args:
        handshake: from accept to the whole request; one deadline, however the bytes trickle in.
        connect: to reach the target, over all its addresses; at most 120 (SOCKS4.protocol's two minutes).
        resolve: to look a name up, each family on its own; within `connect`.
        bind: BIND's wait for the peer (two minutes in SOCKS4.protocol).
        idle: a tunnel without a byte either way; 0, for keepalive already finds dead peers.
        half_open: a tunnel with one direction closed, without a byte in the other.
        udp_idle: an association without a datagram relayed; at least 120 (RFC 4787 REQ-5).
        drain: what running sessions are given at shutdown.
    """

    handshake: float = 10.0
    connect: float = 30.0
    resolve: float = 5.0
    bind: float = 120.0
    idle: float = 0.0
    half_open: float = 600.0
    udp_idle: float = 300.0
    drain: float = 2.0

    def __post_init__(self) -> None:
        _between("time.handshake", self.handshake, 0.1, 600)
        _between("time.connect", self.connect, 0.1, 120)
        _between("time.resolve", self.resolve, 0.1, 60)
        _between("time.bind", self.bind, 0.1, 3600)
        _between("time.idle", self.idle, 0, 1e9)
        _between("time.half_open", self.half_open, 0, 1e9)
        _between("time.udp_idle", self.udp_idle, 120, 1e9)
        _between("time.drain", self.drain, 0, 3600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """How much at once. A client is an IPv4 address or an IPv6 /64, which one host can have to itself.

    Args:
        connections: client connections in total.
        per_client: connections of one client.
        handshakes_per_client: connections of one client whose request is not there yet.
    """

    connections: int = 65_536
    per_client: int = 16_384
    handshakes_per_client: int = 1_024

    def __post_init__(self) -> None:
        _between("cap.connections", self.connections, 1, 1 << 30)
        _between("cap.per_client", self.per_client, 1, 1 << 30)
        _between("cap.handshakes_per_client", self.handshakes_per_client, 1, 1 << 30)


@dataclass(frozen=True, slots=True, kw_only=True)
class BindSettings:
    """Where BIND listens. An address is used for peers of its own family, the default for others.

    Args:
        address: local address; None: the source address of the route to DST.ADDR.
        advertise: address that the client is told instead, for a server behind NAT.
        ports: first and last port to listen on; None: any.
    """

    address: Address | None = None
    advertise: Address | None = None
    ports: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _check_ports("bind.ports", self.ports)


@dataclass(frozen=True, slots=True, kw_only=True)
class UdpSettings:
    """Where UDP associations live. An address is used for clients of its own family, the default for others.

    Args:
        address: local address towards clients; None: that of the control connection.
        advertise: address that the client is told instead, for a server behind NAT.
        ports: first and last port towards clients; None: any.
        shared_port: one port for all associations, for containers that can publish only one; excludes `ports`.
        egress4: local IPv4 address towards targets; None: the kernel chooses.
        egress6: the same for IPv6.
    """

    address: Address | None = None
    advertise: Address | None = None
    ports: tuple[int, int] | None = None
    shared_port: int | None = None
    egress4: IPv4Address | None = None
    egress6: IPv6Address | None = None

    def __post_init__(self) -> None:
        _check_ports("udp.ports", self.ports)
        if self.shared_port is not None:
            _between("udp.shared_port", self.shared_port, 1, 0xFFFF)
            if self.ports is not None:
                raise ConfigError("udp.shared_port and udp.ports exclude each other; keep one of them")


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelSettings:
    """How the sockets of tunnels are used where no rule says otherwise (`tabi.policy.verdict.Knobs`).

    Args:
        congestion: ``auto``, ``system``, or the name of a congestion control.
        keepalive: seconds of silence before a peer is asked whether it lives; 0: it is not.
        send_buffer: bytes; 0: what the kernel finds right.
        receive_buffer: likewise.
        splice: whether bulk goes through pipes.
        spin: whether the engine looks again for a moment before it sleeps, where that has paid lately.
    """

    congestion: str = "auto"
    keepalive: int = 60
    send_buffer: int = 0
    receive_buffer: int = 0
    splice: bool = True
    spin: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """What the log says.

    Args:
        format: of session lines.
        targets: whether they say where a client went.
        level: of the least that is written; rules say which level their sessions have.
    """

    format: Literal["text", "json"] = "text"
    targets: bool = True
    level: LogLevel = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceSettings:
    """How upstreams race.

    Args:
        head_start: seconds that a way is alone before the next starts.
        memory: seconds in which a failure loses half of its weight, and for which a winner is remembered.
        wasted: dials a second beside others, of each process; 0: none.
    """

    head_start: float = 0.25
    memory: float = 600.0
    wasted: float = 10.0

    def __post_init__(self) -> None:
        _between("race.head_start", self.head_start, 0.01, 60)
        _between("race.memory", self.memory, 1, 86_400)
        _between("race.wasted", self.wasted, 0, 1e6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that a server is told.

    Args:
        listen: addresses and ports; port 0 takes any free one.
        tor_resolve: serve Tor's RESOLVE and RESOLVE_PTR.
        time: see `TimeLimits`.
        cap: see `Caps`.
        bind: see `BindSettings`.
        udp: see `UdpSettings`.
        tunnel: see `TunnelSettings`.
        log: see `LogSettings`.
        race: see `RaceSettings`.
        trusted: clients there are never closed out as a whole for failed logins of some.
    """

    listen: tuple[Endpoint, ...] = DEFAULT_LISTEN
    tor_resolve: bool = False
    time: TimeLimits = field(default_factory=TimeLimits)
    cap: Caps = field(default_factory=Caps)
    bind: BindSettings = field(default_factory=BindSettings)
    udp: UdpSettings = field(default_factory=UdpSettings)
    tunnel: TunnelSettings = field(default_factory=TunnelSettings)
    log: LogSettings = field(default_factory=LogSettings)
    race: RaceSettings = field(default_factory=RaceSettings)
    trusted: NetworkSet = field(default_factory=NetworkSet)

    def __post_init__(self) -> None:
        if not self.listen:
            raise ConfigError("listen is empty; name at least one HOST:PORT")


def _between(key: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{key} is {value:g}; accepted are {low:g} to {high:g}")


def _check_ports(key: str, ports: tuple[int, int] | None) -> None:
    if ports is not None and not 1 <= ports[0] <= ports[1] <= 0xFFFF:
        raise ConfigError(f"{key} is {ports[0]}-{ports[1]}; accepted is FIRST-LAST within 1 to 65535")
