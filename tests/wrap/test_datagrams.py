"""Datagrams of a program behind a gate: relayed by a proxy or refused at once, never direct."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from helpers.datagram_gate import DatagramGate, ScriptedRelays, datagram_gate
from helpers.gates import why_no_hosts
from helpers.looping import run, until
from helpers.name_service import NameService
from helpers.namespaces import Namespace
from helpers.serving import allow_all, serving
from helpers.targets import closed_port, datagram_echo
from helpers.udp import header
from tabi.addr import Endpoint, Name
from tabi.errors import TabiError
from tabi.machine.url import parse_proxies
from tabi.net.associations import Associations
from tabi.net.resolver import Resolver
from tabi.net.tasks import settle
from tabi.wrap.datagrams import Datagrams, Flow, associate
from tabi.wrap.names import Names

LITERALS = {4: "203.0.113.7", 6: "2001:db8::7"}
STRANGERS = {4: "203.0.113.9", 6: "2001:db8::9"}
NOT_SUPPORTED = 7  # RFC 1928 section 6


@pytest.fixture(scope="module")
def hosts() -> Iterator[tuple[Namespace, Namespace]]:
    """Make the gate's host and the program's, once for all."""
    if (reason := why_no_hosts()) is not None:
        pytest.skip(reason)
    with datagram_gate() as made:
        yield made


@pytest.fixture
def gate(hosts: tuple[Namespace, Namespace]) -> Iterator[DatagramGate]:
    """Open the gate's sockets."""
    made = DatagramGate(*hosts)
    yield made
    made.close()


class Stage:
    """Datagrams at work, and what they have told."""

    def __init__(self, gate: DatagramGate, *urls: str, **options: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.gate = gate
        self.names = Names()
        self.refusals: list[TabiError] = []
        self.flows: list[Flow] = []
        self.resolver = Resolver()
        self._hops = parse_proxies(urls)
        self.datagrams = Datagrams(
            gate,
            self.names,
            self._open,
            on_refusal=self.refusals.append,
            on_end=self.flows.append,
            **options,  # type: ignore[arg-type]  # ints too
        )

    async def _open(self) -> Associations:
        return await associate(self._hops, resolver=self.resolver, seconds=600.0)

    async def close(self) -> None:
        self.datagrams.close()
        await settle()
        await self.resolver.close()

    async def ask(self, sock: socket.socket, data: bytes, to: tuple[str, int]) -> tuple[bytes, tuple[str, int]]:
        """Send, and wait for what comes and who it is from."""
        await self.loop.sock_sendto(sock, data, to)
        return await self.receive(sock)

    async def receive(self, sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
        data, source = await self.loop.sock_recvfrom(sock, 65_536)
        return data, source[:2]

    def waiting(self) -> list[bytes]:
        """Give what waits for an association of the only socket."""
        return [one.data for source in self.datagrams._sources.values() for one in source._paths[0]._waiting]

    async def refused(self, sock: socket.socket, to: tuple[str, int]) -> None:
        """Send, and be told that nobody is there."""
        sock.connect(to)
        await self.loop.sock_sendall(sock, b"ping")
        with pytest.raises(ConnectionRefusedError):
            await self.loop.sock_recv(sock, 99)


@asynccontextmanager
async def stage(gate: DatagramGate, *urls: str, **options: float) -> AsyncIterator[Stage]:
    made = Stage(gate, *urls, **options)
    try:
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def scripted(gate: DatagramGate, **options: float) -> AsyncIterator[tuple[Stage, ScriptedRelays]]:
    async with ScriptedRelays() as proxy, stage(gate, proxy.url, **options) as at:
        yield at, proxy


@pytest.mark.parametrize("version", [4, 6])
def test_name_goes_to_the_proxy_and_answers_come_from_what_stands_for_it(gate: DatagramGate, version: int) -> None:
    async def main(url: str, port: int) -> None:
        async with stage(gate, url) as at:
            to = str(at.names.address_of(Name("v4.example"), version)), port  # type: ignore[arg-type]  # 4 or 6
            with gate.socket(version) as unconnected, gate.socket(version) as connected:
                for data in (b"ping", b"", b"x" * 60_000):
                    assert await at.ask(unconnected, data, to) == (data, to)
                connected.connect(to)
                await at.loop.sock_sendall(connected, b"to the peer alone")
                assert await at.loop.sock_recv(connected, 99) == b"to the peer alone"

    with serving(policy=allow_all) as server, datagram_echo() as (_, port):
        service = NameService({"v4.example": ["127.0.0.1"]}).serve(server)
        run(main(f"socks5h://{server.addresses[0]}", port))
        assert set(service.asked) == {"v4.example"}


def test_datagrams_go_through_all_proxies_of_a_chain(gate: DatagramGate) -> None:
    async def main(urls: list[str], port: int) -> None:
        async with stage(gate, *urls) as at:
            to = str(at.names.address_of(Name("v4.example"), 4)), port
            with gate.socket() as sock:
                assert await at.ask(sock, b"ping", to) == (b"ping", to)

    with serving(policy=allow_all) as first, serving(policy=allow_all) as second, datagram_echo() as (_, port):
        NameService({"v4.example": ["127.0.0.1"]}).serve(second)
        run(main([f"socks5h://{server.addresses[0]}" for server in (first, second)], port))
        assert second.line(command="udp_associate")["up"]


@pytest.mark.parametrize("version", [4, 6])
def test_address_goes_as_it_is_and_strangers_are_shown_as_who_they_are(gate: DatagramGate, version: int) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            to, stranger = (LITERALS[version], 53), (STRANGERS[version], 99)
            with gate.socket(version) as sock:
                await at.loop.sock_sendto(sock, b"ping", to)
                await until(lambda: proxy.relays and proxy.relays[0].received)
                (relay,) = proxy.relays
                assert relay.received == [header(*to) + b"ping"]
                for host, port in (to, stranger):
                    relay.send(header(host, port) + b"pong")
                    assert await at.receive(sock) == (b"pong", (host, port))

    run(main())


def test_proxy_may_answer_in_the_name_and_in_fragments(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            to = str(at.names.address_of(Name("one.test"), 4)), 53
            with gate.socket() as sock:
                await at.loop.sock_sendto(sock, b"ping", to)
                await until(lambda: proxy.relays and proxy.relays[0].received)
                (relay,) = proxy.relays
                assert relay.received == [header(b"one.test", 53) + b"ping"]
                relay.send(header(b"one.test", 53) + b"in the name")
                assert await at.receive(sock) == (b"in the name", to)
                for frag, data in ((1, b"in "), (2, b"frag"), (0x83, b"ments")):
                    relay.send(header(LITERALS[4], 53, frag=frag) + data)
                assert await at.receive(sock) == (b"in fragments", to)

    run(main())


def test_what_must_not_reach_the_program_does_not(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            with gate.socket() as sock, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                await at.loop.sock_sendto(sock, b"ping", (LITERALS[4], 53))
                await until(lambda: proxy.relays and proxy.relays[0].received)
                (relay,) = proxy.relays
                other.sendto(header(LITERALS[4], 53) + b"not from the relay", relay.client)
                for raw in (
                    b"", b"\0", header(LITERALS[4], 53)[:-1],
                    header(LITERALS[4], 53, rsv=1) + b"RSV is not zero",
                    header("198.18.0.1", 53) + b"an answer of the gate's own name server",
                    header("198.18.1.1", 53) + b"an address that stands for names",
                    header(LITERALS[6], 53) + b"the other family",
                    header(b"never.asked", 53) + b"a name that was never sent to",
                    header(LITERALS[4], 53, frag=2) + b"a fragment of nothing",
                ):  # fmt: skip
                    relay.send(raw)
                relay.send(header(LITERALS[4], 53) + b"pong")
                assert await at.receive(sock) == (b"pong", (LITERALS[4], 53)), "datagrams keep their order on loopback"

    run(main())


@pytest.mark.parametrize("version", [4, 6])
def test_proxy_without_datagrams_has_them_refused_and_is_asked_once(gate: DatagramGate, version: int) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            proxy.reply = NOT_SUPPORTED
            for port in (443, 444):
                with gate.socket(version) as sock:
                    await at.refused(sock, (LITERALS[version], port))
            assert (proxy.asked, len(at.refusals)) == (1, 1)
            assert proxy.relays == []

    run(main())


@pytest.mark.parametrize("scheme", ["socks5h", "http", "socks4"])
def test_proxy_that_is_not_there_or_cannot_has_them_refused(gate: DatagramGate, scheme: str) -> None:
    async def main() -> None:
        async with stage(gate, f"{scheme}://127.0.0.1:{closed_port()}") as at:
            with gate.socket() as sock:
                await at.refused(sock, (LITERALS[4], 443))
            assert len(at.refusals) == 1

    run(main())


def test_proxy_that_says_nothing_has_them_refused_in_the_end(
    gate: DatagramGate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tabi.wrap.datagrams._PATIENCE", 0.05)

    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            proxy.may_answer.clear()
            with gate.socket() as sock:
                await at.refused(sock, (LITERALS[4], 443))
            assert len(at.refusals) == 1
            assert proxy.relays == []

    run(main())


def test_what_no_proxy_can_be_asked_for_is_refused_here(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            at.names.address_of(Name("one.test"), 4)
            for host in ("198.18.0.1", "198.18.1.2", "198.19.9.9"):
                with gate.socket() as sock:
                    await at.refused(sock, (host, 9))
            with gate.socket(6) as sock:
                await at.refused(sock, ("fd00:5ec:0:1::2", 9))
            with gate.socket() as sock:
                sock.sendto(b"to a group", ("239.1.2.3", 9))
                await at.loop.sock_sendto(sock, b"ping", (LITERALS[4], 9))
                await until(lambda: proxy.relays and proxy.relays[0].received)
            assert proxy.relays[0].received == [header(LITERALS[4], 9) + b"ping"]
            assert at.refusals == []

    run(main())


def test_each_socket_of_the_program_has_an_association(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            socks = [gate.socket() for _ in range(40)]
            for number, sock in enumerate(socks):
                await at.loop.sock_sendto(sock, b"%d" % number, (LITERALS[4], 53))
            await until(lambda: sum(len(relay.received) for relay in proxy.relays) == len(socks))
            assert len(at.datagrams) == len(socks)
            for relay in proxy.relays:
                (raw,) = relay.received
                relay.send(header(LITERALS[4], 53) + b"for " + raw.removeprefix(header(LITERALS[4], 53)))
            for number, sock in enumerate(socks):
                assert await at.receive(sock) == (b"for %d" % number, (LITERALS[4], 53))
                sock.close()

    run(main())


def test_two_names_at_one_port_are_told_apart(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            places = [(str(at.names.address_of(Name(name), 4)), 443) for name in ("one.test", "two.test")]
            with gate.socket() as sock:
                for place in (*places, *places):
                    await at.loop.sock_sendto(sock, b"ping", place)
                await until(lambda: sum(len(relay.received) for relay in proxy.relays) == 4)
                assert (len(proxy.relays), len(at.datagrams)) == (2, 1)
                for relay in proxy.relays:
                    asked = relay.received[0]
                    assert relay.received == [asked] * 2
                    relay.send(header(LITERALS[4], 443) + asked)  # the same host is behind both
                    name = b"one.test" if b"one.test" in asked else b"two.test"
                    place = places[0] if name == b"one.test" else places[1]
                    assert await at.receive(sock) == (header(name, 443) + b"ping", place)

    run(main())


def test_association_that_the_proxy_ends_is_followed_by_another(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            with gate.socket() as sock:
                await at.loop.sock_sendto(sock, b"before", (LITERALS[4], 53))
                await until(lambda: proxy.relays and proxy.relays[0].received)
                proxy.relays[0].end()
                while len(proxy.relays) < 2:  # what is sent before we hear of the end is lost
                    await at.loop.sock_sendto(sock, b"after", (LITERALS[4], 53))
                    await asyncio.sleep(0)
                await until(lambda: proxy.relays[1].received)
                proxy.relays[1].send(header(LITERALS[4], 53) + b"pong")
                assert await at.receive(sock) == (b"pong", (LITERALS[4], 53))
                assert at.refusals == []

    run(main())


def test_silent_association_is_ended(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate, idle=0.02) as (at, proxy):
            with gate.socket() as sock:
                # Nobody but the limit ends them. On a busy machine it may do so before the proxy has answered.
                while sum(relay.is_over for relay in proxy.relays) < 2:
                    if not at.datagrams:
                        await at.loop.sock_sendto(sock, b"ping", (LITERALS[4], 53))
                    await asyncio.sleep(0.001)

    run(main())


def test_longest_silent_gives_way_when_there_are_too_many(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate, most=2) as (at, proxy):
            socks = [gate.socket() for _ in range(3)]
            for number in (0, 1, 0, 2):
                before = sum(len(relay.received) for relay in proxy.relays)
                await at.loop.sock_sendto(socks[number], b"ping", (LITERALS[4], 53))
                await until(lambda before=before: sum(len(relay.received) for relay in proxy.relays) > before)
            await until(lambda: proxy.relays[1].is_over)
            assert [relay.is_over for relay in proxy.relays] == [False, True, False]
            assert len(at.datagrams) == 2
            for sock in socks:
                sock.close()

    run(main())


def test_datagram_that_does_not_fit_with_its_header_is_lost_alone(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            with gate.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                for data in (b"a", b"x" * 65_507, b"b"):
                    await at.loop.sock_sendto(sock, data, (LITERALS[4], 53))
                await until(lambda: proxy.relays and len(proxy.relays[0].received) == 2)
                assert proxy.relays[0].received == [header(LITERALS[4], 53) + data for data in (b"a", b"b")]

    run(main())


def test_datagrams_wait_for_the_proxy_in_bounds(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            proxy.may_answer.clear()
            with gate.socket() as sock:
                for number in range(100):
                    await at.loop.sock_sendto(sock, b"%d" % number, (LITERALS[4], 53))
                await until(lambda: at.waiting() and at.waiting()[-1] == b"99")
                assert at.waiting() == [b"%d" % number for number in range(36, 100)], "the newest 64"
                proxy.may_answer.set()
                await until(lambda: proxy.relays and len(proxy.relays[0].received) == 64)
            assert proxy.asked == 1

    run(main())


def test_what_a_socket_has_sent_and_got_is_told_at_its_end(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            to = str(at.names.address_of(Name("one.test"), 4)), 53
            with gate.socket() as sock:
                for _ in range(2):
                    await at.loop.sock_sendto(sock, b"ping", to)
                await until(lambda: proxy.relays and len(proxy.relays[0].received) == 2)
                proxy.relays[0].send(header(b"one.test", 53) + b"answer")
                await at.receive(sock)
                assert at.flows == []
                at.datagrams.close()
                source = Endpoint.parse(f"198.18.0.2:{sock.getsockname()[1]}")
                assert at.flows == [Flow(source, (Endpoint(Name("one.test"), 53),), 2, 8, 1, 6)]

    run(main())


def test_end_leaves_nothing(gate: DatagramGate) -> None:
    async def main() -> None:
        async with scripted(gate) as (at, proxy):
            with gate.socket() as sock, gate.socket() as waits:
                await at.loop.sock_sendto(sock, b"ping", (LITERALS[4], 53))
                await until(lambda: proxy.relays and proxy.relays[0].received)
                proxy.may_answer.clear()
                await at.loop.sock_sendto(waits, b"ping", (LITERALS[4], 53))
                await until(lambda: proxy.asked == 2)
                at.datagrams.close()
                proxy.may_answer.set()
                await until(lambda: len(proxy.relays) == 2 and all(relay.is_over for relay in proxy.relays))
                assert len(at.datagrams) == 0

    run(main())
