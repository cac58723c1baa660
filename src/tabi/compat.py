"""A drop-in for PySocks, whose last release is of 2019.

::

    import sys
    import tabi.compat

    sys.modules["socks"] = tabi.compat  # before requests or urllib3 ask for it

    import requests
    requests.get("http://example.org/", proxies={"http": "socks5h://127.0.0.1:1080"})

`tabi.client.compat` tells what differs. New programs are better served by `tabi.sync` and `tabi.aio`.
"""

from tabi.client.compat import (
    create_connection,
    get_default_proxy,
    getdefaultproxy,
    set_default_proxy,
    setdefaultproxy,
    socksocket,
    wrap_module,
    wrapmodule,
)
from tabi.client.compat_errors import (
    DEFAULT_PORTS,
    HTTP,
    PRINTABLE_PROXY_TYPES,
    PROXY_TYPE_HTTP,
    PROXY_TYPE_SOCKS4,
    PROXY_TYPE_SOCKS5,
    PROXY_TYPES,
    SOCKS4,
    SOCKS4_ERRORS,
    SOCKS5,
    SOCKS5_ERRORS,
    GeneralProxyError,
    HTTPError,
    ProxyConnectionError,
    ProxyError,
    SOCKS4Error,
    SOCKS5AuthError,
    SOCKS5Error,
)

__all__ = [
    "DEFAULT_PORTS", "HTTP", "PRINTABLE_PROXY_TYPES", "PROXY_TYPES", "PROXY_TYPE_HTTP", "PROXY_TYPE_SOCKS4",
    "PROXY_TYPE_SOCKS5", "SOCKS4", "SOCKS4_ERRORS", "SOCKS5", "SOCKS5_ERRORS",
    "GeneralProxyError", "HTTPError", "ProxyConnectionError", "ProxyError", "SOCKS4Error", "SOCKS5AuthError",
    "SOCKS5Error",
    "create_connection", "get_default_proxy", "getdefaultproxy", "set_default_proxy", "setdefaultproxy", "socksocket",
    "wrap_module", "wrapmodule",
]  # fmt: skip
