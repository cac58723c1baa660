"""Kinds of values: how each is read, and how the reference describes it.

A value that does not fit raises `WrongError`.
"""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from tabi.addr import Address, Endpoint, Name, parse_host, parse_port
from tabi.config.problems import WrongError
from tabi.errors import AddressError

__all__ = [
    "Kind",
    "address",
    "address4",
    "address6",
    "bandwidth",
    "count",
    "dials",
    "duration",
    "egress",
    "endpoint",
    "flag",
    "glob_text",
    "hint",
    "listener",
    "port",
    "port_range",
    "rate",
    "show_duration",
    "text",
    "trust",
    "user_or_group",
    "word",
    "yes",
]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of value.

    Args:
        accepted: what may be written, for the reference.
        read: turns what TOML gave into what the settings hold.
        unit: of a plain number.
    """

    accepted: str
    read: Callable[[object], Any]  # Any: each key's own type, which `load` knows
    unit: str = ""


def number_in(value: object, low: float, high: float) -> float:
    """Take a number that is one: true is none, neither is nan."""
    if isinstance(value, str) and value.isdecimal():
        raise WrongError("is text", f"write {value}, without quotes")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WrongError("is no number", f"accepted are {_plain(low)} to {_plain(high)}")
    if not low <= value <= high:
        raise WrongError("is out of range", f"accepted are {_plain(low)} to {_plain(high)}")
    return value


_OTHER_WORDS = {
    "userpass": "password", "username": "password", "gssapi": "password", "noauth": "none", "tcp": "connect",
    "udp": "associate", "udp-associate": "associate", "udpassociate": "associate", "socks4": "4", "socks4a": "4a",
    "socks5": "5", "v4": "ipv4", "v6": "ipv6", "4": "ipv4", "6": "ipv6", "true": "not-allowed", "deny": "not-allowed",
    "block": "not-allowed", "drop": "not-allowed", "reject": "not-allowed", "forbidden": "not-allowed",
}  # fmt: skip
"""What people write who come from other servers."""


def hint(found: object, known: Iterable[str]) -> str:
    """Ask whether something near was meant."""
    known, word = list(known), str(found).lower()
    near = difflib.get_close_matches(word, known, 1, 0.6)
    if not near and _OTHER_WORDS.get(word) in known:
        near = [_OTHER_WORDS[word]]
    return f'; did you mean "{near[0]}"?' if near else ""


# words and texts


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise WrongError("is neither true nor false", "write true or false, without quotes")
    return value


def _yes(value: object) -> bool:
    if not _flag(value):
        raise WrongError("does not say what to answer", 'to refuse, write refuse = "not-allowed"')
    return True


flag: Kind = Kind("true or false", _flag)
yes: Kind = Kind("true", _yes)


def text(what: str, longest: int = 255, *, not_first: str = "") -> Kind:
    """Printable text that is not empty.

    Args:
        what: it is, for messages.
        longest: in bytes of UTF-8.
        not_first: characters that it may not begin with.
    """

    def read(value: object) -> str:
        if not isinstance(value, str):
            raise WrongError(f"is no {what}", "write text in quotes")
        if not value:
            raise WrongError("is empty", f"a {what} has 1 to {longest} bytes")
        if not value.isprintable() or len(value.encode()) > longest:
            raise WrongError(f"is no {what}", f"accepted are 1 to {longest} bytes of printable text")
        if value[0] in not_first:
            raise WrongError(f"is no {what}", f"it may not begin with {' or '.join(not_first)}")
        return value

    return Kind("text", read)


def word(words: Mapping[str, object]) -> Kind:
    """One of a few words."""
    listed = ", ".join(f'"{one}"' for one in words)

    def read(value: object) -> object:
        given = str(value) if isinstance(value, int) else value  # version = 5
        if not isinstance(given, str) or given not in words:
            raise WrongError("is not known here", f"accepted are {listed}{hint(value, words)}")
        return words[given]

    return Kind(listed, read)


# numbers


def count(low: int, high: int) -> Kind:
    """A whole number."""

    def read(value: object) -> int:
        if isinstance(value, float):
            raise WrongError("is no whole number", f"accepted are {low} to {high}")
        return int(number_in(value, low, high))

    return Kind(f"{low} to {high}", read)


_SECONDS = {
    "": 1.0, "ms": 0.001, "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0,
    "minutes": 60.0, "h": 3600.0, "hour": 3600.0, "hours": 3600.0, "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_DURATION = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*([a-z]*)\s*")


def duration(low: float, high: float, *, none: bool = False) -> Kind:
    """A span of time in seconds; with `none` 0 means no limit."""
    accepted = f"{show_duration(low)} to {show_duration(high)}"

    def read(value: object) -> float:
        seconds = _seconds(value) if isinstance(value, str) else value
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise WrongError("is no duration", 'write seconds, or "30s", "5 min", "2 h", "1 day"')
        if none and seconds == 0:
            return 0.0
        if not low <= seconds <= high:
            raise WrongError("is out of range", f"accepted are {accepted}{', or 0 for none' if none else ''}")
        return float(seconds)

    return Kind(f"{accepted}{', or 0 for none' if none else ''}", read, "seconds")


def show_duration(seconds: float) -> str:
    """Show a duration as it can be written: ``2 min``, ``0.1 s``."""
    for length, name in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= length and seconds % length == 0:
            return f"{_plain(seconds / length)} {name}"
    return f"{_plain(seconds)} s"


def _seconds(value: str) -> float:
    parts = _DURATION.findall(value)
    known = all(unit in _SECONDS for _, unit in parts)
    if not parts or not known or not re.fullmatch(f"(?:{_DURATION.pattern})+", value):
        raise WrongError("is no duration", 'write seconds, or "30s", "5 min", "2 h", "1 day"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kKMGT]?)(i?)(B|bit|b?)\s*(?:/\s*s)?")
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}
_BANDWIDTH = 'write bytes per second, or "10 MB/s", "512 KiB/s", "100 Mbit/s"'


def _bandwidth(value: object) -> int:
    if isinstance(value, str):
        match = _SIZE.fullmatch(value.strip())
        if match is None:
            raise WrongError("is no bandwidth", _BANDWIDTH)
        amount, power, binary, unit = match.groups()
        if unit == "b":
            raise WrongError("may mean bits or bytes", 'write "MB/s" for bytes or "Mbit/s" for bits')
        bits = 8 if unit == "bit" else 1
        value = float(amount) * float(1024 if binary else 1000) ** _POWERS[power] / bits
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise WrongError("is no bandwidth", _BANDWIDTH)
    if not 1 <= value <= 1e15:
        raise WrongError("is out of range", "accepted are 1 B/s to 1000 TB/s")
    return int(value)


bandwidth: Kind = Kind(
    '1 B/s to 1000 TB/s, such as "10 MB/s", "512 KiB/s", "100 Mbit/s"', _bandwidth, "bytes per second"
)

_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*/\s*(s|min|h)")


def _rate_of(what: str, *, none: bool = False) -> Kind:
    zero = ", or 0 for none" if none else ""

    def read(value: object) -> float:
        if isinstance(value, str) and (match := _RATE.fullmatch(value.strip())) is not None:
            value = float(match[1]) / _SECONDS[match[2]]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise WrongError("is no rate", f'write {what} per second, or "5/s", "30/min", "100/h"')
        if not 1e-6 <= value <= 1e6 and not (none and value == 0):
            raise WrongError("is out of range", f"accepted are 0.000001 to 1000000 per second{zero}")
        return float(value)

    return Kind(f'0.000001 to 1000000 per second, such as "5/s", "30/min", "100/h"{zero}', read, f"{what} per second")


rate: Kind = _rate_of("sessions")
dials: Kind = _rate_of("dials", none=True)


# addresses and ports


_SOME_ENDPOINT = 'write ADDRESS:PORT, such as "127.0.0.1:1080" or "[::1]:1080"'


def _endpoint(value: object) -> Endpoint:
    if not isinstance(value, str):
        raise WrongError("is no address with a port", _SOME_ENDPOINT)
    if re.fullmatch(r":?[0-9]+", value):
        port = value.removeprefix(":")
        raise WrongError("has no address", f'write "127.0.0.1:{port}" for this host alone, "0.0.0.0:{port}" for others')
    if value.count(":") > 1 and not value.startswith("["):
        host, _, port = value.rpartition(":")
        meant = f"[{host}]:{port}" if re.fullmatch("[0-9]{3,5}", port) else f"[{value}]:1080"
        raise WrongError("is an IPv6 address without brackets", f'write "{meant}"')
    host, colon, port = value.rpartition(":")
    if not colon or "]" in port:
        raise WrongError("has no port", f'write "{value}:1080"')
    try:
        endpoint = Endpoint(parse_host(host), parse_port(port))
    except AddressError as error:
        raise WrongError("cannot be listened on", str(error)) from None
    if isinstance(endpoint.host, Name):
        raise WrongError(
            "is a name", f'write an address of this host, such as "127.0.0.1:{port}", or "0.0.0.0:{port}" for all'
        )
    return endpoint


endpoint: Kind = Kind("ADDRESS:PORT, an IPv6 address in []", _endpoint)


def _listener(value: object) -> Endpoint:
    return _endpoint(value)


listener: Kind = Kind("one of those in listen", _listener)


def _address(value: object) -> Address:
    try:
        host = parse_host(value) if isinstance(value, str) else None
    except AddressError:
        host = None
    if host is None or isinstance(host, Name):
        raise WrongError("is no address", 'write an IPv4 or IPv6 address, such as "192.0.2.1" or "2001:db8::1"')
    return host


def _address4(value: object) -> IPv4Address:
    host = _address(value)
    if not isinstance(host, IPv4Address):
        raise WrongError("is no IPv4 address", 'write one, such as "192.0.2.1"')
    return host


def _address6(value: object) -> IPv6Address:
    host = _address(value)
    if not isinstance(host, IPv6Address):
        raise WrongError("is no IPv6 address", 'write one, such as "2001:db8::1"')
    return host


address: Kind = Kind("an IPv4 or IPv6 address", _address)
address4: Kind = Kind("an IPv4 address", _address4)
address6: Kind = Kind("an IPv6 address", _address6)

_INTERFACE = re.compile(r"[^\s/:]{1,15}")  # IFNAMSIZ is 16 with the NUL; the rest are the kernel's own rules


def _egress(value: object) -> Address | str:
    if not isinstance(value, str):
        raise WrongError("is neither an address nor an interface", 'write one, such as "192.0.2.1" or "eth1"')
    try:
        return _address(value)
    except WrongError:
        if _INTERFACE.fullmatch(value) and not re.fullmatch(r"[\d.]+", value):
            return value
    raise WrongError("is neither an address nor an interface", 'write one, such as "192.0.2.1" or "eth1"')


egress: Kind = Kind("an address of this host, or an interface", _egress)


def _port_span(value: object, low: int) -> tuple[int, int]:
    """Read a port or a range, as (first, last)."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise WrongError("is no port", f'write a number from {low} to 65535, or "8000-8999"')
    first, dash, last = (part.strip() for part in value.partition("-"))
    if dash and first.isdecimal() and not last:
        raise WrongError("is a range without an end", f'write "{first}" or "{first}-{_next_after(first)}"')
    if dash and last.isdecimal() and not first:
        raise WrongError("is a range without a beginning", f'write "{low}-{last}"')
    numbers = [first, last] if dash else [first]
    if not all(re.fullmatch("[0-9]{1,5}", number) and low <= int(number) <= 0xFFFF for number in numbers):
        raise WrongError("is no port", f'write a number from {low} to 65535, or a range such as "8000-8999"')
    begin, end = int(first), int(numbers[-1])
    if begin > end:
        raise WrongError("is a range that ends before it begins", f'write "{end}-{begin}"')
    return begin, end


def _next_after(first: str) -> int:
    """Suggest an end of a range: HTTP to HTTPS is what the example in every manual has."""
    return 443 if int(first) < 443 else 65535


def _port(value: object) -> tuple[int, int]:
    return _port_span(value, 0)


def _port_range(value: object) -> tuple[int, int]:
    return _port_span(value, 1)


ENCRYPTED: Final = (22, 443, 465, 563, 636, 853, *range(989, 996), 5061, 5223, 5349, 6697, 8443)
"""Ports of protocols that encrypt what they carry and know whom they talk to."""

_TRUST: Final = {"all": ((0, 0xFFFF),), "encrypted": tuple((port, port) for port in ENCRYPTED)}


def _trust(value: object) -> tuple[tuple[int, int], ...]:
    if isinstance(value, str) and value in _TRUST:
        return _TRUST[value]
    try:
        return (_port(value),)
    except WrongError as error:
        if isinstance(value, str) and value[:1].isalpha():
            accepted = f'"all", "encrypted", ports and ranges of ports{hint(value, _TRUST)}'
            raise WrongError("is not known here", f"accepted are {accepted}") from error
        raise


trust: Kind = Kind('"all", "encrypted", 0 to 65535, or a range such as "8000-8999"', _trust)

port: Kind = Kind('0 to 65535, or a range such as "8000-8999"', _port)
port_range: Kind = Kind('a range within 1 to 65535, such as "40000-40999"', _port_range)


# who


def _user_or_group(value: object) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value.removeprefix("@"):
        raise WrongError("is neither a user nor a group", 'write "alice" or "@staff"')
    return value


user_or_group: Kind = Kind('a user such as "alice", or a group such as "@staff"', _user_or_group)


def _glob_text(value: object) -> str:
    if not isinstance(value, str):
        raise WrongError("is no text", 'write it in quotes; "" is who claims nothing')
    return value


glob_text: Kind = Kind('text; * and ? stand for any; "" is who claims nothing', _glob_text)


def _plain(number: float) -> str:
    return str(int(number)) if number == int(number) else f"{number:g}"
