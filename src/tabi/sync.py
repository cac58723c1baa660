"""Connections, listeners and datagrams through proxies, by blocking calls that look like those of the socket module.

::

    from tabi.sync import create_connection

    with create_connection(("example.org", 80), proxy="socks5h://127.0.0.1:1080") as sock:
        sock.sendall(b"GET / HTTP/1.0\\r\\nHost: example.org\\r\\n\\r\\n")
        print(sock.makefile("rb").readline())

Nothing of asyncio is imported. `tabi.aio` is the same for asyncio; docs/howto/client-library.md shows more.
"""

from tabi.client.datagrams import DatagramSocket
from tabi.client.environment import proxies_from_environment
from tabi.client.plans import AddressLike
from tabi.client.sync import Listener, associate, bind, create_connection, resolve
from tabi.machine.hop import Hop
from tabi.machine.url import ProxyLike, parse_proxy

__all__ = [
    "AddressLike", "DatagramSocket", "Hop", "Listener", "ProxyLike",
    "associate", "bind", "create_connection", "parse_proxy", "proxies_from_environment", "resolve",
]  # fmt: skip
