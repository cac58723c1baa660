"""Hashing passwords with argon2id (RFC 9106), and verifying them.

Everything here may take long: call it off the loop. The hashing itself is argon2-cffi's, which the extra
``tabi[server]`` brings; it gives up the GIL while it works. How passwords are stored is `tabi.config.stored`.
"""

import base64
import importlib.util
import secrets
import sys

from tabi.config.stored import Hash, check_secret
from tabi.errors import ConfigError

__all__ = ["decoy", "hash_password", "matches", "require_argon2"]

# OWASP's first choice for interactive logins: 19 MiB, two passes, one thread, about 20 ms. Stronger hashes are verified
# as well, but a server that has just started must let all its users in again, each by one hash.
MEMORY, PASSES, LANES = 19_456, 2, 1
SALT, TAG = 16, 32  # bytes


def require_argon2(what: str) -> None:
    """Make sure that argon2-cffi is installed.

    Args:
        what: that needs it, for the text.

    Raises:
        ConfigError: it is not; the text has the command that installs it.
    """
    if importlib.util.find_spec("argon2") is None:
        raise ConfigError(
            f"{what}: argon2-cffi is not installed. To install it: {sys.executable} -m pip install 'tabi[server]'"
        )


def hash_password(secret: bytes) -> str:
    """Hash a new password, as the configuration takes it. Takes about 20 ms and 19 MiB.

    Raises:
        UsageError: see `check_secret`.
        ConfigError: argon2-cffi is missing.
    """
    check_secret(secret)
    require_argon2("passwords are hashed with argon2id")
    from argon2.low_level import Type, hash_secret

    salt = secrets.token_bytes(SALT)
    return hash_secret(secret, salt, PASSES, MEMORY, LANES, TAG, Type.ID).decode()


def matches(stored: Hash, password: bytes) -> bool:
    """Hash a password and compare; takes as long as `Hash.cost` says, so call it in a thread."""
    from argon2.exceptions import VerifyMismatchError
    from argon2.low_level import Type, verify_secret

    try:
        return verify_secret(stored.encoded, password, Type.ID)
    except VerifyMismatchError:
        return False


def decoy(like: Hash) -> Hash:
    """Make a hash of nothing that takes as long to verify as `like`: users that do not exist are verified by it."""
    salt, tag = (base64.b64encode(secrets.token_bytes(size)).rstrip(b"=").decode() for size in (like.salt, like.tag))
    text = f"$argon2id$v=19$m={like.memory},t={like.passes},p={like.lanes}${salt}${tag}"
    return Hash(text.encode(), like.memory, like.passes, like.lanes, like.salt, like.tag)
