"""requests through proxies.

::

    with session("socks5h://127.0.0.1:1080") as http:
        http.get("http://example.org/")
"""

from typing import Any

from tabi.adapters.needs import Needs
from tabi.machine.url import ProxyLike, parse_proxies

with Needs("requests"):
    import requests
    from requests.adapters import HTTPAdapter

    from tabi.adapters.urllib3 import ProxyPoolManager

__all__ = ["ProxyAdapter", "session"]


def session(proxy: ProxyLike) -> requests.Session:
    """Make a session that does all through `proxy`, whatever the environment says."""
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, ProxyAdapter(proxy))
    return made


class ProxyAdapter(HTTPAdapter):
    """An adapter to be mounted; other proxies, of the environment or of `proxies=`, are not heeded.

    A failure is a ``requests.ConnectionError`` or ``ConnectTimeout``, as without a proxy; its first argument is
    urllib3's MaxRetryError, whose ``reason`` has our error as its cause.

    Args:
        proxy: a URL, several, the nearest first, or None.
        options: as for HTTPAdapter.
    """

    # what a copy by pickle needs
    __attrs__: list[str] = [*HTTPAdapter.__attrs__, "_hops"]  # noqa: RUF012 - as requests has it

    def __init__(self, proxy: ProxyLike, **options: Any) -> None:  # Any: HTTPAdapter's
        self._hops = parse_proxies(proxy)
        super().__init__(**options)

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Make the pool; called by HTTPAdapter."""
        self.poolmanager: ProxyPoolManager = ProxyPoolManager(
            self._hops, num_pools=connections, maxsize=maxsize, block=block, **options
        )

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send, through this proxy alone, and nothing that is meant for another."""
        options["proxies"] = None
        # On a redirect a session puts the password of a proxy of the environment here; the target would read it.
        request.headers.pop("Proxy-Authorization", None)
        return super().send(request, *args[:4], **options)
