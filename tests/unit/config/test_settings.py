"""Settings refuse what cannot be used, and say what can."""

import pytest

from tabi.addr import Endpoint
from tabi.config.settings import DEFAULT_LISTEN, BindSettings, Caps, Settings, TimeLimits, UdpSettings
from tabi.errors import ConfigError


def test_defaults_are_those_that_the_documents_name() -> None:
    limits = TimeLimits()
    assert (limits.handshake, limits.connect, limits.bind, limits.idle) == (10, 30, 120, 0)
    assert (limits.half_open, limits.udp_idle, limits.drain, limits.resolve) == (600, 300, 2, 5)
    assert (Endpoint.parse("127.0.0.1:1080"), Endpoint.parse("[::1]:1080")) == DEFAULT_LISTEN


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: TimeLimits(connect=121), "time.connect is 121; accepted are 0.1 to 120"),
        (lambda: TimeLimits(udp_idle=119), "time.udp_idle is 119; accepted are 120 to 1e+09"),
        (lambda: TimeLimits(handshake=0), "time.handshake is 0; accepted are 0.1 to 600"),
        (lambda: TimeLimits(drain=-1), "time.drain is -1; accepted are 0 to 3600"),
        (lambda: TimeLimits(idle=float("nan")), "time.idle is nan; accepted are 0 to 1e+09"),
        (lambda: Caps(connections=0), "cap.connections is 0; accepted are 1 to 1.07374e+09"),
        (lambda: Caps(per_client=-1), "cap.per_client is -1; accepted are 1 to 1.07374e+09"),
        (lambda: Caps(handshakes_per_client=0), "cap.handshakes_per_client is 0; accepted are 1 to 1.07374e+09"),
        (lambda: BindSettings(ports=(2000, 1000)), "bind.ports is 2000-1000; accepted is FIRST-LAST within 1 to 65535"),
        (lambda: UdpSettings(ports=(0, 10)), "udp.ports is 0-10; accepted is FIRST-LAST within 1 to 65535"),
        (lambda: UdpSettings(shared_port=70000), "udp.shared_port is 70000; accepted are 1 to 65535"),
        (
            lambda: UdpSettings(shared_port=5000, ports=(1, 2)),
            "udp.shared_port and udp.ports exclude each other; keep one of them",
        ),
        (lambda: Settings(listen=()), "listen is empty; name at least one HOST:PORT"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_what_is_accepted(make: object, text: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == text
