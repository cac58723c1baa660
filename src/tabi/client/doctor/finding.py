"""What an examination has found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from tabi.errors import PeerClosedError, TabiError

__all__ = ["Finding", "Result", "Verdict", "odd", "ok", "told", "unknown", "wrong"]


class Verdict(Enum):
    """How it stands with what was examined."""

    OK = "ok"
    WRONG = "wrong"  # against its document, or bytes are lost, or it lies
    ODD = "odd"  # allowed, yet clients stumble over it
    NOT_OFFERED = "not offered"
    UNKNOWN = "could not tell"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class Result:
    """The verdict of an examination.

    Args:
        verdict: as it says.
        detail: what was seen, in a few words.
        numbers: what was measured, by name; milliseconds unless the name says otherwise.
    """

    verdict: Verdict
    detail: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A result, with the examination that it comes from.

    Args:
        group: of examinations, as the report has them.
        name: of the examination, for programs; it stays the same between versions.
        title: what was examined, for people.
        result: what came of it.
        why: why it matters, and what it may break.
        evidence: what was sent and received last, a line for each piece.
    """

    group: str
    name: str
    title: str
    result: Result
    why: str
    evidence: tuple[str, ...] = ()

    @property
    def is_fault(self) -> bool:
        """Whether the proxy is wrong here."""
        return self.result.verdict is Verdict.WRONG

    def as_dict(self) -> dict[str, object]:
        """Give it for JSON."""
        return {
            "group": self.group,
            "name": self.name,
            "title": self.title,
            "verdict": self.result.verdict.value,
            "detail": self.result.detail,
            "why": self.why,
            "numbers": dict(self.result.numbers),
            "evidence": list(self.evidence),
        }


def ok(detail: str = "") -> Result:
    """Say that it is as it should be."""
    return Result(Verdict.OK, detail)


def wrong(detail: str) -> Result:
    """Say that it is a fault."""
    return Result(Verdict.WRONG, detail)


def odd(detail: str) -> Result:
    """Say that it is allowed, and a nuisance."""
    return Result(Verdict.ODD, detail)


def told(error: TabiError) -> str:
    """Say in words what an error tells of the proxy."""
    if isinstance(error, PeerClosedError):
        return "closes before its answer is whole"
    return str(error).replace("proxy answered", "answers", 1)


def unknown(detail: str) -> Result:
    """Say that it did not come out."""
    return Result(Verdict.UNKNOWN, detail)
