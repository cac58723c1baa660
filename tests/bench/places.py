"""Where a benchmark runs: on which cores, as which user, and in a network namespace of its own where that can be had.

The proxy has one core and the generator with its target another, so that neither takes time from the other; as root,
all of them run as an ordinary user, and apart from every other listener of the machine.
"""

import ctypes
import fcntl
import os
import pwd
import random
import resource
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = ["Place", "PlaceError", "enter_namespace", "free_ports", "place", "raise_descriptor_limit"]

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
_PROXY_PORTS = range(30_000, 32_700)  # between those of the target and those that the kernel gives to clients
_CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")


def _congestion_control() -> str:
    return _CONGESTION.read_text().strip()


class PlaceError(Exception):
    """This machine cannot be used as was asked; the text says why, and what would do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Cores and user.

    Attributes:
        proxy_core: of the proxy's whole tree; None where there is one core only, which all share.
        load_core: of generator and target.
        user: whom all programs run as; None: who we are.
        is_apart: in a network namespace of our own.
        congestion: the congestion control that this place came with.
        reads_all: the user may read files that are not its own (CAP_DAC_READ_SEARCH), for our interpreter lies where
            it could not go otherwise, as in /root.
        realtime: SCHED_RR for all programs, which a busy machine does not keep waiting.
    """

    proxy_core: int | None
    load_core: int | None
    user: str | None
    is_apart: bool
    congestion: str = field(default_factory=_congestion_control)
    reads_all: bool = False
    realtime: bool = False

    def proxy_prefix(self, *, everywhere: bool = False) -> list[str]:
        """Give the words before a proxy's command line; `everywhere` leaves it all cores that we have."""
        return self._prefix(None if everywhere else self.proxy_core)

    def load_prefix(self) -> list[str]:
        """Give the words before a generator's command line."""
        return self._prefix(self.load_core)

    def _prefix(self, core: int | None) -> list[str]:
        # Each of these replaces itself by the next, so that the process id stays the program's own.
        words = ["chrt", "--rr", "1"] if self.realtime else []
        if self.user:
            group = str(pwd.getpwnam(self.user).pw_gid)
            words += ["setpriv", f"--reuid={self.user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
            if self.reads_all:
                words += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        if core is not None:
            words += ["taskset", "--cpu-list", str(core)]
        return words

    def give(self, path: Path) -> None:
        """Make the user own a file or directory."""
        if self.user:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def set_congestion_control(self, name: str | None) -> str:
        """Have new sockets of our namespace begin with this congestion control, None: with the one that was here first.

        Raises:
            PlaceError: it cannot be had here.
        """
        name = name or self.congestion
        if name == _congestion_control():
            return name
        if not self.is_apart:
            raise PlaceError("another congestion control needs a network namespace, and so root")
        try:
            _CONGESTION.write_text(name)
        except OSError as error:
            raise PlaceError(f"no congestion control {name!r}: {error.strerror}") from None
        return name

    def describe(self) -> str:
        """Tell it in a line."""
        cores = "all on the one core that there is"
        if self.proxy_core is not None:
            cores = f"proxy on core {self.proxy_core}, generator and target on core {self.load_core}"
        who = f"as {self.user or pwd.getpwuid(os.geteuid()).pw_name}"
        if self.reads_all:
            who += " (who may read all files, for this Python is not for everybody)"
        where = "in a network namespace of their own" if self.is_apart else "on the machine's own loopback"
        return ", ".join([cores, who, where, *(["SCHED_RR"] if self.realtime else [])])


def place(
    *, cores: Sequence[int] | None = None, user: str | None = None, is_apart: bool = False, realtime: bool = False
) -> Place:
    """Choose a place.

    Args:
        cores: the proxy's and the generator's; None chooses two that share no physical core.
        user: whom programs run as, for root only; None: nobody, "root" stays root.
        is_apart: whether `enter_namespace` was called.
        realtime: SCHED_RR, for root only.

    Raises:
        PlaceError: there is no such core or user, or root is needed.
    """
    is_root = os.geteuid() == 0
    if (user or realtime) and not is_root:
        raise PlaceError("only root can run programs as another user or with SCHED_RR")
    if is_root:
        user = _checked_user(user or "nobody")
    proxy_core, load_core = cores or _two_cores()
    for core in {proxy_core, load_core} - {None}:
        if core not in os.sched_getaffinity(0):
            raise PlaceError(f"core {core} is not ours; ours are {sorted(os.sched_getaffinity(0))}")
    for tool in ("taskset", "setpriv", "chrt"):
        if shutil.which(tool) is None:
            raise PlaceError(f"{tool} is missing; install util-linux")
    made = Place(proxy_core=proxy_core, load_core=load_core, user=user, is_apart=is_apart, realtime=realtime)
    if user and not _can_run_python(made):
        made = replace(made, reads_all=True)
        if not _can_run_python(made):
            raise PlaceError(f"{user} cannot run {sys.executable}; name another user, or stay root: --user root")
    return made


def _can_run_python(here: Place) -> bool:
    words = [*here.load_prefix(), sys.executable, "-c", "import tabi"]
    return subprocess.run(words, capture_output=True, cwd="/", check=False).returncode == 0


def _checked_user(user: str) -> str | None:
    try:
        return None if pwd.getpwnam(user).pw_uid == 0 else user
    except KeyError:
        raise PlaceError(f"there is no user {user!r}") from None


def _two_cores() -> tuple[int | None, int | None]:
    """Choose the first core, and the first of the others that is not its other hardware thread."""
    ours = sorted(os.sched_getaffinity(0))
    if len(ours) == 1:
        return None, None
    siblings = Path(f"/sys/devices/system/cpu/cpu{ours[0]}/topology/core_cpus_list")
    together = _numbers(siblings.read_text()) if siblings.exists() else set()
    apart = [core for core in ours[1:] if core not in together]
    return ours[0], (apart or ours[1:])[0]


def _numbers(text: str) -> set[int]:
    """Read "0,4-6"."""
    found: set[int] = set()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def enter_namespace() -> None:
    """Go into a network namespace of our own, in which there is loopback and nothing else.

    Raises:
        OSError: we may not.
    """
    libc = ctypes.CDLL(None, use_errno=True)  # os.unshare came with Python 3.12
    if libc.unshare(_CLONE_NEWNET) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))


def raise_descriptor_limit() -> int:
    """Take as many descriptors as we may have, for us and all that we start, and say how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_ports(count: int, host: str = "127.0.0.1") -> int:
    """Find `count` ports side by side that nobody has, and give the first."""
    for first in random.sample(range(_PROXY_PORTS.start, _PROXY_PORTS.stop - count), 50):
        if all(_is_free(host, port) for port in range(first, first + count)):
            return first
    raise PlaceError(f"no {count} free ports side by side between {_PROXY_PORTS.start} and {_PROXY_PORTS.stop}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        try:
            sock.bind((host, port))
        except OSError:
            return False
    return True
