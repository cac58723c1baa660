"""The program's own view of a few files: how names are looked up, and which doors of name services it does not see.

All of it is in a mount namespace of the program's; nothing changes outside. The files come from a file system in memory
that is mounted for a moment where /proc is, the one directory that is always there and never in the way.
"""

import errno
import os
import stat
from collections.abc import Iterable
from typing import Final

from tabi.wrap.linux import (
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    umount,
)

__all__ = ["furnish"]

_WORKSHOP: Final = "/proc"
_SAFE: Final = MS_NOSUID | MS_NODEV | MS_NOEXEC
_NOTHING: Final = f"{_WORKSHOP}/nothing"  # a directory without entries
_NOBODY: Final = f"{_WORKSHOP}/nobody"  # a file in the place of a socket: whoever connects is refused


def furnish(files: dict[str, str], masks: Iterable[str], optional: frozenset[str] = frozenset()) -> None:
    """Cover files and hide others, in the mount namespace of this process, which has to be its own.

    Args:
        files: path and text; a path may be a symbolic link, or not be there at all.
        masks: files, sockets and directories to be hidden; those that are not there are passed by.
        optional: those of `files` that are left alone where they are not there.

    Raises:
        OSError: the kernel refuses a mount.
    """
    mount("none", "/", "", MS_REC | MS_PRIVATE)
    hidden = [os.path.realpath(path) for path in masks]  # before /proc is covered
    mount("tmpfs", _WORKSHOP, "tmpfs", _SAFE, "mode=0755")
    try:
        os.mkdir(_NOTHING, 0o755)
        _write(_NOBODY, "", 0)
        for path in hidden:
            _hide(path)
        for path, text in files.items():
            _cover(path, text, is_optional=path in optional)
    finally:
        umount(_WORKSHOP)


def _hide(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        _hide_unseen(path)
    else:
        _bind(_NOTHING if stat.S_ISDIR(mode) else _NOBODY, path)


def _hide_unseen(path: str) -> None:
    """Hide what we may not look at, as root a file system of a user's own (FUSE): it can be covered nevertheless."""
    try:
        try:
            _bind(_NOTHING, path)
        except NotADirectoryError:
            _bind(_NOBODY, path)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno != errno.EACCES:
            raise
        # It is a directory above it that we may not enter; neither may the program, which has no more rights than we.


def _cover(path: str, text: str, *, is_optional: bool) -> None:
    source = f"{_WORKSHOP}/{os.path.basename(path)}"
    _write(source, text, 0o644)
    real = os.path.realpath(path)
    if os.path.isfile(real):
        _bind(source, real)
    elif not is_optional:
        _add(os.path.realpath(os.path.dirname(path)), os.path.basename(path), source)


def _add(directory: str, name: str, source: str) -> None:
    """Put a file into a directory that cannot be written to: by a twin of it, with all that it has."""
    twin = f"{source}.directory"
    os.mkdir(twin, 0o755)
    with os.scandir(directory) as entries:
        for entry in entries:
            place = f"{twin}/{entry.name}"
            if entry.name == name:
                continue
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
            elif entry.is_dir():
                os.mkdir(place)
                mount(entry.path, place, "", MS_BIND | MS_REC)
            else:
                _write(place, "", 0o644)
                mount(entry.path, place, "", MS_BIND)
    _write(f"{twin}/{name}", "", 0o644)
    _bind(source, f"{twin}/{name}")
    mount(twin, directory, "", MS_BIND | MS_REC)


def _bind(source: str, target: str) -> None:
    mount(source, target, "", MS_BIND)
    mount("none", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY | _SAFE)


def _write(path: str, text: str, mode: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(fd, "w", encoding="utf-8", errors="surrogateescape") as stream:  # as the host's own files were read
        os.fchmod(fd, mode)
        stream.write(text)
