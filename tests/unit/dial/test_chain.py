"""Through proxies of every kind: what is said, what is left unread, and whose fault it is; in virtual time."""

import math
from collections.abc import Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from tabi.addr import Endpoint, Name, parse_host
from tabi.dial import chain
from tabi.dial.chain import Bound
from tabi.dial.direct import direct
from tabi.dial.wishes import Connection, Open, Plan, Read, Resolve
from tabi.errors import (
    DeniedError,
    DialError,
    DialTimeoutError,
    HopName,
    NameUnknownError,
    ProxyAuthError,
    ProxyProtocolError,
    ProxyUnreachableError,
    RefusedError,
    Reply,
    Side,
    Stage,
    TabiError,
    UsageError,
)
from tabi.machine.hop import Hop, Scheme
from tabi.testing.clock import FakeClock
from tabi.testing.dribble import Cut, each_byte, random_cuts, whole
from tabi.testing.parts import Line, Part, http_proxy, socks4_server, socks5_server
from tabi.testing.stream import FakeStream
from tabi.wire.socks5 import Greeting, Method

PROXY = IPv4Address("192.0.2.1")
WHERE = Endpoint(PROXY, 1080)
TARGET = Endpoint(Name("target.example"), 80)
BOUND = Endpoint(IPv4Address("203.0.113.9"), 4321)
BANNER = b"220 hello\r\n\r\n"
CUTS = [whole, each_byte, random_cuts(1), random_cuts(2)]

# a good proxy of each kind; the banner is in the same segment as its last reply
GOOD: dict[Scheme, Part] = {
    Scheme.SOCKS4: socks4_server(BOUND),
    Scheme.SOCKS4A: socks4_server(BOUND),
    Scheme.SOCKS5: socks5_server(BOUND),
    Scheme.SOCKS5H: socks5_server(BOUND),
    Scheme.HTTP: http_proxy(),
}


def reach(endpoint: Endpoint) -> Plan:
    return direct(endpoint, permit=lambda _: True)


def hop(scheme: Scheme = Scheme.SOCKS5H, where: Endpoint = WHERE, **credentials: bytes) -> Hop:
    return Hop(scheme, where, **credentials)


def with_banner(part: Part) -> Part:
    """Join what is said last with a banner, as a proxy does whose target speaks at once."""
    *lines, last = (line for line in part if line.says)
    return (*lines, Line(last.stage, last.says + BANNER, last.hears))


class Way:
    """One connection through proxies whose talk is told, and what came of it."""

    def __init__(
        self,
        hops: Sequence[Hop],
        part: Part = (),
        *,
        target: Endpoint = TARGET,
        make=chain.connect,
        timeout: float = 30.0,
        cut: Cut = whole,
        pace: float = 0.0,
        ends: bytes | TabiError | None = None,
        resolve=None,
        streams: Sequence[FakeStream] = (),
        **options: object,
    ) -> None:
        self.clock = FakeClock()
        self.connection: Connection | None = None
        self.error: TabiError | None = None
        fresh = partial(FakeStream, part, cut=cut, pace=pace, ends=ends)
        ready = list(streams)
        talk = {PROXY: lambda: ready.pop(0) if ready else fresh()}
        plan = make(hops, target, reach=reach, timeout=timeout, **options)
        try:
            self.connection = self.clock.run(plan, resolve=resolve, talk=talk)
        except TabiError as error:
            self.error = error
        assert self.clock.left == ()

    @property
    def heard(self) -> bytes:
        return self.clock.streams[-1].heard

    @property
    def unread(self) -> bytes:
        return self.clock.streams[-1].unread

    @property
    def blamed(self) -> TabiError:
        assert self.error is not None, self.connection
        return self.error


# what is said and what is left


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("scheme", [Scheme.SOCKS4A, Scheme.SOCKS5H, Scheme.HTTP])
def test_each_kind_connects_and_leaves_the_banner_in_the_socket(scheme: Scheme, cut: Cut) -> None:
    way = Way([hop(scheme)], with_banner(GOOD[scheme]), cut=cut)
    assert way.connection is not None, way.error
    assert way.connection.remote == TARGET
    assert way.unread == BANNER


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (Scheme.SOCKS4A, b"\x04\x01\x00\x50\0\0\0\x01\0target.example\0"),
        (Scheme.SOCKS5H, b"\x05\x01\x00" b"\x05\x01\x00\x03\x0etarget.example\x00\x50"),
        (Scheme.HTTP, b"CONNECT target.example:80 HTTP/1.1\r\nHost: target.example:80\r\n\r\n"),
    ],
)
def test_names_go_to_the_proxy_by_the_schemes_that_say_so(scheme: Scheme, said: bytes) -> None:
    way = Way([hop(scheme)], GOOD[scheme])
    assert way.heard == said
    assert not [it for _, it in way.clock.transcript if isinstance(it, Resolve)]


@pytest.mark.parametrize(
    ("scheme", "said"),
    [
        (Scheme.SOCKS4, b"\x04\x01\x00\x50\xc6\x33\x64\x07\0"),
        (Scheme.SOCKS5, b"\x05\x01\x00" b"\x05\x01\x00\x01\xc6\x33\x64\x07\x00\x50"),
    ],
)
def test_names_are_resolved_here_by_the_others(scheme: Scheme, said: bytes) -> None:
    answer = {(TARGET.host, 6): (0.0, ()), (TARGET.host, 4): (0.0, (ip_address("198.51.100.7"),))}
    way = Way([hop(scheme)], GOOD[scheme], resolve=answer)
    assert way.heard == said
    assert way.connection is not None
    assert way.connection.remote == Endpoint(IPv4Address("198.51.100.7"), 80)


def test_socks4_looks_up_ipv4_alone() -> None:
    way = Way([hop(Scheme.SOCKS4)], GOOD[Scheme.SOCKS4], resolve={(TARGET.host, 4): (0.0, (PROXY,))})
    assert way.connection is not None


def test_credentials_are_said_when_asked_for() -> None:
    login = hop(username=b"alice", password=b"sesame")
    way = Way([login], socks5_server(BOUND, method=Method.USERPASS))
    assert way.heard.startswith(b"\x05\x02\x00\x02" b"\x01\x05alice\x06sesame" b"\x05\x01")
    assert way.connection is not None


def test_local_is_what_the_last_proxy_tells() -> None:
    way = Way([hop()], GOOD[Scheme.SOCKS5])
    assert way.connection is not None
    assert way.connection.local == BOUND


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    "schemes",
    [
        (Scheme.SOCKS5H, Scheme.SOCKS4A, Scheme.HTTP),
        (Scheme.HTTP, Scheme.SOCKS5H, Scheme.SOCKS4A),
        (Scheme.SOCKS4A, Scheme.HTTP, Scheme.SOCKS5H),
        (Scheme.HTTP, Scheme.HTTP, Scheme.HTTP, Scheme.SOCKS5, Scheme.SOCKS4A),
    ],
)
def test_chains_of_all_kinds_connect_and_leave_the_banner(schemes: tuple[Scheme, ...], cut: Cut) -> None:
    hops = [hop(scheme, Endpoint(PROXY if not n else parse_host(f"198.51.100.{n}"), 1080 + n))
            for n, scheme in enumerate(schemes)]  # fmt: skip
    part = sum((GOOD[scheme] for scheme in schemes), ())
    way = Way(hops, with_banner(part), cut=cut)
    assert way.connection is not None, way.error
    assert way.unread == BANNER
    assert way.connection.remote == TARGET
    assert way.heard.count(b"target.example") == (2 if schemes[-1] is Scheme.HTTP else 1)
    assert next(it for _, it in way.clock.transcript if isinstance(it, Open)).port == 1080


def test_a_proxy_behind_a_proxy_may_have_a_name_that_only_that_one_knows() -> None:
    inner = hop(Scheme.SOCKS5H, Endpoint(Name("inner.example"), 1080))
    way = Way([hop(), inner], GOOD[Scheme.SOCKS5H] * 2)
    assert way.connection is not None
    assert b"inner.example" in way.heard


def test_without_a_proxy_the_target_itself_is_reached() -> None:
    way = Way([], target=WHERE)
    assert way.connection is not None
    assert way.connection.remote == WHERE


# what cannot be said is an error before anything is sent


@pytest.mark.parametrize(
    ("hops", "target"),
    [
        ([hop(Scheme.SOCKS4)], Endpoint(IPv6Address("2001:db8::1"), 80)),
        ([hop(Scheme.SOCKS4A)], Endpoint(IPv6Address("2001:db8::1"), 80)),
        ([hop(Scheme.SOCKS4)], Endpoint(IPv4Address("0.0.0.1"), 80)),  # it would mean SOCKS4a
        ([hop(Scheme.HTTP)], Endpoint(Name("target.example"), 0)),
        ([hop(Scheme.SOCKS4), hop(Scheme.SOCKS5, Endpoint(IPv6Address("2001:db8::1"), 80))], TARGET),
    ],
)
def test_what_a_protocol_cannot_say_is_an_error_before_the_plan_begins(hops: list[Hop], target: Endpoint) -> None:
    with pytest.raises(UsageError):
        chain.connect(hops, target, reach=reach, timeout=5)


def test_bind_and_associate_need_a_proxy_that_can() -> None:
    for make in (chain.bind, chain.associate):
        for hops in ([], [hop(Scheme.HTTP)], [hop(), hop(Scheme.HTTP)]):
            with pytest.raises(UsageError):
                make(hops, WHERE, reach=reach, timeout=5)
    with pytest.raises(UsageError):
        chain.associate([hop(Scheme.SOCKS4)], WHERE, reach=reach, timeout=5)


def test_associations_with_all_proxies_are_each_made_through_those_before() -> None:
    clock = FakeClock()
    parts = [GOOD[Scheme.SOCKS5], GOOD[Scheme.SOCKS5][:2] + GOOD[Scheme.SOCKS5]]
    hops = [hop(), hop(where=Endpoint(IPv4Address("192.0.2.2"), 1081))]
    plan = chain.associate_with_all(hops, Endpoint(IPv4Address(0), 0), reach=reach, timeout=5)
    bounds = clock.run(plan, talk={PROXY: lambda: FakeStream(parts.pop(0))})
    asked = b"\x05\x01\x00" b"\x05\x03\x00\x01\0\0\0\0\0\0"
    assert [stream.heard for stream in clock.streams] == [
        asked,
        b"\x05\x01\x00" b"\x05\x01\x00\x01\xc0\x00\x02\x02\x04\x39" + asked,
    ]
    assert [(bound.hop.number, bound.local) for bound in bounds] == [(1, BOUND), (2, BOUND)]
    assert clock.left == ()


@pytest.mark.parametrize("hops", [[hop(Scheme.HTTP), hop()], [hop(), hop(Scheme.HTTP)], [hop(Scheme.SOCKS4A)]])
def test_a_proxy_without_datagrams_is_not_gone_around(hops: list[Hop]) -> None:
    with pytest.raises(UsageError) as caught:
        chain.associate_with_all(hops, Endpoint(IPv4Address(0), 0), reach=reach, timeout=5)
    assert caught.value.reply is Reply.COMMAND_NOT_SUPPORTED


def test_a_name_over_255_bytes_cannot_even_be_written_down() -> None:
    """CVE-2023-38545: never cut, never wrapped, never resolved here instead."""
    with pytest.raises(UsageError):
        parse_host("a" * 63 + ("." + "b" * 63) * 3 + ".c")


# whose fault it is

REFUSED = b"\x05\x05\x00\x01\0\0\0\0\0\0"


def greeting(says: bytes = b"\x05\x00") -> Part:
    return (Line(Stage.GREETING, says, Greeting.size),)


def answer5(says: bytes) -> Part:
    return (*greeting(), Line(Stage.REQUEST, says, socks5_server(BOUND)[1].hears))


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (1, DialError, True),
        (2, DeniedError, False),
        (3, DialError, True),
        (4, DialError, True),
        (5, RefusedError, True),
        (6, DialTimeoutError, True),
        (7, DialError, False),
        (8, DialError, False),
        (9, DialError, True),
        (0xF0, DialError, True),
    ],
)
def test_a_refusal_keeps_its_reply(code: int, kind: type[TabiError], retryable: bool, cut: Cut) -> None:
    way = Way([hop()], answer5(bytes((5, code)) + REFUSED[2:]), cut=cut)
    error = way.blamed
    assert type(error) is kind
    assert (error.reply, error.stage, error.side) == (code, Stage.REQUEST, error.side)
    assert error.retryable is retryable
    assert error.hop == HopName(1, 1, "socks5h://192.0.2.1:1080")
    assert str(error).startswith("proxy socks5h://192.0.2.1:1080, asked for target.example:80: proxy answered")


@pytest.mark.parametrize("ends", [b"", DialError("reset", stage=Stage.NEGOTIATE), None], ids=["close", "reset", "hold"])
@pytest.mark.parametrize("length", [2, 3, 4, 9])
def test_a_refusal_of_two_or_three_bytes_is_understood(length: int, ends: bytes | TabiError | None) -> None:
    """Servers that say VER, REP and RSV alone, whatever they do then (romis2012/python-socks#46)."""
    way = Way([hop()], answer5(REFUSED[:length]), ends=ends, timeout=5)
    assert isinstance(way.blamed, RefusedError)
    assert way.blamed.hop is not None


def test_a_refusal_of_all_methods_may_have_ten_bytes() -> None:
    way = Way([hop()], greeting(b"\x05\xff\x00\x01\0\0\0\0\0\0"))
    assert isinstance(way.blamed, ProxyAuthError)
    assert way.clock.streams[0].closed


@pytest.mark.parametrize(
    ("part", "kind", "stage"),
    [
        (greeting(b"\x05\x4d"), ProxyProtocolError, Stage.GREETING),  # a method that was not offered
        (greeting(b"\x05\x02"), ProxyProtocolError, Stage.GREETING),  # not offered without credentials
        (greeting(b"\x04\x00"), ProxyProtocolError, Stage.GREETING),
        (greeting(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ProxyProtocolError, Stage.GREETING),
        (answer5(b"\x05\x00\x00\x17\0\0\0\0\0\0"), ProxyProtocolError, Stage.REQUEST),  # ATYP 0x17
        (answer5(b"\x04\x00\x00\x01\0\0\0\0\0\0"), ProxyProtocolError, Stage.REQUEST),
    ],
)
def test_a_proxy_that_breaks_the_protocol_is_left(part: Part, kind: type[TabiError], stage: Stage) -> None:
    way = Way([hop()], part)
    assert type(way.blamed) is kind
    assert way.blamed.stage is stage
    assert way.blamed.side is Side.OUTBOUND
    assert not way.blamed.retryable
    assert way.clock.streams[0].closed


def test_a_bound_name_of_255_bytes_is_read_to_its_end() -> None:
    says = b"\x05\x00\x00\x03\xff" + b"d" * 255 + b"\x00\x50"
    way = Way([hop()], answer5(says + BANNER))
    assert way.connection is not None
    assert way.unread == BANNER


WHOLE5 = b"\x05\x00" + b"\x05\x00\x00\x01\xcb\x00\x71\x09\x10\xe1"


@pytest.mark.parametrize("ends", [b"", DialError("reset by peer", stage=Stage.NEGOTIATE)], ids=["close", "reset"])
@pytest.mark.parametrize("length", range(len(WHOLE5)))
def test_a_proxy_that_ends_at_any_offset_is_named_and_worth_another_try(length: int, ends: bytes | TabiError) -> None:
    part = greeting(WHOLE5[:2][:length]) + (answer5(WHOLE5[2:length])[1:] if length > 2 else ())
    way = Way([hop()], part, ends=ends, cut=each_byte)
    assert type(way.blamed) is ProxyProtocolError
    assert way.blamed.retryable
    assert way.blamed.stage is (Stage.GREETING if length < 2 else Stage.REQUEST)
    assert way.blamed.hop is not None


WHOLE_HTTP = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize("ends", [b"", DialError("reset by peer", stage=Stage.NEGOTIATE)], ids=["close", "reset"])
@pytest.mark.parametrize("length", range(len(WHOLE_HTTP)))
def test_a_proxy_for_http_that_ends_at_any_offset_is_told_likewise(length: int, ends: bytes | TabiError) -> None:
    way = Way([hop(Scheme.HTTP)], http_proxy(answer=WHOLE_HTTP[:length]), ends=ends, cut=each_byte)
    assert type(way.blamed) is ProxyProtocolError
    assert way.blamed.retryable
    assert way.blamed.stage is Stage.REQUEST
    assert way.blamed.hop is not None
    assert all(it.size for _, it in way.clock.transcript if isinstance(it, Read))  # the end is seen by looking


@pytest.mark.parametrize(
    ("part", "stage"),
    [
        ((), Stage.GREETING),
        (greeting(b"\x05"), Stage.GREETING),
        (greeting(b"\x05\x02"), Stage.AUTH),
        (greeting(), Stage.REQUEST),
        (answer5(WHOLE5[2:9]), Stage.REQUEST),
    ],
)
def test_silence_at_any_stage_ends_at_the_time_limit(part: Part, stage: Stage) -> None:
    """encode/httpcore#1089: a limit that does not cover every read is none."""
    way = Way([hop(username=b"u", password=b"p")], part, timeout=5)
    assert type(way.blamed) is DialTimeoutError
    assert isinstance(way.blamed, TimeoutError)
    assert way.blamed.stage is stage
    assert way.blamed.limit == "connect"
    assert way.blamed.hop is not None
    assert way.clock.now == 5
    assert way.clock.streams[0].closed


def test_a_byte_per_second_is_read_until_the_time_limit() -> None:
    part = answer5(WHOLE5[2:])
    assert Way([hop()], part, cut=each_byte, pace=1.0, timeout=30).connection is not None
    late = Way([hop()], part, cut=each_byte, pace=1.0, timeout=9)
    assert isinstance(late.blamed, DialTimeoutError)
    assert late.clock.now == 9


def test_silence_of_a_proxy_for_http_ends_at_the_time_limit() -> None:
    way = Way([hop(Scheme.HTTP)], http_proxy(answer=b"HTTP/1.1 200 OK\r\n"), timeout=5)
    assert isinstance(way.blamed, DialTimeoutError)
    assert way.clock.now == 5


def test_a_proxy_that_cannot_be_reached_is_told_apart_from_a_target() -> None:
    clock = FakeClock()
    refused = RefusedError("192.0.2.1:1080: connection refused")
    with pytest.raises(ProxyUnreachableError) as caught:
        clock.run(chain.connect([hop()], TARGET, reach=reach, timeout=5), open={PROXY: (0.1, refused)})
    assert caught.value.reply is Reply.CONNECTION_REFUSED
    assert caught.value.stage is Stage.CONNECT
    assert caught.value.hop == HopName(1, 1, "socks5h://192.0.2.1:1080")
    assert str(caught.value) == (
        "proxy socks5h://192.0.2.1:1080 cannot be reached: 192.0.2.1:1080: connection refused"
    )


def test_a_proxy_that_does_not_answer_the_call_is_a_timeout() -> None:
    clock = FakeClock()
    with pytest.raises(DialTimeoutError) as caught:
        clock.run(chain.connect([hop()], TARGET, reach=reach, timeout=5), open={PROXY: (math.inf, None)})
    assert caught.value.stage is Stage.CONNECT
    assert caught.value.hop is not None
    assert caught.value.limit == "connect"


def test_a_proxy_whose_name_is_unknown_is_unreachable_too() -> None:
    name = Name("proxy.example")
    clock = FakeClock()
    with pytest.raises(ProxyUnreachableError) as caught:
        clock.run(
            chain.connect([hop(where=Endpoint(name, 1080))], TARGET, reach=reach, timeout=5),
            resolve={(name, 6): (0.0, ()), (name, 4): (0.0, ())},
        )
    assert caught.value.stage is Stage.RESOLVE
    assert not caught.value.retryable


THREE = [
    hop(username=b"first", password=b"secret-1"),
    hop(Scheme.SOCKS5H, Endpoint(IPv4Address("198.51.100.1"), 1081), username=b"second", password=b"secret-2"),
    hop(Scheme.HTTP, Endpoint(Name("third.example"), 8080), username=b"third", password=b"secret-3"),
]


@pytest.mark.parametrize(
    ("part", "number", "kind", "asked"),
    [
        (greeting(b"\x05\xff"), 1, ProxyAuthError, "198.51.100.1:1081"),
        (answer5(b"\x05\x02" + REFUSED[2:]), 1, DeniedError, "198.51.100.1:1081"),
        (answer5(REFUSED), 1, ProxyUnreachableError, "198.51.100.1:1081"),
        (GOOD[Scheme.SOCKS5] + greeting(b"\x05\xff"), 2, ProxyAuthError, "third.example:8080"),
        (GOOD[Scheme.SOCKS5] + answer5(REFUSED), 2, ProxyUnreachableError, "third.example:8080"),
        (
            GOOD[Scheme.SOCKS5] * 2 + http_proxy(answer=b"HTTP/1.1 407 No\r\n\r\n"),
            3,
            ProxyAuthError,
            "target.example:80",
        ),
        (GOOD[Scheme.SOCKS5] * 2 + http_proxy(answer=b"HTTP/1.1 502 No\r\n\r\n"), 3, DialError, "target.example:80"),
        (GOOD[Scheme.SOCKS5] * 2 + http_proxy(answer=b"SSH-2.0\r\n"), 3, ProxyProtocolError, "target.example:80"),
        (GOOD[Scheme.SOCKS5] * 2, 3, DialTimeoutError, "target.example:80"),
        (GOOD[Scheme.SOCKS5] + greeting(), 2, DialTimeoutError, "third.example:8080"),
    ],
)
def test_the_failing_hop_is_named_without_credentials(
    part: Part, number: int, kind: type[TabiError], asked: str
) -> None:
    way = Way(THREE, part, timeout=5)
    assert type(way.blamed) is kind
    assert way.blamed.hop == HopName(number, 3, str(THREE[number - 1]))
    assert str(way.blamed).startswith(f"proxy {number} of 3, {THREE[number - 1]}, asked for {asked}: ")
    assert "secret" not in str(way.blamed) + repr(way.blamed)
    assert way.clock.streams[0].closed


# names that are resolved here: one address after the other


def resolved(*addresses: str) -> dict[object, object]:
    found = [ip_address(text) for text in addresses]
    return {(TARGET.host, v): (0.0, tuple(a for a in found if a.version == v)) for v in (4, 6)}


def test_the_next_address_is_tried_where_the_proxy_could_not_reach_one() -> None:
    way = Way(
        [hop(Scheme.SOCKS5)],
        resolve=resolved("2001:db8::7", "198.51.100.7"),
        streams=[FakeStream(answer5(b"\x05\x03" + REFUSED[2:])), FakeStream(GOOD[Scheme.SOCKS5])],
    )
    assert way.connection is not None, way.error
    assert way.connection.remote == Endpoint(IPv4Address("198.51.100.7"), 80)
    assert [stream.closed for stream in way.clock.streams] == [True, False]


def test_the_first_reason_stands_where_no_address_was_reached() -> None:
    way = Way([hop(Scheme.SOCKS5)], answer5(REFUSED), resolve=resolved("198.51.100.7", "198.51.100.8"))
    assert isinstance(way.blamed, RefusedError)
    assert "198.51.100.7:80" in str(way.blamed)
    assert len(way.clock.streams) == 2


@pytest.mark.parametrize("part", [answer5(b"\x05\x02" + REFUSED[2:]), greeting(b"\x05\xff"), greeting(b"\x04\x04")])
def test_no_other_address_is_tried_where_the_proxy_itself_is_the_reason(part: Part) -> None:
    way = Way([hop(Scheme.SOCKS5)], part, resolve=resolved("198.51.100.7", "198.51.100.8"))
    assert way.error is not None
    assert len(way.clock.streams) == 1


def test_no_other_address_is_tried_when_the_time_is_over() -> None:
    way = Way([hop(Scheme.SOCKS5)], greeting(), resolve=resolved("198.51.100.7", "198.51.100.8"), timeout=5)
    assert isinstance(way.blamed, DialTimeoutError)
    assert len(way.clock.streams) == 1
    assert way.clock.now == 5


def test_addresses_of_one_name_are_bounded() -> None:
    many = [f"198.51.100.{n}" for n in range(1, 100)]
    way = Way([hop(Scheme.SOCKS5)], answer5(REFUSED), resolve=resolved(*many))
    assert way.error is not None
    assert len(way.clock.streams) == chain.MOST_ADDRESSES


def test_a_name_without_address_is_no_fault_of_the_proxy() -> None:
    way = Way([hop(Scheme.SOCKS5)], resolve=resolved())
    assert type(way.blamed) is NameUnknownError
    assert way.blamed.hop is None
    assert way.clock.streams == []


# BIND and UDP ASSOCIATE


def second_reply(says: bytes) -> Part:
    return (Line(Stage.BIND, says),)


def bound(part: Part, **options: object) -> Bound:
    way = Way([hop()], part, target=Endpoint(IPv4Address("198.51.100.7"), 0), make=chain.bind, **options)
    assert isinstance(way.connection, Bound), way.error
    return way.connection


PEER = b"\x05\x00\x00\x01\xc6\x33\x64\x07\x00\x14"


@pytest.mark.parametrize("cut", CUTS)
def test_bind_tells_where_then_who(cut: Cut) -> None:
    connection = bound(with_banner(GOOD[Scheme.SOCKS5] + second_reply(PEER)), cut=cut)
    assert connection.local == BOUND
    assert isinstance(connection.machine.stage, Stage)
    accepted = FakeClock().run(chain.accept(connection, timeout=5))
    assert accepted.remote == Endpoint(IPv4Address("198.51.100.7"), 20)
    assert accepted.local == BOUND
    assert accepted.handle is connection.handle
    assert accepted.handle.stream.unread == BANNER


@pytest.mark.parametrize("unspecified", ["0.0.0.0", "::"])
def test_an_unspecified_bound_address_is_the_proxys_own(unspecified: str) -> None:
    anywhere = socks5_server(Endpoint(ip_address(unspecified), 4321))
    assert bound(anywhere).local == Endpoint(PROXY, 4321)
    way = Way([hop()], anywhere, target=Endpoint(IPv4Address(0), 0), make=chain.associate)
    assert way.connection is not None
    assert way.connection.local == Endpoint(PROXY, 4321)


def test_nobody_came_is_told_with_the_proxys_reply() -> None:
    connection = bound(GOOD[Scheme.SOCKS5] + second_reply(b"\x05\x06" + REFUSED[2:]))
    with pytest.raises(DialTimeoutError) as caught:
        FakeClock().run(chain.accept(connection, timeout=5))
    assert caught.value.hop == HopName(1, 1, "socks5h://192.0.2.1:1080")
    assert caught.value.limit == ""


def test_waiting_for_a_peer_ends_at_the_time_limit() -> None:
    clock = FakeClock()
    with pytest.raises(DialTimeoutError) as caught:
        clock.run(chain.accept(bound(GOOD[Scheme.SOCKS5]), timeout=5))
    assert clock.now == 5
    assert caught.value.limit == "connect"


def test_an_association_says_where_its_datagrams_come_from() -> None:
    way = Way([hop()], GOOD[Scheme.SOCKS5], target=Endpoint(IPv4Address("10.1.2.3"), 9), make=chain.associate)
    assert way.heard == b"\x05\x01\x00" b"\x05\x03\x00\x01\x0a\x01\x02\x03\x00\x09"
    assert way.connection is not None
    assert way.connection.remote == WHERE
    assert way.connection.local == BOUND


# a proxy that looks up (socks-extensions.txt section 2)


@pytest.mark.parametrize(
    ("asked", "said", "answer"),
    [
        (
            Name("target.example"),
            b"\x05\x01\x00" b"\x05\xf0\x00\x03\x0etarget.example\0\0",
            IPv4Address("198.51.100.7"),
        ),
        (IPv4Address("198.51.100.7"), b"\x05\x01\x00" b"\x05\xf1\x00\x01\xc6\x33\x64\x07\0\0", Name("target.example")),
    ],
    ids=["name", "address"],
)
@pytest.mark.parametrize("scheme", [Scheme.SOCKS5, Scheme.SOCKS5H])
def test_the_last_proxy_looks_up_and_its_connection_is_closed(
    scheme: Scheme, asked: Name | IPv4Address, said: bytes, answer: Name | IPv4Address
) -> None:
    stream = FakeStream(socks5_server(Endpoint(answer, 0)))
    way = Way([hop(scheme)], make=chain.resolve, target=asked, streams=[stream])
    assert way.connection == answer, way.error
    assert stream.heard == said
