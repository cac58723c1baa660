"""The lane against its oracle, the sans-IO machine: same bytes, any cuts, same answers, same bytes for the target.

What the lane hands over is played on by a fresh machine, as a session does it. The oracle reads everything at once.
"""

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.socks import read_exactly, request4, request5
from loop.engine_helpers import until
from loop.lane_helpers import LANES, LOGIN, Lane, opened, permit
from tabi.addr import Endpoint, Name
from tabi.errors import Reply
from tabi.machine.base import Failed, NeedData
from tabi.machine.server import CredentialsReceived, RequestReceived, ServerMachine, ServerOptions
from tabi.relay.lane import NONE, PASSWORD, Ask, Handover
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version


@dataclass
class World:
    """A lane, and the one target that clients may reach; by address, or as localhost."""

    lane: Lane
    listener: socket.socket

    @property
    def target(self) -> tuple[str, int]:
        """Where it is."""
        host, port = self.listener.getsockname()
        return host, port

    def allows(self, event: RequestReceived) -> bool:
        """Be the policy."""
        known = event.target.host == Name("localhost") or str(event.target.host) == self.target[0]
        return event.command is Command.CONNECT and known and event.target.port == self.target[1]


@dataclass
class Played:
    """What a client is answered; `relayed` is what the target gets first, None where it never comes to that."""

    out: bytes
    relayed: bytes | None = None
    by_lane: bool = False


@pytest.fixture(params=LANES)
def build(request: pytest.FixtureRequest) -> str:
    """Name each build that has a lane."""
    return str(request.param)


@pytest.fixture
def world(build: str) -> Iterator[World]:
    """Open a lane for many examples."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener, opened(build) as lane:
        listener.settimeout(20)
        yield World(lane, listener)


def play(machine: ServerMachine, data: bytes, world: World, bound: Endpoint, *, vouched: bool = False) -> Played:
    """Do what a session does with these bytes."""
    machine.receive_data(data)
    while True:
        event = machine.next_event()
        if isinstance(event, CredentialsReceived):
            if vouched or (event.username, event.password) == (b"alice", b"secret"):
                machine.authenticated()
            else:
                machine.refuse_credentials()
        elif isinstance(event, RequestReceived) and world.allows(event):
            machine.succeed(bound, Endpoint.from_sockaddr(world.target))
            return Played(machine.data_to_send(), machine.take_early())
        else:
            if isinstance(event, RequestReceived):
                machine.fail(Reply.NOT_ALLOWED)
            assert isinstance(event, RequestReceived | Failed | NeedData)
            return Played(machine.data_to_send())


def read(message: bytes) -> RequestReceived | None:
    """Read a request that the lane asks about."""
    machine = ServerMachine(ServerOptions(methods=frozenset({Method.NONE}), socks4=True))
    machine.receive_data(message if message[:1] == b"\x04" else b"\x05\x01\x00" + message)
    event = machine.next_event()
    return event if isinstance(event, RequestReceived) else None


def through(world: World, client: socket.socket, pieces: list[bytes], options: ServerOptions) -> Played:
    """Send the pieces, each seen on its own, and do what the control plane would."""
    lane, sent = world.lane, b""
    for piece in pieces:
        client.sendall(piece)
        sent += piece
        while not lane.is_quiet():
            call = lane.waiting.pop(0)
            if isinstance(call, Ask):
                event = read(call.message)
                allowed = event is not None and world.allows(event)
                shown = event is not None and event.version is Version.SOCKS4A
                lane.engine.answer(call.arrival, permit(world.target, shows_target=shown) if allowed else None)
                continue
            assert isinstance(call, Handover)
            return played_on(world, client, call, b"".join(pieces), options)
        if lane.engine.snapshot():
            return relayed(world, client, b"".join(pieces)[len(sent) :])
    lane.engine.call_in()
    (call,) = lane.calls()
    assert isinstance(call, Handover)
    return played_on(world, client, call, b"".join(pieces), options)


def played_on(world: World, client: socket.socket, call: Handover, data: bytes, options: ServerOptions) -> Played:
    """Take over from the lane."""
    world.lane.take(call.fd).close()
    assert data.startswith(call.received)
    machine = ServerMachine(options)
    machine.skip_sent(call.sent)
    rest = play(machine, data, world, Endpoint.parse("127.0.0.1:1"), vouched=call.user is not None)
    return Played(read_exactly(client, call.sent) + rest.out, rest.relayed)


def relayed(world: World, client: socket.socket, rest: bytes) -> Played:
    """See what comes out at both ends of the tunnel."""
    client.sendall(rest)
    client.shutdown(socket.SHUT_WR)
    there, (host, port) = world.listener.accept()
    with there:
        there.settimeout(20)
        early = b"".join(iter(lambda: there.recv(4096), b""))
    out = b"".join(iter(lambda: client.recv(4096), b""))
    world.lane.next_end()
    return Played(out.replace(Endpoint.parse(f"{host}:{port}").port.to_bytes(2, "big"), b"\0\1"), early, by_lane=True)


GOOD_HOSTS = ["127.0.0.1", b"localhost", b"LOCALHOST.", b"127.0.0.1"]
BAD_LOGINS = [LOGIN[:-1] + b"X", b"\x01\0\0", b"\x02" + LOGIN[1:]]
HOSTS = [*GOOD_HOSTS, "::1", b"127.1", "0.0.0.0", b"\xff", b""]


@st.composite
def handshakes(draw: st.DrawFn, port: int, offer: int) -> list[bytes]:
    """Draw the messages of a client: two of three times such as a server of this offer would serve."""
    is_good = draw(st.integers(0, 2)) > 0
    to = port if is_good else draw(st.sampled_from([port, 0, 9]))
    command = 1 if is_good else draw(st.sampled_from([1, 2, 3, 9]))
    if draw(st.integers(0, 3)) == 0:
        if draw(st.booleans()):
            return [request4(command, "127.0.0.1" if is_good else "0.0.0.0", to, b"me")]
        return [request4(command, "0.0.0.7", to, b"me", draw(st.sampled_from([b"localhost", b"127.0.0.1"])))]
    methods = draw(st.lists(st.sampled_from([0, 2, 1, 255]), max_size=4))
    if is_good:
        methods += [0] if offer & NONE else [2]
    messages = [bytes((5, len(methods), *methods))]
    if offer & PASSWORD and 2 in methods:
        messages.append(LOGIN if is_good else draw(st.sampled_from(BAD_LOGINS)))
    host = draw(st.sampled_from(GOOD_HOSTS if is_good else HOSTS))
    return [*messages, request5(command, host, to)]


@st.composite
def streams(draw: st.DrawFn, port: int, offer: int) -> list[bytes]:
    """Draw what a client sends, in pieces: often a message each, with something behind the last, sometimes damaged."""
    pieces = [*draw(handshakes(port, offer)), draw(st.sampled_from([b"", b"early", bytes(5000)]))]
    data = b"".join(pieces)
    how = draw(st.sampled_from(["whole", "messages", "messages", "anywhere", "cut", "byte"]))
    at = draw(st.integers(0, min(len(data), 60) - 1))
    if how == "messages":
        return [piece for piece in pieces if piece]
    if how == "cut":
        return [data[:at]] if at else []
    if how == "byte":
        data = data[:at] + bytes((draw(st.integers(0, 255)),)) + data[at + 1 :]
    cuts = draw(st.sets(st.integers(1, min(len(data), 40)), max_size=4)) if how == "anywhere" else set()
    return [data[begin:end] for begin, end in pairwise(sorted(cuts | {0, len(data)})) if begin < end]


OFFERS = {
    NONE: frozenset({Method.NONE}),
    PASSWORD: frozenset({Method.USERPASS}),
    NONE | PASSWORD: frozenset({Method.NONE, Method.USERPASS}),
}


def test_the_lane_answers_as_the_machine_does(world: World) -> None:
    how = {"by the lane": 0, "relayed": 0, "refused": 0}

    @settings(max_examples=400)
    @given(st.data(), st.sampled_from(sorted(OFFERS)), st.booleans(), st.booleans())
    def run(data: st.DataObject, offer: int, socks4: bool, is_known: bool) -> None:
        pieces = data.draw(streams(world.target[1], offer))
        options = ServerOptions(methods=OFFERS[offer], socks4=socks4)
        door = world.lane.door(offer, socks4=socks4)
        if is_known:
            world.lane.teach_pass(door)
        before = world.lane.counts()[0]
        with world.lane.client() as client:
            until(lambda: world.lane.counts()[0] > before, "the accept")
            seen = through(world, client, pieces, options)
        expected = play(ServerMachine(options), b"".join(pieces), world, Endpoint.parse("127.0.0.1:1"))
        assert (seen.out, seen.relayed) == (expected.out, expected.relayed)
        how["by the lane" if seen.by_lane else "relayed" if seen.relayed is not None else "refused"] += 1

    run()
    assert min(how.values()) > 10, how
