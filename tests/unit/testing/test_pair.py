"""Two machines joined in memory."""

from ipaddress import IPv4Address

import pytest

from tabi.addr import Endpoint, Name
from tabi.errors import AuthError, DialError, Reply, UsageError
from tabi.machine.base import Failed
from tabi.machine.client import Accepted, ClientMachine, ClientOptions, Granted
from tabi.machine.server import CredentialsReceived, RequestReceived, ServerEvent, ServerMachine, ServerOptions
from tabi.testing import Pair, each_byte, grant, random_cuts, whole
from tabi.wire.socks5 import Command, Method

TARGET = Endpoint(Name("example.com"), 80)
BOUND = Endpoint(IPv4Address("203.0.113.9"), 1080)
PEER = Endpoint(IPv4Address("192.0.2.1"), 20)
CUTS = pytest.mark.parametrize("cut", [whole, each_byte, random_cuts(1)])
PASSWORDS = ServerOptions(methods=frozenset({Method.USERPASS}))
LOGIN = ClientOptions(username=b"alice", password=b"sesame")


@CUTS
def test_payload_and_banner_come_out_behind_the_handshake(cut: object) -> None:
    pair = Pair(ClientMachine(Command.CONNECT, TARGET, LOGIN), ServerMachine(PASSWORDS), cut=cut)
    pair.run(grant(BOUND), payload=b"GET /", banner=b"220 hello")
    assert pair.client_events == [Granted(BOUND)]
    assert [type(event) for event in pair.server_events] == [CredentialsReceived, RequestReceived]
    assert (pair.server.take_early(), pair.client.take_early()) == (b"GET /", b"220 hello")
    # RFC 1928 sections 3 and 4, RFC 1929 section 2: greeting, login, request; selection, status, reply
    assert pair.client_sent == (
        b"\x05\x02\x00\x02" + b"\x01\x05alice\x06sesame" + b"\x05\x01\x00\x03\x0bexample.com\x00\x50"
    )
    assert pair.server_sent == bytes.fromhex("05 02 01 00 05 00 00 01 cb 00 71 09 04 38")


@CUTS
def test_bind_is_accepted_by_the_peer(cut: object) -> None:
    pair = Pair(ClientMachine(Command.BIND, PEER), ServerMachine(), cut=cut)
    pair.run(grant(BOUND, PEER))
    assert pair.client_events == [Granted(BOUND), Accepted(PEER)]


@CUTS
def test_decider_may_refuse(cut: object) -> None:
    def refuse(machine: ServerMachine, event: ServerEvent) -> None:
        if isinstance(event, CredentialsReceived):
            machine.authenticated()
        else:
            machine.fail(Reply.CONNECTION_REFUSED)

    pair = Pair(ClientMachine(Command.CONNECT, TARGET, LOGIN), ServerMachine(PASSWORDS), cut=cut)
    pair.run(refuse)
    [failed] = pair.client_events
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, DialError)
    assert failed.error.reply is Reply.CONNECTION_REFUSED


def test_both_sides_tell_that_no_method_will_do() -> None:
    pair = Pair(ClientMachine(Command.CONNECT, TARGET), ServerMachine(PASSWORDS))
    pair.run(grant(BOUND))
    for [failed] in (pair.client_events, pair.server_events):
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, AuthError)


def test_decider_that_decides_nothing_is_an_error() -> None:
    pair = Pair(ClientMachine(Command.CONNECT, TARGET, LOGIN), ServerMachine(PASSWORDS))
    with pytest.raises(UsageError, match="decide first"):
        pair.run(lambda _machine, _event: None)
