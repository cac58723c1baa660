"""This host's addresses as the workers are to know them: ``@private`` holds them, and they come and go."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Final

from tabi.addr import Address
from tabi.errors import ConfigError
from tabi.net.own import AddressWatch, own_addresses
from tabi.policy.networks import PRIVATE

__all__ = ["Home"]

LOOK_AGAIN: Final = 1.0  # seconds after the kernel has not said

_logger = logging.getLogger("tabi")


class Home:
    """The addresses of this host that are not private anyway, followed.

    Args:
        on_change: called in the loop with what they are now.
        read: asks the kernel.
    """

    def __init__(
        self,
        on_change: Callable[[frozenset[Address]], None],
        *,
        read: Callable[[], Iterable[Address]] = own_addresses,
    ) -> None:
        self._on_change = on_change
        self._read = read
        self._watch: AddressWatch | None = None
        self._again: asyncio.TimerHandle | None = None
        self._is_in_doubt = False
        self.addresses: frozenset[Address] = frozenset()

    def start(self) -> None:
        """Learn the addresses, and hear of changes from now on; where the kernel does not tell of those, say so."""
        self._loop = asyncio.get_running_loop()
        try:
            self._watch = AddressWatch(self.look, loop=self._loop)
        except OSError as error:
            _logger.warning(
                "this host's addresses cannot be followed (%s): one that it is given while the server runs is in"
                " @private after a reload only",
                error.strerror,
            )
        self.addresses = self._now() or frozenset()

    def look(self) -> None:
        """Ask again, and tell what is new."""
        now = self._now()
        if now is None or now == self.addresses:
            return
        before, self.addresses = self.addresses, now
        if now - before:
            _logger.warning("this host has %s now; @private holds it", _listed(now - before))
        if before - now:
            _logger.warning("this host has %s no more; @private holds it no more", _listed(before - now))
        self._on_change(now)

    def stop(self) -> None:
        """Hear no more; stopping twice is stopping once."""
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        if self._again is not None:
            self._again.cancel()

    def _now(self) -> frozenset[Address] | None:
        """Ask the kernel; where it does not say, ask again later."""
        try:
            found = frozenset(address for address in self._read() if address not in PRIVATE)
        except ConfigError as error:
            if not self._is_in_doubt:
                _logger.warning("%s; asking again", error)
            self._is_in_doubt = True
            if self._again is not None:
                self._again.cancel()
            self._again = self._loop.call_later(LOOK_AGAIN, self.look)
            return None
        self._is_in_doubt = False
        return found


def _listed(some: Iterable[Address]) -> str:
    return ", ".join(map(str, sorted(some, key=lambda one: (one.version, int(one)))))
