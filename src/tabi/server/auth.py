"""Judging user names and passwords: what the server asks of whoever does it."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tabi.addr import Endpoint

__all__ = ["WRONG", "Authenticator", "Login", "Passwords"]

WRONG = "wrong user name or password"
"""Why most logins fail. Which of the two it was is not told: there may be no such user, and nobody is to learn it."""


@dataclass(frozen=True, slots=True)
class Login:
    """What came of a login; true where it was good.

    Args:
        ok: whether the client is who it says.
        reason: for the log, why it was refused; empty where it was not.
        groups: that the user is in.
    """

    ok: bool
    reason: str = ""
    groups: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.ok


class Authenticator(Protocol):
    """Whatever can say whether a user name and a password belong together."""

    async def verify(self, username: bytes, password: bytes, client: Endpoint) -> bool | Login:
        """Judge; the handshake's deadline goes on meanwhile. A `Login` also has groups, or tells the log why not."""


class Passwords:
    """A fixed table of passwords in memory, for tests and embedding; `tabi.server.accounts` is for the world outside.

    Whole byte strings are compared, in a time that depends neither on where they differ nor on whether the user exists.

    Args:
        table: user name -> password.
    """

    def __init__(self, table: Mapping[bytes, bytes]) -> None:
        self._table = dict(table)

    def __repr__(self) -> str:
        return f"Passwords({len(self._table)} users)"

    async def verify(self, username: bytes, password: bytes, _client: Endpoint) -> bool:
        """Compare."""
        known = self._table.get(username)
        equal = hmac.compare_digest(password, known if known is not None else b"no such user")
        return equal and known is not None
