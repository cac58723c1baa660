"""HTTP libraries through tabi by our adapters: each does the same things, and fails in its own words."""

import asyncio
import pickle
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from errno import ENOPROTOOPT
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from helpers.name_service import NameService
from helpers.programs import need, run
from helpers.serving import Running, serving
from helpers.targets import closed_port, target
from helpers.waiting import PATIENCE
from tabi.errors import DialTimeoutError, RefusedError, UsageError

for package in ("aiohttp", "httpx", "httpx2", "requests", "trio", "urllib3"):
    pytest.importorskip(package, reason=f"{package} is not installed: make setup")

import aiohttp
import httpx
import httpx2
import requests
import trio
import urllib3

from tabi.adapters import aiohttp as our_aiohttp
from tabi.adapters import httpx as our_httpx
from tabi.adapters import httpx2 as our_httpx2
from tabi.adapters import requests as our_requests
from tabi.adapters import urllib3 as our_urllib3

PAGE = b"hello through tabi\n"


class Trust(NamedTuple):
    """The certificate of site.example, for those who want a file, a context, or the server's side."""

    file: str
    context: ssl.SSLContext
    server: ssl.SSLContext


Fetch = Callable[[Sequence[str], str, Trust, float], list[bytes]]
"""Get all URLs one after the other with one client, through a proxy."""


def by_urllib3(urls: Sequence[str], proxy: str, trust: Trust, seconds: float) -> list[bytes]:
    with our_urllib3.ProxyPoolManager(proxy, timeout=seconds, retries=False, ssl_context=trust.context) as http:
        return [http.request("GET", url).data for url in urls]


def by_requests(urls: Sequence[str], proxy: str, trust: Trust, seconds: float) -> list[bytes]:
    with our_requests.session(proxy) as http:
        return [http.get(url, timeout=seconds, verify=trust.file).content for url in urls]


def blocking(client: Any, ours: Any) -> Fetch:
    def fetch(urls: Sequence[str], proxy: str, trust: Trust, seconds: float) -> list[bytes]:
        transport = ours.ProxyTransport(proxy, verify=trust.context)
        with client.Client(transport=transport, timeout=seconds) as http:
            return [http.get(url).content for url in urls]

    return fetch


def asynchronous(client: Any, ours: Any, start: Callable[..., Any]) -> Fetch:
    def fetch(urls: Sequence[str], proxy: str, trust: Trust, seconds: float) -> list[bytes]:
        async def main() -> list[bytes]:
            transport = ours.AsyncProxyTransport(proxy, verify=trust.context)
            async with client.AsyncClient(transport=transport, timeout=seconds) as http:
                return [(await http.get(url)).content for url in urls]

        return start(main)

    return fetch


def by_aiohttp(urls: Sequence[str], proxy: str, trust: Trust, seconds: float) -> list[bytes]:
    async def main() -> list[bytes]:
        found = []
        limit = aiohttp.ClientTimeout(sock_connect=seconds)
        async with aiohttp.ClientSession(connector=our_aiohttp.ProxyConnector(proxy), timeout=limit) as http:
            for url in urls:
                async with http.get(url, ssl=trust.context) as answer:
                    found.append(await answer.read())
        return found

    return asyncio.run(main())


def on_asyncio(main: Callable[[], Any]) -> Any:
    return asyncio.run(main())


class Library(NamedTuple):
    """How one fetches, and how it says what."""

    fetch: Fetch
    refused: type[Exception]
    late: type[Exception]
    untrusted: type[Exception]


def httpx_like(client: Any, fetch: Fetch) -> Library:
    return Library(fetch, client.ConnectError, client.ConnectTimeout, client.ConnectError)


LIBRARIES = {
    "urllib3": Library(
        by_urllib3, urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError,
        urllib3.exceptions.SSLError,
    ),
    "requests": Library(
        by_requests, requests.ConnectionError, requests.ConnectTimeout, requests.exceptions.SSLError
    ),
    "httpx": httpx_like(httpx, blocking(httpx, our_httpx)),
    "httpx-asyncio": httpx_like(httpx, asynchronous(httpx, our_httpx, on_asyncio)),
    "httpx-trio": httpx_like(httpx, asynchronous(httpx, our_httpx, trio.run)),
    "httpx2": httpx_like(httpx2, blocking(httpx2, our_httpx2)),
    "httpx2-asyncio": httpx_like(httpx2, asynchronous(httpx2, our_httpx2, on_asyncio)),
    "aiohttp": Library(
        by_aiohttp, aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError,
        aiohttp.ClientConnectorCertificateError,
    ),
}  # fmt: skip


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> Library:
    return LIBRARIES[request.param]


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    """Make a certificate for site.example."""
    directory: Path = tmp_path_factory.mktemp("tls")
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    done = run(
        need("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=site.example", "-addext", "subjectAltName=DNS:site.example", "-keyout", key, "-out", certificate,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return Trust(str(certificate), ssl.create_default_context(cafile=str(certificate)), server)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    """Run tabi, which alone knows these names."""
    with serving() as running:
        NameService({"site.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]}).serve(running)
        yield running


@pytest.fixture(autouse=True)
def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no name looked up here, and other proxies in the environment, where nobody is."""

    def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
        ip_address(host.decode() if isinstance(host, bytes) else host)
        return plain(host, *args, **options)

    plain = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.delenv("no_proxy", raising=False)


def proxy_of(running: Running) -> str:
    return f"socks5h://127.0.0.1:{running.address[1]}"


def pages(sock: socket.socket) -> None:
    """Answer one request after the other, until the client has no more."""
    with sock.makefile("rb") as lines:
        while lines.readline():
            while lines.readline() != b"\r\n":
                pass
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(PAGE), PAGE))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Give all errors that one is because of; urllib3's MaxRetryError has it as its reason."""
    while error is not None:
        yield error
        wrapped = error.args[0] if error.args and isinstance(error.args[0], urllib3.exceptions.MaxRetryError) else None
        error = wrapped.reason if wrapped is not None else error.__cause__


def test_pages_come_over_one_connection_and_the_proxy_has_the_name(
    library: Library, server: Running, trust: Trust
) -> None:
    connections = []

    def serve(sock: socket.socket) -> None:
        connections.append(sock)
        pages(sock)

    with target(serve) as (_, port):
        url = f"http://site.example:{port}/"
        assert library.fetch([url, url], proxy_of(server), trust, PATIENCE) == [PAGE, PAGE]
        server.line(target=f"site.example:{port}")
    assert len(connections) == 1


def test_tls_is_with_the_target_by_its_name(library: Library, server: Running, trust: Trust) -> None:
    def serve(sock: socket.socket) -> None:
        with trust.server.wrap_socket(sock, server_side=True) as tls:
            pages(tls)

    with target(serve) as (_, port):
        url = f"https://site.example:{port}/"
        assert library.fetch([url], proxy_of(server), trust, PATIENCE) == [PAGE]
        with pytest.raises(library.untrusted):
            library.fetch([f"https://other.example:{port}/"], proxy_of(server), trust, PATIENCE)


def test_a_refusal_is_the_librarys_error_and_ours_its_cause(library: Library, server: Running, trust: Trust) -> None:
    with pytest.raises(library.refused) as caught:
        library.fetch([f"http://127.0.0.1:{closed_port()}/"], proxy_of(server), trust, PATIENCE)
    assert any(isinstance(one, RefusedError) for one in causes(caught.value))
    assert "refused" in str(caught.value)


def test_the_librarys_time_limit_is_that_of_the_handshake(library: Library, trust: Trust) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"socks5h://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(library.late):
            library.fetch(["http://site.example/"], proxy, trust, 0.05)


def test_a_time_limit_of_ours_is_the_cause(server: Running, trust: Trust) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        proxy = f"socks5h://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(httpx.ConnectTimeout) as caught:
            LIBRARIES["httpx"].fetch(["http://site.example/"], proxy, trust, 0.05)
    assert isinstance(caught.value.__cause__, DialTimeoutError)


def test_a_mounted_adapter_survives_a_copy(server: Running, trust: Trust) -> None:
    copy = pickle.loads(pickle.dumps(our_requests.ProxyAdapter(proxy_of(server))))
    with target(pages) as (_, port), requests.Session() as http:
        http.mount("http://", copy)
        assert http.get(f"http://site.example:{port}/", timeout=PATIENCE).content == PAGE


def test_a_password_of_the_environments_proxy_stays_here_on_a_redirect(
    server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://eve:sesame@127.0.0.1:{closed_port()}")
    heads: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        for answer in (b"302 Found\r\nLocation: /there", b"200 OK"):
            with sock.makefile("rb") as lines:
                heads.append(b"".join(iter(lines.readline, b"\r\n")))
            sock.sendall(b"HTTP/1.1 " + answer + b"\r\nContent-Length: 0\r\n\r\n")

    with target(serve) as (_, port), our_requests.session(proxy_of(server)) as http:
        http.get(f"http://site.example:{port}/", timeout=PATIENCE)
    assert [head.split()[1] for head in heads] == [b"/", b"/there"]
    assert b"authorization" not in b"".join(heads).lower()


@pytest.mark.parametrize("name", ["urllib3", "httpx", "httpx-asyncio"])
def test_what_cannot_be_said_is_a_value_error(name: str, trust: Trust) -> None:
    with pytest.raises(UsageError):
        LIBRARIES[name].fetch(["http://[::1]:9/"], "socks4a://127.0.0.1:1", trust, PATIENCE)


def test_where_connections_come_from_is_not_for_the_library_to_say(server: Running) -> None:
    async def by_aiohttp_from(address: tuple[str, int]) -> None:
        our_aiohttp.ProxyConnector(proxy_of(server), local_addr=address)

    with pytest.raises(UsageError, match="local_addr"):
        asyncio.run(by_aiohttp_from(("127.0.0.2", 0)))
    with pytest.raises(UsageError, match="source_address"):
        with our_urllib3.ProxyPoolManager(proxy_of(server), source_address=("127.0.0.2", 0)) as http:
            http.request("GET", "http://site.example/")


WRONG_OPTIONS = [(socket.IPPROTO_TCP, 9999, 1)]


def get_with_wrong_options(name: str, url: str, proxy: str) -> None:
    """Get a page with a socket option that no kernel takes."""
    if name == "urllib3":
        with our_urllib3.ProxyPoolManager(proxy, retries=False, socket_options=WRONG_OPTIONS) as http:
            http.request("GET", url)
    elif name == "httpx":
        with httpx.Client(transport=our_httpx.ProxyTransport(proxy, socket_options=WRONG_OPTIONS)) as client:
            client.get(url)
    else:

        async def main() -> None:
            transport = our_httpx.AsyncProxyTransport(proxy, socket_options=WRONG_OPTIONS)
            async with httpx.AsyncClient(transport=transport) as client:
                await client.get(url)

        on_asyncio(main)


@pytest.mark.parametrize("name", ["urllib3", "httpx", "httpx-asyncio"])
def test_a_socket_option_that_fails_is_the_librarys_error_and_leaves_no_socket(name: str, server: Running) -> None:
    over = threading.Event()

    def serve(sock: socket.socket) -> None:
        if sock.recv(1) == b"":
            over.set()

    with target(serve) as (_, port):
        with pytest.raises(LIBRARIES[name].refused) as caught:
            get_with_wrong_options(name, f"http://site.example:{port}/", proxy_of(server))
        assert over.wait(PATIENCE), "nobody has closed"
        assert any(isinstance(one, OSError) and one.errno == ENOPROTOOPT for one in causes(caught.value))


def test_connections_end_with_their_client(library: Library, server: Running, trust: Trust) -> None:
    over = threading.Event()

    def serve(sock: socket.socket) -> None:
        pages(sock)
        over.set()

    with target(serve) as (_, port):
        library.fetch([f"http://site.example:{port}/"], proxy_of(server), trust, PATIENCE)
        assert over.wait(PATIENCE)


def test_a_urllib3_that_begins_its_connections_elsewhere_is_refused() -> None:
    lines = "import urllib3.connection as c; del c.HTTPConnection._new_conn; import tabi.adapters.urllib3"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "would go around the proxy" in done.stderr
