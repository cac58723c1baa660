"""Where tabi wants to be, and whether a run shows it there."""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.axes import AXES, Axis, Figure, Point
from bench.results import Results

__all__ = ["GOALS", "Goal", "Judgement", "judge"]

BEST = "the best correct peer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One figure of ours held against another.

    Attributes:
        ours: the proxy it is about.
        where: axes or points, as `--axis` takes them.
        key: of the figure.
        factor: times the other figure.
        other: a proxy, BEST, a point of the same axis ("point NAME", our own figure there), or a bare number.
    """

    ours: str
    where: tuple[str, ...]
    key: str
    factor: float
    other: str | float


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What became of a goal at one point.

    Attributes:
        text: the goal.
        value: ours.
        bound: what it had to reach.
        is_met: whether it did.
    """

    text: str
    value: float
    bound: float
    is_met: bool


_BULK = tuple(f"bulk/{way}-{count}" for way in ("up", "down") for count in (1, 8, 64))
_RENO = tuple(f"{one}-reno" for one in _BULK)
_SCHEDULE = ("schedule/500", "schedule/2000", "schedule/10000")
_UDP = ("udp/64-1", "udp/64-16", "udp/1200-1", "udp/1200-16")
_CONNECTION, _TRIP, _GB = "cpu_us_per_connection", "cpu_us_per_round_trip", "cpu_s_per_gb"

GOALS = (
    Goal(ours="tabi", where=("connections/32",), key=_CONNECTION, factor=0.92, other="ss-local"),
    Goal(ours="tabi-pure", where=("connections/32",), key=_CONNECTION, factor=1.35, other="ss-local"),
    Goal(ours="tabi-pure", where=("connections/32",), key=_CONNECTION, factor=1.0, other="microsocks"),
    Goal(ours="tabi", where=("connections/password-32",), key=_CONNECTION, factor=1.0, other=BEST),
    Goal(ours="tabi", where=("connections/1",), key="p50_us", factor=0.85, other="ss-local"),
    Goal(ours="tabi", where=("pingpong/1",), key="p50_us", factor=0.55, other="ss-local"),
    Goal(ours="tabi-pure", where=("pingpong/1",), key="p50_us", factor=0.6, other="ss-local"),
    Goal(ours="tabi", where=("reload/busy",), key="p99_us", factor=2.0, other="point quiet"),
    Goal(ours="tabi", where=("reload/free-busy",), key="p99_us", factor=2.0, other="point free-quiet"),
    Goal(ours="tabi", where=_SCHEDULE, key="cpu_us_per_message", factor=1.15, other="tabi-nospin"),
    Goal(ours="tabi-pure", where=_SCHEDULE, key="cpu_us_per_message", factor=1.15, other="tabi-pure-nospin"),
    Goal(ours="tabi", where=("pingpong/64",), key=_TRIP, factor=1.0, other="ss-local"),
    Goal(ours="tabi-pure", where=("pingpong/64",), key=_TRIP, factor=1.4, other="ss-local"),
    Goal(ours="tabi", where=_BULK + _RENO, key=_GB, factor=0.85, other="hev"),
    Goal(ours="tabi-pure", where=_BULK + _RENO, key=_GB, factor=1.0, other="hev"),
    Goal(ours="tabi", where=("bulk/up-1", "bulk/down-1"), key="gb_per_s", factor=1.5, other="hev"),
    Goal(ours="tabi-pure", where=("bulk/up-1", "bulk/down-1"), key="gb_per_s", factor=1.4, other="hev"),
    Goal(ours="tabi", where=("memory/9000",), key="pss_b_per_tunnel", factor=1.0, other=300.0),
    Goal(ours="tabi-pure", where=("memory/9000",), key="pss_b_per_tunnel", factor=1.0, other=1500.0),
    Goal(ours="tabi", where=_UDP, key="cpu_us_per_echo", factor=1.05, other="hev"),
)


def judge(results: Results) -> Iterator[Judgement]:
    """Hold each goal against the results, where both figures are there."""
    for goal in GOALS:
        for place in goal.where:
            axis, point = _find(place)
            figure = next(one for one in (axis.first_of(point), *axis.others) if one.key == goal.key)
            result = results.of(axis, point)
            value = result.median(goal.ours, figure) if result else None
            other = _other(goal, results, axis, point, figure)
            if value is not None and other is not None:
                yield _judgement(goal, axis, point, figure, value, *other)


def _judgement(
    goal: Goal, axis: Axis, point: Point, figure: Figure, value: float, name: str, other: float
) -> Judgement:
    bound = goal.factor * other
    sign, is_met = ("≤", value <= bound) if figure.is_less_better else ("≥", value >= bound)
    aim = f"{goal.factor:g} × {name}" if name else f"{bound:g}"
    text = f"{goal.ours}, {axis.title.lower()}, {point.label}: {figure.title} {sign} {aim}"
    return Judgement(text=text, value=value, bound=bound, is_met=is_met)


def _other(goal: Goal, results: Results, axis: Axis, point: Point, figure: Figure) -> tuple[str, float] | None:
    """Find the name and the figure that ours is held against."""
    result = results.of(axis, point)
    if isinstance(goal.other, float):
        return "", goal.other
    if goal.other.startswith("point "):
        there = _find(f"{axis.name}/{goal.other.removeprefix('point ')}")[1]
        quiet = results.of(axis, there)
        value = quiet.median(goal.ours, figure) if quiet else None
        return (f"that of “{there.label}”", value) if value is not None else None
    if result is None:
        return None
    if goal.other == BEST:
        best = results.best(result, figure)
        return (f"{best[0]}, the best correct peer", best[1]) if best else None
    value = result.median(goal.other, figure)
    return (goal.other, value) if value is not None else None


def _find(place: str) -> tuple[Axis, Point]:
    name, _, wanted = place.partition("/")
    axis = next(one for one in AXES if one.name == name)
    return axis, next(one for one in axis.points if one.name == wanted)
