"""Both network namespaces as they are wired: links, addresses and routes, and the sockets that lie in the gate.

Everything that the program sends arrives in the gate, where every address there is belongs to the host itself: so a
socket there can have the very address that the program wanted to reach, and the program sees no other.
"""

import errno
import socket
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from tabi.wrap import linux, netlink, nft
from tabi.wrap.bpf import syn_filter
from tabi.wrap.netlink import Netlink

__all__ = [
    "GATE4", "GATE6", "GATE_LINK", "NAMES_PORT", "PROGRAM4", "PROGRAM6", "PROGRAM_LINK", "close_gate", "enable_ipv6",
    "filter_gate", "has_ipv6", "limit_first_buffers", "open_sockets", "transparent", "wire_gate", "wire_program",
]  # fmt: skip

GATE_LINK: Final = "e1"
PROGRAM_LINK: Final = "e0"
GATE4: Final = IPv4Address("198.18.0.1")  # of the range for benchmarks, which is no destination (RFC 2544, RFC 6890)
PROGRAM4: Final = IPv4Address("198.18.0.2")
GATE6: Final = IPv6Address("fd00:5ec::1")  # unique local (RFC 4193)
PROGRAM6: Final = IPv6Address("fd00:5ec::2")
NAMES_PORT: Final = 53

_GATE_HARDWARE: Final = bytes.fromhex("020000000001")
_PROGRAM_HARDWARE: Final = bytes.fromhex("020000000002")
_PREFIX4, _PREFIX6 = 30, 64
_MTU: Final = 65_535  # nothing of it is ever on a wire
_LOOPBACK: Final = 1  # the link that each namespace has from its beginning
_CATCH: Final = 9  # discard, RFC 863: where tproxy sends what it catches; any port would do
_BACKLOG: Final = 4096
_NAMES_BACKLOG: Final = 128
_BORN_WITH: Final = 131_072  # bytes of a TCP socket's receive buffer, as the kernel has it if nobody changes that
_BUFFER: Final = 1 << 20  # bytes of datagrams or SYNs that may wait; some kernels give what rmem_max allows
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_ETH_P_ALL: Final = 3
_IP_HDRINCL: Final = 3  # linux/in.h
# Links that are there already, and those to come; /proc/sys/net is that of the reader's namespace.
_DISABLE_IPV6: Final = tuple(Path("/proc/sys/net/ipv6/conf", kind, "disable_ipv6") for kind in ("all", "default"))

# What the kernel says where an expression of nf_tables is neither built in nor a module.
_NO_SUCH_EXPRESSION: Final = (errno.ENOENT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT)


def has_ipv6() -> bool:
    """Say whether this network namespace may have IPv6: a kernel with ipv6.disable=1 has none at all."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError:
        return False
    return not any(_is_set(path) for path in _DISABLE_IPV6)


def enable_ipv6() -> None:
    """Have IPv6 in this namespace, one of our own, where new ones take over that the host does without it.

    That is so with net.core.devconf_inherit_init_net=1 and with ipv6.disable_ipv6=1 for the kernel.
    """
    for path in _DISABLE_IPV6:
        try:
            if _is_set(path):
                path.write_text("0")
        except OSError:  # /proc/sys is read-only in some containers; then there is none, as `has_ipv6` finds
            return


def _is_set(path: Path) -> bool:
    try:
        return path.read_text().strip() == "1"
    except OSError:  # it is only there where there is IPv6
        return False


def wire_gate(pid: int) -> None:
    """Wire the gate, this process' network namespace, to that of another process.

    Raises:
        OSError: the kernel refuses a step, which is named.
    """
    enable_ipv6()
    with Netlink() as kernel:
        kernel.ask(netlink.up(_LOOPBACK))
        kernel.ask(netlink.veth(GATE_LINK, _GATE_HARDWARE, PROGRAM_LINK, _PROGRAM_HARDWARE, pid, _MTU))
        index = socket.if_nametoindex(GATE_LINK)
        if has_ipv6():
            kernel.ask(netlink.no_automatic_addresses(index))
        _join(kernel, index, GATE4, GATE6, PROGRAM4, PROGRAM6, _PROGRAM_HARDWARE)
        kernel.ask(netlink.local_route(_LOOPBACK, 4))
        if has_ipv6():
            kernel.ask(netlink.local_route(_LOOPBACK, 6))


def wire_program() -> None:
    """Wire the program's end, in its own namespace.

    Raises:
        OSError: the kernel refuses a step, which is named.
    """
    enable_ipv6()
    with Netlink() as kernel:
        kernel.ask(netlink.up(_LOOPBACK))
        index = socket.if_nametoindex(PROGRAM_LINK)
        if has_ipv6():
            kernel.ask(netlink.no_automatic_addresses(index))
        _join(kernel, index, PROGRAM4, PROGRAM6, GATE4, GATE6, _GATE_HARDWARE)
        kernel.ask(netlink.default_route(index, GATE4))
        if has_ipv6():
            kernel.ask(netlink.default_route(index, GATE6))
    limit_first_buffers()


def limit_first_buffers() -> None:
    """Have TCP sockets of this namespace begin with no larger receive buffers than usual; they grow as they always do.

    With larger ones a program might be woken by an error before its connect has ended (see `tabi.wrap.packets`).
    """
    path = Path("/proc/sys/net/ipv4/tcp_rmem")
    try:
        least, first, most = map(int, path.read_text().split())
        if first > _BORN_WITH:
            path.write_text(f"{least} {_BORN_WITH} {most}")
    except OSError:  # /proc/sys is read-only in some containers; then it is as rare as on any network
        pass


def _join(
    kernel: Netlink,
    index: int,
    own4: IPv4Address,
    own6: IPv6Address,
    other4: IPv4Address,
    other6: IPv6Address,
    hardware: bytes,
) -> None:
    """Give one end of the link its addresses, and tell it where the other end is."""
    kernel.ask(netlink.address(index, own4, _PREFIX4))
    if has_ipv6():
        kernel.ask(netlink.address(index, own6, _PREFIX6))
    kernel.ask(netlink.up(index))
    kernel.ask(netlink.neighbour(index, other4, hardware))
    if has_ipv6():
        kernel.ask(netlink.neighbour(index, other6, hardware))


def close_gate() -> None:
    """Take the link away: from now on the program has no way at all, and is told so at once."""
    with Netlink() as kernel:
        kernel.ask(netlink.delete_link(socket.if_nametoindex(GATE_LINK)))


def filter_gate() -> bool:
    """Set the packet filter; say whether it has tproxy.

    Raises:
        OSError: the kernel has no nf_tables, or they are forbidden.
    """
    responders = (GATE4, GATE6)
    try:
        nft.install(GATE_LINK, responders, NAMES_PORT, _CATCH)
    except OSError as error:
        if error.errno not in _NO_SUCH_EXPRESSION:
            raise
        nft.install(GATE_LINK, responders, NAMES_PORT, None)
        return False
    return True


def transparent(family: int, kind: int) -> socket.socket:
    """Make a socket in the gate that may have any address.

    Raises:
        OSError: the kernel refuses.
    """
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, linux.IPV6_TRANSPARENT, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, linux.IP_TRANSPARENT, 1)
    except OSError:
        sock.close()
        raise
    return sock


def open_sockets(*, tproxy: bool) -> dict[str, socket.socket]:
    """Open the sockets that `tabi.wrap.house.Sockets` names, in this process' network namespace, the gate.

    Where there is no IPv6, in the place of its sockets are such that never become readable.

    Raises:
        OSError: the kernel refuses one.
    """
    families = (socket.AF_INET, socket.AF_INET6) if has_ipv6() else (socket.AF_INET,)
    opened = {"syns": _packets()}
    for family in families:
        version, gate = (6, GATE6) if family == socket.AF_INET6 else (4, GATE4)
        opened[f"raw{version}"] = _raw(family)
        if tproxy:
            opened[f"listener{version}"] = _listening(family, ("", _CATCH), _BACKLOG)
        opened[f"udp{version}"] = _datagrams(family)
        opened[f"names_tcp{version}"] = _listening(family, (str(gate), NAMES_PORT), _NAMES_BACKLOG)
        names = opened[f"names_udp{version}"] = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        names.bind((str(gate), NAMES_PORT))
    if len(families) == 1:
        for name in ("raw6", "udp6", *(("listener6",) if tproxy else ())):
            opened[name] = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    return opened


def _packets() -> socket.socket:
    """See the program's SYNs; nothing comes before the filter stands, for the socket is bound to no protocol."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, 0)
    linux.attach_filter(sock, syn_filter(GATE4, GATE6, NAMES_PORT))
    sock.setsockopt(linux.SOL_PACKET, linux.PACKET_IGNORE_OUTGOING, 1)
    _give_room(sock)
    sock.bind((GATE_LINK, _ETH_P_ALL))
    return sock


def _give_room(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
    except PermissionError:  # older kernels want it of the host's root
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def _raw(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
    if family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, _IP_HDRINCL, 1)
    return sock


def _listening(family: int, address: tuple[str, int], backlog: int) -> socket.socket:
    sock = transparent(family, socket.SOCK_STREAM)
    sock.bind(address)
    sock.listen(backlog)
    return sock


def _datagrams(family: int) -> socket.socket:
    sock = transparent(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, linux.IPV6_RECVORIGDSTADDR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, linux.IP_RECVORIGDSTADDR, 1)
    _give_room(sock)
    sock.bind(("", _CATCH))
    return sock
