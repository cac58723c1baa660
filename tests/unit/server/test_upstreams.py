"""Which upstreams rest, and for how long, by a clock that the test moves."""

import logging

import pytest

from tabi.config.upstreams import Upstream
from tabi.errors import DeniedError, DialError, ProxyUnreachableError
from tabi.machine.url import parse_proxies
from tabi.policy.verdict import Grants
from tabi.server.upstreams import Upstreams

VIA = ("a", "b", "c")
GONE = ProxyUnreachableError("it is not there")


class Resting:
    """Three upstreams that rest for ten seconds, and a clock."""

    def __init__(self) -> None:
        self.now = 100.0
        self.draws: list[float] = []
        table = {name: Upstream(name, parse_proxies(f"http://{name}.example"), cool_down=10) for name in VIA}
        self.upstreams = Upstreams(table, clock=lambda: self.now, draw=lambda: self.draws.pop(0))

    def order(self, *via: str) -> str:
        return "".join(way.name for way in self.upstreams.ways(Grants(via=via or VIA), 80))

    def order_by_chance(self, *draws: float) -> str:
        self.draws = [*draws]
        return "".join(way.name for way in self.upstreams.ways(Grants(via=VIA, pick="weight"), 80))

    def fails(self, name: str) -> None:
        self.upstreams.hear(self.upstreams.ways(Grants(via=(name,)), 80)[0], GONE)

    def serves(self, name: str) -> None:
        self.upstreams.hear(self.upstreams.ways(Grants(via=(name,)), 80)[0], None)


def test_order_is_that_of_the_rule() -> None:
    resting = Resting()
    assert resting.order() == "abc"
    assert resting.order("c", "a") == "ca"


def test_what_has_failed_comes_last_until_it_has_rested() -> None:
    resting = Resting()
    resting.fails("a")
    assert resting.order() == "bca"
    resting.now += 9.9
    assert resting.order() == "bca"
    resting.now += 0.2
    assert resting.order() == "abc"


def test_of_those_that_rest_the_most_rested_comes_first() -> None:
    resting = Resting()
    for name in "cab":
        resting.fails(name)
        resting.now += 1
    assert resting.order() == "cab"


def test_what_fails_again_rests_anew_and_what_serves_rests_no_more() -> None:
    resting = Resting()
    resting.fails("a")
    resting.now += 11
    resting.fails("a")
    resting.now += 9
    assert resting.order() == "bca"
    resting.serves("a")
    assert resting.order() == "abc"


def test_order_by_weight_is_drawn_for_each_session_and_what_rests_is_last() -> None:
    resting = Resting()
    assert resting.order_by_chance(0.9, 0.1, 0.5) == "bca"
    assert resting.order_by_chance(0.1, 0.9, 0.5) == "acb"
    resting.fails("a")
    assert resting.order_by_chance(0.1, 0.9, 0.5) == "cba"


def test_draws_are_its_own_where_none_are_given() -> None:
    hops = parse_proxies("http://h.example")
    table = {"a": Upstream("a", hops, weight=0), "b": Upstream("b", hops, weight=1)}
    assert [way.name for way in Upstreams(table).ways(Grants(via=("a", "b"), pick="weight"), 80)] == ["b", "a"]


def test_failure_and_recovery_are_told_once_each(caplog: pytest.LogCaptureFixture) -> None:
    resting = Resting()
    with caplog.at_level(logging.WARNING, "tabi"):
        for _ in range(3):
            resting.fails("a")
            resting.now += 11
        resting.serves("a")
        resting.serves("a")
    assert [record.getMessage() for record in caplog.records] == [
        'upstream "a" has failed, and rests for 10 s at a time: it is not there',
        'upstream "a" serves again',
    ]


def test_upstream_that_is_there_no_more_is_left_out() -> None:
    resting = Resting()
    assert resting.order("a", "x") == "a"
    with pytest.raises(DialError, match="there is no upstream x any more"):
        resting.order("x")


def test_ways_of_a_race_are_ranked_and_what_rests_is_last() -> None:
    resting = Resting()
    grants = Grants(via=("direct", *VIA, "x"), pick="race")

    def order() -> list[str]:
        return [way.name for way in resting.upstreams.racers(grants, 80, lambda ways: ways[::-1])]

    assert order() == ["c", "b", "a", "direct"]
    resting.fails("c")
    assert order() == ["b", "a", "direct", "c"]
    assert resting.upstreams.racers(grants, 80, tuple)[0].hops == ()


def test_upstream_is_asked_only_for_ports_that_it_is_trusted_with() -> None:
    hops = parse_proxies("http://h.example")
    table = {"free": Upstream("free", hops, trust=((443, 443), (8000, 8999))), "own": Upstream("own", hops)}
    upstreams = Upstreams(table)
    both = Grants(via=("free", "own"))
    for port, names in ((443, ["free", "own"]), (8500, ["free", "own"]), (80, ["own"]), (None, ["own"])):
        assert [way.name for way in upstreams.ways(both, port)] == names
    assert [way.name for way in upstreams.racers(Grants(via=("free", "direct")), 80, tuple)] == ["direct"]
    with pytest.raises(DeniedError, match="trusted with port 80: free"):
        upstreams.ways(Grants(via=("free",)), 80)
    with pytest.raises(DeniedError, match="trusted with every port, as this takes: free"):
        upstreams.ways(Grants(via=("free",)), None)


def test_none_is_false() -> None:
    assert not Upstreams()
    assert Resting().upstreams
