"""HTTP's CONNECT as a client says it, and the head of the answer (RFC 9110 section 9.3.6, RFC 9112 sections 3 and 4).

The head has no length: it ends at the first empty line, which is found in the bytes at hand. What is said and how the
request succeeds is all that is read here; a body belongs to nobody, since a refused CONNECT ends the connection.
"""

import re
from base64 import b64encode
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import Self

from tabi.addr import escape
from tabi.errors import ProtocolError, Stage, UsageError
from tabi.wire.address import Buffer, WireHost

__all__ = ["MAX_HEAD", "BasicCredentials", "ConnectRequest", "ResponseHead", "end_of_head"]

MAX_HEAD = 16_384  # bytes; what common servers allow for all fields of a message together

_BEGINNING = b"HTTP/1."
# RFC 9112 section 2.2: "a recipient MAY recognize a single LF as a line terminator"; some proxies send it.
_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(rb"\r?\n")
_STATUS = re.compile(rb"HTTP/1\.[0-9] ([0-9]{3})(?: (.*))?")


@dataclass(frozen=True, slots=True)
class BasicCredentials:
    """User name and password of the Basic scheme (RFC 7617 section 2); the password never shows in a repr."""

    username: bytes
    password: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Write the value of the field.

        Raises:
            UsageError: a colon in the user name, where the password would begin, or more than 4096 bytes.
        """
        if b":" in self.username:
            raise UsageError("user name with a colon; HTTP's Basic scheme cannot carry it (RFC 7617 section 2)")
        raw = self.username + b":" + self.password
        if len(raw) > 4096:
            raise UsageError(f"user name and password of {len(raw) - 1} bytes; at most 4095 fit into a field")
        return b"Basic " + b64encode(raw)


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """``CONNECT host:port``; the target stands in the Host field as well (RFC 9112 section 3.2)."""

    host: WireHost
    port: int
    credentials: BasicCredentials | None = None

    def encode(self) -> bytes:
        """Write it.

        Raises:
            UsageError: credentials that do not fit, or a port that is not 1 to 65535 (RFC 9110 section 9.3.6).
        """
        if not 1 <= self.port <= 0xFFFF:
            raise UsageError(f"port {self.port} is not in 1 to 65535")
        authority = _text(self.host) + b":%d" % self.port
        head = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (authority, authority)
        if self.credentials is not None:
            head += b"Proxy-Authorization: %b\r\n" % self.credentials.encode()
        return head + b"\r\n"


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """Status line and fields of an answer.

    Args:
        status: three digits.
        reason: the text behind them, as it came.
        fields: names in lower case, and values; lines that are no field are left out.
    """

    status: int
    reason: bytes = b""
    fields: tuple[tuple[bytes, bytes], ...] = ()

    @staticmethod
    def size(buf: Buffer) -> int:
        """Bytes that the head at the start of `buf` needs: one more than there are until its end is found.

        Raises:
            ProtocolError: what is there is no HTTP, or it has `MAX_HEAD` bytes and no end.
        """
        beginning = bytes(buf[: len(_BEGINNING)])
        if beginning != _BEGINNING[: len(beginning)]:
            text = f"no HTTP/1 answer: it begins with {escape(bytes(buf[:40]))}"
            raise ProtocolError(text, stage=Stage.REQUEST)
        if end := end_of_head(buf):
            return end
        if len(buf) >= MAX_HEAD:
            raise ProtocolError(f"HTTP answer whose head has more than {MAX_HEAD} bytes", stage=Stage.REQUEST)
        return len(buf) + 1

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a whole head.

        Raises:
            ProtocolError: its first line is no status line.
        """
        first, *lines = _LINE.split(bytes(buf))
        if (status := _STATUS.fullmatch(first)) is None:
            raise ProtocolError(f"{escape(first[:80])} is no HTTP status line", stage=Stage.REQUEST)
        split = (line.partition(b":") for line in lines)
        fields = tuple((name.strip().lower(), value.strip()) for name, colon, value in split if colon)
        return cls(int(status[1]), status[2] or b"", fields)

    def values(self, name: bytes) -> tuple[bytes, ...]:
        """Give the values of a field, whose name is in lower case."""
        return tuple(value for field_name, value in self.fields if field_name == name)


def end_of_head(buf: Buffer) -> int:
    """Offset behind the first empty line, 0 while there is none."""
    found = _END.search(buf)
    return found.end() if found else 0


def _text(host: WireHost) -> bytes:
    if isinstance(host, bytes):
        return host
    return b"[%b]" % str(host).encode() if isinstance(host, IPv6Address) else str(host).encode()
