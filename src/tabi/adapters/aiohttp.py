"""aiohttp through proxies.

::

    async with aiohttp.ClientSession(connector=ProxyConnector("socks5h://127.0.0.1:1080")) as http:
        async with http.get("http://example.org/") as answer:
            print(await answer.text())
"""

import asyncio
import errno
import os
import socket
import ssl
from typing import Any, NoReturn

from tabi.adapters.needs import Needs
from tabi.aio import open_socket
from tabi.errors import UsageError
from tabi.machine.url import ProxyLike, parse_proxies

with Needs("aiohttp"):
    import aiohttp
    from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ["ProxyConnector"]


class ProxyConnector(aiohttp.TCPConnector):
    """A connector whose connections go through `proxy`; not to be used together with aiohttp's own ``proxy=``.

    A failure is a ``ClientConnectorError`` or, where the time is over, a ``ConnectionTimeoutError``, with ours as its
    cause.

    Args:
        proxy: a URL, several, the nearest first, or None.
        options: as for TCPConnector, but those that are about names and sockets.
    """

    def __init__(self, proxy: ProxyLike, **options: Any) -> None:  # Any: TCPConnector's
        self._hops = parse_proxies(proxy)
        if options.get("local_addr") is not None:
            raise UsageError("local_addr: the connection to a proxy comes from where the kernel says")
        super().__init__(resolver=_Names(), use_dns_cache=False, socket_factory=_refuse, **options)

    async def _wrap_create_connection(
        self,
        *args: Any,  # Any: what aiohttp has for loop.create_connection
        addr_infos: list[Any],  # Any: as of getaddrinfo
        req: Any,  # Any: aiohttp's ClientRequest, which is not public
        timeout: aiohttp.ClientTimeout,
        client_error: type[Exception] = aiohttp.ClientConnectorError,
        **options: Any,  # Any: as args
    ) -> Any:  # Any: a transport, and aiohttp's own protocol
        """Connect; where TCPConnector connects to the first address that answers."""
        host, port = addr_infos[0][4][:2]
        try:
            async with asyncio.timeout(timeout.sock_connect):
                sock = await open_socket(host, port, proxy=self._hops)
                return await _take_over(sock, args, options)
        except ssl.CertificateError as error:
            raise aiohttp.ClientConnectorCertificateError(req.connection_key, error) from error
        except ssl.SSLError as error:
            raise aiohttp.ClientConnectorSSLError(req.connection_key, error) from error
        except TimeoutError:
            raise
        except OSError as error:
            told = OSError(error.errno or errno.ECONNABORTED, str(error))  # aiohttp shows these two
            raise client_error(req.connection_key, told) from error


async def _take_over(sock: socket.socket, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    try:
        return await asyncio.get_running_loop().create_connection(*args, **options, sock=sock)
    except BaseException:
        sock.close()
        raise


class _Names(AbstractResolver):
    """Take each name for its own address: it is for the proxy."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        return [
            ResolveResult(hostname=host, host=host, port=port, family=socket.AF_INET, proto=0, flags=0)
        ]

    async def close(self) -> None:
        """Hold nothing."""


def _refuse(_address: Any) -> NoReturn:  # Any: as of getaddrinfo
    """Make no socket: an aiohttp whose connections begin elsewhere must not go around the proxy."""
    raise OSError(errno.EPERM, f"{os.strerror(errno.EPERM)}: a connection around the proxy")
