"""Bulk streams on near legs go on with the congestion control that they are to have; nothing else does."""

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from loop.engine_helpers import MODES, Tunnel, read_exactly, running, tunnel

pytestmark = pytest.mark.usefixtures("nothing_left")


def control(sock: socket.socket) -> str:
    """Name the congestion control of a socket."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


class Legs:
    """Duplicates of the engine's sockets, by which their options can be read. While they are open no end comes."""

    def remember(self, inbound: socket.socket, outbound: socket.socket) -> None:
        """Keep duplicates."""
        self.before = control(inbound)
        self.inbound, self.outbound = inbound.dup(), outbound.dup()


@pytest.fixture
def legs() -> Iterator[Legs]:
    """Make room for duplicates."""
    legs = Legs()
    yield legs
    legs.inbound.close()
    legs.outbound.close()


def send_up(pair: Tunnel) -> None:
    """Send a bulk stream up."""
    data = os.urandom(8 << 20)
    sender = threading.Thread(target=pair.client.sendall, args=(data,))
    sender.start()
    assert read_exactly(pair.target, len(data)) == data
    sender.join()


def other_than_default() -> str:
    """Name a control that is not the system's and that every process may have (reno), or skip."""
    with socket.socket() as sock:
        if control(sock) == "reno":
            pytest.skip("reno is the default here, so nobody would see it set")
    return "reno"


@pytest.mark.parametrize("mode", [*MODES, "both"])
def test_the_sending_side_of_a_bulk_stream_is_settled_and_the_other_is_not(build: str, mode: str, legs: Legs) -> None:
    wanted = other_than_default()
    options = {"congestion": wanted, **MODES.get(mode, {})}
    with running(build, **options) as engine, tunnel(engine, prepare=legs.remember) as pair:
        send_up(pair)
        assert (control(legs.outbound), control(legs.inbound)) == (wanted, legs.before)


def test_small_talk_is_left_alone(build: str, legs: Legs) -> None:
    with running(build, congestion=other_than_default()) as engine, tunnel(engine, prepare=legs.remember) as pair:
        for _ in range(20):
            pair.client.sendall(b"small")
            assert read_exactly(pair.target, 5) == b"small"
        assert control(legs.outbound) == control(legs.inbound) == legs.before


@pytest.mark.parametrize("name", ["", "no-such-control"])
def test_without_a_name_that_is_to_be_had_the_systems_stays(build: str, name: str, legs: Legs) -> None:
    with running(build, congestion=name) as engine, tunnel(engine, prepare=legs.remember) as pair:
        send_up(pair)
        assert control(legs.outbound) == control(legs.inbound) == legs.before
