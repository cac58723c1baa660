"""ATYP, address and port, as SOCKS5 messages and UDP headers share them (RFC 1928 section 5).

Knows bytes only: a domain stays as it came (`tabi.addr.parse_host` judges it), an IPv6 address is not
unmapped.
"""

from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from tabi.errors import ProtocolError, Reply, Stage, UsageError, WireCode

__all__ = [
    "Atyp", "Buffer", "WireHost", "decode_address", "encode_address", "encode_port", "size_of_address",
]  # fmt: skip

WireHost: TypeAlias = IPv4Address | IPv6Address | bytes
"""An address, or a domain as the bytes that were sent."""

Buffer: TypeAlias = bytes | bytearray | memoryview


class Atyp(WireCode):
    """RFC 1928 section 5: type of the address that follows."""

    IPV4 = 1
    DOMAIN = 3
    IPV6 = 4


# Plain numbers: comparing with a member of an enum costs ten times as much, for each message.
_IPV4, _DOMAIN, _IPV6 = int(Atyp.IPV4), int(Atyp.DOMAIN), int(Atyp.IPV6)


def size_of_address(buf: Buffer, at: int) -> int:
    """Say how many bytes ATYP, address and port take at offset `at`, as far as the bytes at hand tell.

    Raises:
        ProtocolError: an ATYP that RFC 1928 does not have (reply 8).
    """
    if len(buf) <= at:
        return 1
    atyp = buf[at]
    if atyp == _IPV4:
        return 1 + 4 + 2
    if atyp == _IPV6:
        return 1 + 16 + 2
    if atyp == _DOMAIN:
        return 1 + 1 + (buf[at + 1] if len(buf) > at + 1 else 0) + 2
    raise ProtocolError(
        f"address type {atyp:#04x} is none of 1 (IPv4), 3 (domain), 4 (IPv6)",
        stage=Stage.REQUEST,
        reply=Reply.ADDRESS_TYPE_NOT_SUPPORTED,
    )


def decode_address(buf: Buffer, at: int) -> tuple[WireHost, int, int]:
    """Read ATYP, address and port at offset `at` of a buffer that holds them whole.

    Returns:
        host, port, and the offset behind them.

    Raises:
        ProtocolError: bad ATYP, or the buffer ends too early.
    """
    end = at + size_of_address(buf, at)
    if len(buf) < end:
        raise ProtocolError(f"address is cut: {len(buf)} bytes, {end} needed", stage=Stage.REQUEST)
    atyp = buf[at]
    port = buf[end - 2] << 8 | buf[end - 1]
    if atyp == _IPV4:
        return IPv4Address(bytes(buf[at + 1 : end - 2])), port, end
    if atyp == _IPV6:
        return IPv6Address(bytes(buf[at + 1 : end - 2])), port, end
    return bytes(buf[at + 2 : end - 2]), port, end


def encode_address(host: WireHost, port: int) -> bytes:
    """Write ATYP, address and port.

    Raises:
        UsageError: a domain over 255 bytes (never cut, never wrapped) or a port out of range.
    """
    if isinstance(host, IPv4Address):
        return b"\x01" + host.packed + encode_port(port)
    if isinstance(host, IPv6Address):
        return b"\x04" + host.packed + encode_port(port)
    if len(host) > 255:
        raise UsageError(f"domain of {len(host)} bytes; RFC 1928 has one length byte, so at most 255")
    return bytes((Atyp.DOMAIN, len(host))) + host + encode_port(port)


def encode_port(port: int) -> bytes:
    """Write a port in network byte order.

    Raises:
        UsageError: a port out of range.
    """
    if not 0 <= port <= 0xFFFF:
        raise UsageError(f"port {port} is not in 0 to 65535")
    return port.to_bytes(2, "big")
