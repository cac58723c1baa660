"""A ferry carries what it knows, gives back the rest in its place, and says what came of it."""

import select
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.waiting import until
from tabi.wire.udp import encode_header

_ferry = pytest.importorskip("tabi.relay._ferry", reason="nothing is compiled here")

Stray: TypeAlias = tuple[bytes, str, int] | None

NOW, LATER = 100.0, 101.0
PATIENCE = 10.0
SO_MEMINFO = 55  # asm-generic/socket.h
LARGEST = {4: 65_507, 16: 65_527}  # bytes in a datagram, by the size of addresses


@dataclass
class Scene:
    """A client, the relay's two sockets with a ferry, and a target; all of them on loopback."""

    client: socket.socket
    leg: socket.socket
    egress: socket.socket
    target: socket.socket
    ferry: _ferry.CompiledFerry
    sent: list[int] = field(default_factory=list)  # bytes, too large, not sendable; by the last `up` or `down`

    def header(self) -> bytes:
        """What the client puts before data for the target."""
        return header_of(self.target)

    def know(self, until: float = LATER) -> None:
        """Have the ferry know the target, both ways."""
        place = place_of(self.target)
        self.ferry.allow(self.header(), self.egress.fileno(), *place, until)
        self.ferry.welcome(*place, until)

    def up(self, *datagrams: bytes) -> list[bytes]:
        """Send datagrams from the client and carry them; give back those that the ferry gave back."""
        for data in datagrams:
            self.client.send(data)
        return self._carry(self.leg, self.ferry.carry_up, place_of(self.client), len(datagrams))

    def down(self, *datagrams: bytes) -> list[bytes]:
        """Send datagrams from the target and carry them; give back those that the ferry gave back."""
        for data in datagrams:
            self.target.sendto(data, self.egress.getsockname())
        return self._carry(self.egress, self.ferry.carry_down, place_of(self.target), len(datagrams))

    def gather(self, *datagrams: bytes) -> int:
        """Send small datagrams from the client, and have the ferry receive a batch once all are there."""
        self.client.send(datagrams[0])
        until(lambda: waiting_bytes(self.leg) > 0, "the first")
        each = waiting_bytes(self.leg)
        for data in datagrams[1:]:
            self.client.send(data)
        until(lambda: waiting_bytes(self.leg) >= each * len(datagrams), "all of them")
        return int(self.ferry.receive(self.leg.fileno()))

    def _carry(
        self, sock: socket.socket, carry: Callable[[float], Stray], source: tuple[str, int], count: int
    ) -> list[bytes]:
        given = []
        self.sent = [0, 0, 0]
        while count:
            assert select.select([sock], [], [], PATIENCE)[0]
            count -= self.ferry.receive(sock.fileno())
            while (stray := carry(NOW)) is not None:
                assert stray[1:] == source
                given.append(stray[0])
            self.sent = [sum(both) for both in zip(self.sent, self.ferry.counts(), strict=True)]
        return given


def place_of(sock: socket.socket) -> tuple[str, int]:
    """Give address and port."""
    host, port, *_ = sock.getsockname()
    return host, port


def header_of(sock: socket.socket) -> bytes:
    """Write the header for a target, or of what comes from it."""
    host, port = place_of(sock)
    return encode_header(ip_address(host), port)


def waiting_bytes(sock: socket.socket) -> int:
    """Say how much memory what waits to be read takes: the first of the words that sock_diag(7) calls SK_MEMINFO."""
    return int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 64)[:4], sys.byteorder)


def is_quiet(sock: socket.socket) -> bool:
    """Say whether nothing is there to be read; over loopback what was sent is there at once."""
    return not select.select([sock], [], [], 0)[0]


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    """Name the address of all of them."""
    return str(request.param)


@pytest.fixture
def scene(host: str) -> Iterator[Scene]:
    """Set a scene."""
    with ExitStack() as stack:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        four = [stack.enter_context(socket.socket(family, socket.SOCK_DGRAM)) for _ in range(4)]
        for sock in four:
            sock.bind((host, 0))
            sock.settimeout(PATIENCE)
        client, leg, egress, target = four
        client.connect(leg.getsockname())
        leg.connect(client.getsockname())
        yield Scene(client, leg, egress, target, _ferry.CompiledFerry(leg.fileno(), *place_of(client)))


def test_what_is_not_known_is_given_back_as_it_came(scene: Scene) -> None:
    whole = scene.header() + b"hello"
    assert scene.up(whole) == [whole]
    assert scene.down(b"answer") == [b"answer"]
    assert is_quiet(scene.target)
    assert is_quiet(scene.client)
    assert scene.sent == [0, 0, 0]


def test_what_is_known_is_carried_without_its_header_and_answered_with_one(scene: Scene) -> None:
    scene.know()
    assert scene.up(scene.header() + b"hello", scene.header(), scene.header() + b"again") == []
    assert scene.target.recvfrom(99)[:1] == (b"hello",)
    assert scene.target.recv(99) == b""
    assert scene.target.recv(99) == b"again"
    assert scene.sent == [10, 0, 0]
    assert scene.down(b"answer", b"") == []
    assert scene.client.recv(99) == scene.header() + b"answer"
    assert scene.client.recv(99) == scene.header()
    assert scene.sent == [6, 0, 0]


def test_a_name_is_a_header_like_any(scene: Scene) -> None:
    host, port = place_of(scene.target)
    named = b"\0\0\0\x03\x0cpeer.example" + port.to_bytes(2, "big")
    scene.ferry.allow(named, scene.egress.fileno(), host, port, LATER)
    assert scene.up(named + b"hello") == []
    assert scene.target.recv(99) == b"hello"


def test_a_long_name_is_passed_by(scene: Scene) -> None:
    host, port = place_of(scene.target)
    for size, is_known in ((57, True), (58, False)):
        named = b"\0\0\0\x03" + bytes([size]) + b"n" * size + port.to_bytes(2, "big")
        scene.ferry.allow(named, scene.egress.fileno(), host, port, LATER)
        assert (scene.up(named + b"hello") == []) is is_known


def test_order_is_kept_between_what_is_known_and_what_is_not(scene: Scene) -> None:
    scene.know()
    other = encode_header(ip_address("127.0.0.9"), 9)
    assert scene.gather(scene.header() + b"1", other + b"2", scene.header() + b"3") == 3
    stray = scene.ferry.carry_up(NOW)
    assert stray is not None
    assert stray[0] == other + b"2"
    assert scene.target.recv(99) == b"1"
    assert is_quiet(scene.target)
    assert scene.ferry.carry_up(NOW) is None
    assert scene.target.recv(99) == b"3"


def test_what_is_learnt_in_a_batch_holds_for_the_rest_of_it(scene: Scene) -> None:
    assert scene.gather(*(scene.header() + b"%d" % number for number in range(3))) == 3
    assert scene.ferry.carry_up(NOW) is not None
    scene.know()
    assert scene.ferry.carry_up(NOW) is None
    assert [scene.target.recv(99), scene.target.recv(99)] == [b"1", b"2"]


def test_a_datagram_from_elsewhere_is_not_the_clients_whatever_is_in_it(scene: Scene, host: str) -> None:
    scene.know()
    stranger = socket.socket(scene.leg.family, socket.SOCK_DGRAM)
    with stranger, socket.socket(scene.leg.family, socket.SOCK_DGRAM) as leg:  # before it was connected, it came in
        stranger.bind((host, 0))
        leg.bind((host, 0))
        ferry = _ferry.CompiledFerry(leg.fileno(), *place_of(scene.client))
        ferry.allow(scene.header(), scene.egress.fileno(), *place_of(scene.target), LATER)
        stranger.sendto(scene.header() + b"mine", leg.getsockname())
        assert select.select([leg], [], [], PATIENCE)[0]
        assert ferry.receive(leg.fileno()) == 1
        assert ferry.carry_up(NOW) == (scene.header() + b"mine", *place_of(stranger))
        assert is_quiet(scene.target)


def test_what_is_known_is_known_until_its_time_is_over_or_it_is_forgotten(scene: Scene) -> None:
    whole = scene.header() + b"hello"
    scene.know(until=NOW)
    assert scene.up(whole) == [whole]
    assert scene.down(b"answer") == [b"answer"]
    scene.know()
    assert scene.up(whole) == []
    scene.ferry.forget()
    assert scene.up(whole) == [whole]
    assert scene.down(b"answer") == [b"answer"]


def test_a_fragment_is_given_back(scene: Scene) -> None:
    scene.know()
    fragment = b"\0\0\x01" + scene.header()[3:] + b"part"
    assert scene.up(fragment) == [fragment]


def test_sixty_four_datagrams_are_a_batch_and_the_rest_is_the_next(scene: Scene) -> None:
    scene.know()
    assert scene.gather(*(scene.header() + b"%02d" % number for number in range(70))) == 64
    assert scene.ferry.carry_up(NOW) is None
    for count in (6, 0):
        assert scene.ferry.receive(scene.leg.fileno()) == count
        assert scene.ferry.carry_up(NOW) is None
    assert [scene.target.recv(99) for _ in range(70)] == [b"%02d" % number for number in range(70)]


def test_the_largest_datagrams_are_whole_and_what_does_not_fit_is_counted(scene: Scene) -> None:
    scene.know()
    for sock in (scene.leg, scene.egress, scene.target, scene.client):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    head = len(scene.header())
    largest = LARGEST[head - 6]
    payload = (bytes(range(251)) * 300)[:largest]
    assert scene.up(scene.header() + payload[head:]) == []
    assert scene.target.recv(1 << 17) == payload[head:]
    assert scene.sent == [largest - head, 0, 0]
    assert scene.down(payload, b"small", payload[head:]) == []  # with its header the first is too large
    assert scene.sent == [5 + largest - head, 1, 0]
    assert scene.client.recv(1 << 17) == scene.header() + b"small"
    assert scene.client.recv(1 << 17) == scene.header() + payload[head:]


def test_what_the_kernel_does_not_send_is_counted_and_the_rest_goes(scene: Scene) -> None:
    scene.know()
    bad = encode_header(ip_address("255.255.255.255"), 9)  # EACCES without SO_BROADCAST
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        scene.ferry.allow(bad, plain.fileno(), "255.255.255.255", 9, LATER)
        assert scene.up(scene.header() + b"1", bad + b"x", scene.header() + b"2") == []
    assert [scene.target.recv(99), scene.target.recv(99)] == [b"1", b"2"]
    assert scene.sent == [2, 0, 1]


def test_a_client_that_is_gone_costs_no_datagram_once_it_is_back(scene: Scene) -> None:
    """An ICMP error for what was sent to the client is told at the next call, which is not its fault."""
    scene.know()
    address = scene.client.getsockname()
    scene.client.close()
    assert scene.down(b"lost") == []
    with socket.socket(scene.leg.family, socket.SOCK_DGRAM) as back:
        back.bind(address)
        back.settimeout(PATIENCE)
        assert scene.down(b"heard") == []
        assert back.recv(99) == scene.header() + b"heard"


def test_an_error_that_waits_does_not_hide_what_has_come(scene: Scene) -> None:
    scene.know()
    address = scene.client.getsockname()
    scene.client.close()
    scene.leg.send(b"to nobody")
    with socket.socket(scene.leg.family, socket.SOCK_DGRAM) as back:
        back.bind(address)
        back.sendto(scene.header() + b"hello", scene.leg.getsockname())
        until(lambda: scene.ferry.receive(scene.leg.fileno()) == 1, "the datagram")
        assert scene.ferry.carry_up(NOW) is None
    assert scene.target.recv(99) == b"hello"


def test_targets_that_were_sent_to_are_told_once_and_in_the_order_of_their_last_use(scene: Scene) -> None:
    scene.know()
    with socket.socket(scene.target.family, socket.SOCK_DGRAM) as other:
        other.bind((place_of(scene.target)[0], 0))
        scene.ferry.allow(header_of(other), scene.egress.fileno(), *place_of(other), LATER)
        assert scene.ferry.take_used() == []
        for first, last in ((scene.target, other), (other, scene.target)):
            assert scene.up(header_of(first) + b"x") == []
            assert scene.up(header_of(last) + b"x") == []
            assert scene.ferry.take_used() == [place_of(first), place_of(last)]
        assert scene.ferry.take_used() == []


def test_of_more_targets_than_it_has_room_for_none_is_taken_for_another(scene: Scene) -> None:
    """What is pushed out is given back; what is carried goes where its header says."""
    host, _ = place_of(scene.target)
    with ExitStack() as stack:
        targets = [stack.enter_context(socket.socket(scene.target.family, socket.SOCK_DGRAM)) for _ in range(200)]
        for sock in targets:
            sock.bind((host, 0))
            sock.settimeout(PATIENCE)
            scene.ferry.allow(header_of(sock), scene.egress.fileno(), *place_of(sock), LATER)
        carried = 0
        for number, sock in enumerate(targets):
            whole = header_of(sock) + b"%d" % number
            if scene.up(whole) == []:
                carried += 1
                assert sock.recv(99) == b"%d" % number
        assert 40 <= carried <= 64


@pytest.mark.parametrize("bad", ["", "localhost", "127.0.0.1%1", "1.2.3"])
def test_a_host_that_is_no_address_is_refused(scene: Scene, bad: str) -> None:
    with pytest.raises(ValueError, match="is no address"):
        scene.ferry.welcome(bad, 1, LATER)


@given(datagrams=st.lists(st.binary(max_size=300), max_size=8), known=st.binary(min_size=1, max_size=64))
def test_whatever_comes_is_carried_by_an_exact_header_or_given_back(datagrams: list[bytes], known: bytes) -> None:
    with ExitStack() as stack:
        four = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(4)]
        for sock in four:
            sock.bind(("127.0.0.1", 0))
            sock.settimeout(PATIENCE)
        client, leg, egress, target = four
        client.connect(leg.getsockname())
        scene = Scene(client, leg, egress, target, _ferry.CompiledFerry(leg.fileno(), *place_of(client)))
        scene.ferry.allow(known, egress.fileno(), *place_of(target), LATER)
        scene.know()
        mixed = [piece for data in datagrams for piece in (data, known + data, scene.header() + data)]
        expected = [data for data in mixed if head_of(data) not in {known, scene.header()}]
        assert scene.up(*mixed) == expected
        carried = [data[len(head_of(data)) :] for data in mixed if head_of(data) in {known, scene.header()}]
        assert [target.recv(1 << 16) for _ in carried] == carried


def head_of(data: bytes) -> bytes:
    """Cut the header off as RFC 1928 section 7 writes it; empty where it is not whole."""
    if len(data) < 5:
        return b""
    size = {1: 10, 4: 22, 3: 7 + data[4]}.get(data[3], 0)
    return data[:size] if size <= len(data) else b""
