"""Races of any ways: what holds of all of them, whoever wins."""

import math
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from tabi.addr import Endpoint
from tabi.dial import chain
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.race import Entrant, by_race
from tabi.dial.ways import Way
from tabi.dial.wishes import Close, Connection, Done, Open, Plan, Steps
from tabi.errors import DialError, Reply, Stage, TabiError
from tabi.machine.hop import Hop, Scheme
from tabi.testing.clock import FakeClock
from tabi.testing.parts import Line, socks5_server
from tabi.testing.stream import FakeStream
from tabi.wire.socks5 import Greeting, Request

TARGET = Endpoint(IPv4Address("203.0.113.9"), 80)
TIMEOUT = 30.0
GREETED = (Line(Stage.GREETING, b"\x05\x00", Greeting.size),)
PARTS = {
    "good": socks5_server(Endpoint(IPv4Address("198.51.100.1"), 4321)),
    "silent": GREETED,
    "refusing": (*GREETED, Line(Stage.REQUEST, b"\x05\x05\x00\x01" + bytes(6), Request.size)),
    "babbling": (Line(Stage.GREETING, b"HTTP/1.1 400 Bad Request\r\n\r\n", Greeting.size),),
}
SECONDS = st.sampled_from([0.0, 0.1, 0.25, 0.5, 3.0, 29.0, 31.0])
RUNNERS = st.tuples(SECONDS, SECONDS, st.sampled_from([*PARTS, "dead", "lost"]))  # wait, connect, what it is


class Watching:
    """An umpire."""

    def __init__(self, allowance: int) -> None:
        self.allowance = allowance
        self.fates: list[str] = []
        self.winner = ""
        self.started = 0
        self.beside_others = 0

    def ask(self, one: Way, target: Endpoint) -> Steps[Connection]:
        self.beside_others += self.started > len(self.fates)
        self.started += 1
        return chain.connect(one.hops, target, reach=reach, timeout=60.0)

    def may_waste(self) -> bool:
        self.allowance -= 1
        return self.allowance >= 0

    def won(self, one: Way) -> None:
        self.winner = one.name
        self.fates.append(one.name)

    def beaten(self, one: Way) -> None:
        self.fates.append(one.name)

    def failed(self, one: Way, _error: TabiError) -> None:
        self.fates.append(one.name)


def address(number: int) -> IPv4Address:
    return IPv4Address(f"192.0.2.{number}")


def reach(proxy: Endpoint) -> Plan:
    return direct(proxy, permit=lambda _: True, options=DirectOptions(timeout=60.0))


@given(runners=st.lists(RUNNERS, min_size=1, max_size=6), allowance=st.integers(0, 6))
def test_one_connection_is_left_or_none_and_nothing_under_way(
    runners: list[tuple[float, float, str]], allowance: int
) -> None:
    entrants, talk, opened = [], {}, {}
    for number, (wait, connect, kind) in enumerate(runners, 1):
        hop = Hop(Scheme.SOCKS5H, Endpoint(address(number), 1080))
        entrants.append(Entrant(Way(str(number), (hop,)), wait))
        refused = DialError("refused", reply=Reply.CONNECTION_REFUSED)
        opened[address(number)] = (math.inf if kind == "lost" else connect, refused if kind == "dead" else None)
        if kind in PARTS:
            talk[address(number)] = lambda kind=kind: FakeStream(PARTS[kind])
    clock, umpire = FakeClock(), Watching(allowance)
    plan = by_race(entrants, TARGET, (), ask=umpire.ask, permit=lambda _: True, umpire=umpire, timeout=TIMEOUT)
    try:
        connection: Connection | None = clock.run(plan, talk=talk, open=opened)
    except TabiError:
        connection = None
    dialled = [wish.address for _, wish in clock.transcript if isinstance(wish, Open)]
    made = [fact.value for _, fact in clock.transcript if isinstance(fact, Done) and isinstance(fact.value, Connection)]
    closed = [wish.connection.handle for _, wish in clock.transcript if isinstance(wish, Close)]

    assert clock.left == ()
    assert clock.now <= TIMEOUT
    assert len(dialled) == len(set(dialled))  # each way once
    if clock.now < TIMEOUT / len(runners):  # nobody has been silent for its share
        assert umpire.beside_others <= allowance
    assert sorted(umpire.fates) == sorted(str(one).rpartition(".")[2] for one in dialled)  # and heard of once
    kept = [one.handle for one in made if one.handle not in closed]
    assert kept == ([] if connection is None else [connection.handle])
    assert len(closed) == len(set(closed))
    if connection is not None:
        number = int(umpire.winner)
        assert runners[number - 1][2] == "good"
        assert connection.remote == TARGET
    elif clock.now < TIMEOUT:
        assert len(dialled) == len(runners)  # nobody was left out
