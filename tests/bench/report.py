"""Tables for people: on a terminal, and as Markdown for the documentation."""

from collections.abc import Iterable, Iterator, Sequence

from bench.axes import AXES, Axis, Figure, Point
from bench.goals import judge
from bench.results import PointResult, Results, spread

__all__ = ["markdown_axis", "markdown_decisions", "markdown_goals", "number", "table"]

_ABSENT = "–"


def number(value: float | None, digits: int) -> str:
    """Write a figure as tables show it."""
    return _ABSENT if value is None else f"{value:,.{digits}f}"


def _short(value: float) -> str:
    """Write a figure to three digits, and whole from 100 on."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(results: Results) -> str:
    """Make the one table for a terminal: a block for each point, the proxies below each other."""
    blocks = [
        _block(results, axis, point, result)
        for axis in AXES
        for point in axis.points
        if (result := results.of(axis, point))
    ]
    goals = [
        f"  {'met  ' if one.is_met else 'NOT MET'}  {one.text}: {_short(one.value)} of {_short(one.bound)}"
        for one in judge(results)
    ]
    if goals:
        blocks.append("goals\n" + "\n".join(goals))
    if results.decisions:
        head = list(results.decisions[0])
        rows = [head, *([_plain(row[key]) for key in head] for row in results.decisions)]
        blocks.append(f"Decisions\n{_aligned(rows)}")
    return "\n\n".join([*blocks, *_legend(results)])


def _block(results: Results, axis: Axis, point: Point, result: PointResult) -> str:
    first = axis.first_of(point)
    others = [figure for figure in axis.others if figure.key != first.key and _is_known(result, figure)]
    head = ["", first.title, "spread", "ratio", *(figure.title for figure in others), "runs"]
    rows = [head, *(_row(results, result, name, first, others) for name in result.outcomes)]
    return f"{axis.title}, {point.label}\n  {axis.about}\n{_aligned(rows)}\n  again: {result.command}"


def _row(results: Results, result: PointResult, name: str, first: Figure, others: Sequence[Figure]) -> list[str]:
    outcome = result.outcomes[name]
    label = name + ("*" if results.faults.get(name) else "")
    values = result.values(name, first)
    runs = f"{len(outcome.runs)}/{len(outcome.runs) + len(outcome.errors)}"
    if failed := sum(run.get("failed", 0) + run.get("unfinished", 0) for run in outcome.runs):
        runs += f", {failed:.0f} failed connections"
    if outcome.errors:
        runs += f", {outcome.errors[0].splitlines()[0][:100]}"
    cells = [number(result.median(name, figure), figure.digits) for figure in others]
    about = f"±{100 * spread(values):.0f} %" if len(values) > 1 else _ABSENT
    return [
        label,
        number(result.median(name, first), first.digits),
        about,
        _ratio(results, result, name, first),
        *cells,
        runs,
    ]


def _ratio(results: Results, result: PointResult, name: str, figure: Figure) -> str:
    """Say how many times the best correct peer's figure it is; nothing for what is no SOCKS proxy."""
    best, value = results.best(result, figure), result.median(name, figure)
    if results.kinds[name] == "limit" or value is None or best is None or best[1] <= 0:
        return ""
    return f"{value / best[1]:.2f}×"


def _is_known(result: PointResult, figure: Figure) -> bool:
    return any(result.values(name, figure) for name in result.outcomes)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([f"  {row[0]:<{widths[0]}}", *cells, row[-1]]).rstrip())
    return "\n".join(lines)


def _legend(results: Results) -> Iterator[str]:
    lines = [
        "ratio: to the best correct peer; below 1 is better",
        "spread: half the way from the least to the greatest run",
    ]
    lines += [f"{name}*: {fault}, so no ratio is made to it" for name, fault in results.faults.items() if fault]
    lines += [f"{name} is not here: {install}" for name, install in results.missing.items()]
    yield "\n".join(lines)


# --- Markdown -----------------------------------------------------------------------------------------------------


def markdown_axis(results: Results, axis: Axis) -> str:
    """Make an axis' tables: the figure that counts with its spread and ratio, then the others, at each point."""
    known = [(point, result) for point in axis.points if (result := results.of(axis, point))]
    names = [name for name in results.kinds if any(name in result.outcomes for _, result in known)]
    head = ["", *(f"{point.label}<br>{axis.first_of(point).title}" for point, _ in known)]
    rows = [
        [_name(results, name), *(_cell(results, axis, point, result, name) for point, result in known)]
        for name in names
    ]
    parts = [_markdown(head, rows)]
    for figure in axis.others:
        shown = [(point, result) for point, result in known if _is_known(result, figure)]
        if shown and any(axis.first_of(point).key != figure.key for point, _ in shown):
            rows = [
                [_name(results, name), *(number(result.median(name, figure), figure.digits) for _, result in shown)]
                for name in names
                if any(result.values(name, figure) for _, result in shown)
            ]
            parts.append(_markdown([figure.title, *(point.label for point, _ in shown)], rows))
    return "\n\n".join(parts)


def markdown_decisions(results: Results) -> str:
    """Make the table of what decisions cost."""
    head = list(results.decisions[0])
    rows = [[_plain(row[key]) for key in head] for row in results.decisions]
    return _markdown([key.replace("_", " ") for key in head], rows)


def _plain(value: object) -> str:
    return _short(value) if isinstance(value, float) else str(value)


def markdown_goals(results: Results) -> str:
    """Make the table of goals."""
    rows = [
        [one.text, _short(one.value), _short(one.bound), "yes" if one.is_met else "**no**"] for one in judge(results)
    ]
    return _markdown(["goal", "measured", "bound", "met"], rows)


def _name(results: Results, name: str) -> str:
    shown = f"**{name}**" if results.kinds[name] == "ours" else name
    return shown + (" \\*" if results.faults.get(name) else "")


def _cell(results: Results, axis: Axis, point: Point, result: PointResult, name: str) -> str:
    first = axis.first_of(point)
    values = result.values(name, first)
    if not values:
        outcome = result.outcomes.get(name)
        return "fails" if outcome and outcome.errors else _ABSENT
    text = number(result.median(name, first), first.digits)
    if len(values) > 1:
        text += f" ±{100 * spread(values):.0f} %"
    ratio = _ratio(results, result, name, first)
    return f"{text} · {ratio}" if ratio else text


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *["--:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
