"""The addresses of a name, all families together."""

import math
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from tabi.addr import Name
from tabi.dial.lookup import RESOLUTION_DELAY, look_up
from tabi.dial.within import within
from tabi.errors import DialError, DialTimeoutError, NameUnknownError, Reply, Stage
from tabi.testing.clock import FakeClock

NAME = Name("target.example")
V4 = tuple(IPv4Address(f"192.0.2.{n}") for n in (1, 2, 3))
V6 = tuple(IPv6Address(f"2001:db8::{n}") for n in (1, 2))
NO_NAME = DialError("no such name", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE, retryable=False)
SILENT = DialError("the name servers fail", stage=Stage.RESOLVE)


def looked_up(clock: FakeClock, *, aaaa=(0.0, ()), a=(0.0, ()), families=(6, 4)):
    return clock.run(look_up(NAME, families), resolve={(NAME, 6): aaaa, (NAME, 4): a})


def test_families_take_turns_and_the_first_asked_goes_first() -> None:
    clock = FakeClock()
    assert looked_up(clock, aaaa=(0.0, V6), a=(0.0, V4)) == (V6[0], V4[0], V6[1], V4[1], V4[2])
    assert looked_up(clock, aaaa=(0.0, V6), a=(0.0, V4), families=(4, 6))[:2] == (V4[0], V6[0])
    assert clock.left == ()


def test_only_the_families_that_were_asked_for_are_looked_up() -> None:
    clock = FakeClock()
    assert clock.run(look_up(NAME, (4,)), resolve={(NAME, 4): (0.0, V4)}) == V4


def test_a_silent_family_is_not_waited_for_longer_than_the_delay() -> None:
    clock = FakeClock()
    assert looked_up(clock, aaaa=(math.inf, ()), a=(1.0, V4)) == V4
    assert clock.now == 1.0 + RESOLUTION_DELAY
    assert clock.left == ()


def test_an_empty_answer_starts_no_delay() -> None:
    clock = FakeClock()
    assert looked_up(clock, aaaa=(0.0, ()), a=(3.0, V4)) == V4
    assert looked_up(clock, aaaa=(0.0, SILENT), a=(3.0, V4)) == V4


def test_mapped_addresses_are_ipv4_and_unspecified_ones_are_none() -> None:
    clock = FakeClock()
    odd = (ip_address("::ffff:192.0.2.1"), ip_address("::"))
    assert looked_up(clock, aaaa=(0.0, odd), a=(0.0, (ip_address("0.0.0.0"), V4[0]))) == (V4[0],)


@pytest.mark.parametrize(
    ("aaaa", "a", "kind"),
    [
        ((), (), NameUnknownError),
        (NO_NAME, NO_NAME, NameUnknownError),
        (NO_NAME, (), NameUnknownError),
        (SILENT, NO_NAME, DialError),
    ],
)
def test_no_address_is_told_apart_from_a_failure_to_ask(aaaa: object, a: object, kind: type[DialError]) -> None:
    clock = FakeClock()
    with pytest.raises(DialError) as caught:
        looked_up(clock, aaaa=(0.0, aaaa), a=(0.1, a))
    assert type(caught.value) is kind
    assert caught.value.stage is Stage.RESOLVE


def test_a_look_up_out_of_time_says_so() -> None:
    clock = FakeClock()
    with pytest.raises(DialTimeoutError, match=r"look-up of target\.example") as caught:
        clock.run(within(look_up(NAME, (6, 4)), 5), resolve=dict.fromkeys([(NAME, 6), (NAME, 4)], (math.inf, ())))
    assert caught.value.stage is Stage.RESOLVE
    assert caught.value.limit == "connect"
    assert clock.left == ()
