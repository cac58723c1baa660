"""A server as administrators run it for people with passwords: a file with argon2 hashes, a supervisor, workers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.configured import ALLOW, JSON, Configured, configured, user
from helpers.serving import SERVE
from helpers.waiting import until
from tabi.addr import Endpoint

__all__ = ["PASSWORDS", "Members", "serving_members"]

PASSWORDS = {"anna": "secret", "nick": "se:cret", "björn": "p:ss@wörd", "k b": "x", "alice": "monkey"}
_FILE = 'listen = ["127.0.0.1:0", "[::1]:0"]\n' + "".join(user(one, PASSWORDS[one].encode()) for one in PASSWORDS)


class Members:
    """One test's look at it: its parts have the names that those of `helpers.serving.Running` have."""

    def __init__(self, server: Configured) -> None:
        self.server = server
        self._before = len(server.sessions)

    @property
    def addresses(self) -> tuple[Endpoint, ...]:
        """Where it listens."""
        four, six = self.server.ports(2)
        return Endpoint.parse(f"127.0.0.1:{four}"), Endpoint.parse(f"[::1]:{six}")

    @property
    def address(self) -> tuple[str, int]:
        """The listener on 127.0.0.1."""
        return self.server.address

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log lines since the test began."""
        return self.server.records[self._before :]

    def line(self, **expected: Any) -> dict[str, Any]:
        """Wait for a log line with these fields."""
        return until(
            lambda: next((one for one in self.lines if expected.items() <= one.items()), {}),
            lambda: f"a line with {expected} among {self.lines}",
        )

    def failures(self, name: str) -> int:
        """Give how often this user failed to log in."""
        return sum(row["failures"] for row in self.server.rows("lockouts") if row["user"] == name)

    def done(self) -> None:
        """Leave nothing to the next test: no session, and no delay for failed logins."""
        until(lambda: not self.server.rows("sessions"), "all sessions to end")
        self.server.rows("lift")


@contextmanager
def serving_members(directory: Path, program: tuple[str, ...] = SERVE) -> Iterator[Configured]:
    """Run it, with two workers."""
    with configured(directory, _FILE + JSON + ALLOW, program=program) as server:
        server.workers(2)
        yield server
        assert server.stop() == 0, server.errors
