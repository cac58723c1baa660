"""A time limit around a plan."""

import math
from ipaddress import IPv4Address

import pytest

from tabi.addr import Endpoint
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.wishes import Cancel, Connection, Open, Sleep, Steps, fulfil
from tabi.dial.within import within
from tabi.errors import DialError, DialTimeoutError, Stage
from tabi.testing.clock import FakeClock

HERE = IPv4Address("192.0.2.1")


def plan(timeout: float = 99.0) -> Steps[Connection]:
    return direct(Endpoint(HERE, 80), permit=lambda _: True, options=DirectOptions(timeout=timeout))


def test_a_plan_in_time_gives_what_it_gives_and_leaves_no_timer() -> None:
    clock = FakeClock()
    connection = clock.run(within(plan(), 5), open={HERE: (4.0, None)})
    assert connection.remote == Endpoint(HERE, 80)
    assert clock.now == 4
    assert clock.left == ()


def test_a_plan_that_fails_leaves_no_timer() -> None:
    clock = FakeClock()
    with pytest.raises(DialError, match="no luck"):
        clock.run(within(plan(), 5), open={HERE: (4.0, DialError("no luck"))})
    assert clock.left == ()


def test_a_plan_out_of_time_ends_then_with_nothing_under_way() -> None:
    clock = FakeClock()
    with pytest.raises(DialTimeoutError, match="5 s") as caught:
        clock.run(within(plan(), 5), open={HERE: (math.inf, None)})
    assert clock.now == 5
    assert caught.value.limit == "connect"
    assert clock.left == ()
    opened = [it for _, it in clock.transcript if isinstance(it, Open)]
    assert [it.wish for _, it in clock.transcript if isinstance(it, Cancel) and isinstance(it.wish, Open)] == opened


def test_a_plan_can_say_how_far_it_had_come_and_tidy_up() -> None:
    def told() -> Steps[Connection]:
        try:
            yield from fulfil(Sleep(math.inf))
        except DialTimeoutError as error:
            yield (Sleep(0.5),)
            raise DialTimeoutError("in the greeting", stage=Stage.GREETING) from error
        raise AssertionError

    clock = FakeClock()
    with pytest.raises(DialTimeoutError, match="in the greeting") as caught:
        clock.run(within(told(), 5))
    assert caught.value.stage is Stage.GREETING
    assert clock.now == 5.5


def test_the_shorter_of_two_limits_holds() -> None:
    clock = FakeClock()
    with pytest.raises(DialTimeoutError):
        clock.run(within(plan(timeout=2), 5), open={HERE: (math.inf, None)})
    assert clock.now == 2


@pytest.mark.parametrize(("inner", "outer", "over"), [(5, 9, "inner"), (9, 5, "outer")])
def test_the_innermost_plan_is_told_which_of_two_limits_is_over(inner: float, outer: float, over: str) -> None:
    told: list[str] = []

    def waiting() -> Steps[None]:
        try:
            yield from fulfil(Sleep(math.inf))
        except DialTimeoutError as error:
            told.append(error.limit)
            raise

    clock = FakeClock()
    with pytest.raises(DialTimeoutError) as caught:
        clock.run(within(within(waiting(), inner, "inner"), outer, "outer"))
    assert told == [caught.value.limit] == [over]
    assert clock.now == 5
    assert clock.left == ()
