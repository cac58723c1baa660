"""The policy without a configuration."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from tabi.addr import Endpoint, Host, Name
from tabi.errors import Reply
from tabi.policy.loopback import judge
from tabi.policy.verdict import Context, Request
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

LISTENER = Endpoint(IPv4Address("0.0.0.0"), 1080)
HERE = IPv4Address("127.0.0.1")


def context(client: Host) -> Context:
    return Context(Endpoint(client, 40000), LISTENER, Version.SOCKS5, Method.NONE)


@pytest.mark.parametrize("command", Command)
@pytest.mark.parametrize("client", [HERE, IPv4Address("127.255.0.9"), IPv6Address("::1")])
def test_client_on_this_host_may_do_everything(client: Host, command: Command) -> None:
    verdict = judge(Request(command, Endpoint(Name("example.com"), 80)), context(client))
    assert verdict.allow
    assert not verdict.grants.any_peer
    assert not verdict.grants.full_cone


@pytest.mark.parametrize("command", Command)
@pytest.mark.parametrize(
    "client", [IPv4Address("192.0.2.1"), IPv4Address("0.0.0.0"), IPv6Address("2001:db8::1"), Name("localhost")]
)
def test_client_elsewhere_is_refused_by_ruleset(client: Host, command: Command) -> None:
    verdict = judge(Request(command, Endpoint(HERE, 80)), context(client))
    assert not verdict.allow
    assert verdict.reply is Reply.NOT_ALLOWED


def test_request_knows_the_address_that_would_be_connected_to() -> None:
    named = Endpoint(Name("example.com"), 80)
    assert Request(Command.CONNECT, Endpoint(HERE, 80)).ip == HERE
    assert Request(Command.CONNECT, named).ip is None
    assert Request(Command.CONNECT, named, HERE).ip == HERE
