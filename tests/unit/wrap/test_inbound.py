"""Whom a program may see come in."""

import pytest

from tabi.addr import Endpoint
from tabi.wrap.inbound import _can_be_shown


@pytest.mark.parametrize(
    ("peer", "can"),
    [
        ("203.0.113.7:5", True),
        ("[2001:db8::7]:5", True),
        ("[64:ff9b::203.0.113.7]:5", True),
        ("name.example:5", False),
        ("127.0.0.1:5", False),
        ("[::1]:5", False),
        ("0.0.0.0:5", False),
        ("224.0.0.1:5", False),
        ("255.255.255.255:5", False),
        ("240.0.0.1:5", False),
        ("[fe80::1]:5", False),
    ],
)
def test_an_address_that_a_packet_may_come_from_is_shown(peer: str, can: bool) -> None:
    assert _can_be_shown(Endpoint.parse(peer)) == can
