"""The log of sessions: which of them are heard, and how many of those that were not served."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from tabi.config.settings import LogSettings
from tabi.relay.lane import Tail
from tabi.server.admission import ClientKey, show_client
from tabi.server.limiter import RefusalLimiter
from tabi.server.line import Kin, LogFormat, format_line
from tabi.server.outcome import Outcome
from tabi.server.record import Facts

__all__ = ["Journal"]

_TELL_HELD_EVERY: Final = 60.0  # seconds between two accounts of lines that were held back
_REFUSALS: Final = frozenset({"policy", "auth", "protocol"})

_logger = logging.getLogger("tabi")


class Journal:
    """Write the lines of sessions that are over.

    Args:
        write: takes log lines, one or several joined by newlines; must not block. None: nothing is written.
        settings: what is heard; to be replaced by others at any time.
        style: of the lines, until the settings are replaced.
    """

    def __init__(self, write: Callable[[str], None] | None, settings: LogSettings, style: LogFormat) -> None:
        self._write = write
        self._settings = settings
        self._style: LogFormat = style
        self._limiter = RefusalLimiter(time.monotonic)
        self._telling: asyncio.TimerHandle | None = None

    def replace(self, settings: LogSettings) -> None:
        """Go on by other settings."""
        self._settings = settings
        self._style = settings.format

    def close(self) -> None:
        """Tell how many lines were held back, if that is still to be told."""
        if self._telling is not None:
            self._telling.cancel()
            self._tell_held()

    def hears(self, facts: Facts) -> bool:
        """Say whether a session leaves a line."""
        return facts.is_heard(self._settings.level)

    def line(self, facts: Facts, outcome: Outcome) -> str:
        """Make a line, for `write`."""
        if not self._settings.targets:
            outcome = outcome._replace(note="")  # errors name the target as well
        return format_line(self._told(facts), outcome, self._style)

    def line_of_kin(self, kin: Kin, tail: Tail, outcome: Outcome) -> str | None:
        """Make the line of a session of this permit; None: `line` has to, for it may be too long."""
        return kin.line(tail, outcome if self._settings.targets else outcome._replace(note=""))

    def kin(self, facts: Facts) -> Kin:
        """Make ready what the lines of one permit of the express lane have in common."""
        return Kin.of(self._told(facts), self._style)

    def write(self, lines: list[str]) -> None:
        """Write lines that were made here."""
        if lines and self._write is not None:
            self._write("\n".join(lines))

    def tell(self, client: ClientKey, facts: Facts, outcome: Outcome) -> None:
        """Write the line of a session; those that were not served count against the client's rate."""
        if not self.hears(facts):
            return
        if facts.command and outcome.why not in _REFUSALS:
            self.write([self.line(facts, outcome)])
        else:  # anybody can cause these at will
            self.tell_failure(client, facts, outcome)

    def tell_failure(self, client: ClientKey, facts: Facts, outcome: Outcome) -> None:
        """Write the line of a session that was not served, unless its client has had too many of these."""
        held = self._limiter.pass_through(client)
        if held is None:
            if self._telling is None:
                self._telling = asyncio.get_running_loop().call_later(_TELL_HELD_EVERY, self._tell_held)
            return
        if held:
            more = f"{held} more failed sessions of this client were not logged"
            outcome = outcome._replace(note=f"{outcome.note}; {more}" if outcome.note else more)
        self.write([self.line(facts, outcome)])

    def _told(self, facts: Facts) -> Facts:
        return facts if self._settings.targets else facts._replace(target="", to="")

    def _tell_held(self) -> None:
        """Say how many lines a flood has cost, when it has ended or goes on without any."""
        self._telling = None
        for client, held in self._limiter.held_back():
            whose = show_client(client) if client else "other clients"
            _logger.warning("%d failed sessions of %s were not logged", held, whose)
