"""urllib3 through proxies.

::

    http = ProxyPoolManager("socks5h://127.0.0.1:1080")
    http.request("GET", "http://example.org/")
"""

import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

from tabi.adapters.needs import Needs
from tabi.errors import UsageError
from tabi.machine.hop import Hop
from tabi.machine.url import ProxyLike, parse_proxies
from tabi.sync import create_connection

with Needs("urllib3"):
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

__all__ = ["ProxyPoolManager"]

_Makers: TypeAlias = dict[str, Callable[..., HTTPConnectionPool]]

if "_new_conn" not in vars(HTTPConnection):  # it is not public; what we override must be what is called
    raise ImportError("this urllib3 begins its connections elsewhere, and they would go around the proxy")


class ProxyPoolManager(PoolManager):
    """A PoolManager whose connections go through `proxy`.

    A failure is a NewConnectionError or a ConnectTimeoutError whose cause is ours; unless `retries` is False they are
    the `reason` of a MaxRetryError. What cannot be said is a `tabi.errors.UsageError`, a ValueError.

    Args:
        proxy: a URL, several, the nearest first, or None.
        num_pools, headers, options: as for PoolManager.
    """

    def __init__(
        self,
        proxy: ProxyLike,
        num_pools: int = 10,
        headers: Mapping[str, str] | None = None,
        **options: Any,  # Any: those of urllib3's pools
    ) -> None:
        super().__init__(num_pools, headers, **options)
        hops = parse_proxies(proxy)
        self.pool_classes_by_scheme: _Makers = {  # type: ignore[assignment]  # they are called, and nothing else
            "http": partial(_Pool, hops=hops), "https": partial(_SecurePool, hops=hops),
        }  # fmt: skip


class _Connection(HTTPConnection):
    """One connection; its pool hands on what it does not know, `hops`."""

    def __init__(self, *args: Any, hops: tuple[Hop, ...], **options: Any) -> None:  # Any: as HTTPConnection
        if options.get("source_address"):
            raise UsageError("source_address: the connection to a proxy comes from where the kernel says")
        super().__init__(*args, **options)
        self._hops = hops

    def _new_conn(self) -> socket.socket:
        try:
            sock = create_connection((self.host, self.port or self.default_port), self.timeout, proxy=self._hops)
            try:
                for option in self.socket_options or ():
                    sock.setsockopt(*option)
            except BaseException:
                sock.close()
                raise
        except TimeoutError as error:
            raise ConnectTimeoutError(self, str(error)) from error
        except OSError as error:
            raise NewConnectionError(self, str(error)) from error
        return sock


class _SecureConnection(_Connection, HTTPSConnection):
    """The same with TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection
