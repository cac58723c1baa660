"""What is known of a session, and its one line in the log.

The facts of a relayed session are packed into one bytes value that the engine keeps for it; nothing else of the session
stays in the control plane. The line is made when the end comes back.
"""

import json
import marshal
import time
from functools import lru_cache
from operator import itemgetter
from typing import Final, Literal, NamedTuple, Self, TypeAlias, get_args

from tabi.addr import token
from tabi.policy.verdict import LogLevel
from tabi.relay.lane import Tail
from tabi.server.outcome import Outcome

__all__ = ["LONGEST", "Facts", "LogFormat", "format_line"]

LogFormat: TypeAlias = Literal["text", "json"]
Fields: TypeAlias = dict[str, str | int | float]

# Bytes without the newline: what several processes write to one pipe at once stays apart up to PIPE_BUF (pipe(7)).
LONGEST: Final = 4095
_SHARE: Final = 240  # of a line that would be longer, for each of its fifteen texts

_USUAL: Final = "info"  # the level that lines do not name
_WEIGHT: Final = {level: weight for weight, level in enumerate(get_args(LogLevel))}

# Fields that are numbers, addresses of sockets or words of ours: never more than one word, whatever the wire brings.
_OURS: Final = frozenset({
    "session", "client", "listener", "socks", "method", "verdict", "reply", "up", "down", "handshake_ms", "resolve_ms",
    "connect_ms", "total_ms", "by", "why", "level",
})  # fmt: skip


class Facts(NamedTuple):
    """What is known of a session before its relay begins. Times in milliseconds, -1 where it did not come to that.

    Args:
        session: number, counted from the start of the server; 0 in what sessions of the express lane share.
        accepted: wall-clock time, seconds since the epoch.
        client: address and port of the client.
        listener: our address and port that it connected to.
        socks: version, empty before the first byte.
        method: authentication that took place.
        user: authenticated user, None without authentication.
        userid: what a SOCKS4 client claims; None where there is none.
        command: CONNECT, BIND …
        target: as asked, normalised; as it came where it could not be.
        to: address and port connected to; the peer of a BIND.
        verdict: allow, refuse, or empty before a judgement.
        rule: name of the rule that decided.
        reply: REP that was sent, -1 for none.
        handshake: from accept to the request.
        resolve: from the request to the first address.
        connect: from there to the reply.
        lifetime: the limit that ends the session when its lifetime is over: user-lifetime or rule-lifetime.
        level: of the line.
    """

    session: int
    accepted: float
    client: str
    listener: str
    socks: str = ""
    method: str = ""
    user: bytes | None = None
    userid: bytes | None = None
    command: str = ""
    target: str = ""
    to: str = ""
    verdict: str = ""
    rule: str = ""
    reply: int = -1
    handshake: float = -1.0
    resolve: float = -1.0
    connect: float = -1.0
    lifetime: str = ""
    level: LogLevel = "info"

    def is_heard(self, level: LogLevel) -> bool:
        """Say whether the session leaves a line in a log of this level."""
        return _WEIGHT[self.level] >= max(_WEIGHT[level], 1)

    @property
    def before_relay(self) -> float:
        """Seconds from accept until the relay began, as far as the stages tell."""
        return sum(max(stage, 0.0) for stage in (self.handshake, self.resolve, self.connect)) / 1000

    def pack(self) -> bytes:
        """Pack into one value; `unpack` in the same process reads it. It is most of what an idle tunnel weighs."""
        common = _common_of(self)
        number = _numbers.get(common)
        return marshal.dumps((_keep(common) if number is None else number, _own_of(self)))

    @classmethod
    def unpack(cls, record: bytes) -> Self:
        """Read what `pack` made, and what the express lane has put behind it (`tabi.relay.lane.Tail`)."""
        number, own = marshal.loads(record)
        facts = cls._make(_in_order(own + (_commons[number] if isinstance(number, int) else number)))
        if facts.session:
            return facts
        tail = Tail.of(record)
        return facts._replace(
            session=tail.session,
            accepted=tail.accepted,
            client=f"{facts.client}:{tail.port}",
            handshake=tail.handshake,
            resolve=tail.resolve,
            connect=tail.connect,
        )


# What many sessions have in common is kept once, and a record has its number instead: half of a record is that.
_OWN: Final = ("session", "accepted", "client", "user", "userid", "target", "to", "handshake", "resolve", "connect")
_COMMON: Final = tuple(name for name in Facts._fields if name not in _OWN)
_own_of: Final = itemgetter(*map(Facts._fields.index, _OWN))
_common_of: Final = itemgetter(*map(Facts._fields.index, _COMMON))
_in_order: Final = itemgetter(*map((*_OWN, *_COMMON).index, Facts._fields))
_commons: Final[list[tuple[str | int, ...]]] = []
_numbers: Final[dict[tuple[str | int, ...], int]] = {}
_MOST_COMMON: Final = 4096  # listeners, rules and so on in all their combinations


def _keep(common: tuple[str | int, ...]) -> int | tuple[str | int, ...]:
    """Keep it and give its number; itself, where too much is kept already."""
    if len(_commons) >= _MOST_COMMON:
        return common
    number = _numbers[common] = len(_commons)
    _commons.append(common)
    return number


def format_line(facts: Facts, outcome: Outcome, style: LogFormat) -> str:
    """Make the line: who, where to, why, how much, how long, and who hung up. What is not known is left out.

    Values may hold anything that came from the wire; they are escaped here, so that a line stays one line. No line is
    longer than `LONGEST`; where it would be, its longest values end in an ellipsis.
    """
    fields = _fields(facts, outcome)
    line = _join(fields, style)
    if len(line) > LONGEST // 4 and _size(line) > LONGEST:  # a character has four bytes at most
        line = _join({key: _shorten(value, style) for key, value in fields.items()}, style)
    return line


def _join(fields: Fields, style: LogFormat) -> str:
    if style == "json":
        return json.dumps(fields, ensure_ascii=True)
    (_, head), *others = fields.items()  # the time needs no name
    return f"{head} " + " ".join([f"{key}={value if key in _OURS else token(str(value))}" for key, value in others])


def _shorten(value: str | float, style: LogFormat) -> str | float:
    """Cut a text that would take more than `_SHARE` bytes of the line."""
    if not isinstance(value, str) or _size(_shown(value, style)) <= _SHARE:
        return value
    kept = value[:_SHARE]
    while _size(_shown(kept + "…", style)) > _SHARE:
        kept = kept[: len(kept) * 3 // 4]
    return kept + "…"


def _shown(value: str, style: LogFormat) -> str:
    return json.dumps(value) if style == "json" else token(value)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "backslashreplace"))


def _fields(facts: Facts, outcome: Outcome) -> Fields:
    fields: Fields = {"time": _iso(facts.accepted + outcome.total / 1000)}
    if facts.level != _USUAL:
        fields["level"] = facts.level
    fields |= {"session": facts.session, "client": facts.client, "listener": facts.listener}
    if facts.user:
        fields["user"] = facts.user.decode("utf-8", "backslashreplace")
    if facts.userid:
        fields["userid"] = facts.userid.decode("utf-8", "backslashreplace")
    fields |= {
        key: text
        for key, text in (
            ("socks", facts.socks),
            ("method", facts.method),
            ("command", facts.command),
            ("target", facts.target),
            ("to", facts.to),
            ("verdict", facts.verdict),
            ("rule", facts.rule),
        )
        if text
    }
    if facts.reply >= 0:
        fields["reply"] = facts.reply
    fields["up"] = outcome.up
    fields["down"] = outcome.down
    for key, stage in (
        ("handshake_ms", facts.handshake),
        ("resolve_ms", facts.resolve),
        ("connect_ms", facts.connect),
    ):
        if stage >= 0:
            fields[key] = round(stage, 1)
    fields["total_ms"] = round(outcome.total, 1)
    fields["by"] = outcome.by
    fields["why"] = outcome.why
    if outcome.note:
        fields["note"] = outcome.note
    return fields


def _iso(moment: float) -> str:
    whole = int(moment)
    return f"{_second(whole)}.{int((moment - whole) * 1000):03d}Z"


@lru_cache(maxsize=16)
def _second(whole: int) -> str:
    """Write a second: thousands of lines share one."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
