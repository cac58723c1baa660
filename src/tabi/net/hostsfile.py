"""/etc/hosts, read again when it changes (hosts(5)).

c-ares could read it, but gives a name also the addresses of all names that share one with it, on and on; a name would
then lead to addresses that nobody wrote for it.
"""

import os
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from tabi.addr import Address, Name, parse_host
from tabi.errors import AddressError

__all__ = ["HostsFile"]

_LOOK_EVERY = 1.0  # seconds between two looks at whether the file has changed


class HostsFile:
    """The table of one file; lines that cannot be read are passed over, as the C library does.

    Args:
        path: of the file.
        clock: seconds, monotonic.
    """

    def __init__(
        self, path: str | os.PathLike[str] = "/etc/hosts", *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = Path(path)
        self._clock = clock
        self._looked = float("-inf")
        self._seen: tuple[int, int, int] | None = None
        self._addresses: dict[Name, tuple[Address, ...]] = {}
        self._names: dict[Address, Name] = {}

    def addresses(self, name: Name) -> tuple[Address, ...] | None:
        """Give the addresses that the file has for a name, in its order; None where it does not have the name."""
        self._refresh()
        return self._addresses.get(name)

    def name(self, address: Address) -> Name | None:
        """Give the first name that the file has for an address."""
        self._refresh()
        return self._names.get(address)

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        try:
            status = self._path.stat()
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
            if seen == self._seen:
                return
            text = self._path.read_text("utf-8", "replace")
        except OSError:  # a host without the file has no such names
            seen, text = None, ""
        self._seen = seen
        self._read(text)

    def _read(self, text: str) -> None:
        addresses: dict[Name, dict[Address, None]] = {}
        names: dict[Address, Name] = {}
        for line in text.splitlines():
            first, *words = line.partition("#")[0].split() or [""]
            try:
                address = ip_address(first.partition("%")[0])
            except ValueError:
                continue
            for word in words:
                try:
                    name = parse_host(word)
                except AddressError:
                    continue
                if isinstance(name, Name):
                    addresses.setdefault(name, {})[address] = None
                    names.setdefault(address, name)
        self._addresses = {name: tuple(found) for name, found in addresses.items()}
        self._names = names
