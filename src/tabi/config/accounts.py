"""The users of a configuration."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tabi.config.document import Part
from tabi.config.problems import Report
from tabi.config.stored import MARK, check_secret, parse_stored
from tabi.errors import UsageError
from tabi.policy.verdict import Limits

__all__ = ["LIMIT_KEYS", "User", "build_users", "limits_of"]

NO_LIMITS = Limits()
LIMIT_KEYS = ("sessions", "rate", "bandwidth", "lifetime")

_ARGON2ID = "$argon2id$"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """One ``[[user]]``.

    Args:
        name: as the client sends it.
        password: an argon2id hash, or clear text where `plain`.
        plain: see `password`.
        groups: that rules may name.
        limits: of all the user's sessions together.
    """

    name: bytes
    password: str = field(repr=False)
    plain: bool = False
    groups: frozenset[str] = frozenset()
    limits: Limits = NO_LIMITS

    @property
    def stored(self) -> str:
        """The password with its mark, as `tabi.config.stored.parse_stored` reads it."""
        return f"{MARK}{self.password}" if self.plain else self.password


def build_users(parts: Iterable[Part], report: Report) -> dict[bytes, User]:
    """Make the users; what is wrong with them is reported."""
    users: dict[bytes, User] = {}
    lines: dict[bytes, int] = {}
    for part in parts:
        text: str | None = part.get("name")
        if text is None:
            continue
        name = text.encode()
        if name in users:
            report.error((*part.path, "name"), f"is there already, in line {lines[name]}", "keep one of them")
        password: str = part.get("password") or ""
        plain = bool(part.get("plain"))
        _check_password(part, password, plain, report)
        users[name] = User(
            name=name,
            password=password,
            plain=plain,
            groups=frozenset(entry.value for entry in part.entries("groups")),
            limits=limits_of(part),
        )
        lines[name] = report.line(part.path)
    return users


def limits_of(part: Part) -> Limits:
    """Take the limits of a user or a rule."""
    return Limits(**part.given(LIMIT_KEYS))


def _check_password(part: Part, password: str, plain: bool, report: Report) -> None:
    """Complain without showing anything of it."""
    path = (*part.path, "password")
    if not password or "plain" in part.faulty:
        return
    is_hash = password.startswith(_ARGON2ID)
    try:
        if plain and is_hash:
            report.error(path, "is a hash, and marked as clear text", "take plain = true out")
        elif plain:
            check_secret(password.encode())
        else:
            parse_stored("" if password.startswith(MARK) else password)
    except UsageError as error:
        report.error(path, error.text.removeprefix("the ").removeprefix("password "))
