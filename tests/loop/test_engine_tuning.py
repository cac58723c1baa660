"""The sockets of a flow are used as its tuning says from its beginning: in both builds, with the lane and without."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from helpers.socks import read_exactly, read_reply5
from helpers.targets import target
from helpers.tcp_table import socket_between
from loop.engine_helpers import (
    FOREVER,
    NOT_BUILT,
    CompiledEngine,
    connected,
    next_end,
    pipes_held,
    running,
    tunnel,
)
from loop.lane_helpers import GREETING, connect5, opened, permit
from tabi.relay.lane import Ask
from tabi.relay.options import KEEPALIVE_COUNT, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, prepare
from tabi.relay.tuning import Tuning

pytestmark = pytest.mark.usefixtures("nothing_left")

SIZE = 64 << 10  # bytes, which every kernel grants


class Options(NamedTuple):
    """What the kernel says of a socket."""

    congestion: str
    keepalive: tuple[bool, int, int, int]
    send_buffer: int
    receive_buffer: int

    @classmethod
    def of(cls, sock: socket.socket) -> "Options":
        tcp = [
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        ]
        return cls(
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode(),
            (bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)), tcp[0], tcp[1], tcp[2]),
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF),
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF),
        )


@contextmanager
def adopted(build: str, tuning: Tuning | None) -> Iterator[list[socket.socket]]:
    """Have a flow adopted that is prepared as the server does it; give duplicates of its sockets once it relays."""
    legs: list[socket.socket] = []

    def keep(*sides: socket.socket) -> None:
        for side in sides:
            prepare(side)
        legs.extend(side.dup() for side in sides)

    with running(build) as engine:
        with tunnel(engine, prepare=keep, tuning=tuning) as pair:
            pair.client.sendall(b"up")
            assert read_exactly(pair.target, 2) == b"up"
            yield legs
            for leg in legs:
                leg.close()
        next_end(engine)


@contextmanager
def through_lane(build: str, tuning: Tuning | None) -> Iterator[list[socket.socket]]:
    """Have the express lane make a flow; give duplicates of its sockets once it relays."""
    accepted: list[socket.socket] = []

    def echo(sock: socket.socket) -> None:
        accepted.append(sock)
        while data := sock.recv(100):
            sock.sendall(data)

    with opened(build) as lane, target(echo) as there:
        prepare(lane.listener)
        lane.door()
        with lane.client(GREETING + connect5(there)) as client:
            assert read_exactly(client, 2) == b"\x05\x00"
            lane.engine.answer(lane.next(Ask).arrival, permit(there, tuning=tuning))
            assert read_reply5(client)[0] == 0
            client.sendall(b"up")
            assert read_exactly(client, 2) == b"up"
            ends = [(lane.address, client.getsockname()), (accepted[0].getpeername(), there)]
            legs = [socket_between(*both) for both in ends]
            yield legs
            for leg in legs:
                leg.close()
        lane.next_end()


WAYS = {"adopted": adopted, "lane": through_lane}


@pytest.fixture(params=sorted(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    """Name each way in which a flow begins."""
    return str(request.param)


def options_of(build: str, way: str, tuning: Tuning | None) -> list[Options]:
    """Say what both sockets of a flow are like that has this tuning."""
    with WAYS[way](build, tuning) as legs:
        return [Options.of(leg) for leg in legs]


@pytest.fixture
def plain(build: str, way: str) -> list[Options]:
    """Say what they are like without any."""
    return options_of(build, way, None)


def test_without_a_tuning_they_are_as_they_were_prepared(plain: list[Options]) -> None:
    prepared = (True, KEEPALIVE_IDLE, KEEPALIVE_INTERVAL, KEEPALIVE_COUNT)
    assert [one.keepalive for one in plain] == [prepared] * 2


def test_a_congestion_control_is_seen_at_both_sockets(build: str, way: str, plain: list[Options]) -> None:
    if plain[0].congestion == "reno":
        pytest.skip("reno is the default here, so nobody would see it set")
    assert [one.congestion for one in options_of(build, way, Tuning(congestion="reno"))] == ["reno"] * 2


def test_each_knob_is_seen_at_both_sockets_and_nothing_else_is(build: str, way: str, plain: list[Options]) -> None:
    keepalive = plain[0].keepalive
    silent = (False, *keepalive[1:])
    cases: list[tuple[Tuning, dict[str, object]]] = [
        (Tuning(congestion="reno"), {"congestion": "reno"}),
        (Tuning(keepalive=0), {"keepalive": silent}),
        (Tuning(keepalive=77), {"keepalive": (True, 77, *keepalive[2:])}),
        (Tuning(send_buffer=SIZE), {"send_buffer": 2 * SIZE}),  # socket(7): the kernel doubles it
        (Tuning(receive_buffer=SIZE), {"receive_buffer": 2 * SIZE}),
    ]
    for tuning, changed in cases:
        for now, before in zip(options_of(build, way, tuning), plain, strict=True):
            kept = before._asdict()
            if "receive_buffer" not in changed:  # those that are not set grow by themselves
                del kept["receive_buffer"]
            if "send_buffer" not in changed:
                del kept["send_buffer"]
            assert now._asdict() == {**now._asdict(), **kept, **changed}, tuning


def test_what_the_kernel_does_not_grant_stays_as_it_is(build: str, way: str, plain: list[Options]) -> None:
    tuning = Tuning(congestion="no-such-one")
    assert [one.congestion for one in options_of(build, way, tuning)] == [one.congestion for one in plain]


@pytest.mark.parametrize("splice", [True, False])
def test_bulk_goes_through_a_pipe_unless_it_is_to_be_copied(build: str, splice: bool) -> None:
    data = os.urandom(4 << 20)
    with running(build, splice_after=0, pipes=4) as engine:
        before = pipes_held()
        with tunnel(engine, tuning=Tuning(splice=splice)) as pair:
            sender = threading.Thread(target=pair.client.sendall, args=(data,))
            sender.start()
            assert read_exactly(pair.target, len(data)) == data
            sender.join()
            assert (pipes_held() > before) is splice
        next_end(engine)


@pytest.mark.parametrize(("congestion", "is_settled"), [("auto", True), ("system", False)])
def test_only_auto_settles_a_bulk_stream_on_a_near_leg(build: str, congestion: str, is_settled: bool) -> None:
    """Also one that is copied."""
    data = os.urandom(4 << 20)
    legs: list[socket.socket] = []
    with running(build, congestion="reno") as engine:
        with tunnel(
            engine,
            prepare=lambda _inbound, outbound: legs.append(outbound.dup()),
            tuning=Tuning(congestion=congestion, splice=False, send_buffer=SIZE),
        ) as pair:
            usual = Options.of(legs[0]).congestion
            if usual == "reno":
                legs[0].close()
                pytest.skip("reno is the default here, so nobody would see it set")
            sender = threading.Thread(target=pair.client.sendall, args=(data,))
            sender.start()
            assert read_exactly(pair.target, len(data)) == data
            sender.join()
            assert Options.of(legs[0]).congestion == ("reno" if is_settled else usual)
            legs[0].close()
        next_end(engine)


@pytest.mark.skipif(CompiledEngine is None, reason=NOT_BUILT)
def test_a_name_that_would_be_cut_is_refused_and_both_sockets_are_closed() -> None:
    client, inbound = connected()
    outbound, far = connected()
    with client, far, running("compiled") as engine:
        with pytest.raises(ValueError, match="has a name of 16 bytes"):
            engine.adopt(
                inbound.detach(), outbound.detach(), b"", b"", FOREVER, b"", tuning=Tuning(congestion="x" * 16)
            )
        assert client.recv(1) == far.recv(1) == b""
