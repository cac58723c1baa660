"""A client's and a server's machine joined in memory."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

from tabi.addr import Endpoint
from tabi.errors import Stage
from tabi.machine.base import Failed, Machine, NeedData
from tabi.machine.client import ClientEvent, ClientMachine
from tabi.machine.server import CredentialsReceived, ServerEvent, ServerMachine
from tabi.testing.dribble import Cut, whole
from tabi.wire.socks5 import Command

__all__ = ["Decide", "Pair", "grant"]

E = TypeVar("E")

Decide: TypeAlias = Callable[[ServerMachine, ServerEvent], None]
"""What the server's side answers to an event: calls the machine's decisions."""


def grant(bound: Endpoint, peer: Endpoint | None = None) -> Decide:
    """Make a decider that accepts any credentials and grants any request.

    Args:
        bound: BND of the reply.
        peer: BND of BIND's second reply.
    """

    def decide(machine: ServerMachine, event: ServerEvent) -> None:
        if isinstance(event, CredentialsReceived):
            machine.authenticated()
        elif event.command is Command.BIND:
            machine.listening(bound)
            machine.succeed(peer or bound)
        else:
            machine.succeed(bound)

    return decide


class Pair:
    """Join two machines; what one sends the other receives, cut as wished.

    Args:
        client: fresh, nothing received yet.
        server: fresh as well.
        cut: how the bytes of both directions are cut on their way; see `tabi.testing.dribble`.

    Attributes:
        client_events, server_events: what the machines told, in order.
        client_sent, server_sent: all bytes of each direction, without the payloads.

    >>> from tabi.addr import parse_host
    >>> from tabi.testing.dribble import each_byte
    >>> target, bound = Endpoint(parse_host("example.com"), 80), Endpoint(parse_host("192.0.2.1"), 4321)
    >>> pair = Pair(ClientMachine(Command.CONNECT, target), ServerMachine(), cut=each_byte)
    >>> pair.run(grant(bound), payload=b"GET /", banner=b"220 hello")
    >>> pair.client_events
    [Granted(bound=Endpoint(host=IPv4Address('192.0.2.1'), port=4321))]
    >>> pair.server_sent.hex(" ")
    '05 00 05 00 00 01 c0 00 02 01 10 e1'
    >>> pair.server.take_early(), pair.client.take_early()
    (b'GET /', b'220 hello')
    """

    def __init__(self, client: ClientMachine, server: ServerMachine, *, cut: Cut = whole) -> None:
        self.client = client
        self.server = server
        self.client_events: list[ClientEvent | Failed] = []
        self.server_events: list[ServerEvent | Failed] = []
        self.client_sent: bytes = b""
        self.server_sent: bytes = b""
        self._cut = cut

    def run(self, decide: Decide, *, payload: bytes = b"", banner: bytes = b"") -> None:
        """Carry bytes to and fro until both machines are silent.

        Args:
            decide: called with each event of the server but `Failed`.
            payload: what the client sends right behind its request, before any reply.
            banner: what the server sends right behind its last reply.
        """
        _drain(self.client, self.client_events)
        while True:
            to_server, to_client = self.client.data_to_send(), self.server.data_to_send()
            if not to_server and not to_client:
                return
            self.client_sent += to_server
            self.server_sent += to_client
            if self.client.stage is Stage.REQUEST:
                to_server, payload = to_server + payload, b""
            if self.server.replied:
                to_client, banner = to_client + banner, b""
            for piece in self._cut(to_server):
                self.server.receive_data(piece)
                _drain(self.server, self.server_events, partial(decide, self.server))
            for piece in self._cut(to_client):
                self.client.receive_data(piece)
                _drain(self.client, self.client_events)


def _drain(
    machine: Machine[E], events: list[E | Failed], decide: Callable[[E], None] | None = None
) -> None:
    while not machine.is_over:
        event = machine.next_event()
        if isinstance(event, NeedData):
            return
        events.append(event)
        if decide is not None and not isinstance(event, Failed):
            decide(event)
