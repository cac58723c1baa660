"""Local addresses and ports: choosing them, and the datagram sockets on them."""

import errno
import random
import socket

from tabi.addr import Address, Endpoint, socket_address
from tabi.errors import DialError, Stage
from tabi.net.errno_map import dial_error

__all__ = ["bind_within", "open_datagram_socket", "route_source", "same_family", "told_address"]


def same_family(configured: Address | None, actual: Address) -> Address:
    """Give the configured address where there is one of the family that is needed, else the actual one."""
    return configured if configured is not None and configured.version == actual.version else actual


def told_address(advertise: Address | None, bound: Address, control: Address) -> Address:
    """Choose what a client is told as BND.ADDR: never an address that it cannot connect to.

    Args:
        advertise: what the settings say, for its own family.
        bound: what the socket is bound to, perhaps the unspecified address.
        control: our end of the client's connection, which stands for an unspecified address of its family.
    """
    reachable = same_family(control, bound) if bound.is_unspecified else bound
    return same_family(advertise, reachable)


def route_source(target: Address) -> Address:
    """Give the address that this host would send from to `target`. Nothing is sent.

    Raises:
        DialError: there is no route.
    """
    family = socket.AF_INET6 if target.version == 6 else socket.AF_INET
    endpoint = Endpoint(target, 9)  # any port: connect() on a datagram socket only asks the routing table
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((str(target), endpoint.port))
            return socket_address(sock.getsockname()[0])
    except OSError as error:
        raise dial_error(error, endpoint) from None


def is_own_address(address: Address) -> bool:
    """Say whether an address is of this host: to send there, the kernel takes that very address as the source."""
    try:
        return route_source(address) == address
    except DialError:
        return False


def bind_within(sock: socket.socket, address: Address, ports: tuple[int, int] | None, scope: int = 0) -> None:
    """Bind to `address` and a free port of the range, or any.

    The search starts at a random port: predictable ones invite whoever wants to be the peer.

    Args:
        sock: not bound yet.
        address: of this host.
        ports: first and last; None: any.
        scope: number of the interface that a link-local address belongs to.

    Raises:
        OSError: EADDRINUSE when the whole range is taken, or what bind(2) says.
    """
    zone = (0, scope) if scope else ()
    first, last = ports or (0, 0)
    count = last - first + 1
    start = random.SystemRandom().randrange(count)
    for step in range(count):
        try:
            sock.bind((str(address), first + (start + step) % count, *zone))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
        else:
            return
    raise OSError(errno.EADDRINUSE, f"all ports from {first} to {last} are taken")


def open_datagram_socket(local: Address, ports: tuple[int, int] | None, scope: int = 0) -> socket.socket:
    """Open a bound, non-blocking UDP socket.

    Raises:
        DialError: no port is free, or the address is not ours.
    """
    is_v6 = local.version == 6
    try:
        sock = socket.socket(socket.AF_INET6 if is_v6 else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise dial_error(error, Endpoint(local, 0)) from None
    try:
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bind_within(sock, local, ports, scope)
    except OSError as error:
        sock.close()
        text = f"no UDP port to be had on {local} ({ports or 'any port'}): {error.strerror}"
        raise DialError(text, stage=Stage.ASSOCIATE) from None
    return sock
