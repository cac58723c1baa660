"""How long a client's messages are (RFC 1928 sections 3 and 4, RFC 1929 section 2, SOCKS4.protocol, SOCKS4a.protocol).

Each `end_of_` gives the offset behind the message that begins at `at`, or 0 where it is not there whole or not plain:
then it is for the control plane to say what is wrong with it. What is in a message is not looked at any further.
"""

import socket
from functools import lru_cache
from typing import Final

__all__ = ["end_of_greeting", "end_of_login", "end_of_request4", "end_of_request5", "granted"]

_CONNECT: Final = 1
_MOST: Final = 255  # bytes of a USERID and of a SOCKS4a domain, as in tabi.wire.socks4


def end_of_greeting(data: bytes) -> int:
    """``VER NMETHODS METHODS``."""
    if len(data) < 2:
        return 0
    end = 2 + data[1]
    return end if len(data) >= end else 0


def end_of_login(data: bytes, at: int) -> int:
    """``VER ULEN UNAME PLEN PASSWD``."""
    if len(data) < at + 2 or data[at] != 1:
        return 0
    length = at + 2 + data[at + 1]
    if len(data) <= length:
        return 0
    end = length + 1 + data[length]
    return end if len(data) >= end else 0


def end_of_request5(data: bytes, at: int) -> int:
    """``VER CMD RSV ATYP DST.ADDR DST.PORT``, of a CONNECT."""
    if len(data) < at + 5 or data[at] != 5 or data[at + 1] != _CONNECT:
        return 0
    atyp = data[at + 3]
    if atyp == 1:
        end = at + 10
    elif atyp == 3:
        end = at + 7 + data[at + 4]
    elif atyp == 4:
        end = at + 22
    else:
        return 0
    return end if len(data) >= end else 0


def end_of_request4(data: bytes) -> int:
    """``VN CD DSTPORT DSTIP USERID NUL [DOMAIN NUL]``, of a CONNECT."""
    if len(data) < 9 or data[1] != _CONNECT:
        return 0
    end = data.find(0, 8, 9 + _MOST) + 1
    if end and data[7] and not (data[4] or data[5] or data[6]):
        end = data.find(0, end, end + 1 + _MOST) + 1
    return end


def granted(version: int, host: str, port: int) -> bytes:
    """Grant the request (RFC 1928 section 6, SOCKS4.protocol); `version` is the client's first byte."""
    if version == 4:
        return b"\x00\x5a" + port.to_bytes(2, "big") + _packed4(host)
    return _head5(host) + port.to_bytes(2, "big")


@lru_cache(256)
def _head5(host: str) -> bytes:
    if ":" in host:
        return b"\x05\x00\x00\x04" + socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return b"\x05\x00\x00\x01" + socket.inet_pton(socket.AF_INET, host)


@lru_cache(256)
def _packed4(host: str) -> bytes:
    """Give what a SOCKS4 reply shows: it has four bytes for an address, so IPv6 shows as 0.0.0.0."""
    return bytes(4) if ":" in host else socket.inet_pton(socket.AF_INET, host)
