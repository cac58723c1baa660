"""The line of a session in the log: who, where to, why, how much, how long, and who hung up.

Values may hold anything that came from the wire; they are escaped here, so that a line stays one line. What is not
known is left out. What the sessions by one permit of the express lane have in common is made once for all: `Kin`.
"""

import json
import time
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypeAlias

from tabi.addr import token
from tabi.relay.lane import Tail
from tabi.server.outcome import Outcome
from tabi.server.record import Facts

__all__ = ["LONGEST", "Kin", "LogFormat", "format_line"]

LogFormat: TypeAlias = Literal["text", "json"]
Stages: TypeAlias = tuple[float, float, float]

# Bytes without the newline: what several processes write to one pipe at once stays apart up to PIPE_BUF (pipe(7)).
LONGEST: Final = 4095
_SHARE: Final = 240  # of a line that would be longer, for each of its texts

_USUAL: Final = "info"  # the level that lines do not name

# Time, level; number, client and what else; bytes up and down, stages, total; by, why, note. The time needs no name.
_WHOLE: Final = {
    "text": "%s%s session=%d client=%s%s up=%d down=%d%s total_ms=%.1f by=%s why=%s%s",
    "json": '{"time": "%s"%s, "session": %d, "client": "%s"%s, "up": %d, "down": %d%s, "total_ms": %.1f, '
    '"by": "%s", "why": "%s"%s}',
}
_STAGE: Final = {"text": " %s=%.1f", "json": ', "%s": %.1f'}
_STAGES: Final = ("handshake_ms", "resolve_ms", "connect_ms")


class Kin(NamedTuple):
    """What the lines of all sessions have in common that came by one permit of the express lane.

    Args:
        style: of the lines.
        level: the part that names it.
        client: the address, up to the port.
        middle: from the listener to the reply.
    """

    style: LogFormat
    level: str
    client: str
    middle: str

    @classmethod
    def of(cls, facts: Facts, style: LogFormat) -> "Kin":
        """Make it of the facts of a permit, whose client has no port."""
        return cls(style, _level(facts, style), f"{_client(facts, style)}:", _middle(facts, style))

    def line(self, tail: Tail, outcome: Outcome) -> str | None:
        """Make the line of one of the sessions; None: it may be too long, so `format_line` has to make it."""
        line = _whole(
            self.style,
            (_iso(tail.accepted + outcome.total / 1000), self.level),
            (tail.session, f"{self.client}{tail.port}", self.middle),
            (tail.handshake, tail.resolve, tail.connect),
            outcome,
        )
        return line if len(line) <= LONGEST // 4 else None  # a character has four bytes at most


def format_line(facts: Facts, outcome: Outcome, style: LogFormat) -> str:
    """Make the line of any session.

    No line is longer than `LONGEST`; where it would be, its longest values end in an ellipsis.
    """
    line = _line(facts, outcome, style)
    if len(line) > LONGEST // 4 and _size(line) > LONGEST:
        line = _line(_shortened(facts, style), outcome._replace(note=_shorten(outcome.note, style)), style)
    return line


def _line(facts: Facts, outcome: Outcome, style: LogFormat) -> str:
    return _whole(
        style,
        (_iso(facts.accepted + outcome.total / 1000), _level(facts, style)),
        (facts.session, _client(facts, style), _middle(facts, style)),
        (facts.handshake, facts.resolve, facts.connect),
        outcome,
    )


def _whole(
    style: LogFormat, head: tuple[str, str], who: tuple[int, str, str], stages: Stages, outcome: Outcome
) -> str:
    by, why, up, down, total, note = outcome
    shown = _pairs(style, [("note", note)]) if note else ""
    return _WHOLE[style] % (*head, *who, up, down, _stages(stages, style), total, by, why, shown)


def _stages(stages: Stages, style: LogFormat) -> str:
    return "".join([_STAGE[style] % stage for stage in zip(_STAGES, stages, strict=True) if stage[1] >= 0])


def _level(facts: Facts, style: LogFormat) -> str:
    return "" if facts.level == _USUAL else _pairs(style, [("level", facts.level)])


def _client(facts: Facts, style: LogFormat) -> str:
    return facts.client if style == "text" else json.dumps(facts.client)[1:-1]


def _middle(facts: Facts, style: LogFormat) -> str:
    values = (
        ("listener", facts.listener),
        ("user", _text(facts.user)),
        ("userid", _text(facts.userid)),
        ("socks", facts.socks),
        ("method", facts.method),
        ("command", facts.command),
        ("target", facts.target),
        ("to", facts.to),
        ("via", facts.via),
        ("lost", facts.lost),
        ("resolve_by", facts.resolve_by),
        ("verdict", facts.verdict),
        ("rule", facts.rule),
        ("reply", facts.reply if facts.reply >= 0 else ""),
    )
    return _pairs(style, [(key, value) for key, value in values if value != ""])


def _text(name: bytes | None) -> str:
    return name.decode("utf-8", "backslashreplace") if name else ""


# Fields that are numbers, addresses of sockets or words of ours: never more than one word, whatever the wire brings.
_OURS: Final = frozenset({"listener", "socks", "method", "resolve_by", "verdict", "reply", "level"})


def _pairs(style: LogFormat, values: Iterable[tuple[str, str | int]]) -> str:
    if style == "json":
        return "".join([f', "{key}": {json.dumps(value)}' for key, value in values])
    return "".join([f" {key}={value if key in _OURS else token(str(value))}" for key, value in values])


def _shortened(facts: Facts, style: LogFormat) -> Facts:
    """Cut what may be long, for it came from the wire or from the rules."""
    return facts._replace(
        user=_shorten(_text(facts.user), style).encode(),
        userid=_shorten(_text(facts.userid), style).encode(),
        command=_shorten(facts.command, style),
        target=_shorten(facts.target, style),
        to=_shorten(facts.to, style),
        via=_shorten(facts.via, style),
        lost=_shorten(facts.lost, style),
        rule=_shorten(facts.rule, style),
    )


def _shorten(value: str, style: LogFormat) -> str:
    """Cut a text that would take more than `_SHARE` bytes of the line."""
    if _size(_shown(value, style)) <= _SHARE:
        return value
    kept = value[:_SHARE]
    while _size(_shown(kept + "…", style)) > _SHARE:
        kept = kept[: len(kept) * 3 // 4]
    return kept + "…"


def _shown(value: str, style: LogFormat) -> str:
    return json.dumps(value) if style == "json" else token(value)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))


def _iso(moment: float) -> str:
    whole = int(moment)
    return f"{_second(whole)}.{int((moment - whole) * 1000):03d}Z"


@lru_cache(maxsize=16)
def _second(whole: int) -> str:
    """Write a second: thousands of lines share one."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
