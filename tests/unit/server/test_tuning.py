"""What the engine is told of a tunnel's sockets: the rule goes before the server, and what is as always is nothing."""

import pytest

from tabi.config.settings import TunnelSettings
from tabi.policy.verdict import Knobs
from tabi.relay.options import KEEPALIVE_IDLE
from tabi.relay.tuning import Tuning
from tabi.server.tuning import tuning_of

ALL = TunnelSettings(congestion="reno", keepalive=5, send_buffer=4096, receive_buffer=8192, splice=False)


def test_where_nobody_says_anything_the_engine_is_told_nothing() -> None:
    assert tuning_of(Knobs(), TunnelSettings()) is None


def test_what_is_said_and_is_as_always_is_nothing_as_well() -> None:
    usual = Knobs(congestion="auto", keepalive=KEEPALIVE_IDLE, send_buffer=0, receive_buffer=0, splice=True)
    assert tuning_of(usual, TunnelSettings()) is None
    assert tuning_of(usual, ALL) is None


def test_where_a_rule_says_nothing_it_is_as_the_server_has_it() -> None:
    assert tuning_of(Knobs(), ALL) == Tuning("reno", 5, 4096, 8192, splice=False)


@pytest.mark.parametrize(
    ("knobs", "expected"),
    [
        (Knobs(congestion="system"), Tuning("system", 5, 4096, 8192, splice=False)),
        (Knobs(keepalive=0), Tuning("reno", 0, 4096, 8192, splice=False)),
        (Knobs(keepalive=KEEPALIVE_IDLE), Tuning("reno", None, 4096, 8192, splice=False)),
        (Knobs(send_buffer=0), Tuning("reno", 5, 0, 8192, splice=False)),
        (Knobs(receive_buffer=0), Tuning("reno", 5, 4096, 0, splice=False)),
        (Knobs(splice=True), Tuning("reno", 5, 4096, 8192, splice=True)),
    ],
)
def test_a_rule_goes_before_the_server(knobs: Knobs, expected: Tuning) -> None:
    assert tuning_of(knobs, ALL) == expected


def test_flows_that_are_alike_share_one_object() -> None:
    assert tuning_of(Knobs(keepalive=7), ALL) is tuning_of(Knobs(keepalive=7), ALL)
