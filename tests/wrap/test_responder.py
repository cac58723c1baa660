"""The gate's name server on real sockets, asked by hand and by c-ares."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from helpers.ipv6 import why_no_ipv6
from helpers.looping import run
from tabi.addr import Endpoint, Name
from tabi.testing.dribble import each_byte
from tabi.wrap.names import Names
from tabi.wrap.responder import OnAnswer, Responder
from tabi.wrap.zone import Answer

A, AAAA, PTR, HTTPS = 1, 28, 12, 65
NXDOMAIN = 3
GARBAGE = (b"", b"\0", b"\xff" * 11, b"\x81" * 500)  # too short for a header, or an answer (QR is set)


def query(name: str, kind: int = A, ident: int = 7) -> bytes:
    """RFC 1035 section 4.1."""
    wire = b"".join(bytes((len(label),)) + label.encode() for label in (*name.split("."), ""))
    return struct.pack("!6H", ident, 0x0100, 1, 0, 0, 0) + wire + struct.pack("!HH", kind, 1)


def framed(message: bytes) -> bytes:
    """RFC 1035 section 4.2.2."""
    return len(message).to_bytes(2, "big") + message


def address_in(message: bytes) -> str:
    """Read the only record's address, which is at the end of a message without EDNS."""
    ancount = int.from_bytes(message[6:8], "big")
    assert (message[3] & 0xF, ancount) == (0, 1), message
    return str(ip_address(message[-4:] if message[-6:-4] == b"\0\x04" else message[-16:]))


def opened(host: str, kind: socket.SocketKind, sndbuf: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    if sndbuf:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sndbuf)  # what it accepts has it as well
    sock.bind((host, 0))
    if kind is socket.SOCK_STREAM:
        sock.listen()
    return sock


class Stage:
    """A responder, and where it is."""

    def __init__(self, host: str, on_answer: OnAnswer, sndbuf: int, **options: float) -> None:
        self.names = Names()
        udp, tcp = opened(host, socket.SOCK_DGRAM), opened(host, socket.SOCK_STREAM, sndbuf)
        self.udp, self.tcp = udp.getsockname()[:2], tcp.getsockname()[:2]
        self.responder = Responder(self.names, (udp,), (tcp,), on_answer=on_answer, **options)  # type: ignore[arg-type]

    async def asked(self, *messages: bytes) -> bytes:
        """Send datagrams, and give the first answer."""
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6 if ":" in self.udp[0] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect(self.udp)
            for message in messages:
                await loop.sock_sendall(sock, message)
            return await loop.sock_recv(sock, 4096)


@asynccontextmanager
async def stage(
    host: str = "127.0.0.1", on_answer: OnAnswer = lambda _client, _answer: None, sndbuf: int = 0, **options: float
) -> AsyncIterator[Stage]:
    # Nobody is to be ended for silence where that is not what the test is about.
    made = Stage(host, on_answer, sndbuf, **{"idle": 600.0, **options})
    try:
        yield made
    finally:
        made.responder.close()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families_are_answered_over_udp_and_tcp(host: str) -> None:
    if ":" in host and (reason := why_no_ipv6()) is not None:
        pytest.skip(reason)

    async def main() -> None:
        async with stage(host) as at:
            assert address_in(await at.asked(query("one.test"))) == "198.18.1.1"
            assert address_in(await at.asked(query("one.test", AAAA))) == "fd00:5ec:0:1::1"
            reader, writer = await asyncio.open_connection(*at.tcp)
            writer.write(framed(query("one.test")))
            assert address_in(await answer_of(reader)) == "198.18.1.1"
            writer.close()
            await writer.wait_closed()
            assert at.names.name_of(ip_address("198.18.1.1")) == Name("one.test")

    run(main())


def test_garbage_is_passed_over_and_the_next_one_answered() -> None:
    async def main() -> None:
        async with stage() as at:
            said = await at.asked(*GARBAGE * 10, query("one.test", ident=9))
            assert said[:2] == b"\0\x09"
            assert address_in(said) == "198.18.1.1"

    run(main())


def test_asker_that_has_gone_disturbs_nobody() -> None:
    """Its answers come back as ICMP errors."""

    async def main() -> None:
        async with stage() as at:
            for _ in range(10):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(query("one.test"), at.udp)
            assert address_in(await at.asked(query("two.test"))) == "198.18.1.2"

    run(main())


def test_queries_on_a_stream_are_answered_in_order_however_it_is_cut() -> None:
    async def main() -> None:
        async with stage() as at:
            reader, writer = await asyncio.open_connection(*at.tcp)
            names = ["one.test", "two.test", "one.test"]
            stream = b"".join(framed(query(name, ident=number)) for number, name in enumerate(names))
            for piece in each_byte(stream):
                writer.write(piece)
                await writer.drain()
            writer.write(stream)  # and all together
            writer.write_eof()
            answers = [await answer_of(reader) for _ in range(6)]
            assert [said[1] for said in answers] == [0, 1, 2, 0, 1, 2]
            assert [address_in(said)[-1] for said in answers] == ["1", "2", "1"] * 2
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    run(main())


def test_client_that_does_not_read_is_not_read_from_and_loses_nothing() -> None:
    """What it has asked for is more than all buffers between take."""
    count = 5000

    async def main() -> None:
        async with stage(sndbuf=4096) as at:
            loop = asyncio.get_running_loop()
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await loop.sock_connect(sock, at.tcp)
                stream = b"".join(framed(query("one.test", ident=number)) for number in range(count))
                sending = asyncio.ensure_future(loop.sock_sendall(sock, stream))
                size = len(framed(query("one.test"))) + 16  # an A record
                got = bytearray()
                while len(got) < count * size:
                    got += await loop.sock_recv(sock, 65_536)
                await sending
            idents = [int.from_bytes(got[at : at + 2], "big") for at in range(2, len(got), size)]
            assert idents == list(range(count))

    run(main())


@pytest.mark.parametrize("sends", [framed(b"GET"), framed(b""), framed(b"\x81" * 12)])
def test_who_does_not_speak_dns_is_cut_off(sends: bytes) -> None:
    async def main() -> None:
        async with stage() as at:
            reader, writer = await asyncio.open_connection(*at.tcp)
            writer.write(framed(query("one.test")) + sends)
            assert address_in(await answer_of(reader)) == "198.18.1.1"
            assert await reader.read() == b""
            assert len(at.responder) == 0
            writer.close()
            await writer.wait_closed()
            assert address_in(await at.asked(query("one.test"))) == "198.18.1.1"

    run(main())


def test_another_connection_takes_the_place_of_the_longest_silent() -> None:
    async def main() -> None:
        async with stage(most=2) as at:
            streams = []
            for number in range(2):
                reader, writer = await asyncio.open_connection(*at.tcp)
                writer.write(framed(query("one.test", ident=number)))
                await answer_of(reader)  # it has been accepted by then
                streams.append((reader, writer))
            streams[0][1].write(framed(query("one.test")))
            await answer_of(streams[0][0])
            streams.append(await asyncio.open_connection(*at.tcp))
            assert await streams[1][0].read() == b"", "the second has been silent since before the first spoke again"
            for reader, writer in (streams[0], streams[2]):
                writer.write(framed(query("two.test")))
                assert address_in(await answer_of(reader)) == "198.18.1.2"
            assert len(at.responder) == 2
            for _, writer in streams:
                writer.close()
                await writer.wait_closed()

    run(main())


@pytest.mark.parametrize("sends", [b"", framed(query("one.test"))[:-1]], ids=["nothing", "never a whole query"])
def test_silent_connection_is_ended(sends: bytes) -> None:
    async def main() -> None:
        async with stage(idle=0.02) as at:
            reader, writer = await asyncio.open_connection(*at.tcp)
            writer.write(sends)
            try:
                assert await reader.read() == b""
            except ConnectionResetError:  # half a query was there and not read yet
                pass
            writer.close()
            try:
                await writer.wait_closed()
            except ConnectionError:
                pass
            assert len(at.responder) == 0

    run(main())


def test_end_of_the_responder_is_the_end_of_its_connections() -> None:
    async def main() -> None:
        async with stage() as at:
            reader, writer = await asyncio.open_connection(*at.tcp)
            writer.write(framed(query("one.test")))
            await answer_of(reader)
            at.responder.close()
            assert await reader.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(*at.tcp)
            writer.close()
            await writer.wait_closed()

    run(main())


def test_answers_are_told() -> None:
    told: list[tuple[Endpoint, Answer]] = []

    async def main() -> None:
        async with stage(on_answer=lambda client, said: told.append((client, said))) as at:
            await at.asked(b"\0", query("a.invalid"))
            reader, writer = await asyncio.open_connection(*at.tcp)
            writer.write(framed(query("one.test")))
            await answer_of(reader)
            writer.close()
            await writer.wait_closed()

    run(main())
    assert [(said.query.labels, said.rcode, len(said.records)) for _, said in told] == [
        ((b"a", b"invalid"), NXDOMAIN, 0),
        ((b"one", b"test"), 0, 1),
    ]
    assert {str(client.host) for client, _ in told} == {"127.0.0.1"}


@pytest.mark.parametrize("transport", ["udp", "tcp"])
def test_c_ares_is_content(transport: str) -> None:
    pycares = pytest.importorskip("pycares")
    flags = pycares.ARES_FLAG_USEVC if transport == "tcp" else 0

    async def main() -> None:
        async with stage() as at:
            asked: list[tuple[object, object]] = []
            channel = pycares.Channel(servers=["127.0.0.1"], udp_port=at.udp[1], tcp_port=at.tcp[1], flags=flags)

            async def look_up(name: str, kind: int) -> tuple[object, object]:
                loop = asyncio.get_running_loop()
                done: asyncio.Future[tuple[object, object]] = loop.create_future()

                def told(result: object, error: object) -> None:  # in c-ares' own thread
                    loop.call_soon_threadsafe(done.set_result, (result, error))

                channel.query(name, kind, callback=told)
                return await done

            asked = [
                await look_up("secret.example.test", pycares.QUERY_TYPE_A),
                await look_up("secret.example.test", pycares.QUERY_TYPE_AAAA),
                await look_up("1.1.18.198.in-addr.arpa", pycares.QUERY_TYPE_PTR),
                await look_up("secret.example.test", pycares.QUERY_TYPE_MX),
                await look_up("a.invalid", pycares.QUERY_TYPE_A),
            ]
            channel.close()
            records = [result.answer[0].data for result, _ in asked[:3]]  # type: ignore[attr-defined]
            assert [records[0].addr, records[1].addr] == ["198.18.1.1", "fd00:5ec:0:1::1"]
            assert records[2].dname == "secret.example.test"
            assert [error for _, error in asked[3:]] == [
                pycares.errno.ARES_ENODATA, pycares.errno.ARES_ENOTFOUND,
            ]  # fmt: skip

    run(main())
