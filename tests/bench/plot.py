"""A plot of an axis as SVG: for each point the proxies' bars below each other, each point on its own scale.

Written by hand, so that a benchmark needs no library; light and dark by the reader's own setting.
"""

from collections.abc import Iterator
from xml.sax.saxutils import escape

from bench.axes import Axis, Point
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
    """Draw an axis; the points that have results."""
    groups = [
        (point, result)
        for point in axis.points
        if (result := results.of(axis, point)) and _bars(results, axis, point, result)
    ]
    columns = 1 if len(groups) == 1 else 2
    width = (_WIDTH - 2 * _MARGIN - (columns - 1) * _GAP) / columns
    bottoms = [float(_HEAD)] * columns
    drawn: list[str] = []
    for number_, (point, result) in enumerate(groups):
        column = number_ % columns
        left = _MARGIN + column * (width + _GAP)
        drawn += _group(results, axis, point, result, left, bottoms[column], width)
        bottoms[column] += _GROUP_HEAD + len(_bars(results, axis, point, result)) * _STEP + _GROUP_GAP
    height = max(bottoms) + 4
    words = f"{axis.first.title}; shorter is better. Blue: tabi; dashed: no SOCKS proxy, a limit"
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


def _bars(results: Results, axis: Axis, point: Point, result: PointResult) -> list[tuple[str, float]]:
    first = axis.first_of(point)
    found = ((name, result.median(name, first)) for name in results.kinds)
    return [(name, max(value, 0.0)) for name, value in found if value is not None]


def _group(
    results: Results, axis: Axis, point: Point, result: PointResult, left: float, top: float, width: float
) -> Iterator[str]:
    first = axis.first_of(point)
    unit = "" if first.key == axis.first.key else f" ({first.title})"
    yield _text(left, top + 13, point.label + unit, "group")
    bars = _bars(results, axis, point, result)
    greatest = max(value for _, value in bars) or 1.0
    room = width - _LABELS - _VALUES
    start = left + _LABELS
    for row, (name, value) in enumerate(bars):
        y = top + _GROUP_HEAD + row * _STEP
        is_ours = results.kinds[name] == "ours"
        kind = results.kinds[name] + (" pure" if name.endswith("-pure") else "")
        length = max(value / greatest * room, 1.0)
        shown = name + ("*" if results.faults.get(name) else "")
        yield _text(start - 8, y + 11, shown, "mine" if is_ours else "name", "end")
        yield f'<rect class="{kind}" x="{start:.1f}" y="{y}" width="{length:.1f}" height="{_BAR}" rx="2"/>'
        yield _text(start + length + 6, y + 11, number(value, first.digits), "mine" if is_ours else "value")
    bottom = top + _GROUP_HEAD + len(bars) * _STEP
    yield f'<line class="line" x1="{start:.1f}" y1="{top + _GROUP_HEAD - 3:g}" x2="{start:.1f}" y2="{bottom - 2:g}"/>'


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>'
