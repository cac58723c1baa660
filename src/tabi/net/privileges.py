"""What a process may do, given up for good."""

import contextlib
import ctypes
import importlib
import os
import pwd
from typing import Final

from tabi.errors import ConfigError

__all__ = ["drop_privileges", "give_up_new_privileges"]

_NO_NEW_PRIVS: Final = 38  # PR_SET_NO_NEW_PRIVS, prctl(2)

# What is imported when it is first wanted, by us or by the standard library: a password with a hash, perhaps after a
# reload, a name to look up. Who has become somebody else may not be able to read it any more.
_WANTED_LATER: Final = (
    "aiodns", "argon2.exceptions", "argon2.low_level", "concurrent.futures.thread", "encodings.idna",
)  # fmt: skip


def drop_privileges(user: str) -> None:
    """Become `user` for good; a process that is not root stays what it is.

    Raises:
        ConfigError: there is no such user.
    """
    if os.geteuid() != 0:
        return
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"user {user!r} does not exist; make it with: useradd --system {user}") from None
    for module in _WANTED_LATER:
        with contextlib.suppress(ImportError):  # an extra that is not installed
            importlib.import_module(module)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)


def give_up_new_privileges() -> None:
    """See to it that no program that is executed from here has more rights, whatever its bits and attributes say.

    Raises:
        OSError: the kernel does not know of this; all since Linux 3.5 do.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"no_new_privs: {os.strerror(code)}")
