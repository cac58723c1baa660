"""Ways of which the first that serves is taken: which failures lead on, which ways should rest; in virtual time."""

import math
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Address, Endpoint, Name
from tabi.dial import chain
from tabi.dial.direct import direct
from tabi.dial.ways import Way, by_ways
from tabi.dial.wishes import Connection, Plan, Steps
from tabi.errors import (
    DeniedError,
    DialError,
    DialTimeoutError,
    ProxyAuthError,
    ProxyProtocolError,
    ProxyUnreachableError,
    RefusedError,
    Reply,
    Stage,
    TabiError,
)
from tabi.machine.hop import Hop, Scheme
from tabi.testing.clock import FakeClock
from tabi.testing.parts import Line, Part, socks5_server
from tabi.testing.stream import FakeStream
from tabi.wire.socks5 import Command, Greeting, Request

FIRST, SECOND = IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2")
TARGET = Endpoint(Name("target.example"), 80)
ADDRESSES = (IPv6Address("2001:db8::9"), IPv4Address("203.0.113.9"))
REFUSED = DialError("connection refused", reply=Reply.CONNECTION_REFUSED)
GOOD = socks5_server(Endpoint(IPv4Address("198.51.100.1"), 4321))
NO_METHOD = (Line(Stage.GREETING, b"\x05\xff", Greeting.size),)
GREETED = (Line(Stage.GREETING, b"\x05\x00", Greeting.size),)


def answering(*replies: int) -> Part:
    """Be a proxy that greets and then says these replies, RFC 1928 section 6."""
    said = b"".join(bytes((5, reply, 0, 1)) + bytes(6) for reply in replies)
    return (*GREETED, Line(Stage.REQUEST, said, Request.size))


def way(name: str, *proxies: Address, scheme: Scheme = Scheme.SOCKS5H) -> Way:
    return Way(name, tuple(Hop(scheme, Endpoint(one, 1080)) for one in proxies))


class Trip:
    """What came of asking some ways, each proxy with its part."""

    def __init__(
        self,
        *parts: Part | TabiError | Callable[[], FakeStream] | None,
        ways: Sequence[Way] = (way("office", FIRST), way("spare", SECOND)),
        target: Endpoint = TARGET,
        addresses: Sequence[Address] = (),
        refused: Sequence[Address] = (),
        command: Command = Command.CONNECT,
    ) -> None:
        self.clock = FakeClock()
        self.heard: list[tuple[str, str]] = []
        self.connection: Connection | None = None
        self.error: TabiError = TabiError("it came to a connection")
        talk, opened = {}, {}
        for proxy, part in zip((FIRST, SECOND), parts, strict=False):
            if part is None:
                opened[proxy] = (math.inf, None)
            elif isinstance(part, TabiError):
                opened[proxy] = (0.25, part)
            else:
                talk[proxy] = part if callable(part) else lambda part=part: FakeStream(part, ends=b"")
        plan = by_ways(
            ways,
            target,
            addresses,
            ask=chain_of(command),
            permit=lambda address: address not in refused,
            hear=lambda one, error: self.heard.append((one.name, "served" if error is None else "rests")),
            timeout=30.0,
        )
        try:
            self.connection = self.clock.run(plan, talk=talk, open=opened)
        except TabiError as error:
            self.error = error
        assert self.clock.left == ()

    @property
    def asked(self) -> list[bytes]:
        """What each connection to a proxy has heard, in their order."""
        return [stream.heard for stream in self.clock.streams]


def chain_of(command: Command) -> Callable[[Way, Endpoint], Steps[Connection]]:
    def reach(proxy: Endpoint) -> Plan:
        return direct(proxy, permit=lambda _: True)

    def ask(one: Way, target: Endpoint) -> Steps[Connection]:
        make = chain.bind if command is Command.BIND else chain.connect
        return make(one.hops, target, reach=reach, timeout=30.0)

    return ask


def test_first_way_that_serves_is_taken() -> None:
    trip = Trip(GOOD, GOOD)
    assert trip.connection is not None
    assert trip.connection.remote == TARGET
    assert len(trip.asked) == 1
    assert trip.heard == [("office", "served")]


@pytest.mark.parametrize(
    ("part", "rests"),
    [
        (REFUSED, True),  # cannot be reached
        (NO_METHOD, True),  # wants a login
        ((Line(Stage.GREETING, b"HTTP/1.1 400 Bad Request\r\n\r\n", Greeting.size),), True),
        ((), True),  # closes at once
        (GREETED, False),  # closes without an answer, for whatever reason
        (answering(8), False),  # cannot say such an address
        (answering(7), False),
    ],
    ids=["refused", "login", "no-socks", "closed", "unanswered", "address-type", "command"],
)
def test_way_that_has_failed_is_followed_by_the_next(part: Part | TabiError, rests: bool) -> None:
    trip = Trip(part, GOOD)
    assert trip.connection is not None, trip.error
    assert trip.heard == [("office", "rests")] * rests + [("spare", "served")]


@pytest.mark.parametrize(
    ("reply", "kind"), [(1, DialError), (2, DeniedError), (4, DialError), (5, RefusedError), (6, DialTimeoutError)]
)
def test_what_a_proxy_says_of_the_target_is_the_answer(reply: int, kind: type[TabiError]) -> None:
    trip = Trip(answering(reply), GOOD)
    assert type(trip.error) is kind
    assert (trip.error.reply, trip.error.stage) == (reply, Stage.REQUEST)
    assert trip.error.hop is not None
    assert str(trip.error).startswith('upstream "office": proxy socks5h://192.0.2.1:1080, asked for target.example:80')
    assert trip.heard == []


def test_all_ways_that_were_tried_are_named() -> None:
    trip = Trip(NO_METHOD, REFUSED)
    assert isinstance(trip.error, ProxyUnreachableError)
    assert trip.error.reply is Reply.CONNECTION_REFUSED
    assert trip.error.hop is not None
    assert trip.error.hop.proxy == "socks5h://192.0.2.2:1080"
    assert 'upstream "office": ' in str(trip.error)
    assert '; upstream "spare": ' in str(trip.error)
    assert trip.heard == [("office", "rests"), ("spare", "rests")]


def test_one_way_alone_fails_by_its_own_error() -> None:
    trip = Trip(NO_METHOD, ways=[way("office", FIRST)])
    assert isinstance(trip.error, ProxyAuthError)
    assert trip.error.stage is Stage.AUTH


def test_silent_way_leaves_time_for_the_next() -> None:
    trip = Trip(None, GOOD)
    assert trip.connection is not None
    assert trip.clock.now == 15
    assert trip.heard == [("office", "rests"), ("spare", "served")]


def test_way_that_is_silent_about_the_target_is_followed_by_the_next_and_need_not_rest() -> None:
    trip = Trip(lambda: FakeStream(GREETED), GOOD)
    assert trip.connection is not None
    assert trip.clock.now == 15
    assert trip.heard == [("spare", "served")]


def test_last_way_has_all_the_time_that_is_left() -> None:
    trip = Trip(REFUSED, None)
    assert isinstance(trip.error, DialTimeoutError)
    assert trip.error.limit == "connect"
    assert trip.clock.now == 30
    assert trip.heard == [("office", "rests"), ("spare", "rests")]


def test_time_that_is_over_ends_it_whatever_is_left_to_try() -> None:
    ways = [way("office", FIRST), way("gone", FIRST), way("spare", SECOND)]
    trip = Trip(None, None, ways=ways)
    assert isinstance(trip.error, DialTimeoutError)
    assert (trip.error.limit, trip.error.stage, trip.clock.now) == ("connect", Stage.CONNECT, 30)


@pytest.mark.parametrize("part", [answering(5), GREETED], ids=["refused", "unanswered"])
def test_way_through_a_proxy_that_its_first_does_not_reach_rests(part: Part) -> None:
    trip = Trip(part, GOOD, ways=[way("office", FIRST, SECOND), way("spare", SECOND)])
    assert trip.connection is not None, trip.error
    assert trip.heard == [("office", "rests"), ("spare", "served")]


def test_addresses_are_asked_for_one_after_the_other() -> None:
    parts = [answering(4), GOOD]
    trip = Trip(lambda: FakeStream(parts.pop(0)), addresses=ADDRESSES)
    assert trip.connection is not None, trip.error
    assert trip.connection.remote == Endpoint(ADDRESSES[1], 80)
    assert [one[3:] for one in trip.asked] == [
        b"\x05\x01\x00\x04" + ADDRESSES[0].packed + b"\x00\x50",
        b"\x05\x01\x00\x01" + ADDRESSES[1].packed + b"\x00\x50",
    ]


def test_first_address_that_failed_says_why() -> None:
    parts = [answering(5), answering(4)]
    trip = Trip(lambda: FakeStream(parts.pop(0)), addresses=ADDRESSES)
    assert trip.error.reply is Reply.CONNECTION_REFUSED


def test_refused_address_is_passed_over_on_every_way() -> None:
    trip = Trip(REFUSED, GOOD, addresses=ADDRESSES, refused=ADDRESSES[:1])
    assert trip.connection is not None
    assert trip.connection.remote == Endpoint(ADDRESSES[1], 80)
    assert len(trip.asked) == 1


def test_no_address_that_may_be_asked_for_is_nobodys_failure() -> None:
    trip = Trip(GOOD, GOOD, addresses=ADDRESSES, refused=ADDRESSES)
    assert isinstance(trip.error, DeniedError)
    assert trip.error.hop is None
    assert trip.asked == []


def test_way_that_cannot_say_the_address_is_followed_by_one_that_can() -> None:
    ways = [way("office", FIRST, scheme=Scheme.SOCKS4A), way("spare", SECOND)]
    trip = Trip(GOOD, GOOD, ways=ways, target=Endpoint(ADDRESSES[0], 80))
    assert trip.connection is not None
    assert trip.heard == [("spare", "served")]


@pytest.mark.parametrize(
    ("scheme", "command", "target", "reply"),
    [
        (Scheme.SOCKS4A, Command.CONNECT, Endpoint(ADDRESSES[0], 80), Reply.ADDRESS_TYPE_NOT_SUPPORTED),
        (Scheme.HTTP, Command.BIND, TARGET, Reply.COMMAND_NOT_SUPPORTED),
    ],
)
def test_what_no_way_can_say_is_refused_as_such(
    scheme: Scheme, command: Command, target: Endpoint, reply: Reply
) -> None:
    trip = Trip(ways=[way("office", FIRST, scheme=scheme)], target=target, command=command)
    assert trip.error.reply is reply
    assert isinstance(trip.error, DialError)
    assert not trip.error.retryable
    assert trip.asked == []
    assert trip.heard == []


def test_broken_answer_is_a_failure_of_the_way() -> None:
    broken = (*GREETED, Line(Stage.REQUEST, b"\x04\x00\x00", Request.size))
    trip = Trip(broken, ways=[way("office", FIRST)])
    assert isinstance(trip.error, ProxyProtocolError)
    assert trip.heard == []
