"""Streams of trio and of anyio through proxies: the plan is driven by trio itself there, and leaves nothing behind."""

import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from helpers.connect_proxy import connect_proxy
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import heard_before_the_end
from helpers.targets import accept, banner, closed_port, target
from helpers.waiting import PATIENCE
from tabi.addr import Address, Name
from tabi.dial.wishes import Family
from tabi.errors import DialTimeoutError, NameUnknownError, ProxyUnreachableError, RefusedError, UsageError
from tabi.net.system_names import no_such

for package in ("anyio", "trio"):
    pytest.importorskip(package, reason=f"{package} is not installed: make setup")

import anyio
import trio

from tabi.adapters.anyio import connect_tcp
from tabi.adapters.trio import open_tcp_stream

BANNER = b"220 hello\r\n"


class Streams:
    """One way to open streams, with the loop that goes with it."""

    def __init__(
        self, start: Callable[..., Any], connect: Callable[..., Awaitable[Any]], late: Callable[..., Any]
    ) -> None:
        self._start = start
        self._connect = connect
        self._late = late

    def heard(self, address: tuple[str, int], **options: Any) -> bytes:
        """Connect, and give all that the target says."""

        async def main() -> bytes:
            async with await self._connect(*address, **options) as stream:
                return await all_of(stream)

        return self._start(main)

    def cancelled(self, seconds: float, address: tuple[str, int], **options: Any) -> bool:
        """Connect, but give up after a while; tell whether it came to that."""

        async def main() -> bool:
            with self._late(seconds) as scope:
                await self._connect(*address, **options)
            return bool(scope.cancelled_caught)

        return self._start(main)


async def all_of(stream: Any) -> bytes:
    read = stream.receive_some if hasattr(stream, "receive_some") else stream.receive
    data = b""
    try:
        while more := await read():
            data += more
    except anyio.EndOfStream:
        pass
    return data


STREAMS = {
    "trio": Streams(trio.run, open_tcp_stream, trio.move_on_after),
    "anyio-trio": Streams(trio.run, connect_tcp, anyio.move_on_after),
    "anyio-asyncio": Streams(anyio.run, connect_tcp, anyio.move_on_after),
}


@pytest.fixture(params=STREAMS)
def streams(request: pytest.FixtureRequest) -> Streams:
    return STREAMS[request.param]


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with serving() as running:
        NameService({"site.example": ["127.0.0.1"]}).serve(running)
        yield running


@pytest.fixture(autouse=True)
def names(monkeypatch: pytest.MonkeyPatch) -> list[Name]:
    """Know one name here, at whose first address nobody is; what was asked is kept.

    Both addresses are of one family: an answer of the other is not waited for (`tabi.dial.lookup`).
    """
    asked: list[Name] = []

    def addresses_of(name: Name, family: Family) -> tuple[Address, ...]:
        asked.append(name)
        if name.text != "local.example":
            raise no_such(name)
        return (ip_address("127.0.0.2"), ip_address("127.0.0.1")) if family == 4 else ()

    for module in ("tabi.adapters.trio", "tabi.net.system_resolver"):
        monkeypatch.setattr(f"{module}.addresses_of", addresses_of)
    return asked


def url(scheme: str, address: tuple[str, int]) -> str:
    return f"{scheme}://{address[0]}:{address[1]}"


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_what_the_target_says_first_comes_and_the_proxy_has_the_name(
    streams: Streams, server: Running, scheme: str, names: list[Name]
) -> None:
    with target(banner(BANNER)) as (_, port):
        assert streams.heard(("site.example", port), proxy=url(scheme, server.address)) == BANNER
    assert names == []


def test_names_are_resolved_here_and_the_next_address_is_tried(streams: Streams, server: Running) -> None:
    with target(banner(BANNER)) as (_, port):
        assert streams.heard(("local.example", port), proxy=url("socks5", server.address)) == BANNER
        assert streams.heard(("local.example", port)) == BANNER


def test_chains_and_http_proxies_serve(streams: Streams, server: Running) -> None:
    with connect_proxy() as http, target(banner(BANNER)) as address:
        chain = [url("socks4a", server.address), url("http", http), url("socks5h", server.address)]
        assert streams.heard(address, proxy=chain) == BANNER


def test_failures_are_told_apart(streams: Streams, server: Running) -> None:
    nobody = ("127.0.0.1", closed_port())
    with pytest.raises(RefusedError):
        streams.heard(nobody, proxy=url("socks5h", server.address))
    with pytest.raises(ProxyUnreachableError):
        streams.heard(("site.example", 80), proxy=url("socks5h", nobody))
    with pytest.raises(NameUnknownError):
        streams.heard(("nobody.example", 80), proxy=url("socks5", server.address))
    with pytest.raises(UsageError):
        streams.heard(("::1", 80), proxy=url("socks4", server.address))


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("is_ours", [True, False], ids=["timeout", "cancelled"])
def test_given_up_in_the_handshake_nothing_is_left(streams: Streams, is_ours: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        proxy = url("socks5h", silent.getsockname())
        before = descriptors()
        if is_ours:
            with pytest.raises(DialTimeoutError) as caught:
                streams.heard(("site.example", 80), proxy=proxy, timeout=0.05)
            assert caught.value.limit == "connect"
        else:
            assert streams.cancelled(0.05, ("site.example", 80), proxy=proxy)
        assert descriptors() <= before
        with accept(silent) as sock:
            assert heard_before_the_end(sock) in (b"", b"\x05\x01\x00")  # a greeting perhaps


def test_given_up_at_the_proxy_itself_nothing_is_left(streams: Streams) -> None:
    """Where the connection is not even there: its queue is full."""
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        before = descriptors()
        assert streams.cancelled(0.05, ("site.example", 80), proxy=url("socks5h", full.getsockname()))
        assert descriptors() <= before
