"""The order in which ways are tried."""

import random
from collections import Counter
from ipaddress import IPv4Address

import pytest

from tabi.addr import Endpoint
from tabi.dial.picking import by_weight
from tabi.dial.ways import Way
from tabi.machine.hop import Hop, Scheme


def ways(**weights: int) -> list[Way]:
    hops = (Hop(Scheme.SOCKS5, Endpoint(IPv4Address("192.0.2.1"), 1080)),)
    return [Way(name, hops, weight) for name, weight in weights.items()]


@pytest.mark.parametrize("seed", range(4))
def test_each_is_first_as_often_as_its_weight_says(seed: int) -> None:
    draw = random.Random(seed).random
    orders = [by_weight(ways(a=1, b=3, c=6), draw) for _ in range(2000)]
    first = Counter(order[0].name for order in orders)
    second = Counter(order[1].name for order in orders if order[0].name == "c")
    assert [round(first[name] / 2000, 1) for name in "abc"] == [0.1, 0.3, 0.6]
    assert 0.7 < second["b"] / second.total() < 0.8  # of a and b, 3 in 4


def test_draws_decide_and_nothing_else() -> None:
    orders = [by_weight(ways(a=1, b=1), iter(draws).__next__) for draws in ((0.2, 0.4), (0.4, 0.2), (0.0, 0.999))]
    assert ["".join(way.name for way in order) for order in orders] == ["ab", "ba", "ab"]


@pytest.mark.parametrize("draw", [0.0, 0.5, 0.999_999])
def test_what_weighs_nothing_comes_last_in_its_order(draw: float) -> None:
    order = by_weight(ways(spare=0, office=1, last=0), lambda: draw)
    assert [way.name for way in order] == ["office", "spare", "last"]
