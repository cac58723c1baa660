"""What the lane leaves to others: a client whose door has no place, or who gets no descriptor; itself as a target."""

import errno
import gc
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.namespaces import Namespace, why_not
from helpers.socks import read_exactly
from loop.engine_helpers import DEADLINE
from loop.lane_helpers import ALL, CLIENT, GREETING, HANDSHAKES, LANES, NO_LIMIT, Lane, connect5, opened, permit
from tabi.relay.lane import NONE, Ask, Counter, Door, Exhausted, Handover

pytestmark = pytest.mark.usefixtures("nothing_left")

MANY = 40_000
"""Doors: several for each place of a table, so that no place is left."""


@pytest.fixture(params=LANES)
def build(request: pytest.FixtureRequest) -> str:
    """Name each build that has a lane."""
    return str(request.param)


def fill_the_table(lane: Lane) -> None:
    """Teach the doors of clients that never come."""
    counters = (Counter(ALL, NO_LIMIT), Counter(CLIENT, NO_LIMIT), Counter(HANDSHAKES, NO_LIMIT))
    host, listener = lane.address[0], lane.listener.fileno()
    for number in range(MANY):
        client = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        lane.engine.teach_door(Door(number + 1, listener, host, client, NONE, False, counters))
    lane.doors = MANY
    lane.settle()


def test_who_finds_no_place_for_his_door_is_handed_over_unread_until_there_is_one(build: str) -> None:
    with opened(build) as lane:
        fill_the_table(lane)
        lane.door()
        with lane.client(GREETING):
            handover = lane.next(Handover)
            assert (handover.received, handover.counted) == (b"", False)
            lane.take(handover.fd).close()
        lane.engine.forget()
        lane.door()
        with lane.client(GREETING) as sock:
            assert read_exactly(sock, 2) == b"\x05\x00"
            lane.engine.call_in()
            lane.take(lane.next(Handover).fd).close()
        assert lane.is_quiet()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Have the kernel give this process no more descriptors; no garbage gives one back meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.collect()
    gc.disable()
    try:
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        gc.enable()


def test_without_descriptors_the_lane_says_so_and_leaves_the_listener_alone(build: str) -> None:
    with opened(build) as lane, socket.socket() as client:
        lane.door()
        client.settimeout(DEADLINE)
        with no_descriptor_left():
            client.connect(lane.address)
            assert lane.next(Exhausted) == Exhausted(lane.listener.fileno(), errno.EMFILE)
        client.sendall(GREETING)
        assert lane.is_quiet()
        lane.engine.accept_from(lane.listener.fileno())
        assert read_exactly(client, 2) == b"\x05\x00"


def test_a_connection_of_the_lane_to_itself_is_handed_over(build: str) -> None:
    """Where nobody listens on the one port that is left for connections: both SYNs are ours (RFC 9293 section 3.5)."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with Namespace("itself") as host, host.entering(opened(build)) as lane:
        there = ("127.0.0.1", 1081)
        lane.door()
        with host.call(lane.client, GREETING) as client:
            assert read_exactly(client, 2) == b"\x05\x00"
            host.set("ipv4/ip_local_port_range", "{1} {1}".format(*there))
            client.sendall(connect5(there))
            lane.engine.answer(lane.next(Ask).arrival, permit(there))
            handover = lane.next(Handover)
            assert (handover.sent, handover.received) == (2, GREETING + connect5(there))
            assert handover.target == there
            with lane.take(handover.outbound) as outbound:
                assert outbound.getsockname() == outbound.getpeername() == there
            lane.take(handover.fd).close()
        assert lane.counts() == (1, 1, 0, 0, 0)
