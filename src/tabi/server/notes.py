"""What is known of one session so far: noted as it happens, put into `Facts` when somebody asks or it ends."""

import time

from tabi.addr import Endpoint, Name
from tabi.policy.verdict import LogLevel, Verdict
from tabi.server.record import Facts

__all__ = ["Notes"]


class Notes:
    """The making of one line. What the attributes mean stands in `Facts`; text is made when it is needed."""

    __slots__ = (
        "_accepted", "_answered", "_began", "_client", "_listener", "_number", "_requested", "_resolved", "command",
        "level", "lifetime", "lost", "method", "reply", "resolve_by", "rule", "socks", "target", "to", "user", "userid",
        "verdict", "via",
    )  # fmt: skip

    def __init__(self, number: int, client: Endpoint, listener: Endpoint, *, age: float = 0.0) -> None:
        """Begin, for a connection that was accepted `age` seconds ago."""
        self._number = number
        self._accepted = time.time() - age
        self._began = time.monotonic() - age
        self._client = client
        self._listener = listener
        self._requested = 0.0  # 0: not yet
        self._resolved = 0.0
        self._answered = 0.0
        self.socks: str = ""
        self.method: str = ""
        self.user: bytes | None = None
        self.userid: bytes | None = None
        self.command: str = ""
        self.target: Endpoint | str = ""
        self.to: Endpoint | str = ""
        self.verdict: str = ""
        self.rule: str = ""
        self.reply: int = -1
        self.lifetime: str = ""
        self.via: str = ""
        self.lost: str = ""
        self.resolve_by: str = ""
        self.level: LogLevel = "info"

    @property
    def has_request(self) -> bool:
        """Whether the handshake is over."""
        return self._requested > 0

    def mark_requested(self, when: float | None = None) -> None:
        """The request is there, or never will be: now, or since `when` of the monotonic clock."""
        self._requested = time.monotonic() if when is None else when

    def mark_resolved(self) -> None:
        """An address is there; the first one counts."""
        self._resolved = self._resolved or time.monotonic()

    def mark_answered(self) -> None:
        """The reply is put out."""
        self._answered = time.monotonic()

    def note_verdict(self, verdict: Verdict) -> None:
        """Have the line say what policy said last, or stay away where the rule wants none."""
        self.verdict = "allow" if verdict.allow else "refuse"
        self.rule = verdict.rule
        self.level = verdict.grants.log

    def note_way(self, upstream: str, target: Endpoint) -> None:
        """Have the line say through which upstream the session goes, and that a name is looked up there."""
        self.via = upstream
        self.resolve_by = "upstream" if isinstance(target.host, Name) else ""

    def milliseconds(self) -> float:
        """Age since accept."""
        return (time.monotonic() - self._began) * 1000

    def facts(self) -> Facts:
        """Give all of it, with the times of the stages."""
        return Facts(
            session=self._number,
            accepted=self._accepted,
            client=str(self._client),
            listener=str(self._listener),
            socks=self.socks,
            method=self.method,
            user=self.user,
            userid=self.userid,
            command=self.command,
            target=str(self.target),
            to=str(self.to),
            verdict=self.verdict,
            rule=self.rule,
            reply=self.reply,
            handshake=_ms(self._began, self._requested),
            resolve=_ms(self._requested, self._resolved),
            connect=_ms(self._resolved or self._requested, self._answered),
            lifetime=self.lifetime,
            level=self.level,
            via=self.via,
            lost=self.lost,
            resolve_by=self.resolve_by,
        )


def _ms(begin: float, end: float) -> float:
    return (end - begin) * 1000 if begin and end else -1.0
