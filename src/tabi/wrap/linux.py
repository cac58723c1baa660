"""The system calls and constants of Linux that the standard library does not have: namespaces, mounts, capabilities.

Each call raises `OSError` with its own name, for somebody will have to find out what a kernel or a container forbids.
"""

import ctypes
import os
import socket
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

__all__ = [
    "CLONE_NEWNET", "CLONE_NEWNS", "CLONE_NEWUSER", "DANGEROUS", "IPV6_RECVORIGDSTADDR", "IPV6_TRANSPARENT",
    "IP_RECVORIGDSTADDR", "IP_TRANSPARENT", "MS_BIND", "MS_NODEV", "MS_NOEXEC", "MS_NOSUID", "MS_PRIVATE",
    "MS_RDONLY", "MS_REC", "MS_REMOUNT", "PACKET_IGNORE_OUTGOING", "SOL_PACKET", "Capability", "all_capabilities",
    "attach_filter", "cap_effective", "drop_bounding", "drop_capabilities", "forbid_tracing",
    "give_up_new_privileges", "mount", "umount", "unshare",
]  # fmt: skip

# linux/sched.h
CLONE_NEWNS: Final = 0x0002_0000
CLONE_NEWUSER: Final = 0x1000_0000
CLONE_NEWNET: Final = 0x4000_0000

# linux/mount.h
MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18

MNT_DETACH: Final = 2

# linux/in.h, linux/in6.h, linux/if_packet.h, asm-generic/socket.h
IP_TRANSPARENT: Final = 19
IP_RECVORIGDSTADDR: Final = 20
IPV6_RECVORIGDSTADDR: Final = 74
IPV6_TRANSPARENT: Final = 75
SOL_PACKET: Final = 263
PACKET_IGNORE_OUTGOING: Final = 23
SO_ATTACH_FILTER: Final = 26

# linux/prctl.h
_PR_SET_DUMPABLE: Final = 4
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

_CAPABILITY_VERSION_3: Final = 0x2008_0522  # linux/capability.h
_INSTRUCTION: Final = struct.Struct("HBBI")  # sock_filter of linux/filter.h


class Capability:
    """Numbers of linux/capability.h."""

    NET_ADMIN: Final = 12
    SYS_MODULE: Final = 16
    SYS_RAWIO: Final = 17
    SYS_PTRACE: Final = 19
    SYS_ADMIN: Final = 21
    MKNOD: Final = 27
    BPF: Final = 39


DANGEROUS: Final = frozenset({
    Capability.NET_ADMIN, Capability.SYS_MODULE, Capability.SYS_RAWIO, Capability.SYS_PTRACE, Capability.SYS_ADMIN,
    Capability.MKNOD, Capability.BPF,
})  # fmt: skip
"""What would let a program out of its network namespace, or into the kernel; without them setns(2) is refused."""


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, name: str) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    """Leave namespaces for new ones, see unshare(2).

    Raises:
        OSError: the kernel, a container or a security module does not allow it.
    """
    _check(_libc().unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    """Mount, see mount(2).

    Raises:
        OSError: not allowed, or nothing is there.
    """
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode() or None)
    result = _libc().mount(*arguments, ctypes.c_ulong(flags), options.encode() or None)
    _check(result, f"mount {target}")


def umount(target: str) -> None:
    """Take a mount away; what is open below it stays usable (MNT_DETACH).

    Raises:
        OSError: not allowed, or nothing is mounted there.
    """
    _check(_libc().umount2(os.fsencode(target), ctypes.c_int(MNT_DETACH)), f"umount {target}")


def _prctl(name: str, option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(one) for one in (*arguments, 0, 0, 0, 0)[:4]]
    result: int = _libc().prctl(ctypes.c_int(option), *padded)
    _check(result, name)
    return result


def forbid_tracing() -> None:
    """Let nobody of the same user look into this process: its descriptors lead into the gate (PR_SET_DUMPABLE)."""
    _prctl("PR_SET_DUMPABLE", _PR_SET_DUMPABLE, 0)


def give_up_new_privileges() -> None:
    """See to it that no set-user-id bit nor file capability counts from here on (PR_SET_NO_NEW_PRIVS)."""
    _prctl("PR_SET_NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def cap_effective() -> int:
    """Give the mask of capabilities that this process can use now."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    raise OSError("no CapEff in /proc/self/status")


def all_capabilities() -> frozenset[int]:
    """Give the numbers of all capabilities of this kernel."""
    return frozenset(range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1))


def drop_bounding(capabilities: Iterable[int]) -> None:
    """Take capabilities out of the bounding set, so that no program that is executed from here can have them."""
    for number in capabilities:
        if _prctl("PR_CAPBSET_READ", _PR_CAPBSET_READ, number):  # a kernel that does not know it says EINVAL
            _prctl("PR_CAPBSET_DROP", _PR_CAPBSET_DROP, number)


def drop_capabilities() -> None:
    """Give up all capabilities of this process, the ambient ones included."""
    _prctl("PR_CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _check(_libc().capset(header, struct.pack("6I", *(0,) * 6)), "capset")


def attach_filter(sock: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    """Give a socket a filter in classic BPF: code, jump if true, jump if false, constant.

    Raises:
        OSError: the kernel does not take it.
    """
    code = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in program))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(program), ctypes.addressof(code)))
