"""A program that is to run in the house: what it is, and what the process does that becomes it."""

import errno
import os
import pwd
import shutil
import signal
import socket
import stat
from dataclasses import dataclass, field
from typing import Final, NamedTuple, NoReturn

from tabi.errors import ConfigError
from tabi.wrap import linux

__all__ = ["CANNOT_RUN", "NOT_FOUND", "OURS", "Identity", "Program", "become", "close_foreign_sockets", "identity_of"]

OURS: Final = 125  # exit codes as env(1) has them: tabi itself has failed
CANNOT_RUN: Final = 126  # the program is there, and cannot be run
NOT_FOUND: Final = 127

_SO_DOMAIN: Final = 39  # asm-generic/socket.h
_STDERR: Final = 2
_SHELL: Final = "/bin/sh"
_STANDARD: Final = 3  # descriptors below are the program's standard streams
_NETWORK_FILES: Final = ("/dev/net/tun", "/dev/vhost-net", "anon_inode:[io_uring]")  # each may hold a way out


class Identity(NamedTuple):
    """Whom a program runs as.

    Args:
        uid, gid, groups: of the user.
        environ: the variables that name the user, as su(1) sets them.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    environ: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What to run.

    Args:
        argv: the program, which is looked for in PATH, and its arguments.
        environ: all of its variables.
        cwd: where it runs; None: where we are.
        identity: whom it runs as, for root alone; None: as we do.
        strict: leave it no capability to be had again, and no set-user-id program.
        resolv: the text of its /etc/resolv.conf.
        nsswitch: the text of its /etc/nsswitch.conf; empty: as it is.
        masks: files and directories that it shall not see.
    """

    argv: tuple[str, ...]
    environ: dict[str, str] = field(repr=False)
    cwd: str | None = None
    identity: Identity | None = None
    strict: bool = False
    resolv: str = ""
    nsswitch: str = ""
    masks: tuple[str, ...] = ()


def identity_of(user: str, gid: int | None = None) -> Identity:
    """Look a user up.

    Args:
        user: name or number.
        gid: the group of a number that has no entry.

    Raises:
        ConfigError: there is no such user.
    """
    try:
        entry = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except KeyError:
        if user.isdecimal() and gid is not None:
            return Identity(int(user), gid, (), {})
        raise ConfigError(f"user {user!r} does not exist; give a name or a number of /etc/passwd") from None
    groups = tuple(os.getgrouplist(entry.pw_name, entry.pw_gid))
    names = {"HOME": entry.pw_dir, "SHELL": entry.pw_shell, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return Identity(entry.pw_uid, entry.pw_gid, groups, names)


def close_foreign_sockets() -> None:
    """Close inherited descriptors that lie in the network we come from; pipes, other files and Unix sockets stay.

    Somebody who starts us may have left one open, and it would be a way past the gate.

    Raises:
        OSError: it is a standard stream.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            kind = _foreign(fd)
        except FileNotFoundError:  # that of the listing itself
            continue
        if kind and fd < _STANDARD:
            text = f"descriptor {fd} is {kind}, which leads past the proxy; put a pipe between, for instance: | cat"
            raise OSError(errno.EPERM, text)
        if kind:
            os.close(fd)


def _foreign(fd: int) -> str:
    """Say what a descriptor is that leads to the network we come from; empty for all others."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    if path in _NETWORK_FILES:
        return path
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return ""
    with socket.socket(fileno=os.dup(fd)) as sock:
        domain = sock.getsockopt(socket.SOL_SOCKET, _SO_DOMAIN)
    return "" if domain == socket.AF_UNIX else "a socket of the network"


def become(program: Program, *, is_rootless: bool, ignored: frozenset[int], mask: frozenset[int]) -> NoReturn:
    """Give up what the program shall not have, and become it.

    Args:
        program: to become.
        is_rootless: this process is in a user namespace of ours.
        ignored: the signals that were ignored before we came.
        mask: the signals that were blocked before we came.
    """
    try:
        close_foreign_sockets()
        _reenter()
        _confine(program, is_rootless=is_rootless)
        if program.cwd is not None:
            os.chdir(program.cwd)
        _restore_signals(ignored, mask)
    except OSError as error:
        _fail(OURS, f"{error.filename or ''} {error.strerror}".strip())
    try:
        _execute(program)
    except OSError as error:
        # env(1): found and cannot be run, or not found; a script whose interpreter is missing counts as the latter
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        _fail(code, f"{program.argv[0]}: {error.strerror}")


def _execute(program: Program) -> NoReturn:
    """Execute it as execvp(3) does: what is of no known format is a script of the shell."""
    name, *arguments = program.argv
    try:
        os.execvpe(name, program.argv, program.environ)
    except OSError as error:
        path = name if "/" in name else shutil.which(name, path=program.environ.get("PATH", os.defpath))
        if error.errno != errno.ENOEXEC or path is None:
            raise
    os.execve(_SHELL, (_SHELL, path, *arguments), program.environ)


def _reenter() -> None:
    """Enter our directory again: we are in it from before the mounts, and may be in one that they are to hide."""
    try:
        path = os.getcwd()
    except FileNotFoundError:  # it has been removed
        return
    try:
        os.chdir(path)
    except PermissionError:  # one above it is closed to us, which those of the mounts are not
        pass


def _confine(program: Program, *, is_rootless: bool) -> None:
    everything = linux.all_capabilities()
    linux.drop_bounding(everything if is_rootless or program.strict else linux.DANGEROUS & everything)
    if program.identity is not None:
        os.setgroups(program.identity.groups)
        os.setresgid(program.identity.gid, program.identity.gid, program.identity.gid)
        os.setresuid(program.identity.uid, program.identity.uid, program.identity.uid)
    linux.drop_capabilities()  # a root that runs programs has what is in the bounding set, capabilities(7)
    if program.strict:
        linux.give_up_new_privileges()


def _restore_signals(ignored: frozenset[int], mask: frozenset[int]) -> None:
    """Have every signal as it was; Python has its own idea of some."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) is not None:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _fail(code: int, text: str) -> NoReturn:
    try:
        os.write(_STDERR, f"tabi: {text}\n".encode(errors="surrogateescape"))
    finally:
        os._exit(code)
