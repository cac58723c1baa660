"""The error tree and the reply codes that errors carry.

::

    TabiError
    ├── UsageError (ValueError)          the caller's mistake
    │   ├── AddressError                 text or bytes that are no address, name or port
    │   └── ConfigError                  a setting that cannot be used
    ├── ProtocolError                    the peer broke the protocol
    │   ├── PeerClosedError              it closed its direction inside a message
    │   └── ProxyProtocolError (ConnectionError)   a proxy on our way did
    ├── AuthError                        the peer did not authenticate, or would not let us
    │   └── ProxyAuthError (PermissionError)       a proxy on our way would not let us in
    ├── DeniedError (PermissionError)    policy said no: ours, or where ``hop`` is set that proxy's
    └── DialError (ConnectionError)      the target could not be reached
        ├── DialTimeoutError (TimeoutError)            it did not answer in time
        ├── NameUnknownError                           there is no such name
        ├── ProxyUnreachableError                      a proxy on our way could not be reached
        └── RefusedError (ConnectionRefusedError)      it said no

Each error says on which ``side`` and at which ``stage`` it arose, which ``reply`` a SOCKS client is owed for
it and whether trying again may help (``retryable``). Where it arose at a proxy on our way, ``hop`` says at which.
``str(error)`` is the text for our log; what the peer hears is the reply code alone.
"""

from enum import Enum, IntEnum
from typing import NamedTuple, Self

__all__ = [
    "AddressError",
    "AuthError",
    "ConfigError",
    "DeniedError",
    "DialError",
    "DialTimeoutError",
    "HopName",
    "NameUnknownError",
    "PeerClosedError",
    "ProtocolError",
    "ProxyAuthError",
    "ProxyProtocolError",
    "ProxyUnreachableError",
    "RefusedError",
    "Reply",
    "Side",
    "Stage",
    "TabiError",
    "UsageError",
    "WireCode",
    "dial_failure",
]


class WireCode(IntEnum):
    """A one-byte code from the wire; values without a name survive decoding and print as hex."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFF:
            return None
        member = int.__new__(cls, value)
        member._name_ = f"0x{value:02X}"
        member._value_ = value
        # one object per value, or a greeting with 255 unknown methods would cost 80 KiB
        cls._value2member_map_[value] = member
        return member

    def __str__(self) -> str:
        return self.name


class Reply(WireCode):
    """REP of a SOCKS5 reply (RFC 1928 section 6). SOCKS4 knows only granted (90) and rejected (91)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    CONNECTION_REFUSED = 5
    TTL_EXPIRED = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_TYPE_NOT_SUPPORTED = 8


class Side(Enum):
    """Which leg an error arose on: inbound is towards the SOCKS client, outbound towards the target."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"
    OURS = "ours"


class Stage(Enum):
    """How far a session had come; the words that the log uses."""

    GREETING = "greeting"
    AUTH = "auth"
    REQUEST = "request"
    POLICY = "policy"
    RESOLVE = "resolve"
    CONNECT = "connect"
    BIND = "bind"
    ASSOCIATE = "associate"
    NEGOTIATE = "negotiate"
    RELAY = "relay"


class HopName(NamedTuple):
    """A proxy on our way, as errors name it.

    Args:
        number: counted from 1, from us towards the target.
        total: proxies on the way.
        proxy: its URL without user name and password.
    """

    number: int
    total: int
    proxy: str

    def __str__(self) -> str:
        return f"proxy {self.proxy}" if self.total == 1 else f"proxy {self.number} of {self.total}, {self.proxy}"


class TabiError(Exception):
    """Root of all errors that tabi raises on purpose.

    Args:
        text: what went wrong, for the log: what, where, and the way out.
        side: the leg it arose on.
        stage: how far the session had come.
        reply: the REP that a SOCKS client is owed.
        retryable: whether the same request may succeed later.

    Attributes:
        hop: the proxy on our way at which it arose, None where none is to blame.
    """

    side: Side = Side.OURS
    stage: Stage = Stage.REQUEST
    reply: Reply = Reply.GENERAL_FAILURE
    retryable: bool = False
    hop: HopName | None = None

    def __init__(
        self,
        text: str,
        *,
        side: Side | None = None,
        stage: Stage | None = None,
        reply: Reply | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        if side is not None:
            self.side = side
        if stage is not None:
            self.stage = stage
        if reply is not None:
            self.reply = reply
        if retryable is not None:
            self.retryable = retryable


class UsageError(TabiError, ValueError):
    """The caller asked for something that cannot be; nothing was sent."""


class AddressError(UsageError):
    """Text or bytes that are no usable address, name or port."""

    reply = Reply.HOST_UNREACHABLE


class ConfigError(UsageError):
    """A setting that cannot be used; the text names it and what is accepted."""


class ProtocolError(TabiError):
    """The peer sent what the protocol does not allow; the connection is to be closed."""

    side = Side.INBOUND


class PeerClosedError(ProtocolError):
    """The peer closed its direction in the middle of the handshake."""


class ProxyProtocolError(ProtocolError, ConnectionError):
    """A proxy on our way broke the protocol, or ended the connection without an answer."""

    side = Side.OUTBOUND


class AuthError(TabiError):
    """Authentication failed, or no method that both sides offer."""

    side = Side.INBOUND
    stage = Stage.AUTH
    reply = Reply.NOT_ALLOWED


class ProxyAuthError(AuthError, PermissionError):
    """A proxy on our way refused user name and password, or wants a method that we do not have."""

    side = Side.OUTBOUND


class DeniedError(TabiError, PermissionError):
    """Policy refused the request (REP 2)."""

    stage = Stage.POLICY
    reply = Reply.NOT_ALLOWED


class DialError(TabiError, ConnectionError):
    """The target could not be reached; ``stage`` says whether the name or the connection failed."""

    side = Side.OUTBOUND
    stage = Stage.CONNECT
    retryable = True


class DialTimeoutError(DialError, TimeoutError):
    """The target did not answer in time (REP 6): in ours, which `limit` names, or in the network's own (ETIMEDOUT)."""

    reply = Reply.TTL_EXPIRED
    limit: str = ""


class NameUnknownError(DialError):
    """There is no such name; only who was asked to look it up can know, and few proxies tell."""

    stage = Stage.RESOLVE
    reply = Reply.HOST_UNREACHABLE
    retryable = False


class ProxyUnreachableError(DialError):
    """A proxy on our way could not be reached; the target was never asked for."""


class RefusedError(DialError, ConnectionRefusedError):
    """The target refused the connection (REP 5)."""

    reply = Reply.CONNECTION_REFUSED


def dial_failure(
    text: str, *, reply: Reply, stage: Stage = Stage.CONNECT, retryable: bool | None = None
) -> DialError:
    """Make the error of the tree that goes with `reply`."""
    kind = _KIND_OF_REPLY.get(reply, DialError)
    return kind(text, stage=stage, reply=reply, retryable=retryable)


_KIND_OF_REPLY = {Reply.TTL_EXPIRED: DialTimeoutError, Reply.CONNECTION_REFUSED: RefusedError}
