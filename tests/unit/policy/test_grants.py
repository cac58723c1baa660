"""Which way a session goes by what a rule grants: only CONNECT races, and the direct way belongs to races."""

import pytest

from tabi.policy.verdict import Grants
from tabi.wire.socks5 import Command


@pytest.mark.parametrize(
    ("via", "others"),
    [
        ((), ()),
        (("office", "tor"), ("office", "tor")),
        (("office", "direct", "tor"), ("office", "tor")),
        (("direct", "office"), ()),
    ],
)
def test_connect_takes_what_is_written_and_the_others_only_upstreams(
    via: tuple[str, ...], others: tuple[str, ...]
) -> None:
    grants = Grants(via=via)
    assert grants.way(Command.CONNECT) == via
    assert grants.way(Command.BIND) == grants.way(Command.UDP_ASSOCIATE) == grants.upstreams == others
