"""Where the datagrams of an association really go: what the proxy tells is not simply believed.

A hostile proxy could have its clients send datagrams to hosts that only they can reach. So the relay is the proxy's own
address, with the port that it tells, unless the address that it tells is in the same network or allowed by the caller.
"""

from collections.abc import Callable
from ipaddress import ip_network

from tabi.addr import Address, Endpoint, Host, Name
from tabi.errors import ProtocolError, Side, Stage

__all__ = ["relay_endpoint"]

_SAME_NETWORK = {4: 24, 6: 64}  # bits that a proxy and its relay have in common where they are neighbours


def relay_endpoint(told: Endpoint, proxy: Host, allow: Callable[[Address], bool]) -> Endpoint:
    """Choose where datagrams for the relay are sent.

    Args:
        told: BND.ADDR and BND.PORT.
        proxy: the proxy, as its control connection reached it.
        allow: says of an address elsewhere whether it is to be believed.

    Raises:
        ProtocolError: the proxy tells port 0.
    """
    if not told.port:
        text = "proxy granted an association and told port 0 for its relay"
        raise ProtocolError(text, side=Side.OUTBOUND, stage=Stage.ASSOCIATE)
    host = told.host
    if isinstance(host, Name) or host.is_unspecified:
        return Endpoint(proxy, told.port)
    if host == proxy or _are_neighbours(host, proxy) or allow(host):
        return told
    return Endpoint(proxy, told.port)


def _are_neighbours(one: Address, other: Host) -> bool:
    if isinstance(other, Name) or one.version != other.version:
        return False
    return other in ip_network((one, _SAME_NETWORK[one.version]), strict=False)
