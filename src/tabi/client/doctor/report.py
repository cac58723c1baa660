"""The report: for people as it comes, line by line, or for programs."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from tabi.addr import printable
from tabi.client.doctor.finding import Finding, Verdict
from tabi.client.doctor.rounds import Rounds

__all__ = ["in_json", "in_text"]

_FAULT: Final = "WRONG"  # in capitals, so that it is seen without colours
_COLOURS: Final = {
    Verdict.OK: "32", Verdict.WRONG: "1;31", Verdict.ODD: "33", Verdict.NOT_OFFERED: "36",
    Verdict.UNKNOWN: "2", Verdict.NOT_TRIED: "2",
}  # fmt: skip
_BROAD: Final = max(len(verdict.value) for verdict in Verdict)
_TITLE: Final = 34
_INDENT: Final = " " * (2 + _BROAD + 2)


def in_text(rounds: Rounds, *, colours: bool, evidence: bool) -> Iterator[str]:
    """Write it for people, as the findings come.

    Args:
        rounds: gone through on the way.
        colours: whether it goes to a terminal that shows them.
        evidence: whether what was sent and received is shown with each fault.

    Yields:
        its lines.
    """
    where = "on this host" if rounds.patient.place.near else "on another host"
    yield f"{rounds.patient.hop}, {where}"
    group, counts = "", Counter[Verdict]()
    for alike in _folded(rounds):
        first = alike[0]
        counts[first.result.verdict] += len(alike)
        if first.group != group:
            group = first.group
            yield ""
            yield group
        yield from _lines(first, len(alike) - 1, colours=colours, evidence=evidence)
    yield ""
    yield _summary(counts)


def in_json(rounds: Rounds) -> str:
    """Write it for programs: one object, when all is found."""
    found = list(rounds)
    counts = Counter(finding.result.verdict for finding in found)
    whole = {
        "proxy": str(rounds.patient.hop),
        "near": rounds.patient.place.near,
        "faults": rounds.faults,
        "verdicts": {verdict.value: counts[verdict] for verdict in Verdict},
        "findings": [finding.as_dict() for finding in found],
    }
    return json.dumps(whole, indent=2)


def _folded(findings: Iterable[Finding]) -> Iterator[list[Finding]]:
    """Put those together that were not tried for one reason; all others come alone, and at once."""
    alike: list[Finding] = []
    for finding in findings:
        if alike and (alike[0].group, alike[0].result) != (finding.group, finding.result):
            yield alike
            alike = []
        alike.append(finding)
        if finding.result.verdict is not Verdict.NOT_TRIED:
            yield alike
            alike = []
    if alike:
        yield alike


def _lines(finding: Finding, more: int, *, colours: bool, evidence: bool) -> Iterator[str]:
    verdict = finding.result.verdict
    word = f"{(_FAULT if finding.is_fault else verdict.value):<{_BROAD}}"
    if colours:
        word = f"\x1b[{_COLOURS[verdict]}m{word}\x1b[0m"
    title = f"{finding.title} + {more} more" if more else finding.title
    yield f"  {word}  {title:<{_TITLE}}  {printable(finding.result.detail)}".rstrip()
    if verdict in (Verdict.WRONG, Verdict.ODD):
        yield f"{_INDENT}why it matters: {finding.why}"
        if evidence:
            yield from (f"{_INDENT}{line}" for line in finding.evidence)


def _summary(counts: Counter[Verdict]) -> str:
    faults = counts[Verdict.WRONG]
    said = {0: "no fault", 1: "1 fault"}.get(faults, f"{faults} faults")
    others = [verdict for verdict in Verdict if verdict is not Verdict.WRONG and counts[verdict]]
    return f"{said}; {', '.join(f'{counts[verdict]} {verdict.value}' for verdict in others)}"
