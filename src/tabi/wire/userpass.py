"""Username/password sub-negotiation (RFC 1929 section 2)."""

from dataclasses import dataclass, field
from typing import Self

from tabi.errors import AuthError, UsageError
from tabi.wire.address import Buffer

__all__ = ["VERSION", "Credentials", "Status"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Credentials:
    """``VER ULEN UNAME PLEN PASSWD``; the password never shows in a repr."""

    username: bytes
    password: bytes = field(repr=False)

    @staticmethod
    def size(buf: Buffer) -> int:
        """Bytes that the message at the start of `buf` needs; stops at a wrong version byte."""
        if not buf or buf[0] != VERSION:
            return 1
        ulen = buf[1] if len(buf) > 1 else 0
        plen = buf[2 + ulen] if len(buf) > 2 + ulen else 0
        return 3 + ulen + plen

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read a whole message.

        Raises:
            AuthError: another version byte; what follows is not to be read as anything else.
        """
        if buf[0] != VERSION:
            raise AuthError(f"version byte {buf[0]:#04x} where RFC 1929 has 0x01")
        ulen = buf[1]
        return cls(bytes(buf[2 : 2 + ulen]), bytes(buf[3 + ulen : 3 + ulen + buf[2 + ulen]]))

    def encode(self) -> bytes:
        """Write it.

        Raises:
            UsageError: a name or password that is empty or longer than 255 bytes.
        """
        for what, text in (("user name", self.username), ("password", self.password)):
            if not 1 <= len(text) <= 255:
                raise UsageError(f"{what} of {len(text)} bytes; RFC 1929 takes 1 to 255")
        name = bytes((VERSION, len(self.username))) + self.username
        return name + bytes((len(self.password),)) + self.password


@dataclass(frozen=True, slots=True)
class Status:
    """``VER STATUS``; 0 is success, anything else failure."""

    status: int

    @staticmethod
    def size(_buf: Buffer) -> int:
        """Two bytes, always."""
        return 2

    @classmethod
    def decode(cls, buf: Buffer) -> Self:
        """Read it; the version byte is not judged, servers send 01 and 05."""
        return cls(buf[1])

    def encode(self) -> bytes:
        """Write it."""
        return bytes((VERSION, self.status))
