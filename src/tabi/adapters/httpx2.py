"""httpx2 through proxies, blocking and asynchronous, on asyncio and on trio.

::

    with httpx2.Client(transport=ProxyTransport("socks5h://127.0.0.1:1080")) as http:
        http.get("http://example.org/")
"""

from tabi.adapters.needs import Needs

with Needs("httpx2"):
    import httpcore2
    import httpx2

    from tabi.adapters import httpcore as shared

__all__ = ["AsyncProxyTransport", "ProxyTransport"]


class _Body(shared.Body, httpx2.SyncByteStream): ...


class _AsyncBody(shared.AsyncBody, httpx2.AsyncByteStream): ...


class ProxyTransport(shared.Transport, httpx2.BaseTransport):
    """A transport whose connections go through `proxy`.

    Failures are httpx2's own, a ``ConnectError`` or ``ConnectTimeout``, with ours as their cause. What cannot be said
    is a `tabi.errors.UsageError`, a ValueError.

    Args:
        proxy: a URL, several, the nearest first, or None.
        verify: as for httpx2.Client: True, False or a context for TLS with the target.
        options: as for httpcore2.ConnectionPool: ``http2``, ``retries``, ``max_connections`` and so on.
    """

    _client = httpx2
    _core = httpcore2
    _body = _Body


class AsyncProxyTransport(shared.AsyncTransport, httpx2.AsyncBaseTransport):
    """The same for httpx2.AsyncClient."""

    _client = httpx2
    _core = httpcore2
    _body = _AsyncBody
