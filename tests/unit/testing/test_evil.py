"""Evil peers, against sockets of the test's own."""

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from ipaddress import IPv4Address

import pytest

from tabi.addr import Endpoint, Name
from tabi.errors import Stage
from tabi.testing import EvilPeer
from tabi.testing.evil import (
    HUGE,
    Ending,
    Vice,
    close_at,
    dribble,
    garbage,
    huge,
    reset_at,
    stall,
    wrong_version,
)
from tabi.testing.parts import Line, Part, socks4_client, socks4_server, socks5_client, socks5_server, target
from tabi.wire.socks5 import Method

TO = Endpoint(Name("a.b"), 80)
BOUND = Endpoint(IPv4Address("203.0.113.9"), 1080)
GREETING = bytes.fromhex("05 01 00")  # RFC 1928 section 3
REQUEST = bytes.fromhex("05 01 00 03 03 61 2e 62 00 50")  # section 4
SELECTION = bytes.fromhex("05 00")
GRANTED = bytes.fromhex("05 00 00 01 cb 00 71 09 04 38")  # section 6
GET = b"GET /"
SECONDS = 10.0


@contextlib.contextmanager
def server(serve: Callable[[socket.socket], object]) -> Iterator[tuple[Endpoint, Future[object]]]:
    """Serve one connection in a thread; what `serve` returns or raises is in the future."""
    done: Future[object] = Future()

    def run() -> None:
        try:
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(SECONDS)
                done.set_result(serve(sock))
        except OSError as error:
            done.set_exception(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(SECONDS)
        thread = threading.Thread(target=run)
        thread.start()
        yield Endpoint.from_sockaddr(listener.getsockname()), done
        thread.join(SECONDS)
        assert not thread.is_alive()


def connect(where: Endpoint) -> socket.socket:
    return socket.create_connection((str(where.host), where.port), timeout=SECONDS)


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := sock.recv(size - len(data))):
        data += more
    return data


def grant_all(sock: socket.socket) -> bytes:
    """Serve one good client, then read until it ends."""
    heard = read(sock, len(GREETING))
    sock.sendall(SELECTION)
    heard += read(sock, len(REQUEST))
    sock.sendall(GRANTED)
    return heard + read(sock, 5)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65536), b""))


CLIENT = socks5_client(TO, payload=GET)


@pytest.mark.parametrize("vice", [Vice(), dribble(), dribble(pause=0.001)])
def test_good_client_and_one_that_dribbles_are_served(vice: Vice) -> None:
    with server(grant_all) as (where, done):
        met = EvilPeer(CLIENT, vice).attack(where)
        assert done.result(SECONDS) == GREETING + REQUEST + GET
    assert (met.heard, met.said, met.ending) == (SELECTION + GRANTED, 18, Ending.CLOSED)


@pytest.mark.parametrize(
    ("stage", "said"),
    [(Stage.CONNECT, 0), (Stage.GREETING, 0), (Stage.REQUEST, 3), (Stage.RELAY, 13)],
)
def test_client_stalls_where_it_is_told_to_and_holds_on_until_the_server_ends(stage: Stage, said: int) -> None:
    def serve(sock: socket.socket) -> bytes:
        sock.sendall(SELECTION + GRANTED)
        return read(sock, said)

    with server(serve) as (where, done):
        met = EvilPeer(CLIENT, stall(stage)).attack(where)
        assert done.result(SECONDS) == (GREETING + REQUEST)[:said]
    assert (met.said, met.ending) == (said, Ending.CLOSED)


def test_client_stalls_before_its_login() -> None:
    part = socks5_client(TO, username=b"alice", password=b"sesame")

    def serve(sock: socket.socket) -> bytes:
        sock.sendall(b"\x05\x02")
        return read(sock, 3)

    with server(serve) as (where, done):
        assert EvilPeer(part, stall(Stage.AUTH)).attack(where).said == 3
        assert done.result(SECONDS) == b"\x05\x01\x02"


def test_deadline_ends_an_attack_on_a_server_that_holds_on() -> None:
    left = threading.Event()

    def serve(_sock: socket.socket) -> bool:
        return left.wait(SECONDS)

    with server(serve) as (where, done):
        met = EvilPeer(CLIENT, stall(Stage.GREETING), deadline=0.05).attack(where)
        left.set()
        assert done.result(SECONDS)
    assert met.ending is Ending.DEADLINE


def said_to(part: Part, vice: Vice) -> bytes:
    """What a server hears that answers each message as a good one would."""

    def serve(sock: socket.socket) -> bytes:
        sock.sendall(SELECTION + b"\x01\x00" * (len(part) == 4) + GRANTED)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)

    with server(serve) as (where, done):
        EvilPeer(part, vice).attack(where)
        return done.result(SECONDS)


def test_garbage_takes_the_place_of_a_stage_and_is_the_same_for_the_same_seed() -> None:
    heard = said_to(CLIENT, garbage(Stage.REQUEST, seed=7, size=100))
    assert heard[:3] == GREETING
    assert heard[-5:] == GET
    assert len(heard) == 108
    assert heard == said_to(CLIENT, garbage(Stage.REQUEST, seed=7, size=100))
    assert heard != said_to(CLIENT, garbage(Stage.REQUEST, seed=8, size=100))


def test_wrong_version_changes_the_first_byte_of_a_stage() -> None:
    assert said_to(CLIENT, wrong_version(Stage.GREETING)) == b"\x07" + GREETING[1:] + REQUEST + GET
    assert said_to(CLIENT, wrong_version(Stage.REQUEST, 4)) == GREETING + b"\x04" + REQUEST[1:] + GET


LONGEST = {
    Stage.GREETING: b"\x05\xff" + bytes(255) + REQUEST + GET,
    Stage.REQUEST: GREETING + b"\x05\x01\x00\x03\xff" + b"d" * 255 + b"\x00\x50" + GET,
    Stage.RELAY: GREETING + REQUEST + GET + b"u" * HUGE,
}


@pytest.mark.parametrize(("stage", "heard"), LONGEST.items())
def test_fields_are_as_long_as_can_be(stage: Stage, heard: bytes) -> None:
    assert said_to(CLIENT, huge(stage)) == heard


def test_login_is_as_long_as_can_be() -> None:
    heard = said_to(socks5_client(TO, username=b"a", password=b"b"), huge(Stage.AUTH))
    assert heard[3 : 3 + 513] == b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255


def test_userid_of_socks4_has_no_end() -> None:
    def serve(sock: socket.socket) -> bytes:
        return read(sock, 8 + HUGE)

    with server(serve) as (where, done):
        EvilPeer(socks4_client(TO, userid=b"bob"), huge(Stage.REQUEST)).attack(where)
        assert done.result(SECONDS) == bytes.fromhex("04 01 00 50 00 00 00 01") + b"u" * HUGE


@pytest.mark.parametrize("offset", [0, 1, 3, 4, 13, 18])
def test_client_closes_after_so_many_bytes_and_hears_the_rest(offset: int) -> None:
    def serve(sock: socket.socket) -> bytes:
        sock.sendall(SELECTION + GRANTED)
        heard = read_all(sock)
        sock.sendall(b"bye")
        return heard

    with server(serve) as (where, done):
        met = EvilPeer(CLIENT, close_at(offset)).attack(where)
        assert done.result(SECONDS) == (GREETING + REQUEST + GET)[:offset]
    assert (met.said, met.ending) == (offset, Ending.CLOSED)
    assert met.heard == SELECTION + GRANTED + b"bye"


@pytest.mark.parametrize("offset", [0, 3, 4, 18])
def test_client_resets_after_so_many_bytes(offset: int) -> None:
    def serve(sock: socket.socket) -> bytes:
        sock.sendall(SELECTION + GRANTED)
        return read_all(sock)

    with server(serve) as (where, done):
        met = EvilPeer(CLIENT, reset_at(offset)).attack(where)
        assert isinstance(done.exception(SECONDS), ConnectionResetError)
    assert (met.said, met.ending) == (offset, Ending.LEFT)


def test_reset_by_the_server_is_told() -> None:
    def serve(sock: socket.socket) -> None:
        read(sock, len(GREETING))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with server(serve) as (where, _):
        assert EvilPeer(CLIENT).attack(where).ending is Ending.RESET


# as a server

ASKS_PASSWORD = socks5_server(BOUND, method=Method.USERPASS)
REQUEST_4A = bytes.fromhex("04 01 00 50 00 00 00 01 00 61 00")  # SOCKS4a.protocol


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("vice", [Vice(), dribble()])
def test_listening_peer_serves_any_number_of_clients(host: str, vice: Vice) -> None:
    peer = EvilPeer(socks5_server(BOUND, banner=b"220"), vice)
    with peer.listening(host) as where:
        for _ in range(3):
            with connect(where) as sock:
                sock.sendall(GREETING + REQUEST)
                assert read(sock, 15) == SELECTION + GRANTED + b"220"
        met = peer.encounters(3)
    assert {(one.heard, one.said, one.ending) for one in met} == {(GREETING + REQUEST, 15, Ending.CLOSED)}


@pytest.mark.parametrize(
    ("part", "hears", "says"),
    [
        (ASKS_PASSWORD, b"\x05\x01\x02\x01\x01a\x01b" + REQUEST, b"\x05\x02\x01\x00" + GRANTED),
        (socks4_server(BOUND), REQUEST_4A, bytes.fromhex("00 5a 04 38 cb 00 71 09")),
        (target(b"220 hello"), b"", b"220 hello"),
    ],
)
def test_other_parts_are_played(part: Part, hears: bytes, says: bytes) -> None:
    peer = EvilPeer(part)
    with peer.listening() as where, connect(where) as sock:
        sock.sendall(hears)
        assert read(sock, len(says)) == says


def test_block_that_ends_ends_the_connections_that_stall() -> None:
    peer = EvilPeer((Line(Stage.GREETING, b"!"), Line(Stage.REQUEST, b"never said")), stall(Stage.REQUEST))
    with contextlib.ExitStack() as stack:
        with peer.listening() as where:
            both = [stack.enter_context(connect(where)) for _ in range(2)]
            assert [read(sock, 1) for sock in both] == [b"!"] * 2
        assert [read_all(sock) for sock in both] == [b""] * 2
        assert [one.ending for one in peer.encounters(2)] == [Ending.STOPPED] * 2
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("evil peer")]


def test_server_resets_in_the_middle_of_its_reply() -> None:
    peer = EvilPeer(socks5_server(BOUND), reset_at(4))
    with peer.listening() as where, connect(where) as sock:
        sock.sendall(GREETING + REQUEST)
        with pytest.raises(ConnectionResetError):
            read_all(sock)
            read_all(sock)
        assert peer.encounters()[0].ending is Ending.LEFT


def test_waiting_for_a_connection_that_nobody_makes_has_a_deadline() -> None:
    peer = EvilPeer(target(), deadline=0.05)
    with peer.listening(), pytest.raises(TimeoutError, match="0 of 1"):
        peer.encounters()
