"""Ways that race: who starts when, who wins, what becomes of the others; in virtual time."""

import math
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Address, Endpoint, Name
from tabi.dial import chain
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.race import Entrant, by_race
from tabi.dial.ways import Way
from tabi.dial.wishes import Cancel, Connection, Open, Plan, Steps
from tabi.dial.within import within
from tabi.errors import DeniedError, DialError, DialTimeoutError, ProxyUnreachableError, Reply, Stage, TabiError
from tabi.machine.hop import Hop, Scheme
from tabi.testing.clock import FakeClock
from tabi.testing.parts import Line, Part, socks5_server
from tabi.testing.stream import FakeStream
from tabi.wire.socks5 import Greeting, Request

FIRST, SECOND, THIRD = (IPv4Address(f"192.0.2.{number}") for number in (1, 2, 3))
THERE, ELSEWHERE = IPv4Address("203.0.113.9"), IPv4Address("203.0.113.10")
NAME = Name("target.example")
TARGET = Endpoint(NAME, 80)
GOOD = socks5_server(Endpoint(IPv4Address("198.51.100.1"), 4321))
GREETED = (Line(Stage.GREETING, b"\x05\x00", Greeting.size),)
REFUSED = DialError("connection refused", reply=Reply.CONNECTION_REFUSED)
NAMES = {(NAME, 4): (0.0, (THERE,)), (NAME, 6): (0.0, ())}


def way(name: str, *proxies: Address, scheme: Scheme = Scheme.SOCKS5H) -> Way:
    return Way(name, tuple(Hop(scheme, Endpoint(one, 1080)) for one in proxies))


OFFICE, SPARE, TOR, DIRECT = way("office", FIRST), way("spare", SECOND), way("tor", THIRD), way("direct")


def answering(reply: int) -> Part:
    """Be a proxy that greets and then says this reply, RFC 1928 section 6."""
    return (*GREETED, Line(Stage.REQUEST, bytes((5, reply, 0, 1)) + bytes(6), Request.size))


class Trip:
    """What came of a race; the umpire of it, too, who lets `allowance` dials be wasted.

    Args:
        peers: by address, the seconds until it is connected to, and its part or the error.
        limit: seconds after which something around the race ends it.
    """

    def __init__(
        self,
        ways: Sequence[Way],
        peers: Mapping[Address, tuple[float, Part | TabiError | None]],
        *,
        wait: float = 0.25,
        addresses: Sequence[Address] = (),
        refused: Sequence[Address] = (),
        target: Endpoint = TARGET,
        allowance: float = math.inf,
        limit: float = math.inf,
    ) -> None:
        self.clock = FakeClock()
        self.allowance = allowance
        self.refused = refused
        self.heard: list[tuple[float, str, str]] = []
        self.asked: list[tuple[str, Endpoint]] = []
        self.connection: Connection | None = None
        self.error: TabiError = TabiError("it came to a connection")
        plan = by_race(
            [Entrant(one, wait) for one in ways],
            target,
            addresses,
            ask=self.ask,
            permit=self.permit,
            umpire=self,
            timeout=30.0,
        )
        talk = {
            peer: lambda part=part: FakeStream(part) for peer, (_, part) in peers.items() if isinstance(part, tuple)
        }
        opened = {peer: (delay, part if isinstance(part, TabiError) else None) for peer, (delay, part) in peers.items()}
        try:
            self.connection = self.clock.run(
                plan if limit == math.inf else within(plan, limit, "around"), resolve=NAMES, talk=talk, open=opened
            )
        except TabiError as error:
            self.error = error
        assert self.clock.left == ()

    def ask(self, one: Way, target: Endpoint) -> Steps[Connection]:
        self.asked.append((one.name, target))
        if not one.hops:
            return direct(target, permit=self.permit, options=DirectOptions(timeout=60.0))
        return chain.connect(one.hops, target, reach=self.reach, timeout=60.0)

    def reach(self, proxy: Endpoint) -> Plan:
        return direct(proxy, permit=lambda _: True, options=DirectOptions(timeout=60.0))

    def permit(self, address: Address) -> bool:
        return address not in self.refused

    def may_waste(self) -> bool:
        self.allowance -= 1
        return self.allowance >= 0

    def won(self, one: Way) -> None:
        self.heard.append((self.clock.now, one.name, "won"))

    def beaten(self, one: Way) -> None:
        self.heard.append((self.clock.now, one.name, "beaten"))

    def failed(self, one: Way, error: TabiError) -> None:
        self.heard.append((self.clock.now, one.name, error.stage.value))

    @property
    def opened(self) -> list[tuple[float, Address]]:
        """When which address was dialled."""
        return [(when, wish.address) for when, wish in self.clock.transcript if isinstance(wish, Open)]


def test_way_that_is_connected_within_its_head_start_is_alone() -> None:
    trip = Trip([OFFICE, SPARE], {FIRST: (0.2, GOOD)})
    assert trip.connection is not None, trip.error
    assert trip.connection.remote == TARGET
    assert trip.opened == [(0, FIRST)]
    assert trip.heard == [(0.2, "office", "won")]


def test_first_that_is_connected_wins_and_the_other_is_given_up() -> None:
    trip = Trip([OFFICE, SPARE], {FIRST: (1.0, GOOD), SECOND: (0.5, GOOD)})
    assert trip.opened == [(0, FIRST), (0.25, SECOND)]
    assert trip.heard == [(0.75, "spare", "won"), (0.75, "office", "beaten")]
    cancelled = [wish.wish for _, wish in trip.clock.transcript if isinstance(wish, Cancel)]
    assert [wish.address for wish in cancelled if isinstance(wish, Open)] == [FIRST]


def test_handshake_under_way_is_closed_where_another_wins() -> None:
    trip = Trip([OFFICE, SPARE, TOR], {FIRST: (0.0, GREETED), SECOND: (0.0, ()), THIRD: (0.0, GOOD)})
    assert trip.heard == [(0.5, "tor", "won"), (0.5, "office", "beaten"), (0.5, "spare", "beaten")]
    assert [stream.closed for stream in trip.clock.streams] == [True, True, False]


def test_each_way_waits_for_its_turn() -> None:
    trip = Trip([OFFICE, SPARE, TOR], {FIRST: (9, REFUSED), SECOND: (9, REFUSED), THIRD: (9, REFUSED)}, wait=2)
    assert trip.opened == [(0, FIRST), (2, SECOND), (4, THIRD)]


def test_way_that_fails_has_the_next_start_at_once() -> None:
    trip = Trip([OFFICE, SPARE, TOR], {FIRST: (0.1, REFUSED), SECOND: (0.3, REFUSED), THIRD: (0.1, GOOD)})
    assert trip.opened == [(0, FIRST), (0.1, SECOND), (0.35, THIRD)]
    assert [name for _, name, what in trip.heard if what == "won"] == ["tor"]


def test_what_a_proxy_says_of_the_target_leads_on() -> None:
    trip = Trip([OFFICE, SPARE], {FIRST: (0.0, answering(5)), SECOND: (0.0, GOOD)})
    assert trip.connection is not None
    assert trip.heard == [(0, "office", "request"), (0, "spare", "won")]


def test_way_that_cannot_say_the_address_leads_on() -> None:
    ways = [way("old", FIRST, scheme=Scheme.SOCKS4A), OFFICE]
    trip = Trip(ways, {FIRST: (0.0, GOOD)}, target=Endpoint(IPv6Address("2001:db8::9"), 80))
    assert trip.connection is not None, trip.error
    assert trip.heard == [(0, "old", "request"), (0, "office", "won")]


def test_direct_way_is_asked_for_the_name_and_its_addresses_are_judged() -> None:
    trip = Trip([DIRECT, OFFICE], {THERE: (0.0, None), FIRST: (0.0, GOOD)})
    assert trip.connection is not None
    assert trip.connection.remote == Endpoint(THERE, 80)
    trip = Trip([DIRECT, OFFICE], {FIRST: (0.0, GOOD)}, refused=[THERE])
    assert trip.connection is not None
    assert trip.connection.remote == TARGET
    assert trip.heard == [(0.0, "direct", "policy"), (0.0, "office", "won")]


def test_upstreams_are_asked_for_permitted_addresses_where_there_are_some_and_the_direct_way_for_the_name() -> None:
    peers = {FIRST: (0.0, answering(4)), THERE: (0.0, REFUSED)}
    trip = Trip([OFFICE, DIRECT], peers, addresses=[ELSEWHERE, THERE], refused=[ELSEWHERE])
    assert trip.asked == [("office", Endpoint(THERE, 80)), ("direct", TARGET)]
    trip = Trip([OFFICE, DIRECT], {}, addresses=[THERE], refused=[THERE])
    assert isinstance(trip.error, DeniedError)
    assert trip.opened == []


def test_all_that_have_failed_are_named() -> None:
    gone = DialError("no host", reply=Reply.HOST_UNREACHABLE)
    trip = Trip([OFFICE, DIRECT], {FIRST: (0.1, REFUSED), THERE: (0.1, gone)})
    assert trip.error.reply is Reply.HOST_UNREACHABLE  # of the target; the other is about a proxy
    assert trip.error.hop is None
    assert str(trip.error).startswith('upstream "office": proxy socks5h://192.0.2.1:1080 cannot be reached: ')
    assert "; direct: " in str(trip.error)


@pytest.mark.parametrize("order", [1, -1])
def test_what_a_proxy_says_of_the_target_tells_more_than_failures_of_others(order: int) -> None:
    peers = {FIRST: (0.0, REFUSED), SECOND: (0.0, answering(4))}
    trip = Trip([OFFICE, SPARE, DIRECT][::order], peers, refused=[THERE])
    assert trip.error.reply is Reply.HOST_UNREACHABLE
    assert trip.error.hop is not None
    assert trip.error.hop.proxy == "socks5h://192.0.2.2:1080"


def test_our_own_refusal_on_the_direct_way_tells_least() -> None:
    trip = Trip([DIRECT, OFFICE], {FIRST: (0.0, REFUSED)}, refused=[THERE])
    assert isinstance(trip.error, ProxyUnreachableError)


def test_time_that_is_over_ends_all_that_run_and_starts_no_more() -> None:
    peers = {FIRST: (math.inf, None), SECOND: (0.0, GREETED), THERE: (math.inf, None)}
    trip = Trip([OFFICE, SPARE, DIRECT, TOR], peers, wait=10.1)
    assert isinstance(trip.error, DialTimeoutError)
    assert (trip.error.limit, trip.clock.now) == ("connect", 30)
    assert sorted(trip.heard) == [(30, "direct", "connect"), (30, "office", "connect"), (30, "spare", "request")]
    assert trip.clock.streams[0].closed
    assert 'upstream "spare": ' in str(trip.error)
    assert "in the request" in str(trip.error)


def test_limit_around_a_race_ends_it() -> None:
    trip = Trip([OFFICE, SPARE], {FIRST: (math.inf, None), SECOND: (0.0, GREETED)}, limit=5)
    assert isinstance(trip.error, DialTimeoutError)
    assert (trip.error.limit, trip.clock.now) == ("around", 5)
    assert trip.clock.streams[0].closed


def test_where_nothing_may_be_wasted_the_next_starts_when_the_first_has_failed() -> None:
    trip = Trip([OFFICE, SPARE], {FIRST: (5, REFUSED), SECOND: (0.1, GOOD)}, allowance=0)
    assert trip.opened == [(0, FIRST), (5, SECOND)]


def test_where_nothing_may_be_wasted_a_silent_way_is_given_its_share_of_the_time() -> None:
    peers = {FIRST: (math.inf, None), SECOND: (math.inf, None), THIRD: (0.1, GOOD)}
    trip = Trip([OFFICE, SPARE, TOR], peers, allowance=0)
    assert trip.opened == [(0, FIRST), (10.25, SECOND), (20.5, THIRD)]
    assert trip.connection is not None


def test_where_nothing_may_be_wasted_a_failure_does_not_make_the_pause_longer() -> None:
    peers = {FIRST: (math.inf, None), SECOND: (5, REFUSED), THIRD: (0.1, GOOD)}
    trip = Trip([OFFICE, SPARE, TOR], peers, allowance=1)
    assert trip.opened == [(0, FIRST), (0.25, SECOND), (10.5, THIRD)]


def test_only_dials_beside_others_are_counted_as_wasted() -> None:
    peers = {FIRST: (0.1, REFUSED), SECOND: (9, REFUSED), THIRD: (9, GOOD)}
    trip = Trip([OFFICE, SPARE, TOR], peers, allowance=1)
    assert trip.opened == [(0, FIRST), (0.1, SECOND), (0.35, THIRD)]
    assert trip.allowance == 0
