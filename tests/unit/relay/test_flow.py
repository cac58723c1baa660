"""What a flow says about itself: its next deadline, and who ended it."""

import errno
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.relay._flow import Flow, Linger, Side
from tabi.relay.interface import Cause, Closer, FlowLimits

seconds = st.one_of(st.just(0.0), st.floats(0.001, 1e6))


def make_flow(limits: FlowLimits = FlowLimits()) -> Flow:  # noqa: B008 - a tuple
    return Flow(1, Side(-1, b""), Side(-1, b""), limits, b"", 100.0)


def test_without_limits_there_is_no_deadline() -> None:
    assert make_flow(FlowLimits(0, 0, 0)).deadline() is None


def test_the_default_limits_begin_with_a_fin() -> None:
    flow = make_flow()
    assert flow.deadline() is None
    flow.fin_from, flow.fin_time = flow.inbound, 130.0
    assert flow.deadline() == (730.0, Cause.HALF_OPEN)
    flow.last = 200.0
    assert flow.deadline() == (800.0, Cause.HALF_OPEN)


@given(seconds, seconds, seconds, st.floats(0, 1e6), st.none() | st.floats(0, 1e6))
def test_the_nearest_limit_counts(
    idle: float, half_open: float, lifetime: float, last: float, fin: float | None
) -> None:
    flow = make_flow(FlowLimits(idle, half_open, lifetime))
    flow.last = 100.0 + last
    if fin is not None:
        flow.fin_from, flow.fin_time = flow.outbound, 100.0 + fin
    times = {
        Cause.IDLE: flow.last + idle if idle else math.inf,
        Cause.LIFETIME: 100.0 + lifetime if lifetime else math.inf,
        Cause.HALF_OPEN: (max(flow.last, 100.0 + fin) + half_open if half_open and fin is not None else math.inf),
    }
    deadline = flow.deadline()
    if deadline is None:
        assert set(times.values()) == {math.inf}
    else:
        assert deadline[0] == min(times.values()) == times[deadline[1]]


@pytest.mark.parametrize("closer", [Closer.CLIENT, Closer.TARGET])
@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errno.ECONNRESET, Cause.RST),
        (errno.EPIPE, Cause.RST),  # SO_ERROR of a reset after a FIN
        (errno.ENOTCONN, Cause.RST),  # shutdown() after the reset has been told
        (errno.ETIMEDOUT, Cause.ERROR),
        (errno.EHOSTUNREACH, Cause.ERROR),
        (errno.ENETUNREACH, Cause.ERROR),
    ],
)
def test_the_broken_side_is_the_closer_and_its_errno_the_cause(closer: Closer, error: int, cause: Cause) -> None:
    flow = make_flow()
    flow.fin_from = flow.inbound
    side = (flow.inbound, flow.outbound)[closer]
    side.fail(OSError(error, "x"))
    side.fail(OSError(errno.EIO, "later errors do not count"))
    flow.linger = Linger(side, 0, 100.0)
    assert flow.verdict() == (closer, cause, error)


@pytest.mark.parametrize("closer", [Closer.CLIENT, Closer.TARGET])
def test_the_closer_of_an_orderly_end_is_whose_fin_came_first(closer: Closer) -> None:
    flow = make_flow()
    flow.fin_from = (flow.inbound, flow.outbound)[closer]
    assert flow.verdict() == (closer, Cause.FIN, 0)
