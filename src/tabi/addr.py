"""Value types for hosts and endpoints: parse, format, compare. No DNS.

A host is an IP address or a ``Name``. Text and bytes are normalised here once, and policy, resolver and
dialler all see the one object that comes out, so that none can be fooled by a form that another reads
differently:

- dotted quads and IPv6 text (with or without brackets) become addresses, IPv4-mapped IPv6 becomes IPv4;
- what a C library would also read as an IPv4 address (``127.1``, ``0x7f.1``, ``2130706433``, ``0177.0.0.1``)
  is refused: a name whose last label is a number is no name (the rule of the WHATWG URL standard, section
  3.5);
- names become lower case A-labels without a trailing dot; control bytes, NUL, spaces, empty or over-long
  labels are refused (RFC 1035 section 2.3.4, RFC 1123 section 2.1; the underscore is tolerated as DNS itself
  does).
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Self, TypeAlias

from tabi.errors import AddressError

__all__ = [
    "Address", "Endpoint", "Host", "Name",
    "escape", "parse_host", "parse_port", "printable", "socket_address", "token", "unmap",
]  # fmt: skip

Address: TypeAlias = IPv4Address | IPv6Address

MAX_NAME = 253  # RFC 1035 section 2.3.4: 255 octets on the wire, less the first length and the root label
MAX_LABEL = 63  # RFC 1035 section 2.3.4

_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
_PLAIN = re.compile(r"[A-Za-z0-9._:/@\[\]+,-]+")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# IDNA 2003 (in the standard library) and IDNA 2008 map these four to different names; we take neither side.
_IDNA_DEVIATIONS = frozenset("\u00df\u03c2\u200c\u200d")


@dataclass(frozen=True, slots=True)
class Name:
    """A domain name in normal form. Make it with `parse_host`; other text is refused.

    Args:
        text: lower case A-labels joined by dots, at most 253 characters, no trailing dot.

    Raises:
        AddressError: the text is not in normal form.
    """

    text: str

    def __post_init__(self) -> None:
        if complaint := _complaint(self.text):
            raise AddressError(f"{escape(self.text)} is no domain name: {complaint}")

    def __str__(self) -> str:
        return self.text


Host: TypeAlias = Name | IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A host and a port: where a connection goes to or comes from.

    Args:
        host: an address or a name.
        port: 0 to 65535.
    """

    host: Host
    port: int

    @classmethod
    def parse(cls, text: str, *, default_port: int | None = None) -> Self:
        """Read ``host:port`` or ``[v6]:port``; with `default_port` the port may be left out.

        Raises:
            AddressError: no port, a port out of range, or no host.
        """
        host, colon, port = text.rpartition(":")
        if not colon or (":" in host and not (host.startswith("[") and host.endswith("]"))):
            if default_port is None:
                raise AddressError(f"{escape(text)} has no port; write HOST:PORT, an IPv6 address in []")
            return cls(parse_host(text), default_port)
        return cls(parse_host(host), parse_port(port))

    @classmethod
    def from_sockaddr(cls, sockaddr: tuple[str, int] | tuple[str, int, int, int]) -> Self:
        """Take what the socket module gives for a peer or a local end; IPv4-mapped becomes IPv4."""
        return cls(socket_address(sockaddr[0]), sockaddr[1])

    def __str__(self) -> str:
        host = self.host.text if isinstance(self.host, Name) else address_text(self.host)
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@lru_cache(maxsize=4096)
def address_text(address: Address) -> str:
    """Write an address. The last ones are remembered: `ipaddress` takes 2 us for what comes with each connection."""
    return str(address)


@lru_cache(maxsize=4096)
def socket_address(text: str) -> Address:
    """Read the host of what the socket module gives; its zone is dropped, IPv4-mapped becomes IPv4.

    The last ones are remembered: the same few come with each connection and each datagram.
    """
    bare = text.partition("%")[0]
    return unmap(IPv6Address(bare)) if ":" in bare else IPv4Address(bare)


def unmap(address: Address) -> Address:
    """Turn an IPv4-mapped IPv6 address (::ffff:a.b.c.d) into the IPv4 address that it means; others stay."""
    if isinstance(address, IPv6Address) and (mapped := address.ipv4_mapped) is not None:
        return mapped
    return address


def parse_host(raw: str | bytes) -> Host:
    """Normalise what a peer or a user wrote for a host.

    Args:
        raw: text, or bytes from the wire (UTF-8; only names beyond ASCII need it).

    Returns:
        an address where the text is one, else a `Name`.

    Raises:
        AddressError: neither; the text names what is wrong and escapes what was sent.
    """
    if isinstance(raw, bytes):
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise AddressError(f"{escape(raw)} is no domain name: it is not UTF-8") from None
    else:
        text = raw
    if ":" in text or text.startswith("["):
        return _parse_v6(text)
    if not text.isascii():
        text = _to_ascii(text)
    text = text.lower().removesuffix(".")
    if _NUMBER.fullmatch(text.rpartition(".")[2]):
        try:
            return IPv4Address(text)
        except ValueError:
            raise AddressError(
                f"{escape(text)} is no domain name and no address; an IPv4 address is four decimal numbers"
            ) from None
    return Name(text)


def parse_port(text: str) -> int:
    """Read a decimal port, 0 to 65535.

    Raises:
        AddressError: anything else.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 0xFFFF):
        raise AddressError(f"{escape(text)} is no port; write a number from 0 to 65535")
    return int(text)


def escape(raw: str | bytes, limit: int = 300) -> str:
    """Make peer-given text safe for one line of a log: quotes, backslashes and what does not print are
    escaped.

    Args:
        raw: anything from the wire.
        limit: characters kept; a longer text ends in an ellipsis and its length.
    """
    text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
    kept = text[:limit]
    if not kept.isascii() or not kept.isprintable() or '"' in kept or "\\" in kept:
        kept = "".join(map(_escape_one, kept))
    return f'"{kept}"' if len(text) <= limit else f'"{kept}…" ({len(text)} characters)'


def token(text: str) -> str:
    """Make text one word of a line: as it is where nothing in it could be taken for more, else as `escape` does."""
    return text if _PLAIN.fullmatch(text) else escape(text)


def printable(text: str) -> str:
    """Make text fit to be shown on a terminal, as a part of one line; quotes and backslashes stay."""
    return text if text.isprintable() else "".join(char if char.isprintable() else _escape_one(char) for char in text)


def _escape_one(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape: a byte that was no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _parse_v6(text: str) -> Address:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in inner:
        raise AddressError(f"{escape(text)} names a zone, which means nothing on another host; leave it out")
    try:
        return unmap(IPv6Address(inner))
    except ValueError:
        raise AddressError(f"{escape(text)} is no IPv6 address") from None


def _to_ascii(text: str) -> str:
    if _IDNA_DEVIATIONS & frozenset(text):
        raise AddressError(f"{escape(text)} has a letter that IDNA 2003 and 2008 read differently")
    try:
        return text.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise AddressError(f"{escape(text)} is no domain name: {error}") from None


def _complaint(text: str) -> str | None:
    if not text:
        return "it is empty"
    if len(text) > MAX_NAME:
        return f"it has {len(text)} characters, at most {MAX_NAME} fit into DNS"
    if text[0] == "-":  # also glibc's rule; keeps names from looking like options of a command
        return "it begins with a hyphen"
    labels = text.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            return _label_complaint(label)
    if _NUMBER.fullmatch(labels[-1]):
        return "its last label is a number"
    return None


def _label_complaint(label: str) -> str:
    if not label:
        return "it has an empty label"
    if len(label) > MAX_LABEL:
        return f"a label has {len(label)} characters, at most {MAX_LABEL} are allowed"
    return "only letters, digits, hyphens, underscores and dots are allowed"
