"""The page about performance: what stands between its two marks is written here, from results; so are the plots."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.axes import AXES, Axis
from bench.plot import plot
from bench.report import markdown_axis, markdown_decisions, markdown_goals
from bench.results import Results

__all__ = ["EXPLANATION", "RESULTS", "measured_part", "write"]

EXPLANATION = Path(__file__).parents[2] / "docs" / "explanation"
RESULTS = EXPLANATION / "performance.json"
_PAGE = EXPLANATION / "performance.md"
_ABOUT_DECISIONS = (
    "What the rules cost by themselves, without proxy or load, in µs of processor time for one decision. Each list is "
    "read from a file as the server reads it, and asked before a name is looked up (phase name) and after (phase "
    "address); half of the requests are meant for one of its rules, half for none. The server remembers verdicts "
    "besides, which is not counted. `load s` is the time to read and check the list, `index s` the part of it that "
    "makes the tables that decide, and `index mb` what those take (MiB). Patterns that hardly have a character besides "
    "wildcards cost most: they share no more than their beginnings, and each request matches hundreds of them."
)
_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write(fresh: Results) -> Results:
    """Put fresh results into the page, beside those of axes that were not looked at again, and draw the plots anew."""
    all_of_them = Results.read(RESULTS) if RESULTS.exists() else Results()
    all_of_them.update(fresh.brief())
    all_of_them.write(RESULTS)
    for axis in _axes(all_of_them):
        (EXPLANATION / _plot_name(axis)).write_text(plot(all_of_them, axis), encoding="utf-8")
    before, _, rest = _PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    _PAGE.write_text(f"{before}{_BEGIN}\n{measured_part(all_of_them)}\n{_END}{after}", encoding="utf-8")
    return all_of_them


def measured_part(results: Results) -> str:
    """Write what stands between the marks."""
    parts = ["## Goals", markdown_goals(results)]
    for axis in _axes(results):
        parts += _axis_part(results, axis)
    if results.decisions:
        parts += ["## Decisions", _ABOUT_DECISIONS, markdown_decisions(results)]
        parts.append(f"Measured {_machine(results.decided_on)}.\n\n```sh\nmake bench ARGS='--axis decisions'\n```")
    return "\n\n".join(parts)


def _axes(results: Results) -> Iterator[Axis]:
    for axis in AXES:
        if any(results.of(axis, point) for point in axis.points):
            yield axis


def _plot_name(axis: Axis) -> str:
    return f"performance-{axis.name}.svg"


def _axis_part(results: Results, axis: Axis) -> Iterator[str]:
    found = [result for point in axis.points if (result := results.of(axis, point))]
    yield f"## {axis.title}"
    yield f"{axis.about[0].upper()}{axis.about[1:]}."
    yield f"![{axis.title}: {axis.first.title}]({_plot_name(axis)})"
    yield markdown_axis(results, axis)
    if faults := [f"\\* {name} {fault}." for name, fault in results.faults.items() if fault]:
        yield "<br>".join(faults)
    for provenance, command in _once((one.provenance, _of_axis(one.command, axis)) for one in found):
        yield f"{_sentence(provenance)}\n\n```sh\n{command}\n```"


def _of_axis(command: str, axis: Axis) -> str:
    """Make the command for one point into that for the whole axis."""
    for point in axis.points:
        command = command.replace(f"--axis {axis.name}/{point.name} ", f"--axis {axis.name} ")
    return command


def _once(pairs: Iterator[tuple[Mapping[str, Any], str]]) -> list[tuple[Mapping[str, Any], str]]:
    """Leave out repetitions: points of one call have their date and load apart only."""
    kept: dict[str, tuple[Mapping[str, Any], str]] = {}
    for provenance, command in pairs:
        same = {key: value for key, value in provenance.items() if key not in {"date", "load"}}
        kept.setdefault(f"{same}{command}", (provenance, command))
    return list(kept.values())


def _sentence(about: Mapping[str, Any]) -> str:
    versions = "; ".join(f"{name}: {version}" for name, version in about["versions"].items())
    return (
        f"Measured {about['date']}: {about['repeat']} runs of {about['seconds']:g} s each, in turn; {about['place']}. "
        f"{_hardware(about)}; Linux {about['kernel']}, {about['congestion_control']}, Python {about['python']}. "
        f"{versions}."
    )


def _machine(about: Mapping[str, Any]) -> str:
    return f"{about['date']}: {_hardware(about)}; Linux {about['kernel']}, Python {about['python']}"


def _hardware(about: Mapping[str, Any]) -> str:
    return f"{about['processor']}, {about['cores']} cores, {about['memory_gib']} GiB, load {about['load']}"
