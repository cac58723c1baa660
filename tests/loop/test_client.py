"""The client library over real sockets, blocking and on asyncio alike: connections through good proxies."""

import os
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from helpers.connect_proxy import connect_proxy
from helpers.fronts import Front, Stream
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.targets import banner, closed_port, target
from helpers.waiting import PATIENCE, until
from tabi import aio, sync
from tabi.addr import Address, Name
from tabi.dial.wishes import Family
from tabi.errors import (
    AddressError,
    ConfigError,
    DeniedError,
    DialError,
    NameUnknownError,
    ProxyAuthError,
    ProxyUnreachableError,
    RefusedError,
    Reply,
    Stage,
    UsageError,
)
from tabi.net.system_names import no_such
from tabi.policy.verdict import Context, Request, Verdict
from tabi.server import Passwords

HOSTS = ["127.0.0.1", "::1"]


@pytest.fixture
def server() -> Iterator[Running]:
    """Run tabi, which knows two names."""
    with serving() as running:
        NameService({"v4.example": ["127.0.0.1"], "both.example": ["127.0.0.1", "::1"]}).serve(running)
        yield running


@pytest.fixture(autouse=True)
def system_names(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Name, Family]]:
    """Know names of our own here too, and ask nobody; what was asked is kept."""
    table = {"local.example": ["127.0.0.1"], "two.example": ["127.0.0.2", "127.0.0.1"]}
    asked: list[tuple[Name, Family]] = []

    def addresses_of(name: Name, family: Family) -> tuple[Address, ...]:
        asked.append((name, family))
        if name.text not in table:
            raise no_such(name)
        return tuple(one for one in map(ip_address, table[name.text]) if one.version == family)

    for module in ("client.blocking", "net.system_resolver"):
        monkeypatch.setattr(f"tabi.{module}.addresses_of", addresses_of)
    return asked


def url(scheme: str, address: tuple[str, int], login: str = "") -> str:
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"{scheme}://{login}{host}:{address[1]}"


def proxy(running: Running, scheme: str = "socks5h", login: str = "") -> str:
    return url(scheme, running.address, login)


def talk(stream: Stream) -> None:
    """Say something to an echo, end our direction, and hear all of it."""
    try:
        stream.send(b"hello ")
        assert stream.read(6) == b"hello "
        stream.send(b"again")
        stream.end()
        assert stream.read_all() == b"again"
    finally:
        stream.close()


@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_ipv4_is_reached_by_every_version_of_socks(front: Front, server: Running, scheme: str) -> None:
    with target() as address:
        talk(front.connect(address, proxy=proxy(server, scheme)))


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("listener", [0, 1], ids=HOSTS)
def test_ipv6_is_reached_by_socks5_over_either_family(
    front: Front, server: Running, scheme: str, listener: int
) -> None:
    where = server.addresses[listener]
    with target(host="::1") as address:
        talk(front.connect(address, proxy=url(scheme, (str(where.host), where.port))))


@pytest.mark.parametrize("host", HOSTS)
def test_an_http_proxy_is_asked_by_connect(front: Front, host: str) -> None:
    with connect_proxy(host=host) as where, target(host=host) as address:
        talk(front.connect(address, proxy=url("http", where)))


def test_without_a_proxy_the_target_itself_is_reached(front: Front) -> None:
    with target() as address:
        talk(front.connect(address))


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_the_proxy_resolves_names_where_the_scheme_says_so(
    front: Front, server: Running, scheme: str, system_names: list[object]
) -> None:
    with target() as (_, port):
        talk(front.connect(("v4.example", port), proxy=proxy(server, scheme)))
    assert system_names == []


@pytest.mark.parametrize(("scheme", "families"), [("socks4", {4}), ("socks5", {4, 6})])
def test_names_are_resolved_here_by_the_other_schemes(
    front: Front, server: Running, scheme: str, families: set[int], system_names: list[tuple[Name, Family]]
) -> None:
    with target() as (_, port):
        talk(front.connect(("local.example", port), proxy=proxy(server, scheme)))
    assert {family for _, family in system_names} == families


def test_the_second_address_of_a_name_is_tried_where_the_first_refuses(front: Front, server: Running) -> None:
    # Of one family, for an answer of the other is waited for but shortly; nobody listens at the first.
    with target() as (_, port):
        talk(front.connect(("two.example", port), proxy=proxy(server, "socks5")))


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1)])
def test_chains_of_three_kinds_reach_the_target(front: Front, server: Running, order: tuple[int, ...]) -> None:
    with connect_proxy(b"alice:sesame") as http, serving(authenticator=Passwords({b"bob": b"secret"})) as second:
        urls = [proxy(server, "socks4a"), proxy(second, "socks5h", "bob:secret@"), url("http", http, "alice:sesame@")]
        with target() as address:
            talk(front.connect(address, proxy=[urls[number] for number in order]))


def test_the_proxy_of_an_environment_is_taken(front: Front, server: Running) -> None:
    environ = {"ALL_PROXY": proxy(server)}
    with target() as (_, port):
        found = sync.proxies_from_environment("v4.example", port, environ=environ)
        talk(front.connect(("v4.example", port), proxy=found))
    assert sync.proxies_from_environment is aio.proxies_from_environment


@pytest.mark.parametrize("text", ["", "220 hello\r\n"])
def test_what_the_target_says_first_is_not_lost(front: Front, server: Running, text: str) -> None:
    with target(banner(text.encode() * 3)) as address:
        stream = front.connect(address, proxy=proxy(server))
        assert stream.read_all() == text.encode() * 3
        stream.close()


# who says no


def test_a_login_opens_the_door_and_a_wrong_one_does_not(front: Front) -> None:
    with serving(authenticator=Passwords({b"alice": b"se%s@me"})) as running, target() as address:
        talk(front.connect(address, proxy=proxy(running, login="alice:se%25s%40me@")))
        with pytest.raises(ProxyAuthError) as caught:
            front.connect(address, proxy=proxy(running, login="alice:open-barley@"))
        assert caught.value.stage is Stage.AUTH
        assert isinstance(caught.value, PermissionError)
        assert "barley" not in str(caught.value)
        with pytest.raises(ProxyAuthError) as caught:
            front.connect(address, proxy=proxy(running))
        assert "without credentials" in str(caught.value)


def test_a_login_for_http_is_basic(front: Front) -> None:
    with connect_proxy(b"alice:sesame") as where, target() as address:
        talk(front.connect(address, proxy=url("http", where, "alice:sesame@")))
        for wrong in ("", "alice:barley@"):
            with pytest.raises(ProxyAuthError):
                front.connect(address, proxy=url("http", where, wrong))


@pytest.mark.parametrize("scheme", ["socks5h", "http"])
def test_a_target_that_refuses_is_told_apart(front: Front, server: Running, scheme: str) -> None:
    with connect_proxy() as http:
        where = url("http", http) if scheme == "http" else proxy(server, scheme)
        with pytest.raises(RefusedError) as caught:
            front.connect(("127.0.0.1", closed_port()), proxy=where)
    assert caught.value.reply is Reply.CONNECTION_REFUSED
    assert caught.value.hop is not None
    assert caught.value.hop.proxy == where
    assert isinstance(caught.value, ConnectionRefusedError)


def test_a_target_that_refuses_without_a_proxy_is_the_same_error(front: Front) -> None:
    with pytest.raises(RefusedError) as caught:
        front.connect(("127.0.0.1", closed_port()))
    assert caught.value.hop is None


@pytest.mark.parametrize("host", HOSTS)
def test_a_proxy_that_is_not_there_is_told_apart(front: Front, host: str) -> None:
    with pytest.raises(ProxyUnreachableError) as caught:
        front.connect(("127.0.0.1", 9), proxy=url("socks5h", (host, closed_port(host))))
    assert caught.value.stage is Stage.CONNECT
    assert isinstance(caught.value, ConnectionError)


def test_a_second_proxy_that_is_not_there_is_named_as_such(front: Front, server: Running) -> None:
    second = f"http://127.0.0.1:{closed_port()}"
    with pytest.raises(ProxyUnreachableError, match="proxy 1 of 2") as caught:
        front.connect(("127.0.0.1", 9), proxy=[proxy(server), second])
    assert second.removeprefix("http://") in str(caught.value)


def test_rules_of_a_proxy_are_told_apart(front: Front) -> None:
    def refuse(_request: Request, _context: Context) -> Verdict:
        return Verdict(allow=False, rule="nobody")

    with serving(policy=refuse) as running, pytest.raises(DeniedError) as caught:
        front.connect(("127.0.0.1", 9), proxy=proxy(running))
    assert caught.value.reply is Reply.NOT_ALLOWED
    assert caught.value.hop is not None


def test_a_name_that_the_proxy_does_not_find_is_an_unreachable_host(front: Front, server: Running) -> None:
    with pytest.raises(DialError) as caught:
        front.connect(("nobody.example", 80), proxy=proxy(server))
    assert caught.value.reply is Reply.HOST_UNREACHABLE


def test_a_name_that_is_unknown_here_is_told_apart(front: Front, server: Running) -> None:
    for options in ({"proxy": proxy(server, "socks5")}, {}):
        with pytest.raises(NameUnknownError) as caught:
            front.connect(("nobody.example", 80), **options)
        assert caught.value.stage is Stage.RESOLVE
        assert caught.value.hop is None


@pytest.mark.parametrize(
    ("address", "options", "error"),
    [
        (("a" * 64 + ".example", 80), {}, AddressError),
        ((".".join(["a" * 63] * 5), 80), {}, AddressError),
        (("a\0b", 80), {}, AddressError),
        (("a\r\nb", 80), {}, AddressError),
        (("", 80), {}, AddressError),
        (("a.example", 65536), {}, UsageError),
        (("a.example", -1), {}, UsageError),
        (("::1", 80), {"proxy": "socks4://127.0.0.1:1"}, UsageError),
        (("a.example", 80), {"proxy": "gopher://127.0.0.1:1"}, ConfigError),
        (("a.example", 80), {"proxy": "socks5h://a:%0d@127.0.0.1:1"}, UsageError),
        (("a.example", 80), {"proxy": "socks5h://127.0.0.1:1", "timeout": 0}, ConfigError),
        (("a.example", 80), {"proxy": "socks5h://127.0.0.1:1", "timeout": float("inf")}, ConfigError),
    ],
)
def test_what_cannot_be_said_is_a_value_error_and_nothing_is_sent(
    front: Front, address: tuple[str, int], options: dict[str, object], error: type[UsageError]
) -> None:
    with pytest.raises(error) as caught:
        front.connect(address, **options)
    assert isinstance(caught.value, ValueError)


# what only sockets can do


def test_a_socket_is_a_real_one_with_the_timeout_that_was_asked_for(nothing_left: None, server: Running) -> None:
    with target() as address:
        with sync.create_connection(address, proxy=proxy(server)) as sock:
            assert type(sock) is socket.socket
            assert sock.gettimeout() is None
            assert sock.get_inheritable() is False
            assert sock.getpeername() == server.address
        with sync.create_connection(address, PATIENCE, proxy=proxy(server)) as sock:
            assert sock.gettimeout() == PATIENCE


def test_a_socket_lives_on_after_detach_and_makefile(nothing_left: None, server: Running) -> None:
    with target(banner(b"220 hello\r\nmore")) as address:
        first = sync.create_connection(address, proxy=proxy(server))
        with socket.socket(fileno=first.detach()) as sock, sock.makefile("rb") as stream:
            assert os.get_blocking(sock.fileno())
            assert stream.readline() == b"220 hello\r\n"
            assert stream.read() == b"more"


def test_threads_do_not_meet(nothing_left: None, server: Running) -> None:
    failures: list[BaseException] = []

    def work(address: tuple[str, int], text: bytes) -> None:
        try:
            for _ in range(10):
                with sync.create_connection(address, PATIENCE, proxy=proxy(server)) as sock:
                    sock.sendall(text)
                    assert sock.recv(99) == text
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    with target() as address:
        threads = [threading.Thread(target=work, args=(address, b"%d" % number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert failures == []


def test_a_protocol_can_be_made_for_asyncio(nothing_left: None, server: Running) -> None:
    import asyncio

    class Collect(asyncio.Protocol):
        def __init__(self) -> None:
            self.heard = b""
            self.over = asyncio.get_running_loop().create_future()

        def data_received(self, data: bytes) -> None:
            self.heard += data

        def connection_lost(self, _error: Exception | None) -> None:
            self.over.set_result(self.heard)

    async def main(address: tuple[str, int]) -> None:
        transport, protocol = await aio.create_connection(Collect, *address, proxy=proxy(server))
        assert isinstance(protocol, Collect)
        assert transport.get_extra_info("peername") == server.address
        assert transport.get_extra_info("socket").fileno() >= 0
        assert await asyncio.wait_for(protocol.over, PATIENCE) == b"220 hello\r\n"

    with target(banner(b"220 hello\r\n")) as address:
        asyncio.run(main(address))


def test_a_cancelled_connection_leaves_nothing(nothing_left: None) -> None:
    import asyncio

    async def main(where: tuple[str, int]) -> None:
        connecting = asyncio.create_task(aio.open_connection("a.example", 80, proxy=url("socks5h", where)))
        while not heard:
            await asyncio.sleep(0.001)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting

    heard: list[bytes] = []

    def listen(sock: socket.socket) -> None:
        heard.append(sock.recv(99))
        heard.append(sock.recv(99))

    with target(listen) as where:
        asyncio.run(main(where))
        until(lambda: len(heard) == 2, "the end")
    assert heard == [b"\x05\x01\x00", b""]


@pytest.mark.parametrize("module", [sync, aio])
def test_all_that_is_public_is_there_and_documented(module: object) -> None:
    for name in module.__all__:
        thing = getattr(module, name)
        assert thing.__doc__ or name in ("AddressLike", "ProxyLike"), name
    assert {*sync.__all__} | {"open_connection", "open_socket"} == {*aio.__all__}


def test_hundreds_of_connections_leave_no_descriptor(front: Front, server: Running) -> None:
    closed = closed_port()
    with target() as address:
        for number in range(200):
            if number % 4:
                talk(front.connect(address, proxy=proxy(server)))
            else:
                with pytest.raises(RefusedError):
                    front.connect(("127.0.0.1", closed), proxy=proxy(server))
