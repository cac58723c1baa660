"""anyio through proxies, on asyncio and on trio.

::

    stream = await connect_tcp("example.org", 80, proxy="socks5h://127.0.0.1:1080")

For TLS wrap it, ``await TLSStream.wrap(stream, hostname="example.org")``.
"""

import socket
import sys

from tabi.adapters.needs import Needs
from tabi.aio import open_socket
from tabi.machine.url import ProxyLike

with Needs("anyio"):
    from anyio.abc import SocketStream

__all__ = ["connect_tcp"]


async def connect_tcp(host: str, port: int, *, proxy: ProxyLike = None, timeout: float | None = None) -> SocketStream:
    """Connect to a target through `proxy`, as `anyio.connect_tcp` does without one.

    Cancelled or not, nothing but the stream is left.

    Args:
        host, port: the target, a name or an address.
        proxy: a URL, several, the nearest first, or None.
        timeout: seconds for look-ups, connections and handshakes together; None: 30.

    Raises:
        UsageError, OSError: as `tabi.aio.open_connection`.
    """
    sock = await _open_socket(host, port, proxy, timeout)
    try:
        return await SocketStream.from_socket(sock)
    except BaseException:
        sock.close()
        raise


async def _open_socket(host: str, port: int, proxy: ProxyLike, timeout: float | None) -> socket.socket:
    trio = sys.modules.get("trio")
    if trio is None or not trio.lowlevel.in_trio_run():
        return await open_socket(host, port, proxy=proxy, timeout=timeout)
    from tabi.adapters import trio as on_trio

    return await on_trio.open_socket(host, port, proxy=proxy, timeout=timeout)
