"""SOCKS4 and SOCKS4a messages (SOCKS4.protocol and SOCKS4a.protocol by Ying-Da Lee).

A request is SOCKS4a when its address is 0.0.0.x with x not 0; then a domain follows the USERID.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

from tabi.errors import ProtocolError, Stage, UsageError, WireCode
from tabi.wire.address import Buffer, encode_port
from tabi.wire.socks5 import Command

__all__ = ["MAX_STRING", "VERSION", "Code", "ReplyMessage", "Request"]

VERSION = 4
UNSPECIFIED = IPv4Address(0)
MARKER = IPv4Address("0.0.0.1")  # SOCKS4a: first three bytes zero, last not
MAX_STRING = 255  # USERID and domain have no length byte; SOCKS5's limit serves both, real ones are shorter


class Code(WireCode):
    """CD of a SOCKS4 reply."""

    GRANTED = 90
    REJECTED = 91
    NO_IDENTD = 92
    IDENT_MISMATCH = 93


@dataclass(frozen=True, slots=True)
class Request:
    """``VN CD DSTPORT DSTIP USERID NUL [DOMAIN NUL]``; `domain` is None in plain SOCKS4."""

    command: Command
    address: IPv4Address
    port: int
    userid: bytes = b""
    domain: bytes | None = None

    @staticmethod
    def size(buf: Buffer) -> int:
        """Bytes that the request at the start of `buf` needs; strings are found one byte at a time.

        Raises:
            ProtocolError: a USERID or a domain of more than 255 bytes.
        """
        if len(buf) < 9:
            return 9
        end = _end_of_string(buf, 8, "USERID")
        if end <= len(buf) and _is_marker(buf):
            return _end_of_string(buf, end, "domain")
        return end

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a whole request."""
        raw = bytes(buf)
        if raw[0] != VERSION:
            raise ProtocolError(f"version byte {raw[0]:#04x} where SOCKS4 has 0x04", stage=Stage.REQUEST)
        userid, *rest = raw[8:].split(b"\0")
        domain = rest[0] if _is_marker(raw) else None
        return cls(Command(raw[1]), IPv4Address(raw[4:8]), raw[2] << 8 | raw[3], userid, domain)

    def encode(self) -> bytes:
        """Write it.

        Raises:
            UsageError: NUL in a string (it would end there), a string over 255 bytes, a domain without the
                0.0.0.x address that announces it or such an address without a domain, or a port out of range.
        """
        for what, text in (("USERID", self.userid), ("domain", self.domain or b"")):
            if b"\0" in text or len(text) > MAX_STRING:
                raise UsageError(f"{what} has a NUL or more than {MAX_STRING} bytes")
        head = bytes((VERSION, self.command)) + encode_port(self.port) + self.address.packed
        if (self.domain is not None) != _is_marker(head):
            raise UsageError(f"address {self.address}: 0.0.0.1 to 0.0.0.255 go with a domain, only they")
        tail = b"" if self.domain is None else self.domain + b"\0"
        return head + self.userid + b"\0" + tail


@dataclass(frozen=True, slots=True)
class ReplyMessage:
    """``VN CD DSTPORT DSTIP``; VN is 0, though some servers send 4, which we read as well."""

    code: Code
    address: IPv4Address = UNSPECIFIED
    port: int = 0

    @staticmethod
    def size(_buf: Buffer) -> int:
        """Eight bytes, always."""
        return 8

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read it."""
        if buf[0] not in (0, VERSION):
            raise ProtocolError(f"version byte {buf[0]:#04x} where a SOCKS4 reply has 0", stage=Stage.REQUEST)
        return cls(Code(buf[1]), IPv4Address(bytes(buf[4:8])), buf[2] << 8 | buf[3])

    def encode(self) -> bytes:
        """Write it; UsageError: a port out of range."""
        return bytes((0, self.code)) + encode_port(self.port) + self.address.packed


def _is_marker(buf: Buffer) -> bool:
    return buf[4] == buf[5] == buf[6] == 0 and buf[7] != 0


def _end_of_string(buf: Buffer, start: int, what: str) -> int:
    """Offset behind the NUL of the string at `start`, or one past the bytes at hand: it is yet to come."""
    found = bytes(buf[start : start + MAX_STRING + 1]).find(0)
    if found >= 0:
        return start + found + 1
    if len(buf) > start + MAX_STRING:
        raise ProtocolError(f"{what} of more than {MAX_STRING} bytes", stage=Stage.REQUEST)
    return len(buf) + 1
