"""Datagrams by the client library, blocking and on asyncio alike: associations, alone and through chains."""

import asyncio
import errno
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from helpers.fronts import Front
from helpers.name_service import NameService
from helpers.serving import Running, allow_all, serving
from helpers.targets import closed_port, datagram_echo
from helpers.udp import address_of, datagrams, header
from helpers.waiting import PATIENCE
from tabi import aio, sync
from tabi.addr import Address, Endpoint, Name
from tabi.dial.wishes import Family
from tabi.errors import DeniedError, ProxyProtocolError, ProxyUnreachableError, Stage, UsageError
from tabi.testing import EvilPeer
from tabi.testing.evil import Vice, close_at
from tabi.testing.parts import socks5_server


@pytest.fixture
def server() -> Iterator[Running]:
    """Run tabi, which knows a name."""
    with serving(policy=allow_all) as running:
        NameService({"v4.example": ["127.0.0.1"]}).serve(running)
        yield running


def proxy(running: Running, scheme: str = "socks5h", listener: int = 0) -> str:
    return f"{scheme}://{running.addresses[listener]}"


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
@pytest.mark.parametrize("listener", [0, 1], ids=["over IPv4", "over IPv6"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_datagrams_go_and_come_with_the_address_of_the_other_end(
    front: Front, server: Running, scheme: str, listener: int, host: str
) -> None:
    with datagram_echo(host) as echo:
        sock = front.associate(proxy=proxy(server, scheme, listener))
        for data in (b"ping", b"", b"x" * 60_000):
            assert sock.sendto(data, echo) == len(data)
            assert sock.recvfrom() == (data, echo)
        sock.close()


def test_one_socket_serves_many_targets(front: Front, server: Running) -> None:
    with datagram_echo() as one, datagram_echo("::1") as two:
        sock = front.associate(proxy=proxy(server))
        for target in (one, two, one):
            sock.sendto(b"ping", target)
            assert sock.recvfrom() == (b"ping", target)
        sock.close()


def test_names_go_to_the_proxy(front: Front, server: Running) -> None:
    with datagram_echo() as (host, port):
        sock = front.associate(proxy=proxy(server))
        sock.sendto(b"ping", ("v4.example", port))
        assert sock.recvfrom() == (b"ping", (host, port))
        sock.close()


def test_names_are_looked_up_here_where_the_scheme_says_so(
    front: Front, server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[Name, Family]] = []

    def addresses_of(name: Name, family: Family) -> tuple[Address, ...]:
        asked.append((name, family))
        return tuple(one for one in (ip_address("127.0.0.1"), ip_address("::1")) if one.version == family)

    for module in ("client.blocking", "net.system_resolver"):
        monkeypatch.setattr(f"tabi.{module}.addresses_of", addresses_of)
    with datagram_echo() as (host, port):
        sock = front.associate(proxy=proxy(server, "socks5"))
        for _ in range(3):
            sock.sendto(b"ping", ("local.example", port))
            assert sock.recvfrom() == (b"ping", (host, port))  # IPv4 is preferred for datagrams
        sock.close()
    assert len(asked) == 2, "once for each family"


@pytest.mark.parametrize("count", [2, 3])
def test_a_chain_has_an_association_with_each_proxy(front: Front, server: Running, count: int) -> None:
    with serving(policy=allow_all) as second, datagram_echo() as echo:
        urls = [proxy(server), proxy(second), proxy(server)][:count]
        sock = front.associate(proxy=urls)
        sock.sendto(b"ping", echo)
        assert sock.recvfrom() == (b"ping", echo)
        sock.close()
        assert second.line(command="udp_associate")["up"]
    assert server.line(command="udp_associate")["up"]
    assert server.line(command="connect")  # the second control connection went through the first proxy


@pytest.mark.parametrize(
    "given", [None, [], "http://127.0.0.1:1", "socks4://127.0.0.1:1", ["socks5h://127.0.0.1:1", "http://127.0.0.1:1"],
              ["http://127.0.0.1:1", "socks5h://127.0.0.1:1"]],
)  # fmt: skip
def test_every_proxy_must_be_able_to_or_nothing_is_sent(front: Front, given: object) -> None:
    with pytest.raises(UsageError):
        front.associate(proxy=given)


def test_a_chain_that_fails_half_way_leaves_nothing(front: Front, server: Running) -> None:
    with pytest.raises(ProxyUnreachableError, match="proxy 1 of 2"):
        front.associate(proxy=[proxy(server), f"socks5h://127.0.0.1:{closed_port()}"])
    server.idle()


def test_a_refused_association_is_told(front: Front) -> None:
    from tabi.policy.verdict import Verdict

    with serving(policy=lambda *_: Verdict(allow=False, rule="nobody")) as running:
        with pytest.raises(DeniedError):
            front.associate(proxy=proxy(running))


def test_the_end_of_the_control_connection_is_the_end(front: Front, server: Running) -> None:
    sock = front.associate(proxy=proxy(server))
    server.close()
    with pytest.raises(ProxyProtocolError) as caught:
        sock.recvfrom()
    assert caught.value.stage is Stage.ASSOCIATE
    assert caught.value.hop is not None
    sock.close()


# relays of hostile proxies


def test_a_relay_elsewhere_is_not_believed_unless_allowed(front: Front) -> None:
    with datagrams() as relay:
        told = Endpoint(ip_address("192.0.2.7"), address_of(relay)[1])
        with EvilPeer(socks5_server(told)).listening() as where:
            sock = front.associate(proxy=f"socks5h://{where}")
            assert sock.relay == address_of(relay)  # the proxy's own address, and the port that it told
            sock.sendto(b"ping", ("192.0.2.9", 53))
            assert relay.recv(99) == header("192.0.2.9", 53) + b"ping"
            sock.close()
        believed = Endpoint(ip_address("::1"), address_of(relay)[1])
        with EvilPeer(socks5_server(believed)).listening() as where:
            sock = front.associate(proxy=f"socks5h://{where}", allow_relay=lambda address: address.is_loopback)
            assert sock.relay == ("::1", address_of(relay)[1])
            sock.close()


def test_a_relay_without_a_port_is_refused(front: Front) -> None:
    with EvilPeer(socks5_server(Endpoint.parse("127.0.0.1:0"))).listening() as where:
        with pytest.raises(ProxyProtocolError, match="port 0"):
            front.associate(proxy=f"socks5h://{where}")


def test_strangers_and_nonsense_are_not_heard(front: Front) -> None:
    with datagrams() as relay, datagrams() as stranger:
        with EvilPeer(socks5_server(Endpoint(ip_address("127.0.0.1"), address_of(relay)[1]))).listening() as where:
            sock = front.associate(proxy=f"socks5h://{where}")
            ours = sock.getsockname()
            stranger.sendto(header("192.0.2.9", 53) + b"evil", ours)
            for nonsense in (b"", b"\0\0", b"\0\x01\0\x01", header("192.0.2.9", 53)[:-1]):
                relay.sendto(nonsense, ours)
            relay.sendto(header("192.0.2.9", 53, frag=1) + b"go", ours)
            relay.sendto(header("192.0.2.9", 53, frag=0x82) + b"od", ours)
            assert sock.recvfrom() == (b"good", ("192.0.2.9", 53))
            sock.close()


def test_a_proxy_that_ends_at_once_is_told(front: Front) -> None:
    with datagrams() as relay:
        part = socks5_server(Endpoint(ip_address("127.0.0.1"), address_of(relay)[1]))
        with EvilPeer(part, close_at(12)).listening() as where:
            sock = front.associate(proxy=f"socks5h://{where}")
            with pytest.raises(ProxyProtocolError):
                sock.recvfrom()
            sock.close()


def test_chatter_on_the_control_connection_means_nothing(front: Front) -> None:
    with datagrams() as relay:
        part = socks5_server(Endpoint(ip_address("127.0.0.1"), address_of(relay)[1]), banner=b"chatter")
        with EvilPeer(part, Vice()).listening() as where:
            sock = front.associate(proxy=f"socks5h://{where}")
            relay.sendto(header("192.0.2.9", 53) + b"x", sock.getsockname())
            assert sock.recvfrom()[0] == b"x"
            with pytest.raises(TimeoutError):
                sock.recvfrom(0.1)
            sock.close()


# what only the one front has


def test_a_blocking_socket_waits_as_sockets_do(nothing_left: None, server: Running) -> None:
    with sync.associate(PATIENCE, proxy=proxy(server)) as sock, datagram_echo() as echo:
        assert sock.gettimeout() == PATIENCE
        sock.settimeout(0)
        with pytest.raises(BlockingIOError) as caught:
            sock.recvfrom()
        assert caught.value.errno == errno.EAGAIN
        sock.settimeout(0.05)
        with pytest.raises(TimeoutError):
            sock.recvfrom()
        with pytest.raises(UsageError):
            sock.settimeout(-1)
        sock.sendto(b"ping pong", echo)
        assert select.select([sock], [], [], PATIENCE)[0] == [sock]
        sock.settimeout(None)
        assert sock.recvfrom(4) == (b"ping", echo)
    assert sock.fileno() == -1
    assert "closed" in repr(sock)


def test_a_datagram_that_is_too_long_is_an_error_of_the_system(front: Front, server: Running) -> None:
    sock = front.associate(proxy=proxy(server))
    with pytest.raises(OSError, match="too long"):
        sock.sendto(bytes(65_507), ("127.0.0.1", 9))
    sock.close()


def test_an_asynchronous_socket_tells_its_receiver_that_it_was_closed(nothing_left: None, server: Running) -> None:
    async def main() -> None:
        async with await aio.associate(proxy=proxy(server)) as sock:
            receiving = asyncio.create_task(sock.recvfrom())
            await asyncio.sleep(0)
            with pytest.raises(UsageError, match="another task"):
                await sock.recvfrom()
        with pytest.raises(OSError) as caught:
            await receiving
        assert caught.value.errno == errno.EBADF
        sock.close()
        assert "closed" in repr(sock)

    asyncio.run(main())


def test_an_asynchronous_wait_can_be_cancelled_and_begun_again(nothing_left: None, server: Running) -> None:
    async def main(echo: tuple[str, int]) -> None:
        async with await aio.associate(proxy=proxy(server)) as sock:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await sock.recvfrom()
            await sock.sendto(b"ping", echo)
            async with asyncio.timeout(PATIENCE):
                assert await sock.recvfrom() == (b"ping", echo)

    with datagram_echo() as echo:
        asyncio.run(main(echo))


def test_a_relay_that_is_gone_is_told_by_the_system(nothing_left: None) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        relay = Endpoint.from_sockaddr(gone.getsockname())
    with EvilPeer(socks5_server(relay)).listening() as where:
        with sync.associate(PATIENCE, proxy=f"socks5h://{where}") as sock:
            sock.sendto(b"ping", ("192.0.2.9", 53))
            with pytest.raises(ConnectionRefusedError):
                sock.recvfrom()
