"""CONNECT through the whole server: from a client's first byte to the log line, with real sockets on loopback."""

import hashlib
import random
import socket
from collections.abc import Iterator

import pytest

from helpers.clocks import HeldClock
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import (
    ask5,
    connect5,
    dial,
    greet5,
    read_all,
    read_exactly,
    read_reply5,
    request4,
    request5,
    reset,
)
from helpers.targets import accept, banner, closed_port, same_port, target
from helpers.tcp_table import dialling, full_backlog, unread
from helpers.waiting import PATIENCE, until
from loop.engine_helpers import PROBED, fill
from tabi.addr import Endpoint
from tabi.config.settings import TimeLimits
from tabi.errors import Reply
from tabi.policy.verdict import Context, Request, Verdict

pytestmark = pytest.mark.usefixtures("nothing_left")

HOSTS = ["127.0.0.1", "::1"]
GREETING = b"\x05\x01\x00"
NO_AUTH = b"\x05\x00"


@pytest.fixture
def server() -> Iterator[Running]:
    """Run a server as it is by default."""
    with serving() as running:
        yield running


# replies


@pytest.mark.parametrize("proxy", [0, 1], ids=["v4 listener", "v6 listener"])
@pytest.mark.parametrize("host", HOSTS)
def test_a_target_is_reached_and_bnd_is_what_it_sees(server: Running, proxy: int, host: str) -> None:
    where = server.addresses[proxy]
    with target(lambda sock: sock.sendall(repr(sock.getpeername()[:2]).encode()), host) as there:
        sock, reply, bound, port = ask5((str(where.host), where.port), 1, *there)
        with sock:
            assert reply == 0
            assert read_all(sock) == repr((bound, port)).encode()
    line = server.only_line()
    assert (line["by"], line["why"], line["reply"]) == ("target", "fin", 0)


@pytest.mark.parametrize("host", HOSTS)
def test_a_refusal_is_reply_5_and_an_orderly_end(server: Running, host: str) -> None:
    sock, reply, bound, port = ask5(server.address, 1, host, closed_port(host))
    with sock:
        assert (reply, bound, port) == (5, "0.0.0.0", 0)
        assert read_all(sock) == b""
    assert server.only_line()["reply"] == 5


@pytest.mark.parametrize("domain", [None, b"one.test"])
def test_a_refusal_is_91_for_socks4_and_4a(server: Running, domain: bytes | None) -> None:
    NameService({"one.test": ["127.0.0.1"]}).serve(server)
    address = "127.0.0.1" if domain is None else "0.0.0.9"
    with dial(server.address) as sock:
        sock.sendall(request4(1, address, closed_port(), b"user", domain))
        assert read_all(sock) == b"\0\x5b\0\0\0\0\0\0"


def test_an_unknown_name_is_reply_4(server: Running) -> None:
    NameService().serve(server)
    sock, reply, _, _ = ask5(server.address, 1, b"nowhere.test", 9)
    with sock:
        assert reply == 4
        assert read_all(sock) == b""


def test_a_target_that_never_answers_is_reply_6_at_the_connect_limit() -> None:
    with serving(time=TimeLimits(connect=0.2)) as server, full_backlog() as backlog:
        sock, reply, _, _ = ask5(server.address, 1, *backlog.address)
        with sock:
            assert reply == 6
            assert read_all(sock) == b""
        backlog.wait_for_none()
        assert server.only_line()["why"] == "limit:connect"


def test_an_address_that_policy_refuses_is_struck_out_and_the_next_is_tried() -> None:
    def judge(request: Request, _context: Context) -> Verdict:
        return Verdict(allow=str(request.ip) != "127.0.0.1", rule="not there")

    with serving(policy=judge) as server, same_port("127.0.0.2", "127.0.0.1") as port:
        NameService({"both.test": ["127.0.0.1", "127.0.0.2"], "one.test": ["127.0.0.1"]}).serve(server)
        connect5(server.address, b"both.test", port).close()
        assert server.line(target=f"both.test:{port}")["to"] == f"127.0.0.2:{port}"
        sock, reply, _, _ = ask5(server.address, 1, b"one.test", port)
        sock.close()
        assert reply == Reply.NOT_ALLOWED


def test_an_address_that_was_asked_for_is_judged_once() -> None:
    judged: list[Request] = []

    def policy(request: Request, _: Context) -> Verdict:
        judged.append(request)
        return Verdict(allow=True, rule="all")

    with serving(policy=policy) as running, target() as (host, port), connect5(running.address, host, port):
        assert [(request.target, request.address) for request in judged] == [(Endpoint.parse(f"{host}:{port}"), None)]


@pytest.mark.parametrize(
    ("addresses", "listens"),
    [
        (("127.0.0.1",), "127.0.0.1"),
        (("127.0.0.3", "127.0.0.1"), "127.0.0.1"),
        (("::1", "127.0.0.1"), "127.0.0.1"),
        (("::1", "127.0.0.1"), "::1"),
    ],
)
def test_a_socks4a_reply_carries_the_address_that_the_name_led_to(
    monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...], listens: str
) -> None:
    HeldClock(monkeypatch)  # no address is tried only because the one before takes long
    with serving() as server, target(host=listens) as (_, port), dial(server.address) as sock:
        NameService({"some.test": addresses}).serve(server)
        sock.sendall(request4(1, "0.0.0.1", port, b"me", b"some.test"))
        led_to = b"\0\0\0\0" if ":" in listens else socket.inet_aton(listens)
        assert read_exactly(sock, 8) == b"\0\x5a" + port.to_bytes(2, "big") + led_to
        sock.sendall(b"on")
        assert read_exactly(sock, 2) == b"on"


def test_a_failure_reply_arrives_although_the_client_goes_on_sending(server: Running) -> None:
    with greet5(server.address) as sock:
        sock.sendall(request5(1, "127.0.0.1", closed_port()) + bytes(200_000))
        assert read_reply5(sock)[0] == 5
        sock.sendall(bytes(100_000))
        assert read_all(sock) == b""


# the reply waits for the target


def turn(server: Running, through: tuple[str, int]) -> None:
    """Have another session served from first to last byte: what the server wanted to say to others, it has said."""
    with connect5(server.address, *through) as sock:
        sock.sendall(b"turn")
        assert read_exactly(sock, 4) == b"turn"


@pytest.mark.parametrize("host", HOSTS)
def test_nothing_is_answered_before_the_target_has_and_what_was_sent_meanwhile_arrives_once(
    server: Running, host: str
) -> None:
    with full_backlog(host) as backlog, target() as echo, greet5(server.address) as sock:
        sock.sendall(request5(1, *backlog.address) + b"early, ")
        backlog.wait()
        sock.sendall(b"meanwhile, ")
        turn(server, echo)
        sock.sendall(b"later, ")
        turn(server, echo)
        assert unread(sock) == 0
        with backlog.let_in() as there:
            assert read_reply5(sock) == (0, *there.getpeername()[:2])
            sock.sendall(b"last")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(there) == b"early, meanwhile, later, last"


def test_a_reply_for_which_there_is_no_room_arrives_whole_before_the_tunnels_bytes(server: Running) -> None:
    """A handshake says too little to fill a window, so the test fills it in the server's place."""
    with full_backlog() as backlog, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect(server.address)
        sock.sendall(b"\x05\x01\x00" + request5(1, *backlog.address))
        assert read_exactly(sock, 2) == b"\x05\x00"
        backlog.wait()
        (session,) = until(lambda: server.call_sync(server.server.sessions), "a session, if the lane had it first")
        before = server.call_sync(lambda: fill_up(session.sock))
        with backlog.let_in() as there:
            until(lambda: len(server.server.engine) == 1, "the tunnel")
            there.sendall(b"banner")
            assert len(read_exactly(sock, before)) == before
            assert read_reply5(sock)[0] == 0
            assert read_exactly(sock, 6) == b"banner"
            sock.sendall(b"and back")
            assert read_exactly(there, 8) == b"and back"


def fill_up(sock: socket.socket) -> int:
    """Fill all the buffers between, and give by how much."""
    sent = fill(sock, calm=PROBED)
    sock.setblocking(False)
    return sent


def test_a_socks4_client_waits_as_well(server: Running) -> None:
    with full_backlog() as backlog, target() as echo, dial(server.address) as sock:
        sock.sendall(request4(1, *backlog.address) + b"early")
        backlog.wait()
        turn(server, echo)
        assert unread(sock) == 0
        with backlog.let_in() as there:
            assert read_exactly(sock, 2) == b"\0\x5a"
            sock.shutdown(socket.SHUT_WR)
            assert read_all(there) == b"early"


def test_much_that_is_sent_while_the_target_is_dialled_waits_in_the_kernel(server: Running) -> None:
    data = random.Random(1).randbytes(300_000)
    with full_backlog() as backlog, greet5(server.address) as sock:
        sock.sendall(request5(1, *backlog.address) + data)
        backlog.wait()
        with backlog.let_in() as there:
            assert read_reply5(sock)[0] == 0
            sock.shutdown(socket.SHUT_WR)
            assert read_all(there) == data


def test_a_client_that_resets_while_the_target_is_dialled_ends_the_dialling(server: Running) -> None:
    with full_backlog() as backlog:
        sock = greet5(server.address)
        sock.sendall(request5(1, *backlog.address) + b"early")
        backlog.wait()
        reset(sock)
        backlog.wait_for_none()
        line = server.only_line()
    assert (line["by"], line["why"]) == ("client", "rst")
    assert "reply" not in line


def test_a_client_that_has_closed_its_direction_resets_and_ends_the_dialling_too(server: Running) -> None:
    with full_backlog() as backlog:
        sock = greet5(server.address)
        sock.sendall(request5(1, *backlog.address))
        sock.shutdown(socket.SHUT_WR)
        backlog.wait()
        reset(sock)
        backlog.wait_for_none()
        assert server.only_line()["why"] == "rst"


def test_a_client_that_closes_its_direction_while_the_target_is_dialled_gets_its_answer(server: Running) -> None:
    with full_backlog() as backlog, target() as echo, greet5(server.address) as sock:
        sock.sendall(request5(1, *backlog.address) + b"question")
        sock.shutdown(socket.SHUT_WR)
        backlog.wait()
        turn(server, echo)
        assert dialling(backlog.address[1])
        with backlog.let_in() as there:
            assert read_reply5(sock)[0] == 0
            assert read_all(there) == b"question"
            there.sendall(b"answer")
        assert read_all(sock) == b"answer"


# bytes at the edges of the handshake


def hashing(sock: socket.socket) -> None:
    """Speak first, read to the end, answer with the SHA-1 of what came."""
    sock.sendall(b"banner!")
    digest = hashlib.sha1()
    while data := sock.recv(65_536):
        digest.update(data)
    sock.sendall(digest.digest())


def test_400_handshakes_cut_anywhere_with_early_data_and_a_banner_lose_nothing(server: Running) -> None:
    chance = random.Random(7)
    with target(hashing) as there:
        for number in range(400):
            payload = chance.randbytes(chance.choice((1, 10, 5000, 70_000)))
            message = GREETING + request5(1, *there) + payload
            cuts = chance.sample(range(1, 14), 4) if chance.randrange(3) else []
            with dial(server.address) as sock:
                for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(message)], strict=True):
                    sock.sendall(message[begin:end])
                sock.shutdown(socket.SHUT_WR)
                got = read_all(sock)
            assert got[:4] == NO_AUTH + b"\x05\x00", number
            assert got[12:] == b"banner!" + hashlib.sha1(payload).digest(), number
    server.idle()
    assert len(server.lines) == 400
    assert {(line["by"], line["why"], line["reply"]) for line in server.lines} == {("client", "fin", 0)}


def test_greeting_request_and_payload_in_one_segment_with_the_end_behind(server: Running) -> None:
    with target() as there, dial(server.address) as sock:
        sock.sendall(GREETING + request5(1, *there) + b"all at once")
        sock.shutdown(socket.SHUT_WR)
        got = read_all(sock)
    assert got[:5] == NO_AUTH + b"\x05\x00\x00"
    assert got[12:] == b"all at once"
    line = server.only_line()
    assert (line["up"], line["down"]) == (11, 11)


def test_a_target_that_speaks_first_is_heard_behind_the_reply(server: Running) -> None:
    with target(banner(b"220 ready\r\n")) as there:
        for _ in range(50):
            with connect5(server.address, *there) as sock:
                assert read_all(sock) == b"220 ready\r\n"


def test_an_answer_after_the_clients_end_arrives(server: Running, listener: socket.socket) -> None:
    with connect5(server.address, *listener.getsockname()) as sock, accept(listener) as there:
        sock.sendall(b"q")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(there) == b"q"
        there.sendall(b"late answer" * 10_000)
        there.close()
        assert read_all(sock) == b"late answer" * 10_000
    line = server.only_line()
    assert (line["up"], line["down"], line["by"], line["why"]) == (1, 110_000, "client", "fin")


def test_a_client_may_go_on_after_the_targets_end(server: Running, listener: socket.socket) -> None:
    with connect5(server.address, *listener.getsockname()) as sock, accept(listener) as there:
        there.sendall(b"bye")
        there.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b"bye"
        sock.sendall(b"more" * 10_000)
        sock.close()
        assert read_all(there) == b"more" * 10_000
    line = server.only_line()
    assert (line["up"], line["down"], line["by"], line["why"]) == (40_000, 3, "target", "fin")


# who does not speak SOCKS


@pytest.mark.parametrize("request_line", [b"GET http://se\x1bcret.test/ HTTP/1.1", b"CONNECT secret.test:443 HTTP/1.1"])
def test_an_http_client_is_told_what_this_port_is_without_an_echo(server: Running, request_line: bytes) -> None:
    with dial(server.address) as sock:
        sock.sendall(request_line + b"\r\nHost: secret.test\r\n\r\n")
        answer = read_all(sock)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 501 ")
    assert b"Content-Length: %d" % len(body) in head
    assert b"SOCKS" in body
    assert b"cret" not in answer
    assert server.only_line()["why"] == "protocol"


def test_the_handshake_has_one_deadline_however_the_bytes_trickle() -> None:
    with serving(time=TimeLimits(handshake=0.3)) as server, dial(server.address) as sock:
        sock.sendall(b"\x05\xff")
        sock.settimeout(0.02)  # the pace of the bytes
        while True:
            try:
                sock.sendall(b"\x00")
                assert sock.recv(1) == b""
                break
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):  # a byte was on its way when the server closed
                break
        line = server.only_line()
    assert (line["by"], line["why"]) == ("tabi", "limit:handshake")


def test_a_client_that_says_nothing_is_closed_at_the_deadline() -> None:
    with serving(time=TimeLimits(handshake=0.2)) as server, dial(server.address) as sock:
        assert read_all(sock) == b""
        assert server.only_line()["why"] == "limit:handshake"


@pytest.mark.parametrize("said", [b"", b"\x05", GREETING, b"\x04\x01\x00\x50"])
def test_a_client_that_resets_within_the_handshake_is_named_as_who_ended_it(server: Running, said: bytes) -> None:
    sock = dial(server.address)
    sock.sendall(said)
    reset(sock)
    line = server.only_line()
    assert (line["by"], line["why"]) == ("client", "rst")
