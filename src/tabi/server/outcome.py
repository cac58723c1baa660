"""How a session ended: by whom and why, as its line in the log says it."""

import errno
import os
from typing import Final, NamedTuple

from tabi.errors import (
    AuthError,
    DeniedError,
    DialTimeoutError,
    ProtocolError,
    ProxyUnreachableError,
    Reply,
    Stage,
    TabiError,
)
from tabi.relay.interface import Cause, Closer, End
from tabi.server.limits import LimitReachedError

__all__ = ["CutShortError", "Outcome", "Tally", "client_gone", "relayed", "why"]

_OF_UPSTREAMS: Final = (DeniedError, AuthError, ProtocolError, ProxyUnreachableError)
_CLOSERS: Final = tuple(closer.name.lower() for closer in sorted(Closer))


class Outcome(NamedTuple):
    """How a session ended.

    Args:
        by: client, target or tabi.
        why: fin, rst, error:NAME, limit:NAME, cap:NAME, policy, auth, protocol, upstream, failed, done, kill, shutdown.
        up: bytes that the target's kernel took.
        down: bytes that the client's kernel took.
        total: milliseconds from accept to the end.
        note: text of the error, what was dropped.
    """

    by: str
    why: str
    up: int = 0
    down: int = 0
    total: float = 0.0
    note: str = ""


class Tally(NamedTuple):
    """What a session that is not relayed by the engine has moved so far: bytes up and down, and what was dropped."""

    up: int
    down: int
    note: str


class CutShortError(TabiError):
    """The session ends for a reason that is nobody's protocol error: the client left, or a limit was reached."""

    def __init__(self, outcome: Outcome, *, reply: Reply | None = None) -> None:
        super().__init__(outcome.why, reply=reply)
        self.outcome = outcome
        self.has_reply: bool = reply is not None


def relayed(end: End, before: float, lifetime: str, note: str) -> Outcome:
    """Say how a session ended that the engine relayed.

    Args:
        end: of the flow.
        before: seconds from accept until the engine had it.
        lifetime: the limit that ends it when its lifetime is over.
        note: why we ended it, where we did.
    """
    total = (before + end.ended - end.started) * 1000
    why = _WHY[end.cause] or _why_of_flow(Cause(end.cause), end.errno, lifetime)
    return Outcome(_CLOSERS[end.closer], why, end.up, end.down, total, note)


def _why_of_flow(cause: Cause, code: int, lifetime: str) -> str:
    if cause is Cause.LIFETIME:
        return f"limit:{lifetime}"
    return f"error:{errno.errorcode.get(code, str(code))}"


def _word(cause: Cause) -> str:
    """Say why where the cause alone says it."""
    if cause in (Cause.LIFETIME, Cause.ERROR):
        return ""
    name = cause.name.lower()
    return f"limit:{name}" if cause in (Cause.IDLE, Cause.HALF_OPEN) else name


_WHY: Final = tuple(map(_word, sorted(Cause)))


def client_gone(error: OSError) -> Outcome:
    """Say how a client left whose socket failed with `error`."""
    if error.errno in (errno.ECONNRESET, errno.EPIPE):
        return Outcome("client", "rst")
    code = error.errno or 0
    return Outcome("client", f"error:{errno.errorcode.get(code, str(code))}", note=os.strerror(code))


def why(error: TabiError) -> str:
    """Name in one word what ended a session with this error."""
    if isinstance(error, LimitReachedError):
        return f"limit:{error.limit}"
    if error.hop is not None and isinstance(error, _OF_UPSTREAMS):
        return "upstream"
    for kind, word in ((DeniedError, "policy"), (AuthError, "auth"), (ProtocolError, "protocol")):
        if isinstance(error, kind):
            return word
    if isinstance(error, DialTimeoutError):
        # what is not our own limit is the network's, unless it is a look-up's: those end by `time.resolve`
        limit = error.limit or ("resolve" if error.stage is Stage.RESOLVE else "")
        return f"limit:{limit}" if limit else "failed"
    return "failed"
