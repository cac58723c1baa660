"""Whether to look again for a moment before going to sleep.

An event that comes within microseconds finds the thread awake: no wake-up, which on an idle processor is most of a
round trip. Each spin that finds nothing costs its whole length, so the rule is: spin while no more than a fifth of the
last spins were in vain. Once that is over, waits that ended soon earn a trial, and those that did not cost one, so
there is none but where most waits end soon. A trial that succeeds is followed by the next at once: a stream of quick
answers is back to spinning within tens of waits.
"""

from typing import Final

__all__ = ["LENGTH", "Spin"]

LENGTH: Final = 50e-6  # seconds; it replaces a sleep and a wake-up, which cost about as much

# Of the last 32 spins, a bit for each.
_RECENT: Final = (1 << 32) - 1
_VAIN: Final = 6

_SOON: Final = 4 * LENGTH  # a wait that ended within this may have been a spin's: being woken up takes its time
_TRIAL: Final = 32  # so many more waits that ended soon than others earn one


class Spin:
    """Remembers how spins and waits went. It begins without a record of success."""

    __slots__ = ("_soon", "_vain")

    def __init__(self) -> None:
        self._vain = _RECENT
        self._soon = 0

    def is_worth_it(self, timeout: float) -> bool:
        """Say whether to spin, with something else to do after so many seconds (-1: never)."""
        if 0 <= timeout <= LENGTH:
            return False
        return self._soon >= _TRIAL or self._vain.bit_count() <= _VAIN

    def note_spin(self, *, was_vain: bool) -> None:
        """Remember how a spin went."""
        self._vain = (self._vain << 1 | was_vain) & _RECENT
        self._soon = 0 if was_vain else _TRIAL

    def note_wait(self, lasted: float) -> None:
        """Remember how many seconds a sleep took."""
        if lasted <= _SOON:
            self._soon += 1
        elif self._soon:
            self._soon -= 1
