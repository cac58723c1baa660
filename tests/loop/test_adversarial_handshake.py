"""Hostile handshakes against the running server: what is answered, byte by byte, and that the end is in order.

Comments such as A5 are rows of the project's catalogue of adversarial inputs.
"""

import socket

import pytest

from helpers.clocks import HeldClock, endless
from helpers.hostile import NO_AUTH, REJECTED4, SECRET, USERPASS, NeverReached, converse, failure5, handshakes, login
from helpers.serving import Running, serving
from helpers.socks import (
    connect5,
    dial,
    read_all,
    read_exactly,
    request4,
    request5,
)
from helpers.targets import closed_port, target
from helpers.waiting import until
from tabi.config.settings import Caps, TimeLimits
from tabi.server import Passwords
from tabi.server.limiter import RefusalLimiter
from tabi.testing.dribble import send_dribbled

pytestmark = pytest.mark.usefixtures("nothing_left")

FLOOD = 300_000  # bytes that are still coming when the answer is sent


# A1, A2: slow and silent clients


@pytest.mark.parametrize("sends", [b"", b"\x05", b"\x05\x03\x00", b"\x04\x01", NO_AUTH, NO_AUTH + b"\x05\x01\x00\x03"])
def test_a_client_that_falls_silent_is_closed_at_the_deadline_without_a_word(
    monkeypatch: pytest.MonkeyPatch, sends: bytes
) -> None:
    clock = HeldClock(monkeypatch)
    with serving() as server, dial(server.address) as sock:
        sock.sendall(sends)
        assert read_exactly(sock, 2 if sends.startswith(NO_AUTH) else 0) == b"\x05\x00"[: 2 * sends.startswith(NO_AUTH)]
        until(lambda: len(server.server) == 1, "the client to be accepted")
        clock.advance(server, 10.1)
        assert read_all(sock) == b""
        line = server.only_line()
    assert (line["by"], line["why"], line["up"], line["down"]) == ("tabi", "limit:handshake", 0, 0)
    assert "reply" not in line


def test_bytes_that_trickle_in_do_not_move_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock(monkeypatch)
    with serving(authenticator=Passwords({b"user": SECRET})) as server, dial(server.address) as sock:
        sock.sendall(USERPASS)
        assert read_exactly(sock, 2) == b"\x05\x02"
        clock.advance(server, 6)
        sock.sendall(login(b"user", SECRET))
        assert read_exactly(sock, 2) == b"\x01\x00"
        sock.sendall(request5(1, "127.0.0.1", 9)[:-1])
        clock.advance(server, 3.9)
        assert len(server.server) == 1
        clock.advance(server, 0.2)  # more than 10 s after accept, hardly more than 4 s after the last byte
        assert read_all(sock) == b""
        assert server.only_line()["why"] == "limit:handshake"


def test_a_half_open_handshake_counts_against_its_client_until_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock(monkeypatch)
    with (
        serving(cap=Caps(handshakes_per_client=1)) as server,
        target() as there,
        dial(server.address) as silent,
    ):
        silent.sendall(b"\x05")
        assert converse(server, b"") == b""
        server.line(why="cap:handshakes_per_client")
        clock.advance(server, 10.1)
        assert read_all(silent) == b""
        server.line(why="limit:handshake")
        connect5(server.address, *there).close()


# A3, A4: how the bytes are cut


@pytest.mark.parametrize("kind", ["socks5", "socks5 name", "socks4", "socks4a"])
def test_a_handshake_byte_by_byte_is_the_same_as_a_whole_one(running: Running, kind: str) -> None:
    with target() as there, dial(running.address) as sock:
        says, answer_size = handshakes(there[1])[kind]
        send_dribbled(sock, says)
        answer = read_exactly(sock, answer_size)
        assert answer[-answer_size:][-8 if says[0] == 4 else -10 :][1] == (0x5A if says[0] == 4 else 0)
        sock.sendall(b"through")
        assert read_exactly(sock, 7) == b"through"


@pytest.mark.parametrize("kind", ["socks5", "socks5 name", "socks4", "socks4a"])
def test_a_handshake_cut_in_two_anywhere_is_the_same(running: Running, kind: str) -> None:
    with target() as there:
        says, answer_size = handshakes(there[1])[kind]
        whole = says + b"early"
        for cut in range(1, len(whole)):
            with dial(running.address) as sock:
                sock.sendall(whole[:cut])
                sock.sendall(whole[cut:])
                sock.shutdown(socket.SHUT_WR)
                assert read_all(sock)[answer_size:] == b"early", cut


@pytest.mark.parametrize("size", [1, 3000, 4096, 100_000])
@pytest.mark.parametrize("kind", ["socks5", "socks5 name", "socks4", "socks4a"])
def test_early_data_behind_a_pipelined_handshake_arrives_once_and_in_order(
    running: Running, kind: str, size: int
) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
    with target() as there:
        says, answer_size = handshakes(there[1])[kind]
        answer = converse(running, says + data, fin=True)
    assert answer[answer_size:] == data
    line = running.only_line()
    assert (line["up"], line["down"], line["why"]) == (size, size, "fin")


def test_a_pipelined_login_with_early_data_works(guarded: Running) -> None:
    with target() as there:
        says = USERPASS + login(b"user", SECRET) + request5(1, *there) + b"early"
        answer = converse(guarded, says, fin=True)
    assert answer[:4] == b"\x05\x02\x01\x00"
    assert answer[4:6] == b"\x05\x00"
    assert answer[14:] == b"early"


# A5 to A8: methods


def test_no_method_at_all_is_answered_by_05_ff(running: Running) -> None:
    assert converse(running, b"\x05\x00") == b"\x05\xff"
    assert (running.only_line()["why"], running.lines[0]["socks"]) == ("auth", "5")


def test_methods_that_were_announced_are_waited_for(running: Running) -> None:
    with serving(time=TimeLimits(handshake=0.3)) as server, dial(server.address) as sock:
        sock.sendall(b"\x05\x03\x00")
        assert read_all(sock) == b""
        assert server.only_line()["why"] == "limit:handshake"
    with dial(running.address) as sock:
        sock.sendall(b"\x05\x03\x00")
        sock.sendall(b"\x01\x02")
        assert read_exactly(sock, 2) == b"\x05\x00"


@pytest.mark.parametrize("methods", [bytes(range(255)), bytes(range(254, -1, -1)), b"\x00" * 255, b"\x80\x00\x80\x00"])
def test_many_repeated_and_unordered_methods_are_fine(running: Running, methods: bytes) -> None:
    with dial(running.address) as sock:
        sock.sendall(bytes((5, len(methods))) + methods)
        assert read_exactly(sock, 2) == b"\x05\x00"


@pytest.mark.parametrize("methods", [b"\x02", b"\x01", b"\x80\xfe", b"\xff", bytes(range(1, 256))])
def test_no_common_method_is_answered_by_05_ff_and_no_more(running: Running, methods: bytes) -> None:
    assert converse(running, bytes((5, len(methods))) + methods) == b"\x05\xff"
    line = running.only_line()
    assert (line["by"], line["why"]) == ("tabi", "auth")
    assert "reply" not in line  # 05 FF selects a method, it answers no request


def test_a_server_that_wants_a_login_never_selects_no_authentication(guarded: Running) -> None:
    with NeverReached() as trap:
        assert converse(guarded, NO_AUTH + request5(1, "127.0.0.1", trap.port)) == b"\x05\xff"
        assert converse(guarded, request4(1, "127.0.0.1", trap.port, b"user")) == REJECTED4
    guarded.idle()
    assert [line["why"] for line in guarded.lines] == ["auth", "auth"]


# the end in order, whatever still comes


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        (b"\x05\x01\x02", b"\x05\xff"),
        (b"\x04\x09\x00\x50\x7f\x00\x00\x01\x00", REJECTED4),
        (NO_AUTH + b"\x05\x01\x00\x02", b"\x05\x00" + failure5(8)),
        (NO_AUTH + b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00", b"\x05\x00" + failure5(1)),
        (b"\x16\x03\x01\x02\x00", b""),
    ],
)
def test_the_answer_reaches_a_client_that_is_still_sending(running: Running, says: bytes, answer: bytes) -> None:
    assert converse(running, says + bytes(FLOOD)) == answer
    running.only_line()


def test_a_refused_connect_reaches_a_client_that_is_still_sending(running: Running) -> None:
    says = NO_AUTH + request5(1, "127.0.0.1", closed_port())
    assert converse(running, says + bytes(FLOOD)) == b"\x05\x00" + failure5(5)
    assert running.only_line()["reply"] == 5


def test_a_refused_client_that_never_closes_is_closed_within_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = HeldClock(monkeypatch)
    with serving() as server, dial(server.address) as sock:
        sock.sendall(b"\x05\x01\x02")
        assert read_all(sock) == b"\x05\xff"
        assert len(server.server) == 1
        clock.advance(server, 10)  # RFC 1928 section 6
        server.idle()


def test_a_refused_client_that_never_stops_sending_is_cut_off(running: Running) -> None:
    with dial(running.address) as sock:
        sock.sendall(b"\x05\x01\x02")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            for _ in range(10_000):
                sock.sendall(bytes(65_536))
    running.idle()


# A9: other protocols


STRANGE = [
    *(bytes((first,)) for first in range(256) if first not in (4, 5) and not 0x41 <= first <= 0x5A),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"SSH-2.0-OpenSSH_9.2\r\n".lower(),
    b"get / HTTP/1.1\r\n\r\n",
    b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a",
]


def test_what_is_no_socks_is_closed_without_a_byte(running: Running) -> None:
    running.server.journal._limiter = RefusalLimiter(endless())
    for count, says in enumerate(STRANGE, 1):
        assert converse(running, says) == b"", says
        until(lambda count=count: len(running.raw) == count, "its line")
        line = running.lines[-1]
        assert (line["by"], line["why"]) == ("tabi", "protocol"), says
        assert "socks" not in line
    running.idle()


@pytest.mark.parametrize("verb", [b"GET", b"POST", b"CONNECT", b"HEAD", b"OPTIONS", b"PRI", b"ZZZ"])
def test_an_http_client_is_told_what_this_is_and_gets_nothing_back_of_what_it_sent(
    running: Running, verb: bytes
) -> None:
    answer = converse(running, verb + b" http://evil.example/<script> HTTP/1.1\r\nHost: echo-me\r\n\r\n" + bytes(FLOOD))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 501 ")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"SOCKS" in body
    assert b"evil" not in answer
    assert b"echo-me" not in answer
    assert running.only_line()["why"] == "protocol"
