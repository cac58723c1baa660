"""Which congestion control a bulk stream has on a leg that stays near.

A control that paces (bbr) is meant for long ways. On loopback and in a local network it holds a stream back by timers:
0.65 GB/s and 0.34 s of processor time per GB here, 1.13 and 0.25 with reno (one stream up, compiled engine, 2 vCPU,
Linux 6.18, 21 Nov 2026, medians of 3, yard bulk). So where the system's default is one, the sender's side of a leg that
is near goes on with cubic or reno once its stream proves bulky. Nothing is asked or set for any other stream.
"""

import errno
import socket
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import Final

from tabi.relay.tuning import AUTO

__all__ = ["AUTO", "choose", "is_near", "settle"]

_DEFAULT: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")
_PACING: Final = "bbr"  # and its descendants
_STEADY: Final = ("cubic", "reno")  # reno is allowed to every process

# Loopback, link-local, and what nobody routes (RFC 1918, RFC 4193).
_NEAR: Final = tuple(
    map(ip_network, ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"))
) + tuple(map(ip_network, ("::1/128", "fc00::/7", "fe80::/10")))


def choose(wanted: str = AUTO) -> bytes:
    """Name the control for bulk streams on near legs; empty: the system's stays.

    Args:
        wanted: AUTO, or a name that is taken as it is.
    """
    if wanted != AUTO:
        return wanted.encode()
    if not _DEFAULT.read_text().startswith(_PACING):
        return b""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        return next((name.encode() for name in _STEADY if _can_have(probe, name.encode())), b"")


def _can_have(sock: socket.SocketType, name: bytes) -> bool:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EPERM, errno.EACCES}:  # not built, not loaded, not allowed
            return False
        raise
    return True


def is_near(host: str) -> bool:
    """Say whether an address is of this host or of a network that nobody routes."""
    address = ip_address(host)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in _NEAR)


def settle(sock: socket.SocketType, name: bytes) -> None:
    """Give a connected socket this control if its peer is near."""
    try:
        peer = sock.getpeername()
        if isinstance(peer, tuple) and is_near(peer[0].partition("%")[0]):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name)
    except OSError:  # it is broken, and will say so when it is used; or the name is not to be had any more
        pass
