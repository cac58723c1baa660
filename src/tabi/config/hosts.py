"""Entries that name hosts: networks, names with wildcards, ``@sets``."""

import re
from dataclasses import dataclass
from ipaddress import ip_address, ip_network, summarize_address_range
from typing import TypeAlias

from tabi.addr import Name, parse_host
from tabi.config.kinds import Kind
from tabi.config.problems import WrongError
from tabi.errors import AddressError
from tabi.policy.networks import Network, embedded_network

__all__ = ["HostEntry", "SetName", "host", "host_entry", "network", "network_entry"]

_SET = re.compile(r"@[A-Za-z0-9_.-]+")
_PATTERN = re.compile(r"[a-z0-9_*?-]{1,63}(?:\.[a-z0-9_*?-]{1,63})*")
# in normal form, and its last label begins with a letter, so it is no number
_PLAIN_NAME = re.compile(r"(?!-)(?:[a-z0-9_-]{1,63}\.)*(?=[a-z_-])[a-z0-9_-]{1,63}")
_BRACKETS = re.compile(r"\[([^]]*)\](/.*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://")
_NETWORK = 'write "203.0.113.0/24", "2001:db8::/32" or a single address'
_HOST = 'write "www.example.org", "*.example.org", "203.0.113.0/24" or "@set"'


@dataclass(frozen=True, slots=True)
class SetName:
    """``@name``: a set file, or ``@private``."""

    name: str


HostEntry: TypeAlias = Network | SetName | str
"""A string is a pattern of names in normal form."""


def network_entry(value: object) -> Network | SetName:
    """Read an entry of ``from``.

    Raises:
        WrongError: it is none.
    """
    if not isinstance(value, str):
        raise WrongError("is no network", _NETWORK)
    if _SET.fullmatch(value):
        return SetName(value[1:])
    if _looks_like_network(value):
        return _network(value)
    _refuse_range(value)
    raise WrongError("is no network", _NETWORK)


def host_entry(value: object) -> HostEntry:
    """Read an entry of ``to``, or a line of a set file.

    Raises:
        WrongError: it is none.
    """
    if isinstance(value, str) and len(value) <= 253 and _PLAIN_NAME.fullmatch(value):
        return value  # nearly all of a set file's 100,000 lines
    if not isinstance(value, str) or not value:
        raise WrongError("names no host", _HOST)
    if value.startswith("@"):
        if not _SET.fullmatch(value):
            raise WrongError("is no name of a set", "letters, digits, dots, hyphens and underscores make one")
        return SetName(value[1:])
    if _looks_like_network(value):
        return _network(value)
    _refuse_range(value)
    return _pattern(value)


network: Kind = Kind('networks such as "10.0.0.0/8" or "2001:db8::/32", addresses, "@private", "@set"', network_entry)
host: Kind = Kind(
    'names such as "www.example.org", "*.example.org" (all below it), "mail?.example.*"; networks; "@private", "@set"',
    host_entry,
)


def _refuse_range(value: str) -> None:
    """Say how a range of addresses is written."""
    first, dash, last = (part.strip() for part in value.partition("-"))
    if not (dash and _looks_like_network(first) and _looks_like_network(last)):
        return
    try:
        networks = list(summarize_address_range(ip_address(first), ip_address(last)))
    except (ValueError, TypeError):  # no addresses, of two families, or the wrong way round
        raise WrongError("is no range of addresses", _NETWORK) from None
    shown = ", ".join(f'"{one}"' for one in networks[:4])
    raise WrongError("is a range of addresses", f"write networks: {shown}{', …' if len(networks) > 4 else ''}")


def _looks_like_network(value: str) -> bool:
    base = value.partition("/")[0].strip("[]")
    if ":" in base:
        return base.count(":") > 1
    return bool(re.fullmatch(r"[0-9.]+", base))


def _network(value: str) -> Network:
    bracketed = _BRACKETS.fullmatch(value)
    text = bracketed[1] + (bracketed[2] or "") if bracketed is not None else value
    if "%" in text:
        raise WrongError("names a zone, which means nothing on another host", "leave it out")
    try:
        found = ip_network(text, strict=False)
    except ValueError:
        raise WrongError("is no network", _NETWORK) from None
    base = text.partition("/")[0]
    if ip_address(base) != found.network_address:
        raise WrongError("has bits set beyond its prefix", f'write "{found}" or "{base}"')
    inner = embedded_network(found)
    return inner if inner is not None and int(found.network_address) >> 32 == 0xFFFF else found


def _pattern(value: str) -> str | Network:
    lower = value.lower()
    if _SCHEME.match(lower):
        raise WrongError("is a URL", _HOST)
    if re.search(r":\d*$", lower):
        raise WrongError("has a port", 'write ports into "port"')
    if lower.startswith("."):
        raise WrongError("begins with a dot", f'write "*{value}" for all below, "{value[1:]}" for itself')
    if re.fullmatch(r"[0-9.*?/]*[0-9][0-9.*?/]*", lower):
        raise WrongError("is no network", _NETWORK)
    if not set("*?") & set(lower):
        try:
            found = parse_host(lower)
        except AddressError as error:
            raise WrongError("names no host", f"{_HOST} ({error})") from None
        return found.text if isinstance(found, Name) else ip_network(found)
    lower = ".".join(map(_ascii_label, lower.removesuffix(".").split(".")))
    if not _PATTERN.fullmatch(lower):
        raise WrongError("is no pattern of names", "letters, digits, hyphens, dots, * and ? make one")
    return lower


def _ascii_label(label: str) -> str:
    """Turn a label beyond ASCII into an A-label, as names of requests are."""
    if label.isascii():
        return label
    try:
        return str(parse_host(label))
    except AddressError as error:
        raise WrongError("is no pattern of names", str(error)) from None
