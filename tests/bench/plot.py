"""A plot of an axis as SVG: for each point the proxies' bars below each other, each point on its own scale.

Written by hand, so that a benchmark needs no library; light and dark by the reader's own setting.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from bench.axes import Axis, Figure
from bench.report import number
from bench.results import PointResult, Results

__all__ = ["plot"]

_WIDTH, _MARGIN, _GAP = 880, 20, 28
_HEAD, _GROUP_HEAD, _BAR, _STEP, _GROUP_GAP = 62, 24, 13, 18, 20
_LABELS, _VALUES = 92, 74  # room for the names left and the figures right of the bars

_STYLE = """
  text { font: 12px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #24292f }
  .paper { fill: #ffffff; stroke: #d0d7de }
  .title { font-size: 16px; font-weight: 600 }
  .about, .value, .name { fill: #57606a }
  .group { font-weight: 600 }
  .mine { fill: #24292f; font-weight: 600 }
  .ours { fill: #0969da }
  .ours.pure { fill: #79b8ff }
  .peer { fill: #afb8c1 }
  .limit { fill: none; stroke: #afb8c1; stroke-dasharray: 3 2 }
  .line { stroke: #d0d7de }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .paper { fill: #0d1117; stroke: #30363d }
    .about, .value, .name { fill: #9198a1 }
    .mine { fill: #e6edf3 }
    .ours { fill: #388bfd }
    .ours.pure { fill: #1f4f8f }
    .peer { fill: #545d68 }
    .limit { stroke: #6e7681 }
    .line { stroke: #30363d }
  }
"""


def plot(results: Results, axis: Axis) -> str:
    """Draw an axis: the figure that counts at each point that has results, and what else of it is to be drawn."""
    groups = list(_groups(results, axis))
    columns = 1 if len(groups) == 1 else 2
    width = (_WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) / columns
    bottoms = [float(_HEAD)] * columns
    drawn: list[str] = []
    for group in groups:
        column = bottoms.index(min(bottoms))
        drawn += group.draw(_MARGIN + column * (width + _GAP), bottoms[column], width)
        bottoms[column] += _GROUP_HEAD + len(group.bars) * _STEP + _GROUP_GAP
    height = max(bottoms) + 4
    words = f"{axis.first.title}; shorter is better. Blue: tabi. Dashed: a limit, no SOCKS proxy."
    if any(results.faults.values()):
        words += " *: loses bytes."
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" '
        f'height="{height:g}" role="img" aria-label="{escape(axis.title)}: {escape(words)}">',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1:g}" rx="8"/>',
        _text(_MARGIN, 30, axis.title, "title"),
        _text(_MARGIN, 48, words, "about"),
        *drawn,
        "</svg>",
        "",
    ])  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Bar:
    """One proxy's."""

    name: str
    kind: str
    value: float


@dataclass(frozen=True, slots=True)
class _Group:
    """The bars of one figure at one point."""

    title: str
    figure: Figure
    bars: Sequence[_Bar]

    def draw(self, left: float, top: float, width: float) -> Iterator[str]:
        yield _text(left, top + 13, self.title, "group")
        greatest = max(bar.value for bar in self.bars) or 1.0
        start, room = left + _LABELS, width - _LABELS - _VALUES
        for row, bar in enumerate(self.bars):
            y = top + _GROUP_HEAD + row * _STEP
            length = max(bar.value / greatest * room, 1.0)
            is_ours = bar.kind.startswith("ours")
            yield _text(start - 8, y + 11, bar.name, "mine" if is_ours else "name", "end")
            yield f'<rect class="{bar.kind}" x="{start:.1f}" y="{y:g}" width="{length:.1f}" height="{_BAR}" rx="2"/>'
            shown = number(bar.value, self.figure.digits)
            yield _text(start + length + 6, y + 11, shown, "mine" if is_ours else "value")
        upper, lower = top + _GROUP_HEAD - 3, top + _GROUP_HEAD + len(self.bars) * _STEP - 2
        yield f'<line class="line" x1="{start:.1f}" y1="{upper:g}" x2="{start:.1f}" y2="{lower:g}"/>'


def _groups(results: Results, axis: Axis) -> Iterator[_Group]:
    for figure in (None, *axis.drawn):
        for point in axis.points:
            result = results.of(axis, point)
            shown = figure or axis.first_of(point)
            if result and (bars := _bars(results, result, shown)):
                unit = "" if shown.key == axis.first.key else f": {shown.title}"
                yield _Group(point.label + unit, shown, bars)


def _bars(results: Results, result: PointResult, figure: Figure) -> list[_Bar]:
    found = ((name, result.median(name, figure)) for name in results.kinds)
    return [
        _Bar(
            name + ("*" if results.faults.get(name) else ""),
            results.kinds[name] + (" pure" if "-pure" in name else ""),
            max(value, 0.0),
        )
        for name, value in found
        if value is not None
    ]


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'
