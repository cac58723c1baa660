"""What is known of one session so far: noted as it happens, put into `Facts` when somebody asks or it ends."""

import time
from typing import Literal, TypeAlias

from tabi.addr import Endpoint
from tabi.policy.verdict import Verdict
from tabi.server.record import Facts

__all__ = ["Notes"]

Stage: TypeAlias = Literal["requested", "resolved", "answered"]


class Notes:
    """The making of one line. What the attributes mean stands in `Facts`; text is made when it is needed."""

    __slots__ = (
        "_accepted", "_began", "_client", "_listener", "_marks", "_number", "command", "lifetime", "method", "quiet",
        "reply", "rule", "socks", "target", "to", "user", "userid", "verdict",
    )  # fmt: skip

    def __init__(self, number: int, client: Endpoint, listener: Endpoint, *, age: float = 0.0) -> None:
        """Begin, for a connection that was accepted `age` seconds ago."""
        self._number = number
        self._accepted = time.time() - age
        self._began = time.monotonic() - age
        self._client = client
        self._listener = listener
        self._marks: dict[Stage, float] = {}
        self.socks = ""
        self.method = ""
        self.user: bytes | None = None
        self.userid: bytes | None = None
        self.command = ""
        self.target: Endpoint | str = ""
        self.to: Endpoint | str = ""
        self.verdict = ""
        self.rule = ""
        self.reply = -1
        self.lifetime = ""
        self.quiet = False

    def mark(self, stage: Stage, when: float | None = None) -> None:
        """Remember when `stage` was reached first: now, or at `when` of the monotonic clock."""
        self._marks.setdefault(stage, time.monotonic() if when is None else when)

    def has_reached(self, stage: Stage) -> bool:
        """Say whether `stage` was marked."""
        return stage in self._marks

    def note_verdict(self, verdict: Verdict) -> None:
        """Have the line say what policy said last, or stay away where the rule wants none."""
        self.verdict = "allow" if verdict.allow else "refuse"
        self.rule = verdict.rule
        self.quiet = not verdict.grants.log

    def milliseconds(self) -> float:
        """Age since accept."""
        return (time.monotonic() - self._began) * 1000

    def facts(self) -> Facts:
        """Give all of it, with the times of the stages."""
        requested = self._marks.get("requested")
        resolved = self._marks.get("resolved")
        answered = self._marks.get("answered")
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
            handshake=_ms(self._began, requested),
            resolve=_ms(requested, resolved),
            connect=_ms(resolved or requested, answered),
            lifetime=self.lifetime,
            quiet=self.quiet,
        )


def _ms(begin: float | None, end: float | None) -> float:
    return (end - begin) * 1000 if begin is not None and end is not None else -1.0
