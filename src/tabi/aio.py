"""Connections, listeners and datagrams through proxies, for asyncio.

::

    from tabi.aio import open_connection

    async def main():
        reader, writer = await open_connection("example.org", 443, proxy="socks5h://127.0.0.1:1080", ssl=True)

`tabi.sync` is the same for programs without a loop; docs/howto/client-library.md shows more.
"""

from tabi.client.aio import Listener, associate, bind, create_connection, open_connection, open_socket, resolve
from tabi.client.aio_datagrams import DatagramSocket
from tabi.client.environment import proxies_from_environment
from tabi.client.plans import AddressLike
from tabi.machine.hop import Hop
from tabi.machine.url import ProxyLike, parse_proxy

__all__ = [
    "AddressLike", "DatagramSocket", "Hop", "Listener", "ProxyLike",
    "associate", "bind", "create_connection", "open_connection", "open_socket", "parse_proxy",
    "proxies_from_environment", "resolve",
]  # fmt: skip
