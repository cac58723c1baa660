"""python-socks, which aiohttp-socks and httpx-socks stand on: blocking and asyncio, all versions, chains."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from python_socks import ProxyError
from python_socks.async_.asyncio import Proxy as AsyncProxy
from python_socks.sync import Proxy

from helpers.members import Members
from helpers.names import ONLY_HERE, teach
from helpers.serving import Running, serving
from helpers.socks import read_all
from helpers.targets import closed_port, echo, target
from helpers.waiting import PATIENCE
from helpers.web import noise
from tabi.policy.verdict import Context, Request, Verdict

SIZE = 1_000_000
DATA = noise(SIZE)

Dial = Callable[..., socket.socket]


def dial_blocking(url: str, host: str, port: int, **options: Any) -> socket.socket:
    return Proxy.from_url(url, **options).connect(host, port, timeout=PATIENCE)


def dial_asyncio(url: str, host: str, port: int, **options: Any) -> socket.socket:
    async def dial() -> socket.socket:
        return await AsyncProxy.from_url(url, **options).connect(host, port, timeout=PATIENCE)

    sock = asyncio.run(dial())
    sock.settimeout(PATIENCE)
    return sock


@pytest.fixture(params=[dial_blocking, dial_asyncio], ids=["blocking", "asyncio"])
def dial(request: pytest.FixtureRequest) -> Dial:
    return request.param



def url(scheme: str, server: Running | Members, login: str = "") -> str:
    return f"{scheme}://{login}{server.addresses[0]}"


def half_close_and_read(sock: socket.socket) -> bytes:
    with sock:
        sock.sendall(DATA)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


def collect_then_answer(sock: socket.socket) -> None:
    sock.sendall(read_all(sock))


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_address(scheme: str, dial: Dial) -> None:
    with target(collect_then_answer) as place, serving() as server:
        assert half_close_and_read(dial(url(scheme, server), *place)) == DATA
        server.line(socks=scheme[-1], to=f"127.0.0.1:{place[1]}", up=SIZE, down=SIZE, why="fin")


@pytest.mark.parametrize(("scheme", "version"), [("socks4", "4a"), ("socks5", "5")])
def test_name_is_looked_up_by_the_proxy(scheme: str, version: str, dial: Dial) -> None:
    with target(collect_then_answer) as (host, port), serving() as server:
        teach(server, host)
        assert half_close_and_read(dial(url(scheme, server), ONLY_HERE, port, rdns=True)) == DATA
        server.line(socks=version, target=f"{ONLY_HERE}:{port}", to=f"{host}:{port}")


def test_target_on_ipv6(dial: Dial) -> None:
    with target(collect_then_answer, "::1") as place, serving() as server:
        assert half_close_and_read(dial(url("socks5", server), *place)) == DATA
        server.line(to=f"[::1]:{place[1]}")


def test_name_whose_first_address_is_refused_is_reached_at_the_second(dial: Dial) -> None:
    with target(echo, "127.0.0.2") as (_, port), serving() as server:
        teach(server, "::1", "127.0.0.1", "127.0.0.2")
        with dial(url("socks5", server), ONLY_HERE, port, rdns=True) as sock:
            assert sock.getpeername() == server.address
        server.line(target=f"{ONLY_HERE}:{port}", to=f"127.0.0.2:{port}")


def test_right_password_opens(dial: Dial, members: Members) -> None:
    with target(collect_then_answer) as place:
        assert half_close_and_read(dial(url("socks5", members, "anna:secret@"), *place)) == DATA
        members.line(method="password", user="anna")


@pytest.mark.parametrize("login", ["anna:guess@", ""])
def test_wrong_or_no_password_does_not(login: str, dial: Dial, members: Members) -> None:
    with target(echo) as place:
        with pytest.raises(ProxyError):
            dial(url("socks5", members, login), *place)
        members.line(why="auth")


@pytest.mark.parametrize(("scheme", "code"), [("socks4", 91), ("socks5", 5)])
def test_refused_target_is_told(scheme: str, code: int, dial: Dial) -> None:
    with serving() as server:
        with pytest.raises(ProxyError) as caught:
            dial(url(scheme, server), "127.0.0.1", closed_port())
        assert caught.value.error_code == code


@pytest.mark.parametrize(("scheme", "code"), [("socks4", 91), ("socks5", 4)])
def test_unknown_name_is_told(scheme: str, code: int, dial: Dial) -> None:
    with serving() as server:
        teach(server, "127.0.0.1")
        with pytest.raises(ProxyError) as caught:
            dial(url(scheme, server), "nobody.invalid", 80, rdns=True)
        assert caught.value.error_code == code


@pytest.mark.parametrize(("scheme", "code"), [("socks4", 91), ("socks5", 2)])
def test_ruleset_is_told(scheme: str, code: int, dial: Dial) -> None:
    def refuse(_request: Request, _context: Context) -> Verdict:
        return Verdict(allow=False, rule="nobody")

    with target(echo) as place, serving(policy=refuse) as server:
        with pytest.raises(ProxyError) as caught:
            dial(url(scheme, server), *place)
        assert caught.value.error_code == code
        server.line(verdict="refuse", rule="nobody", why="policy")


@pytest.mark.parametrize("kind", [Proxy, AsyncProxy])
def test_chain_of_all_versions(kind: type[Proxy | AsyncProxy]) -> None:
    with target(collect_then_answer) as (host, port), serving() as first, serving() as second, serving() as third:
        teach(third, host)

        async def dial() -> socket.socket:
            proxy = None
            for scheme, server in (("socks5", first), ("socks4", second), ("socks5", third)):
                proxy = kind.from_url(url(scheme, server), rdns=True, forward=proxy)
            made = proxy.connect(ONLY_HERE, port, timeout=PATIENCE)
            return made if isinstance(made, socket.socket) else await made

        sock = asyncio.run(dial())
        sock.settimeout(PATIENCE)
        assert half_close_and_read(sock) == DATA
        first.line(target=str(second.addresses[0]))
        second.line(target=str(third.addresses[0]))
        third.line(target=f"{ONLY_HERE}:{port}", up=SIZE, down=SIZE)
