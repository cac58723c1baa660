"""The timer wheel: nobody is looked at too early, nobody is forgotten."""

import math

from hypothesis import given
from hypothesis import strategies as st

from tabi.relay._flow import Flow, Side
from tabi.relay._wheel import TICK, Wheel
from tabi.relay.interface import FlowLimits


def make_flow(number: int = 1) -> Flow:
    return Flow(number, Side(-1, b""), Side(-1, b""), FlowLimits(), b"", 0.0)


def test_an_empty_wheel_waits_for_ever() -> None:
    assert Wheel().wait(5.0) == -1


def test_a_flow_is_due_within_a_tick_after_its_time_and_never_before() -> None:
    wheel, flow = Wheel(), make_flow()
    wheel.arm(flow, 13.0, 10.0)
    assert 3.0 <= wheel.wait(10.0) <= 3.0 + TICK
    assert wheel.due({1: flow}, 12.999) == []
    assert wheel.due({1: flow}, 13.0 + TICK) == [flow]
    assert wheel.wait(13.0 + TICK) == -1


def test_a_time_that_has_passed_is_due_at_once() -> None:
    wheel, flow = Wheel(), make_flow()
    wheel.arm(flow, 3.0, 10.0)
    assert wheel.wait(10.0) == 0
    assert wheel.due({1: flow}, 10.0) == [flow]


def test_an_earlier_time_takes_the_place_of_a_later_one() -> None:
    wheel, flow = Wheel(), make_flow()
    wheel.arm(flow, 20.0, 10.0)
    wheel.arm(flow, 12.0, 10.0)
    assert wheel.due({1: flow}, 12.5) == [flow]
    assert wheel.due({1: flow}, 30.0) == []


def test_a_later_time_leaves_the_earlier_look_in_place() -> None:
    wheel, flow = Wheel(), make_flow()
    wheel.arm(flow, 12.0, 10.0)
    wheel.arm(flow, 20.0, 10.0)
    assert wheel.due({1: flow}, 12.5) == [flow]


def test_a_flow_that_is_armed_again_for_the_same_tick_is_due_once() -> None:
    wheel, flow = Wheel(), make_flow()
    for when in (20.0, 12.0):
        wheel.arm(flow, when, 10.0)
    assert wheel.due({1: flow}, 12.5) == [flow]
    wheel.arm(flow, 20.0, 12.5)
    assert wheel.due({1: flow}, 21.0) == [flow]


def test_a_distant_time_is_looked_at_within_a_minute() -> None:
    wheel, flow = Wheel(), make_flow()
    wheel.arm(flow, 1e9, 10.0)
    assert wheel.wait(10.0) <= 60 + TICK


def test_a_flow_that_is_over_is_not_due_and_not_kept() -> None:
    wheel, flow = Wheel(), make_flow()
    wheel.arm(flow, 12.0, 10.0)
    assert wheel.due({}, 13.0) == []
    assert wheel.wait(13.0) == -1


@given(
    st.lists(st.tuples(st.integers(1, 5), st.floats(0, 200)), max_size=30),
    st.lists(st.floats(0, 100), min_size=1, max_size=20),
)
def test_every_look_is_in_time_whatever_was_armed_before(arms: list[tuple[int, float]], steps: list[float]) -> None:
    wheel, flows = Wheel(), {number: make_flow(number) for number in range(1, 6)}
    wanted: dict[int, float] = {}
    for number, when in arms:
        wheel.arm(flows[number], when, 0.0)
        wanted[number] = min(wanted.get(number, math.inf), when)
    now = 0.0
    for step in steps:
        now += step
        for flow in wheel.due(flows, now):
            if wanted[flow.number] > now:
                wheel.arm(flow, wanted[flow.number], now)  # lazily: not yet
            else:
                del wanted[flow.number]
        assert all(when > now - TICK for when in wanted.values())
