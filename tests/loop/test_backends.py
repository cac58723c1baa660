"""The two backends: getaddrinfo on threads, and c-ares against a name server that the test runs."""

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from helpers.looping import run
from tabi.addr import Name
from tabi.errors import DialError, DialTimeoutError, Reply, Stage
from tabi.net import backends
from tabi.net.backends import Answer, AresBackend, GetaddrinfoBackend
from tabi.net.resolver import Resolver

NAME = Name("target.example")
LOOPBACK = IPv4Address("127.0.0.1")
A, CNAME, PTR, AAAA = 1, 5, 12, 28  # RFC 1035 section 3.2.2, RFC 3596 section 2.1
SERVFAIL, NXDOMAIN, REFUSED = 2, 3, 5  # RFC 1035 section 4.1.1


def hosts_names() -> list[str]:
    lines = (line.split("#")[0].split() for line in Path("/etc/hosts").read_text().splitlines())
    return [name for address, *names in filter(None, lines) if address == "127.0.0.1" for name in names]


# --- getaddrinfo ---


def gai(**replies: object) -> Callable[..., list]:
    def getaddrinfo(host: object, port: object, family: int = 0, type: int = 0, **rest: object) -> list:  # noqa: A002
        asked.append((host, family, type, rest))
        reply = replies["reply"]
        if isinstance(reply, Exception):
            raise reply
        return [(family, type, 6, "", (text, 0)) for text in reply]

    asked: list[tuple] = []
    getaddrinfo.asked = asked
    return getaddrinfo


def look_up_by_getaddrinfo(family: int = 4) -> Answer:
    async def main() -> Answer:
        backend = GetaddrinfoBackend(2)
        try:
            return await backend.addresses(NAME, family)
        finally:
            await backend.close()

    return run(main())


@pytest.mark.parametrize("text", hosts_names())
def test_getaddrinfo_knows_the_names_of_etc_hosts(text: str) -> None:
    async def main() -> None:
        resolver = Resolver(backend=GetaddrinfoBackend(8))
        assert LOOPBACK in await resolver.lookup(Name(text), 4, "me")
        await resolver.close()

    run(main())


def test_getaddrinfo_is_asked_for_one_family_without_hiding_any(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = gai(reply=["2001:db8::1", "2001:db8::2", "2001:db8::1", "fe80::1%eth0"])
    monkeypatch.setattr(socket, "getaddrinfo", fake)
    answer = look_up_by_getaddrinfo(6)
    assert answer == Answer(tuple(map(ip_address, ["2001:db8::1", "2001:db8::2", "fe80::1"])), None)
    assert fake.asked == [(b"target.example", socket.AF_INET6, socket.SOCK_STREAM, {})]


@pytest.mark.parametrize("code", [socket.EAI_NODATA, socket.EAI_ADDRFAMILY])
def test_a_name_without_addresses_of_the_family_is_an_empty_answer(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", gai(reply=socket.gaierror(code, "")))
    assert look_up_by_getaddrinfo() == Answer(())


@pytest.mark.parametrize(
    ("error", "reply", "retryable", "words"),
    [
        (socket.gaierror(socket.EAI_NONAME, ""), Reply.HOST_UNREACHABLE, False, "no such name"),
        (socket.gaierror(socket.EAI_AGAIN, ""), Reply.HOST_UNREACHABLE, True, "do not answer"),
        (socket.gaierror(socket.EAI_FAIL, ""), Reply.HOST_UNREACHABLE, True, "refuses or cannot answer"),
        (socket.gaierror(socket.EAI_MEMORY, "no memory"), Reply.GENERAL_FAILURE, True, "no memory"),
        (OSError(24, "Too many open files"), Reply.GENERAL_FAILURE, True, "Too many open files"),
    ],
)
def test_errors_of_getaddrinfo_are_told_apart(
    error: OSError, reply: Reply, retryable: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", gai(reply=error))
    with pytest.raises(DialError, match=words) as caught:
        look_up_by_getaddrinfo()
    assert (caught.value.reply, caught.value.retryable) == (reply, retryable)
    assert caught.value.stage is Stage.RESOLVE
    assert "target.example" in str(caught.value)


def reverse_by_getnameinfo(monkeypatch: pytest.MonkeyPatch, reply: str | OSError) -> Name:
    def getnameinfo(sockaddr: tuple, flags: int) -> tuple[str, str]:
        assert flags & socket.NI_NAMEREQD
        if isinstance(reply, OSError):
            raise reply
        return reply, "0"

    monkeypatch.setattr(socket, "getnameinfo", getnameinfo)

    async def main() -> Name:
        backend = GetaddrinfoBackend(2)
        try:
            return (await backend.name(IPv4Address("192.0.2.1"))).value
        finally:
            await backend.close()

    return run(main())


def test_getnameinfo_gives_a_normalised_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert reverse_by_getnameinfo(monkeypatch, "Target.Example.") == NAME


@pytest.mark.parametrize("text", ["192.0.2.1", "bad name", "a\x00b"])
def test_a_pointer_to_what_is_no_name_is_a_failure(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DialError, match=r"192\.0\.2\.1"):
        reverse_by_getnameinfo(monkeypatch, text)


def test_an_address_without_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DialError, match="no name") as caught:
        reverse_by_getnameinfo(monkeypatch, socket.gaierror(socket.EAI_NONAME, ""))
    assert (caught.value.reply, caught.value.retryable) == (Reply.HOST_UNREACHABLE, False)


def test_a_failed_reverse_look_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DialError, match="Too many") as caught:
        reverse_by_getnameinfo(monkeypatch, OSError(24, "Too many open files"))
    assert caught.value.reply is Reply.GENERAL_FAILURE


def test_without_aiodns_getaddrinfo_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiodns", None)
    assert isinstance(backends.best_backend(4), GetaddrinfoBackend)


# --- c-ares ---


def wire_name(text: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in text.split(".")) + b"\0"


class NameServer(asyncio.DatagramProtocol):
    """A name server (RFC 1035 section 4): (name, type) to an RCODE or to records (owner, type, ttl, data)."""

    def __init__(self, zone: dict[tuple[str, int], int | list[tuple[str, int, int, bytes]]]) -> None:
        self.zone = zone
        self.asked: list[tuple[str, int]] = []

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, where: tuple) -> None:
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += 1 + data[at]
        question = data[12 : at + 5]
        key = (".".join(labels).lower(), struct.unpack_from(">H", data, at + 1)[0])
        self.asked.append(key)
        found = self.zone.get(key, [])
        if found is None:
            return
        code, records = (found, []) if isinstance(found, int) else (0, found)
        reply = data[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(records), 0, 0) + question
        for owner, kind, ttl, rdata in records:
            reply += wire_name(owner) + struct.pack(">HHIH", kind, 1, ttl, len(rdata)) + rdata
        self.transport.sendto(reply, where)


@asynccontextmanager
async def ares(zone: dict) -> AsyncIterator[tuple[AresBackend, NameServer]]:
    pytest.importorskip("aiodns")
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(lambda: NameServer(zone), ("127.0.0.1", 0))
    backend = AresBackend(nameservers=[f"127.0.0.1:{transport.get_extra_info('sockname')[1]}"])
    try:
        yield backend, server
    finally:
        await backend.close()
        transport.close()


def look_up_by_ares(zone: dict, family: int = 4) -> Answer:
    async def main() -> Answer:
        async with ares(zone) as (backend, _):
            return await backend.addresses(NAME, family)

    return run(main())


def test_c_ares_gives_addresses_and_their_ttl() -> None:
    zone = {("target.example", A): [("target.example", A, 7, IPv4Address("192.0.2.1").packed)]}
    assert look_up_by_ares(zone) == Answer((IPv4Address("192.0.2.1"),), 7)


def test_c_ares_gives_ipv6_addresses_when_asked_for_them() -> None:
    zone = {("target.example", AAAA): [("target.example", AAAA, 9, IPv6Address("2001:db8::1").packed)]}
    assert look_up_by_ares(zone, 6) == Answer((IPv6Address("2001:db8::1"),), 9)


def test_an_alias_shortens_the_ttl() -> None:
    zone = {
        ("target.example", A): [
            ("target.example", CNAME, 3, wire_name("real.example")),
            ("real.example", A, 600, IPv4Address("192.0.2.1").packed),
        ]
    }
    assert look_up_by_ares(zone) == Answer((IPv4Address("192.0.2.1"),), 3)


def test_c_ares_tells_no_data_as_an_empty_answer() -> None:
    assert look_up_by_ares({("target.example", A): []}) == Answer(())


@pytest.mark.parametrize(
    ("code", "retryable", "words"),
    [(NXDOMAIN, False, "no such name"), (SERVFAIL, True, "failed"), (REFUSED, True, "failed")],
)
def test_c_ares_tells_no_such_name_from_a_failing_server(code: int, retryable: bool, words: str) -> None:
    with pytest.raises(DialError, match=words) as caught:
        look_up_by_ares({("target.example", A): code})
    assert (caught.value.reply, caught.value.retryable) == (Reply.HOST_UNREACHABLE, retryable)
    assert caught.value.stage is Stage.RESOLVE


def test_a_name_server_that_is_silent_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "ARES_TRY", 0.05)
    with pytest.raises(DialTimeoutError, match="silent") as caught:
        look_up_by_ares({("target.example", A): None})
    assert caught.value.stage is Stage.RESOLVE


def test_a_silent_name_server_is_given_up_by_the_resolver_in_time() -> None:
    async def main() -> None:
        async with ares({("target.example", A): None}) as (backend, _):
            resolver = Resolver(backend=backend, query_timeout=0.05)
            with pytest.raises(DialTimeoutError, match=r"0\.05 s"):
                await resolver.lookup(NAME, 4, "me")
            await resolver.close()

    run(main())


def test_a_query_has_the_time_that_was_allowed_last() -> None:
    async def main() -> None:
        async with ares({("target.example", A): None}) as (backend, _):
            backend.allow(600)
            first = asyncio.ensure_future(backend.addresses(NAME, 4))
            await asyncio.sleep(0)
            backend.allow(0.1)
            with pytest.raises(DialTimeoutError, match="silent"):
                await backend.addresses(NAME, 4)
            assert not first.done()
            first.cancel()

    run(main())


@pytest.mark.parametrize("text", hosts_names())
def test_c_ares_knows_the_names_of_etc_hosts(text: str) -> None:
    async def main() -> None:
        async with ares({}) as (backend, server):
            assert LOOPBACK in (await backend.addresses(Name(text), 4)).value
            assert server.asked == []

    run(main())


def test_c_ares_gives_the_name_of_an_address() -> None:
    pointer = "1.2.0.192.in-addr.arpa"  # RFC 1035 section 3.5
    zone = {(pointer, PTR): [(pointer, PTR, 60, wire_name("target.example"))]}

    async def main() -> None:
        async with ares(zone) as (backend, _):
            assert (await backend.name(IPv4Address("192.0.2.1"))).value == NAME

    run(main())


def test_c_ares_tells_of_an_address_without_name() -> None:
    async def main() -> None:
        async with ares({("1.2.0.192.in-addr.arpa", PTR): NXDOMAIN}) as (backend, _):
            with pytest.raises(DialError, match="no name") as caught:
                await backend.name(IPv4Address("192.0.2.1"))
            assert not caught.value.retryable

    run(main())


def test_c_ares_is_given_no_text_among_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """pycares frees one before c-ares has read it, and now and then no name could be looked up at all."""
    aiodns = pytest.importorskip("aiodns")
    given: dict[str, object] = {}

    class Noting(aiodns.DNSResolver):
        def __init__(self, **options: object) -> None:
            given.update(options)
            super().__init__(**options)

    monkeypatch.setattr(aiodns, "DNSResolver", Noting)
    assert look_up_by_ares({("target.example", A): []}) == Answer(())
    assert given.keys() >= {"timeout", "tries"}
    assert not [key for key, value in given.items() if isinstance(value, str | bytes)]


def test_with_aiodns_c_ares_is_taken() -> None:
    pytest.importorskip("aiodns")
    assert isinstance(backends.best_backend(4), AresBackend)
