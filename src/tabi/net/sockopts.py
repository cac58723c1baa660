"""Options of listeners and of sockets towards targets (`tabi.relay.options`), and the process' limit of descriptors."""

import ctypes
import resource
import socket
import struct
from pathlib import Path

from tabi.relay.options import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, prepare

__all__ = ["KEEPALIVE_COUNT", "KEEPALIVE_IDLE", "KEEPALIVE_INTERVAL", "prepare_listener", "prepare_outbound",
           "raise_descriptor_limit", "refuse_newcomers"]  # fmt: skip

_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_INSTRUCTION = struct.Struct("HBBI")  # sock_filter: code, jump if true, if false, constant (linux/filter.h)

# Of a segment, whose TCP header comes first: drop it where SYN is set and ACK is not (RFC 9293 section 3.1).
_NO_SYN = (
    (0x30, 0, 0, 13),  # load the byte with the flags
    (0x54, 0, 0, 0x12),  # leave SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # take nothing of it
    (0x06, 0, 0, 0xFFFFFFFF),  # take all of it
)


def prepare_listener(sock: socket.socket) -> None:
    """Set on a TCP listener what all connections that it accepts shall have; Linux hands each option down.

    Raises:
        OSError: the socket is no TCP socket.
    """
    prepare(sock)


def prepare_outbound(sock: socket.socket) -> None:
    """Set the same on a socket that is about to connect.

    Raises:
        OSError: the socket is no TCP socket.
    """
    prepare(sock)


def refuse_newcomers(listener: socket.socket) -> None:
    """Have a listener ignore connections that begin from now on, and complete those that have begun.

    Whoever is ignored tries again after a second (RFC 6298) and finds who listens then. So a queue comes to its end,
    and nobody is let in by the kernel who would be reset when the listener is closed.

    Raises:
        OSError: this kernel takes no filter.
    """
    program = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*one) for one in _NO_SYN))
    listener.setsockopt(
        socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HL", len(_NO_SYN), ctypes.addressof(program))
    )


def raise_descriptor_limit() -> int:
    """Raise the soft limit of file descriptors to the hard one; return what now holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # "Unlimited" cannot be had as a number of descriptors: fs.nr_open is the end (setrlimit(2)).
    wanted = int(Path("/proc/sys/fs/nr_open").read_text()) if hard == resource.RLIM_INFINITY else hard
    if soft != wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted
