"""The client's half of a CONNECT through an HTTP proxy (RFC 9110 section 9.3.6).

The end of the answer is not known beforehand. By `NeedData.need` alone it is read byte by byte, and never too far. Who
can look at bytes without taking them asks `belonging` how many of those are the machine's, and reads so many at once.

A proxy has one status for many reasons. Where it tells more, in Proxy-Status (RFC 9209) or in Squid's X-Squid-Error,
that is believed first.
"""

from collections.abc import Generator
from ipaddress import IPv4Address

from tabi.addr import Endpoint, Name, escape
from tabi.errors import (
    AuthError,
    DeniedError,
    NameUnknownError,
    ProtocolError,
    Reply,
    Side,
    Stage,
    TabiError,
    dial_failure,
)
from tabi.machine.base import Failed, Machine
from tabi.machine.client import ClientEvent, Granted
from tabi.wire.address import WireHost
from tabi.wire.http import MAX_HEAD, BasicCredentials, ConnectRequest, ResponseHead, end_of_head

__all__ = ["HttpMachine"]

MAX_INTERIM = 8  # answers 1xx before the one that counts; none is usual, a stream of them is a trap

_UNKNOWN = Endpoint(IPv4Address(0), 0)  # HTTP does not tell where the proxy connects from
_NAME_UNKNOWN = None  # marks in the tables below that the name was the reason

# RFC 9209 section 2.3: the error types that say something about the target
_PROXY_STATUS: dict[bytes, Reply | None] = {
    b"connection_refused": Reply.CONNECTION_REFUSED,
    b"connection_terminated": Reply.CONNECTION_REFUSED,
    b"connection_timeout": Reply.TTL_EXPIRED,
    b"connection_read_timeout": Reply.TTL_EXPIRED,
    b"destination_ip_prohibited": Reply.NOT_ALLOWED,
    b"destination_ip_unroutable": Reply.NETWORK_UNREACHABLE,
    b"destination_unavailable": Reply.HOST_UNREACHABLE,
    b"dns_error": _NAME_UNKNOWN,
    b"dns_timeout": Reply.HOST_UNREACHABLE,
    b"http_request_denied": Reply.NOT_ALLOWED,
}
# Squid's page names, with the errno of connect() behind ERR_CONNECT_FAIL
_SQUID: dict[bytes, Reply | None] = {
    b"ERR_ACCESS_DENIED 0": Reply.NOT_ALLOWED,
    b"ERR_CONNECT_FAIL 101": Reply.NETWORK_UNREACHABLE,
    b"ERR_CONNECT_FAIL 110": Reply.TTL_EXPIRED,
    b"ERR_CONNECT_FAIL 111": Reply.CONNECTION_REFUSED,
    b"ERR_CONNECT_FAIL 113": Reply.HOST_UNREACHABLE,
    b"ERR_DNS_FAIL 0": _NAME_UNKNOWN,
}
_STATUS = {
    401: Reply.NOT_ALLOWED,
    403: Reply.NOT_ALLOWED,
    405: Reply.COMMAND_NOT_SUPPORTED,
    501: Reply.COMMAND_NOT_SUPPORTED,
    502: Reply.HOST_UNREACHABLE,
    504: Reply.TTL_EXPIRED,
}


class HttpMachine(Machine[ClientEvent]):
    """Ask an HTTP proxy for a tunnel; `Granted` tells of no address, since HTTP does not.

    Args:
        target: where to.
        credentials: for the Basic scheme, sent with the request; None: none are sent.

    Raises:
        UsageError: a port or credentials that cannot be said. Nothing is sent then.
    """

    longest = MAX_HEAD

    def __init__(self, target: Endpoint, credentials: BasicCredentials | None = None) -> None:
        host: WireHost = target.host.text.encode() if isinstance(target.host, Name) else target.host
        self._request = ConnectRequest(host, target.port, credentials).encode()
        self._sent_credentials = credentials is not None
        super().__init__()

    @property
    def stage(self) -> Stage:
        """REQUEST, always: credentials go with it."""
        return Stage.REQUEST

    def belonging(self, peeked: bytes) -> int:
        """Say how many of the bytes that come next belong to the answer.

        Args:
            peeked: what lies unread; whatever it is, the machine has not been given it.
        """
        before = bytes(self._buffer[-3:])  # the empty line may be cut anywhere
        return max(end_of_head(before + peeked) - len(before), 0) or len(peeked)

    def _run(self) -> Generator[int | ClientEvent, None, ClientEvent]:
        self._out += self._request
        for _ in range(MAX_INTERIM + 1):
            head = yield from self._message(ResponseHead)
            if 200 <= head.status <= 299:
                return Granted(_UNKNOWN)
            if not 100 <= head.status <= 199 or head.status == 101:
                raise self._refused(head)
        raise ProtocolError(f"more than {MAX_INTERIM} interim answers", stage=Stage.REQUEST)

    def _refused(self, head: ResponseHead) -> TabiError:
        text = f"proxy answered {head.status}"
        if head.reason:
            text += f" {escape(head.reason, 80)}"
        if head.status == 407:
            return self._unauthenticated(head, text)
        detail, reply = _reason(head)
        text += detail
        if reply is _NAME_UNKNOWN:
            return NameUnknownError(text)
        if reply is Reply.NOT_ALLOWED:
            return DeniedError(text, stage=Stage.REQUEST)
        retryable = (head.status >= 500 and reply is not Reply.COMMAND_NOT_SUPPORTED) or head.status in (408, 429)
        return dial_failure(text, stage=Stage.REQUEST, reply=reply, retryable=retryable)

    def _unauthenticated(self, head: ResponseHead, text: str) -> AuthError:
        schemes = sorted({value.split()[0].lower() for value in head.values(b"proxy-authenticate") if value})
        asked = escape(b", ".join(schemes), 80) if schemes else "no scheme"
        if not self._sent_credentials:
            return AuthError(f"{text}: it wants user name and password by {asked}")
        if schemes and b"basic" not in schemes:
            return AuthError(f"{text}: it takes {asked}, and only Basic is spoken here")
        return AuthError(f"{text}: it refused user name and password")

    def _failed(self, error: TabiError) -> Failed:
        error.side = Side.OUTBOUND
        return Failed(error)


def _reason(head: ResponseHead) -> tuple[str, Reply | None]:
    """What a refusal says about the target: words for the text, and the reply that fits."""
    for value in head.values(b"proxy-status"):
        for parameter in value.replace(b",", b";").split(b";"):
            key, _, error = parameter.strip().partition(b"=")
            if key == b"error" and error in _PROXY_STATUS:
                return f" ({error.decode()})", _PROXY_STATUS[error]
    for value in head.values(b"x-squid-error"):
        if value in _SQUID:
            return f" ({value.decode()})", _SQUID[value]
    return "", _STATUS.get(head.status, Reply.GENERAL_FAILURE)
