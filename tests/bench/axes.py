"""What is measured: axes, the points on each, the figures that a point gives; first the cost of one unit of work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.peers import NAME, PASSWORD, RELOAD, SIX, SOCKS, UDP

__all__ = ["AXES", "DECISIONS", "Axis", "Figure", "Point", "select"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a run.

    Attributes:
        key: in the generator's object.
        title: with its unit.
        digits: after the point.
        is_less_better: otherwise more is.
    """

    key: str
    title: str
    digits: int = 1
    is_less_better: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One thing to measure.

    Attributes:
        name: within its axis.
        label: for tables.
        mode: of the generator.
        options: for the generator.
        needs: what a proxy must be able to do.
        host: where proxies listen.
        congestion: control that all sockets begin with; None: the machine's own.
        rules: how many rules tabi has besides the usual ones.
        is_disturbed: rules are reloaded and sessions begun and logged all the while.
        everywhere: the proxy may use all cores.
        first: the figure that counts, where it is not that of the axis.
        seconds_at_least: for what needs more time than was asked for.
    """

    name: str
    label: str
    mode: str
    options: Mapping[str, object] = field(default_factory=dict)
    needs: frozenset[str] = frozenset()
    host: str = "127.0.0.1"
    congestion: str | None = None
    rules: int = 0
    is_disturbed: bool = False
    everywhere: bool = False
    first: Figure | None = None
    seconds_at_least: float = 0.0

    @property
    def login(self) -> bool:
        """Whether clients log in."""
        return PASSWORD in self.needs


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """Points that belong together.

    Attributes:
        name: on the command line.
        title: for tables.
        about: one sentence for readers.
        first: the figure that counts, by which the ratios are made.
        others: told beside it.
        points: of it.
        drawn: those of the others that are drawn as well.
    """

    name: str
    title: str
    about: str
    first: Figure
    others: Sequence[Figure]
    points: Sequence[Point]
    drawn: Sequence[Figure] = ()

    def first_of(self, point: Point) -> Figure:
        """Give the figure that counts at a point."""
        return point.first or self.first


P50, P99, P999 = Figure("p50_us", "p50 µs"), Figure("p99_us", "p99 µs"), Figure("p999_us", "p99.9 µs")
DECISIONS = "decisions"  # what rules cost by themselves: `bench.decisions` measures it, without proxy or load
ALL_ECHO_PORTS = 16  # of the target; 32 addresses times 16 ports times 28,232 of the client's own


def _connections(point: str, label: str, count: int, *needs: str, **more: object) -> Point:
    host = "::1" if SIX in needs else "127.0.0.1"
    options = {"count": count, **more}
    return Point(name=point, label=label, mode="connections", options=options, needs=frozenset(needs), host=host)


def _bulk(direction: str, count: int, congestion: str | None) -> Point:
    suffix = f"-{congestion}" if congestion else ""
    streams = "1 stream" if count == 1 else f"{count} streams"
    return Point(
        name=f"{direction}-{count}{suffix}",
        label=f"{direction}, {streams}" + (f", {congestion}" if congestion else ""),
        mode="bulk",
        options={"direction": direction, "count": count},
        congestion=congestion,
    )


def _udp(size: int, count: int) -> Point:
    associations = "1 association" if count == 1 else f"{count} associations"
    options = {"size": size, "count": count, "window": 64 if count == 1 else 16}
    label = f"{size:,} bytes, {associations}"
    return Point(name=f"{size}-{count}", label=label, mode="datagrams", options=options, needs=frozenset({UDP}))


def _reload(name: str, label: str, mode: str, *, is_disturbed: bool, everywhere: bool = False) -> Point:
    options: dict[str, object] = {"count": 1} if mode == "pingpong" else {"count": 20, "rate": 1000}
    return Point(
        name=name,
        label=label,
        mode=mode,
        options=options,
        needs=frozenset({SOCKS, RELOAD}),
        rules=10_000,
        is_disturbed=is_disturbed,
        everywhere=everywhere,
        seconds_at_least=3.0,
    )


AXES = (
    Axis(
        name="connections",
        title="Connections",
        about="handshake, one byte there and back, close",
        first=Figure("cpu_us_per_connection", "CPU µs per connection"),
        others=(Figure("per_s", "a second", 0, is_less_better=False), P50, P99, P999),
        points=(
            _connections("1", "1 at once", 1),
            _connections("32", "32 at once", 32),
            _connections("256", "256 at once", 256),
            _connections("password-32", "32, with password", 32, SOCKS, PASSWORD),
            _connections("name-32", "32, by name", 32, SOCKS, NAME, name="localhost"),
            _connections("ipv6-32", "32, over IPv6", 32, SOCKS, SIX, family=6),
            _connections("miss-32", "32, each another verdict", 32, SOCKS, sources=251),
            _connections("stranger-32", "32, each from another address", 32, SOCKS, sources=1_000_000),
        ),
    ),
    Axis(
        name="pingpong",
        title="Ping-pong",
        about="64 bytes to and fro through open tunnels, the next when the answer is there",
        first=Figure("cpu_us_per_round_trip", "CPU µs per round trip", 2),
        others=(P50, P99, P999, Figure("per_s", "a second", 0, is_less_better=False)),
        points=(
            Point(name="1", label="1 tunnel", mode="pingpong", options={"count": 1}),
            Point(name="64", label="64 tunnels", mode="pingpong", options={"count": 64}),
        ),
        drawn=(P50,),
    ),
    Axis(
        name="schedule",
        title="Messages on a schedule",
        about="64 bytes through 20 tunnels in turn, due whatever has come back; latency from when each was due",
        first=Figure("cpu_us_per_message", "CPU µs per message"),
        others=(P50, P99, P999, Figure("lag_p99_us", "of it the generator's own, p99 µs")),
        points=tuple(
            Point(name=str(rate), label=f"{rate:,} a second", mode="messages", options={"count": 20, "rate": rate})
            for rate in (500, 2_000, 10_000)
        ),
        drawn=(P99,),
    ),
    Axis(
        name="reload",
        title="Ping-pong while 10,000 rules are reloaded and 1,000 sessions a second are logged",
        about="“quiet”: the same rules and nothing else to do; “all cores”: the server may use the generator's as well",
        first=Figure("p99_us", "p99 µs"),
        others=(
            P50, P999, Figure("cpu_us_per_round_trip", "CPU µs per round trip", 2),
            Figure("reloads", "reloads", 0, is_less_better=False),
            Figure("sessions_per_s", "sessions a second", 0, is_less_better=False),
        ),
        points=(
            _reload("quiet", "one core, quiet", "pingpong", is_disturbed=False),
            _reload("busy", "one core, busy", "pingpong", is_disturbed=True),
            _reload("free-quiet", "all cores, quiet", "pingpong", is_disturbed=False, everywhere=True),
            _reload("free-busy", "all cores, busy", "pingpong", is_disturbed=True, everywhere=True),
            _reload("schedule-quiet", "all cores, schedule, quiet", "messages", is_disturbed=False, everywhere=True),
            _reload("schedule-busy", "all cores, schedule, busy", "messages", is_disturbed=True, everywhere=True),
        ),
    ),
    Axis(
        name="bulk",
        title="Bulk",
        about="as many bytes as go; counted where they arrive, thrown away by the receiver's kernel",
        first=Figure("cpu_s_per_gb", "CPU s per GB", 3),
        others=(Figure("gb_per_s", "GB/s", 2, is_less_better=False),),
        points=tuple(
            _bulk(direction, count, congestion)
            for congestion in (None, "reno")
            for direction in ("up", "down")
            for count in (1, 8, 64)
        ),
    ),
    Axis(
        name="memory",
        title="Idle tunnels",
        about="memory of the whole tree of processes (PSS) while tunnels are held that carried one byte each",
        first=Figure("pss_b_per_tunnel", "bytes per tunnel", 0),
        others=(
            Figure("pss_kib", "PSS KiB", 0), Figure("rss_kib", "RSS KiB", 0),
            Figure("kernel_b_per_tunnel", "kernel bytes per tunnel, whole machine", 0),
            Figure("descriptors_per_tunnel", "descriptors per tunnel", 2), Figure("threads", "threads", 0),
        ),
        points=(
            Point(name="0", label="none", mode="idle", options={"count": 0}, first=Figure("pss_kib", "PSS KiB", 0)),
            Point(name="1000", label="1,000", mode="idle", options={"count": 1000}),
            Point(name="9000", label="9,000", mode="idle", options={"count": 9000}),
        ),
    ),
    Axis(
        name="udp",
        title="UDP ASSOCIATE",
        about="echoes, each of two relayed datagrams; 64 under way with 1 association, 16 in each of 16",
        first=Figure("cpu_us_per_echo", "CPU µs per echo", 2),
        others=(Figure("per_s", "a second", 0, is_less_better=False), Figure("lost_percent", "lost %", 2)),
        points=tuple(_udp(size, count) for size in (64, 1200) for count in (1, 16)),
    ),
)  # fmt: skip


def select(wanted: str | None) -> list[tuple[Axis, list[Point]]]:
    """Choose by "connections,bulk/up-8": axes, or single points of them; None chooses all.

    Raises:
        ValueError: there is no such axis or point; the text names those that there are.
    """
    if not wanted:
        return [(axis, list(axis.points)) for axis in AXES]
    chosen = [_parse(word.strip()) for word in wanted.split(",") if word.strip() != DECISIONS]
    found = []
    for axis in AXES:
        names = {point for name, point in chosen if name == axis.name}
        points = [point for point in axis.points if "" in names or point.name in names]
        if points:
            found.append((axis, points))
    return found


def _parse(word: str) -> tuple[str, str]:
    name, _, point = word.partition("/")
    axis = next((one for one in AXES if one.name == name), None)
    if axis is None:
        raise ValueError(f"no axis {name!r}; there are {', '.join([one.name for one in AXES] + [DECISIONS])}")
    if point and point not in {one.name for one in axis.points}:
        raise ValueError(f"no point {point!r} of {name}; there are {', '.join(one.name for one in axis.points)}")
    return name, point
