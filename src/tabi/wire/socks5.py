"""SOCKS5 messages: greeting, method selection, request, reply (RFC 1928 sections 3, 4 and 6)."""

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Self

from tabi.errors import ProtocolError, Reply, Stage, UsageError, WireCode
from tabi.wire.address import Atyp, Buffer, WireHost, decode_address, encode_address, size_of_address

__all__ = [
    "VERSION", "Atyp", "Command", "Greeting", "Method", "MethodSelection", "Reply", "ReplyMessage", "Request",
]  # fmt: skip

VERSION = 5
UNSPECIFIED = IPv4Address(0)


class Method(WireCode):
    """RFC 1928 section 3 and IANA's registry of SOCKS methods."""

    NONE = 0x00
    GSSAPI = 0x01
    USERPASS = 0x02
    NO_ACCEPTABLE = 0xFF


class Command(WireCode):
    """RFC 1928 section 4, and Tor's extensions (socks-extensions.txt section 2)."""

    CONNECT = 0x01
    BIND = 0x02
    UDP_ASSOCIATE = 0x03
    RESOLVE = 0xF0
    RESOLVE_PTR = 0xF1


@dataclass(frozen=True, slots=True)
class Greeting:
    """``VER NMETHODS METHODS`` (RFC 1928 section 3)."""

    methods: tuple[Method, ...]

    @staticmethod
    def size(buf: Buffer) -> int:
        """Bytes that the greeting at the start of `buf` needs."""
        return 2 + buf[1] if len(buf) > 1 else 2

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a whole greeting."""
        _expect_version(buf[0], Stage.GREETING)
        return cls(tuple(map(Method, bytes(buf[2 : 2 + buf[1]]))))

    def encode(self) -> bytes:
        """Write it; UsageError: more than 255 methods."""
        if len(self.methods) > 255:
            raise UsageError(f"{len(self.methods)} methods; RFC 1928 has one byte for their number")
        return bytes((VERSION, len(self.methods), *self.methods))


@dataclass(frozen=True, slots=True)
class MethodSelection:
    """``VER METHOD`` (RFC 1928 section 3); FF means that none of the methods will do."""

    method: Method

    @staticmethod
    def size(_buf: Buffer) -> int:
        """Two bytes, always: some servers refuse with ten, of which these two are the answer."""
        return 2

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read it."""
        _expect_version(buf[0], Stage.GREETING)
        return cls(Method(buf[1]))

    def encode(self) -> bytes:
        """Write it."""
        return bytes((VERSION, self.method))


@dataclass(frozen=True, slots=True)
class Request:
    """``VER CMD RSV ATYP DST.ADDR DST.PORT`` (RFC 1928 section 4)."""

    command: Command
    host: WireHost
    port: int
    rsv: int = 0

    @staticmethod
    def size(buf: Buffer) -> int:
        """Bytes that the request at the start of `buf` needs; raises at once for an unknown ATYP."""
        return 3 + size_of_address(buf, 3)

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a whole request."""
        _expect_version(buf[0], Stage.REQUEST)
        host, port, _ = decode_address(buf, 3)
        return cls(Command(buf[1]), host, port, buf[2])

    def encode(self) -> bytes:
        """Write it."""
        return bytes((VERSION, self.command, self.rsv)) + encode_address(self.host, self.port)


@dataclass(frozen=True, slots=True)
class ReplyMessage:
    """``VER REP RSV ATYP BND.ADDR BND.PORT`` (RFC 1928 section 6)."""

    reply: Reply
    host: WireHost = UNSPECIFIED
    port: int = 0

    @staticmethod
    def size(buf: Buffer) -> int:
        """Bytes that the reply at the start of `buf` needs.

        A failure reply with ATYP 0 (Tor's RESOLVE does that) counts as one with an IPv4 address.

        Raises:
            ProtocolError: another version (told before its ATYP is read as one), or an unknown ATYP.
        """
        if len(buf) > 3:
            _expect_version(buf[0], Stage.REQUEST)
            if buf[3] == 0 and buf[1] != Reply.SUCCEEDED:
                return 10
        return 3 + size_of_address(buf, 3)

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a whole reply."""
        _expect_version(buf[0], Stage.REQUEST)
        if buf[3] == 0 and buf[1] != Reply.SUCCEEDED:
            return cls(Reply(buf[1]))
        host, port, _ = decode_address(buf, 3)
        return cls(Reply(buf[1]), host, port)

    def encode(self) -> bytes:
        """Write it; RSV is zero as RFC 1928 section 6 demands."""
        return bytes((VERSION, self.reply, 0)) + encode_address(self.host, self.port)


def _expect_version(version: int, stage: Stage) -> None:
    if version != VERSION:
        raise ProtocolError(f"version byte {version:#04x} where SOCKS5 has 0x05", stage=stage)
