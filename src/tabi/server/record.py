"""What is known of a session.

The facts of a relayed session are packed into one bytes value that the engine keeps for it; nothing else of the session
stays in the control plane. The line is made when the end comes back.
"""

import marshal
from operator import itemgetter
from typing import Final, NamedTuple, Self, get_args

from tabi.policy.verdict import LogLevel
from tabi.relay.lane import Tail

__all__ = ["Facts"]

_WEIGHT: Final = {level: weight for weight, level in enumerate(get_args(LogLevel))}


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
        to: address and port connected to; what the upstream was asked for; the peer of a BIND.
        verdict: allow, refuse, or empty before a judgement.
        rule: name of the rule that decided.
        reply: REP that was sent, -1 for none.
        handshake: from accept to the request.
        resolve: from the request to the first address.
        connect: from there to the reply.
        lifetime: the limit that ends the session when its lifetime is over: user-lifetime or rule-lifetime.
        level: of the line.
        via: upstream that it goes through, or was last tried.
        resolve_by: upstream, where that looks the name up.
        lost: the ways that started in a race and lost, and why.
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
    via: str = ""
    resolve_by: str = ""
    lost: str = ""

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
        facts = cls._unpack(record)
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

    @classmethod
    def of_permit(cls, record: bytes) -> Self | None:
        """Read what the record has of a permit of the express lane; None: it has nothing to do with that.

        The session is 0 then, and the client has no port.
        """
        facts = cls._unpack(record)
        return None if facts.session else facts

    @classmethod
    def _unpack(cls, record: bytes) -> Self:
        number, own = marshal.loads(record)
        return cls._make(_in_order(own + (_commons[number] if isinstance(number, int) else number)))


# What many sessions have in common is kept once, and a record has its number instead: half of a record is that.
_OWN: Final = (
    "session", "accepted", "client", "user", "userid", "target", "to", "handshake", "resolve", "connect", "lost",
)  # fmt: skip
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
