"""httpx through proxies, blocking and asynchronous, on asyncio and on trio.

::

    with httpx.Client(transport=ProxyTransport("socks5h://127.0.0.1:1080")) as http:
        http.get("http://example.org/")
"""

from tabi.adapters.needs import Needs

with Needs("httpx"):
    import httpcore
    import httpx

    from tabi.adapters import httpcore as shared

__all__ = ["AsyncProxyTransport", "ProxyTransport"]


class _Body(shared.Body, httpx.SyncByteStream): ...


class _AsyncBody(shared.AsyncBody, httpx.AsyncByteStream): ...


class ProxyTransport(shared.Transport, httpx.BaseTransport):
    """A transport whose connections go through `proxy`.

    Failures are httpx's own, a ``ConnectError`` or ``ConnectTimeout``, with ours as their cause. What cannot be said
    is a `tabi.errors.UsageError`, a ValueError.

    Args:
        proxy: a URL, several, the nearest first, or None.
        verify: as for httpx.Client: True, False or a context for TLS with the target.
        options: as for httpcore.ConnectionPool: ``http2``, ``retries``, ``max_connections`` and so on.
    """

    _client = httpx
    _core = httpcore
    _body = _Body


class AsyncProxyTransport(shared.AsyncTransport, httpx.AsyncBaseTransport):
    """The same for httpx.AsyncClient."""

    _client = httpx
    _core = httpcore
    _body = _AsyncBody
