"""The fake clock itself: it keeps the order of time, honours cancellation and refuses what it was not told."""

import math
from ipaddress import IPv4Address

import pytest

from tabi.addr import Endpoint, Name
from tabi.dial.wishes import Cancel, Connection, Done, Failed, Open, Plan, Read, Resolve, Sleep
from tabi.errors import DialError, UsageError
from tabi.testing.clock import FakeClock

HERE = IPv4Address("192.0.2.1")
NAME = Name("target.example")


def opened(*wishes: Open | Sleep | Resolve | Cancel) -> Plan:
    """Wish for all, then take facts until a connection comes."""
    fact = yield wishes
    while not (isinstance(fact, Done) and isinstance(fact.value, Connection)):
        fact = yield ()
    return fact.value


def test_facts_come_in_the_order_of_time_then_of_their_wishes() -> None:
    clock = FakeClock()
    long, short, equal = Sleep(2), Sleep(1), Sleep(1)
    clock.run(opened(long, short, equal, Open(HERE, 80)), open={HERE: (3, None)})
    facts = [(at, it.wish) for at, it in clock.transcript if isinstance(it, Done)]
    assert facts[:3] == [(1, short), (1, equal), (2, long)]
    assert clock.now == 3


def test_a_connection_has_the_ends_that_were_asked_for() -> None:
    connection = FakeClock().run(opened(Open(HERE, 80)), open={HERE: (0, None)})
    assert connection.remote == Endpoint(HERE, 80)
    assert connection.local.host == IPv4Address("127.0.0.1")


def test_a_cancelled_wish_has_no_fact() -> None:
    clock = FakeClock()
    sleep = Sleep(1)
    clock.run(opened(sleep, Cancel(sleep), Open(HERE, 80)), open={HERE: (3, None)})
    assert [it.wish for _, it in clock.transcript if isinstance(it, Done)] != [sleep]
    assert len([it for _, it in clock.transcript if isinstance(it, Done)]) == 1


def test_what_a_plan_leaves_under_way_is_told() -> None:
    clock = FakeClock()
    sleep = Sleep(9)
    clock.run(opened(sleep, Open(HERE, 80)), open={HERE: (0, None)})
    assert clock.left == (sleep,)


def test_scripted_errors_are_facts() -> None:
    clock = FakeClock()
    error = DialError("no")
    clock.run(
        opened(Resolve(NAME, 4), Open(HERE, 80)), resolve={(NAME, 4): (1, error)}, open={HERE: (2, None)}
    )
    assert [it.error for _, it in clock.transcript if isinstance(it, Failed)] == [error]


def test_the_clock_goes_on_over_two_runs() -> None:
    clock = FakeClock()
    clock.run(opened(Open(HERE, 80)), open={HERE: (1, None)})
    clock.run(opened(Open(HERE, 80)), open={HERE: (1, None)})
    assert clock.now == 2


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        (Open(HERE, 80), "no script tells"),
        (Resolve(NAME, 6), "no script tells"),
        (Read(Connection(None, Endpoint(HERE, 1), Endpoint(HERE, 2)), 1), "no streams"),
    ],
)
def test_a_wish_without_a_script_is_a_mistake_of_the_test(wish: object, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        FakeClock().run(opened(wish))


def test_waiting_for_nothing_is_an_error_and_no_hang() -> None:
    with pytest.raises(UsageError, match="will ever come"):
        FakeClock().run(opened(Open(HERE, 80)), open={HERE: (math.inf, None)})
