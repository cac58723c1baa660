"""Which relay is believed (a hostile proxy could send its clients' datagrams anywhere)."""

import pytest

from tabi.addr import Endpoint, parse_host
from tabi.dial.relay import relay_endpoint
from tabi.errors import ProtocolError, Side, Stage


@pytest.mark.parametrize(
    ("told", "proxy", "allowed", "expected"),
    [
        ("192.0.2.1:9", "192.0.2.1", "", "192.0.2.1:9"),
        ("0.0.0.0:9", "192.0.2.1", "", "192.0.2.1:9"),
        ("[::]:9", "192.0.2.1", "", "192.0.2.1:9"),
        ("[::]:9", "2001:db8::1", "", "[2001:db8::1]:9"),
        ("192.0.2.77:9", "192.0.2.1", "", "192.0.2.77:9"),  # a neighbour
        ("192.0.3.1:9", "192.0.2.1", "", "192.0.2.1:9"),
        ("127.0.0.1:9", "192.0.2.1", "", "192.0.2.1:9"),  # our own host, to which only we can send
        ("10.0.0.1:9", "192.0.2.1", "", "192.0.2.1:9"),
        ("10.0.0.1:9", "192.0.2.1", "10.0.0.1", "10.0.0.1:9"),
        ("[2001:db8::99]:9", "2001:db8::1", "", "[2001:db8::99]:9"),
        ("[2001:db8:0:1::1]:9", "2001:db8::1", "", "[2001:db8::1]:9"),
        ("[2001:db8::1]:9", "192.0.2.1", "", "192.0.2.1:9"),
        ("[2001:db8::1]:9", "192.0.2.1", "2001:db8::1", "[2001:db8::1]:9"),
        ("relay.example:9", "192.0.2.1", "", "192.0.2.1:9"),
        ("192.0.2.1:9", "proxy.example", "", "proxy.example:9"),
        ("192.0.2.1:9", "proxy.example", "192.0.2.1", "192.0.2.1:9"),
    ],
)
def test_a_relay_is_the_proxys_own_a_neighbour_or_allowed(told: str, proxy: str, allowed: str, expected: str) -> None:
    relay = relay_endpoint(Endpoint.parse(told), parse_host(proxy), lambda address: str(address) == allowed)
    assert str(relay) == expected


def test_port_0_is_no_relay() -> None:
    with pytest.raises(ProtocolError) as caught:
        relay_endpoint(Endpoint.parse("192.0.2.1:0"), parse_host("192.0.2.1"), lambda _: False)
    assert (caught.value.side, caught.value.stage) == (Side.OUTBOUND, Stage.ASSOCIATE)
