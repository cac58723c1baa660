"""The ``[[upstream]]`` tables: ways through other proxies, which rules call by their names."""

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tabi.addr import Address, Endpoint, Name
from tabi.config.document import Entry, Part
from tabi.config.problems import Report, shown
from tabi.config.proxies import UrlFile, read_url_file
from tabi.errors import UsageError
from tabi.machine.hop import Hop
from tabi.policy.verdict import ALL_PORTS, DIRECT
from tabi.wire.socks5 import Command

__all__ = ["COOL_DOWN", "Upstream", "UpstreamBuilder", "is_own_listener"]

COOL_DOWN: Final = 30.0
"""Seconds that an upstream rests after it has failed, unless it is told otherwise."""

_HIDE: Final = "write it into a file that only the server's user can read, and url = \"@FILE\""


@dataclass(frozen=True, slots=True)
class Upstream:
    """A way through other proxies.

    Args:
        name: that rules call it by.
        hops: the proxies, the nearest first.
        cool_down: seconds that it rests after it has failed.
        weight: its share of the sessions where a rule picks by weight.
        handicap: seconds by which it starts later than its turn in a race.
        trust: first and last of each range of ports that it is trusted with.
    """

    name: str
    hops: tuple[Hop, ...]
    cool_down: float = COOL_DOWN
    weight: int = 1
    handicap: float = 0.0
    trust: tuple[tuple[int, int], ...] = ALL_PORTS

    @property
    def takes_names(self) -> bool:
        """Whether its last proxy looks names up."""
        return self.hops[-1].scheme.takes_names


class UpstreamBuilder:
    """Makes upstreams of what was read.

    Args:
        directory: that names of URL files start from.
        report: takes what is wrong.
        listeners: where the server listens: a way that leads back there is none.
        own: addresses of this host.
        is_public: every user of this host can read the configuration.
    """

    def __init__(
        self,
        directory: Path,
        report: Report,
        *,
        listeners: Iterable[Endpoint],
        own: Collection[Address],
        is_public: bool,
    ) -> None:
        self._directory = directory
        self._report = report
        self._listeners = tuple(listeners)
        self._own = own
        self._is_public = is_public

    def build(self, parts: Iterable[Part]) -> Mapping[str, Upstream]:
        """Make all that can be used."""
        found: dict[str, Upstream] = {}
        for part in parts:
            name: str | None = part.get("name")
            hops = tuple(self._hops(part))
            self._check(part, hops)
            if name in found or name == DIRECT:
                why = "is the way without an upstream" if name == DIRECT else "is there already"
                self._report.error((*part.path, "name"), why, "choose another name", found=shown(name))
            elif name is not None:
                trust = tuple(span for entry in part.entries("trust") for span in entry.value) or ALL_PORTS
                found[name] = Upstream(name, hops, trust=trust, **part.given(("cool_down", "weight", "handicap")))
        return found

    def _hops(self, part: Part) -> Iterator[Hop]:
        for entry in part.entries("url"):
            hop = self._read(entry) if isinstance(entry.value, UrlFile) else entry.value
            if hop is None:
                continue
            if self._is_public and hop.password and not isinstance(entry.value, UrlFile):
                self._report.warn(
                    entry.path, "has a password in a file that every user of this host can read", _HIDE
                )
            yield hop

    def _read(self, entry: Entry) -> Hop | None:
        name: str = entry.value.name
        try:
            told = read_url_file(self._directory / name)
        except UsageError as error:
            self._report.error(entry.path, "cannot be used", str(error), found=shown(f"@{name}"))
            return None
        if told.is_public and told.hop.password:
            complaint = "is a file with a password that every user of this host can read"
            self._report.warn(entry.path, complaint, f"run chmod o-r {self._directory / name}", found=shown(f"@{name}"))
        return told.hop

    def _check(self, part: Part, hops: tuple[Hop, ...]) -> None:
        if part.has("trust") and "trust" not in part.faulty and not part.entries("trust"):
            self._report.error((*part.path, "trust"), "is empty", 'write "all", "encrypted" or ports', found="[]")
        path = (*part.path, "url")
        if not hops:
            if part.has("url") and "url" not in part.faulty and not part.entries("url"):
                self._report.error(path, "is empty", 'write one URL, or several: a chain, the nearest proxy first')
            return
        first = hops[0].proxy
        if is_own_listener(first, self._listeners, self._own.__contains__):
            self._report.error(path, f"leads to this server itself, which listens on {first}", "name another proxy")
        for hop, following in itertools.pairwise(hops):
            try:
                if not isinstance(following.proxy.host, Name) or hop.scheme.takes_names:
                    hop.machine(Command.CONNECT, following.proxy)
            except UsageError as error:
                self._report.error(path, f"is a chain that breaks at {following}", str(error))


def is_own_listener(proxy: Endpoint, listeners: Iterable[Endpoint], is_own: Callable[[Address], bool]) -> bool:
    """Say whether a proxy is one of our own listeners, as far as its address tells.

    Args:
        proxy: where it is.
        listeners: where we listen.
        is_own: says whether an address, not of loopback, is of this host.
    """
    host = proxy.host
    if isinstance(host, Name):
        return False
    for listener in listeners:
        local = listener.host
        if listener.port != proxy.port or isinstance(local, Name):
            continue
        takes_family = local.version in (6, host.version)  # [::] takes IPv4 as well
        if local == host or (local.is_unspecified and takes_family and (host.is_loopback or is_own(host))):
            return True
    return False
