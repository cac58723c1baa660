"""Which of several ways is tried first, and which next where it has failed: by chance, as their weights say."""

from collections.abc import Callable, Iterable
from math import inf, log

from tabi.dial.ways import Way

__all__ = ["by_weight"]


def by_weight(ways: Iterable[Way], draw: Callable[[], float]) -> tuple[Way, ...]:
    """Put `ways` into an order by chance.

    The first is each of them as often as its weight has a share in all weights, the second likewise among those that
    are left, and so on (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006: the shortest of
    waiting times whose rates are the weights). Those that weigh nothing come last, in their order.

    Args:
        ways: in the order of the rule.
        draw: gives a random number from 0 to below 1, called once for each way that weighs something.
    """
    return tuple(sorted(ways, key=lambda way: -log(1 - draw()) / way.weight if way.weight else inf))
