"""Results: what is written as JSON and read back, and the arithmetic of tables: medians, spreads, ratios."""

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.axes import AXES, Axis, Figure, Point
from bench.peers import Peer
from bench.runs import Outcome

__all__ = ["PointResult", "Results", "spread"]


@dataclass(slots=True)
class PointResult:
    """All outcomes at one point, with what is needed to have them again.

    Attributes:
        command: gives the same figures.
        provenance: machine, place, versions, times.
        outcomes: by the proxy's name, in the order of the tables.
    """

    command: str
    provenance: Mapping[str, Any]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def median(self, name: str, figure: Figure) -> float | None:
        """Give the median of a proxy's runs, None where it has none."""
        values = self.values(name, figure)
        return statistics.median(values) if values else None

    def values(self, name: str, figure: Figure) -> list[float]:
        """Give a figure of each good run of a proxy."""
        runs = self.outcomes[name].runs if name in self.outcomes else []
        return [run[figure.key] for run in runs if run.get(figure.key) is not None]


_SHOWN = {
    *(figure.key for axis in AXES for figure in (axis.first, *axis.others)),
    *(point.first.key for axis in AXES for point in axis.points if point.first),
    "failed",
    "unfinished",
}


def _brief_run(run: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the figures that are shown, to six digits."""
    return {key: float(f"{value:.6g}") for key, value in run.items() if key in _SHOWN and value is not None}


def spread(values: Iterable[float]) -> float:
    """Give half the way from the least to the greatest, as a share of the median."""
    values = list(values)
    middle = statistics.median(values)
    return (max(values) - min(values)) / 2 / abs(middle) if middle else 0.0


@dataclass(slots=True)
class Results:
    """Of one call, or of several that were put together.

    Attributes:
        points: by "axis/point".
        kinds: of each proxy: ours, peer, limit.
        faults: what a proxy does wrong, by its name.
        notes: for the legend, by the proxy's name.
        missing: what would bring a proxy here, by its name.
        decisions: rows of `bench.decisions`; none: not measured.
        decided_on: the machine that they were measured on.
    """

    points: dict[str, PointResult] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    decided_on: Mapping[str, Any] = field(default_factory=dict)

    def know(self, peers: Iterable[Peer]) -> None:
        """Take down what proxies there are."""
        for peer in peers:
            self.kinds[peer.name] = peer.kind
            self.notes[peer.name] = peer.note
            if peer.program is None and peer.name != "direct":
                self.missing[peer.name] = peer.install

    def of(self, axis: Axis, point: Point) -> PointResult | None:
        """Give what there is about a point."""
        return self.points.get(f"{axis.name}/{point.name}")

    def is_correct_peer(self, name: str) -> bool:
        """Say whether ratios may be made to it."""
        return self.kinds[name] == "peer" and not self.faults.get(name)

    def best(self, result: PointResult, figure: Figure, *, only_correct: bool = True) -> tuple[str, float] | None:
        """Find the best peer at a point, and its figure."""
        found = [
            (name, value)
            for name in result.outcomes
            if self.kinds[name] == "peer" and (self.is_correct_peer(name) or not only_correct)
            if (value := result.median(name, figure)) is not None
        ]
        choose = min if figure.is_less_better else max
        return choose(found, key=lambda pair: pair[1]) if found else None

    def update(self, other: Self) -> None:
        """Take over what another call found; what it did not look at stays."""
        for part in ("points", "kinds", "faults", "notes"):
            getattr(self, part).update(getattr(other, part))
        if other.decisions:
            self.decisions, self.decided_on = other.decisions, other.decided_on
        self.missing = {**self.missing, **other.missing}
        for name in other.kinds:
            if name not in other.missing:
                self.missing.pop(name, None)

    def brief(self) -> "Results":
        """Give what tables and plots show, for others to read: nothing that tells of this machine's files."""
        short = Results(kinds=self.kinds, faults=self.faults, notes=self.notes)
        short.decisions, short.decided_on = self.decisions, self.decided_on
        for name, point in self.points.items():
            outcomes = {
                peer: Outcome(runs=[_brief_run(run) for run in outcome.runs], errors=["failed"] * len(outcome.errors))
                for peer, outcome in point.outcomes.items()
            }
            short.points[name] = PointResult(point.command, point.provenance, outcomes)
        return short

    def write(self, file: Path) -> None:
        """Write JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what `write` wrote."""
        data = json.loads(file.read_text())
        points = data.pop("points")
        made = cls(**data)
        for name, one in points.items():
            outcomes = {peer: Outcome(**outcome) for peer, outcome in one.pop("outcomes").items()}
            made.points[name] = PointResult(**one, outcomes=outcomes)
        return made
