"""Passwords as a configuration stores them: argon2id (RFC 9106) in its usual text form, or plain text that is marked.

What can be a password at all, and what is a hash that a server can use. Hashing is `tabi.server.passwords`.
"""

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TypeAlias

from tabi.errors import ConfigError, UsageError

__all__ = ["MARK", "Hash", "Plain", "Stored", "check_secret", "is_sound", "parse_stored"]

MARK = "plain:"
"""What stands before a password that is stored as it is."""

MAX_MEMORY = 1 << 20  # KiB
MAX_COST = 4 << 20  # KiB times passes, about four seconds; nobody wants to wait longer for a login

_ARGON2ID = re.compile(
    r"\$argon2id\$v=19\$m=([1-9][0-9]{0,7}),t=([1-9][0-9]{0,7}),p=([1-9][0-9]{0,2})\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)"
)
_ANEW = "write all that `tabi passwd` printed, or run it again"
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Hash:
    """An argon2id hash.

    Args:
        encoded: the text that argon2 understands.
        memory: KiB.
        passes: over the memory.
        lanes: threads that one hash takes.
    """

    encoded: bytes = field(repr=False)
    memory: int
    passes: int
    lanes: int
    salt: int
    tag: int

    @property
    def cost(self) -> int:
        """How long it takes, in KiB of memory gone over."""
        return self.memory * self.passes

    @property
    def identity(self) -> bytes:
        """What changes whenever the password is set anew."""
        return self.encoded


@dataclass(frozen=True, slots=True)
class Plain:
    """A password stored as it is."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        check_secret(self.secret)

    @property
    def identity(self) -> bytes:
        """What changes whenever the password is set anew."""
        return MARK.encode() + self.secret

    def matches(self, password: bytes) -> bool:
        """Compare digests, in a time that tells nothing, not even the length."""
        key = secrets.token_bytes(32)
        return hmac.compare_digest(blake2b(password, key=key).digest(), blake2b(self.secret, key=key).digest())


Stored: TypeAlias = Hash | Plain


def parse_stored(text: str) -> Stored:
    """Read a password as it stands in a file; nothing of it shows in an error.

    Raises:
        ConfigError: neither a usable argon2id hash nor marked as plain text.
    """
    if text.startswith(MARK):
        try:
            return Plain(text.removeprefix(MARK).encode())
        except UsageError as error:
            raise ConfigError(error.text) from None
    match = _ARGON2ID.fullmatch(text)
    if match is None:
        found = "a hash that is not argon2id" if text.startswith("$") else "clear text without its mark"
        if text.startswith("$argon2id$"):
            raise ConfigError(f"password is a damaged argon2id hash; {_ANEW}")
        raise ConfigError(
            f"password is {found}; write what `tabi passwd` prints, or mark clear text by plain = true"
        )
    memory, passes, lanes = (int(number) for number in match.groups()[:3])
    salt, tag = map(_bytes_in, match.groups()[3:])
    if not 8 <= salt <= 64 or not 16 <= tag <= 64:
        raise ConfigError(f"password is a damaged argon2id hash; {_ANEW}")
    if lanes * 8 > memory or memory > MAX_MEMORY or memory * passes > MAX_COST:
        raise ConfigError(
            f"password is an argon2id hash with m={memory},t={passes},p={lanes}; "
            f"accepted are m up to {MAX_MEMORY}, m times t up to {MAX_COST}, and p up to an eighth of m"
        )
    return Hash(text.encode(), memory, passes, lanes, salt, tag)


def _bytes_in(text: str) -> int:
    """Count the bytes that base64 without padding stands for; -1 where it is not what an encoder writes."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return -1
    return len(raw) if base64.b64encode(raw).rstrip(b"=") == text.encode() else -1


def check_secret(secret: bytes) -> None:
    """Make sure that a password can be sent by RFC 1929 and typed.

    Raises:
        UsageError: empty, over 255 bytes, or with a control byte; the text does not show it.
    """
    if not secret:
        raise UsageError("the password is empty; RFC 1929 takes 1 to 255 bytes")
    if len(secret) > 255:
        raise UsageError(f"the password has {len(secret)} bytes; RFC 1929 takes 1 to 255")
    if (match := _CONTROL.search(secret)) is not None:
        what = "NUL" if match[0] == b"\0" else "a control byte"
        raise UsageError(f"the password has {what} (byte {match.start() + 1}); printable text and spaces are accepted")


def is_sound(word: bytes) -> bool:
    """Say whether a user name or password that a client sent can be one at all."""
    return 1 <= len(word) <= 255 and _CONTROL.search(word) is None
