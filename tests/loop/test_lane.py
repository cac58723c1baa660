"""The express lane at the engine: what it serves, what it hands over and with what, and what is counted."""

import errno
import socket
import time
from contextlib import ExitStack

import pytest

from helpers.socks import read_all, read_exactly, read_reply5, request4, request5, reset
from helpers.targets import target
from helpers.tcp_table import full_backlog, reset_in_queue
from loop.engine_helpers import DEADLINE, HandClock, is_reset, until
from loop.engine_helpers import read_all as read_to_the_end
from loop.lane_helpers import FAILURES, GREETING, LANES, LOGIN, WITH_PASSWORD, Lane, connect5, opened, permit
from tabi.relay import Cause, Closer, FlowLimits
from tabi.relay.lane import NONE, PASSWORD, Ask, Handover, Tail

pytestmark = pytest.mark.usefixtures("nothing_left")


@pytest.fixture(params=LANES)
def build(request: pytest.FixtureRequest) -> str:
    """Name each build that has a lane."""
    return str(request.param)


def greeted(lane: Lane, greeting: bytes = GREETING) -> socket.socket:
    """Connect, and be told the method."""
    sock = lane.client(greeting)
    assert read_exactly(sock, 2) == b"\x05" + greeting[2:3]
    return sock


def asking(lane: Lane, there: tuple[str, int]) -> tuple[socket.socket, Ask]:
    """Ask for a target that there is no permit for."""
    sock = greeted(lane)
    sock.sendall(connect5(there))
    return sock, lane.next(Ask)


def test_a_stranger_is_handed_over_unread(build: str) -> None:
    with opened(build) as lane, lane.client(GREETING) as sock:
        handover = lane.next(Handover)
        assert (handover.received, handover.sent, handover.counted, handover.requested) == (b"", 0, False, 0.0)
        assert handover.client == sock.getsockname()
        assert handover.local == lane.address
        assert handover.listener == lane.listener.fileno()
        assert lane.counts() == (0, 0, 0, 0, 0)
        with lane.take(handover.fd) as inbound:
            assert inbound.recv(10) == GREETING


def test_a_request_is_asked_about_once_and_then_served(build: str) -> None:
    with opened(build) as lane, target() as there:
        door = lane.door()
        sock, ask = asking(lane, there)
        assert (ask.door, ask.user, ask.message) == (door, None, connect5(there))
        assert lane.counts() == (1, 1, 0, 0, 0)
        lane.engine.answer(ask.arrival, permit(there))
        for time_of in ("asked", "known"):
            if time_of == "known":
                sock = greeted(lane)
                sock.sendall(connect5(there))
            with sock:
                assert read_exactly(sock, 4) == b"\x05\x00\x00\x01"
                assert read_exactly(sock, 6)[:4] == socket.inet_aton("127.0.0.1")
                sock.sendall(b"ping")
                assert read_exactly(sock, 4) == b"ping"
            end = lane.next_end()
            assert (end.cause, end.up, end.down) == (Cause.FIN, 4, 4)
        assert lane.counts() == (2, 2, 0, 0, 2)  # to be counted out by whoever hears of the ends


def test_the_reply_names_our_end_of_the_connection(build: str) -> None:
    seen = []
    with opened(build) as lane, target(lambda sock: seen.append(sock.getpeername())) as there:
        lane.door()
        sock, ask = asking(lane, there)
        lane.engine.answer(ask.arrival, permit(there))
        with sock:
            assert read_reply5(sock) == (0, *until_first(seen))
        lane.next_end()


def until_first(seen: list[tuple[str, int]]) -> tuple[str, int]:
    until(lambda: seen, "the target's view")
    return seen[0]


@pytest.mark.parametrize("version", ["4", "4a"])
def test_socks4_is_answered_in_its_own_words(build: str, version: str) -> None:
    with opened(build) as lane, target() as there:
        lane.door()
        if version == "4":
            request = request4(1, there[0], there[1], b"me")
        else:
            request = request4(1, "0.0.0.1", there[1], b"me", b"localhost")
        with lane.client(request) as sock:
            ask = lane.next(Ask)
            assert ask.message == request
            lane.engine.answer(ask.arrival, permit(there, shows_target=version == "4a"))
            reply = read_exactly(sock, 8)
            assert reply[:2] == b"\x00\x5a"
            assert reply[4:] == socket.inet_aton("127.0.0.1")
            assert (int.from_bytes(reply[2:4], "big") == there[1]) is (version == "4a")
        lane.next_end()


def test_an_ipv6_target_is_shown_whole_to_socks5_and_as_nothing_to_socks4(build: str) -> None:
    with opened(build) as lane, target(host="::1") as there:
        lane.door()
        sock, ask = asking(lane, there)
        lane.engine.answer(ask.arrival, permit(there))
        with sock:
            assert read_reply5(sock)[:2] == (0, "::1")
        lane.next_end()
        with lane.client(request4(1, "0.0.0.1", there[1], b"", b"six")) as old:
            lane.engine.answer(lane.next(Ask).arrival, permit(there))
            assert read_exactly(old, 8)[4:] == bytes(4)
        lane.next_end()


def test_what_comes_behind_the_request_is_the_targets(build: str) -> None:
    with opened(build) as lane, target() as there:
        lane.door()
        with lane.client(GREETING + connect5(there) + b"early") as sock:
            sock.shutdown(socket.SHUT_WR)
            ask = lane.next(Ask)
            lane.engine.answer(ask.arrival, permit(there))
            assert read_exactly(sock, 2) == b"\x05\x00"
            assert read_reply5(sock)[0] == 0
            assert read_all(sock) == b"early"
        assert lane.next_end().cause is Cause.FIN


def test_a_record_is_the_facts_and_then_who_and_when(build: str) -> None:
    before = time.time()
    with opened(build) as lane, target() as there:
        lane.door()
        sock, ask = asking(lane, there)
        port = sock.getsockname()[1]
        lane.engine.answer(ask.arrival, permit(there, facts=b"who and where"))
        with sock:
            read_reply5(sock)
            assert lane.is_quiet()  # the reply comes first
            (live,) = lane.engine.snapshot()
        end = lane.next_end()
        assert end.record == live.record
        assert end.record.startswith(b"who and where")
        tail = Tail.of(end.record)
        assert (tail.session, tail.port) == (ask.arrival, port)
        assert before - 1 <= tail.accepted <= time.time()
        assert min(tail.handshake, tail.resolve, tail.connect) >= 0


def test_a_permit_that_is_over_is_asked_for_again(build: str) -> None:
    with opened(build) as lane, target() as there:
        lane.door()
        for _ in range(2):
            sock, ask = asking(lane, there)
            lane.engine.answer(ask.arrival, permit(there, until=time.monotonic()))
            with sock:
                assert read_reply5(sock)[0] == 0  # what was answered holds for whom it was about
            lane.next_end()


def test_a_permit_is_for_one_door_and_one_user(build: str) -> None:
    with opened(build) as lane, target() as there:
        door = lane.door()
        sock, ask = asking(lane, there)
        lane.engine.answer(ask.arrival, permit(there))
        with sock:
            read_reply5(sock)
        lane.next_end()
        lane.teach_pass(door)
        with lane.client(WITH_PASSWORD + LOGIN + connect5(there)) as known:
            assert lane.next(Ask).user == b"alice"
            assert read_exactly(known, 4) == b"\x05\x02\x01\x00"
        assert lane.door() != door
        other, ask = asking(lane, there)
        assert ask.user is None
        other.close()


def test_without_a_permit_it_is_the_control_planes(build: str) -> None:
    with opened(build) as lane:
        lane.door()
        sock, ask = asking(lane, ("127.0.0.1", 9))
        lane.engine.answer(ask.arrival, None)
        handover = lane.next(Handover)
        assert handover.number == ask.arrival
        assert handover.received == GREETING + connect5(("127.0.0.1", 9))
        assert (handover.sent, handover.counted, handover.user) == (2, True, None)
        assert handover.requested >= handover.accepted > 0
        assert lane.counts() == (1, 1, 0, 0, 0)
        lane.take(handover.fd).close()
        sock.close()


PLAIN = connect5(("127.0.0.1", 9))


@pytest.mark.parametrize(
    ("data", "sent"),
    [
        pytest.param(b"\x05", 0, id="half a greeting"),
        pytest.param(b"\x05\x02\x00", 0, id="a greeting without its last method"),
        pytest.param(b"\x05\x00", 0, id="no method"),
        pytest.param(b"\x05\x01\x01", 0, id="a method that is not offered"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 0, id="HTTP"),
        pytest.param(b"\x16\x03\x01", 0, id="TLS"),
        pytest.param(GREETING + PLAIN[:-1], 2, id="half a request"),
        pytest.param(GREETING + b"\x04" + PLAIN[1:], 2, id="another version"),
        pytest.param(GREETING + b"\x05\x02" + PLAIN[2:], 2, id="BIND"),
        pytest.param(GREETING + b"\x05\x03" + PLAIN[2:], 2, id="UDP ASSOCIATE"),
        pytest.param(GREETING + PLAIN[:3] + b"\x02" + PLAIN[4:], 2, id="an address type that there is not"),
        pytest.param(WITH_PASSWORD + LOGIN[:-1], 2, id="half a login"),
        pytest.param(WITH_PASSWORD + LOGIN, 2, id="a login that is not known"),
        pytest.param(WITH_PASSWORD + b"\x05" + LOGIN[1:], 2, id="a login of another version"),
        pytest.param(request4(1, "127.0.0.1", 9)[:-1], 0, id="half a SOCKS4 request"),
        pytest.param(request4(2, "127.0.0.1", 9), 0, id="a SOCKS4 BIND"),
        pytest.param(request4(1, "0.0.0.1", 9), 0, id="SOCKS4a without its domain"),
        pytest.param(request4(1, "127.0.0.1", 9, b"u" * 256), 0, id="a USERID of 256 bytes"),
        pytest.param(request4(1, "0.0.0.1", 9, b"u", b"d" * 256), 0, id="a domain of 256 bytes"),
    ],
)
def test_what_is_not_whole_or_not_plain_is_handed_over(build: str, data: bytes, sent: int) -> None:
    with opened(build) as lane:
        lane.door()
        with lane.client(data) as sock:
            handover = lane.next(Handover)
            assert (handover.received, handover.sent, handover.counted) == (data, sent, True)
            assert lane.counts() == (1, 1, 1, 0, 0)
            assert len(read_exactly(sock, sent)) == sent
            lane.take(handover.fd).close()
            assert read_all(sock) == b""


@pytest.mark.parametrize(
    ("methods", "offered", "chosen"),
    [
        pytest.param(NONE | PASSWORD, b"\x00\x02", 2, id="the stronger goes first"),
        pytest.param(NONE, b"\x00\x02", 0, id="what is taken"),
        pytest.param(PASSWORD, b"\x02\x00", 2, id="in any order"),
        pytest.param(PASSWORD, b"\x00", None, id="nothing in common"),
    ],
)
def test_the_strongest_common_method_is_chosen(build: str, methods: int, offered: bytes, chosen: int | None) -> None:
    with opened(build) as lane:
        lane.door(methods)
        with lane.client(bytes((5, len(offered))) + offered) as sock:
            if chosen is None:
                assert lane.next(Handover).sent == 0
            else:
                assert read_exactly(sock, 2) == bytes((5, chosen))


def test_socks4_is_handed_over_where_the_door_does_not_take_it(build: str) -> None:
    with opened(build) as lane:
        lane.door(socks4=False)
        with lane.client(request4(1, "127.0.0.1", 9)):
            assert lane.next(Handover).sent == 0


def test_a_login_passes_until_its_time_is_over(build: str) -> None:
    with opened(build) as lane:
        door = lane.door()
        lane.teach_pass(door)
        with greeted(lane, WITH_PASSWORD) as sock:
            sock.sendall(LOGIN)
            assert read_exactly(sock, 2) == b"\x01\x00"
            sock.sendall(b"\x05")
            handover = lane.next(Handover)
            assert (handover.user, handover.sent) == (b"alice", 4)
        lane.teach_pass(door, seconds=0.0)
        with lane.client(WITH_PASSWORD + LOGIN):
            assert lane.next(Handover).sent == 2
        with lane.client(WITH_PASSWORD + LOGIN[:-1] + b"T"):
            assert lane.next(Handover).sent == 2


def test_a_pass_is_over_when_a_login_has_failed_whoever_counts_that(build: str) -> None:
    with opened(build) as lane:
        door = lane.door()
        lane.teach_pass(door)
        with greeted(lane, WITH_PASSWORD) as inside:
            lane.rows.add(FAILURES, 1)
            inside.sendall(LOGIN)
            assert lane.next(Handover).sent == 2
        lane.teach_pass(door)
        with greeted(lane, WITH_PASSWORD) as inside:
            inside.sendall(LOGIN)
            assert read_exactly(inside, 2) == b"\x01\x00"
            lane.rows.add(FAILURES, 1)  # too late for who is in
            inside.sendall(b"\x05")
            assert lane.next(Handover).user == b"alice"


@pytest.mark.parametrize("which", range(3))
def test_a_cap_that_is_full_is_the_control_planes_to_tell(build: str, which: int) -> None:
    caps = [9, 9, 9]
    caps[which] = 1
    with opened(build) as lane:
        lane.door(caps=(caps[0], caps[1], caps[2]))
        with greeted(lane), lane.client(GREETING):
            handover = lane.next(Handover)
            assert (handover.counted, handover.received) == (False, b"")
            assert lane.counts() == (1, 1, 1, 0, 0)
            lane.take(handover.fd).close()


def test_a_rule_that_is_full_is_the_control_planes_to_tell(build: str) -> None:
    with opened(build) as lane, target() as there:
        lane.door()
        first, ask = asking(lane, there)
        lane.engine.answer(ask.arrival, permit(there, limit=1))
        assert read_reply5(first)[0] == 0
        with first, lane.client(GREETING + connect5(there)):
            handover = lane.next(Handover)
            assert (handover.counted, handover.sent, handover.outbound) == (True, 2, -1)
            assert lane.counts() == (2, 2, 0, 0, 1)
            lane.take(handover.fd).close()
        lane.next_end()


def test_a_target_that_refuses_is_the_control_planes_to_tell(build: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()
    with opened(build) as lane:
        lane.door()
        sock, ask = asking(lane, nobody)
        lane.engine.answer(ask.arrival, permit(nobody))
        with sock:
            handover = lane.next(Handover)
            assert (handover.counted, handover.sent, handover.received) == (True, 2, GREETING + connect5(nobody))
            assert lane.counts() == (1, 1, 0, 0, 0)
            lane.take(handover.fd).close()


def test_a_target_that_takes_long_is_handed_over_with_the_attempt(build: str) -> None:
    with full_backlog() as silent, opened(build) as lane:
        lane.door()
        sock, ask = asking(lane, silent.address)
        lane.engine.answer(ask.arrival, permit(silent.address, patience=0.05))
        with sock:
            handover = lane.next(Handover)
            assert handover.target == silent.address
            assert lane.counts() == (1, 1, 0, 0, 0)
            with lane.take(handover.outbound) as outbound:
                outbound.setblocking(False)
                assert outbound.connect_ex(silent.address) == errno.EALREADY
                with silent.let_in() as there:
                    assert there.getpeername() == outbound.getsockname()


def test_what_the_client_does_while_the_target_is_awaited_is_not_lost(build: str) -> None:
    with full_backlog() as silent, opened(build) as lane:
        lane.door()
        sock, ask = asking(lane, silent.address)
        lane.engine.answer(ask.arrival, permit(silent.address))
        with sock:
            assert lane.is_quiet()
            sock.sendall(b"late")
            sock.shutdown(socket.SHUT_WR)
            assert lane.is_quiet()
            with silent.let_in() as there:
                assert read_reply5(sock)[0] == 0
                assert read_all(there) == b"late"
        assert lane.next_end().up == 4


@pytest.mark.parametrize("stage", ["greeting", "request", "permit", "target"])
def test_a_client_that_resets_is_handed_over_with_its_error(build: str, stage: str) -> None:
    with full_backlog() as silent, opened(build) as lane:
        lane.door()
        sock = lane.client() if stage == "greeting" else greeted(lane)
        if stage in ("permit", "target"):
            sock.sendall(connect5(silent.address))
            ask = lane.next(Ask)
            if stage == "target":
                lane.engine.answer(ask.arrival, permit(silent.address))
        assert lane.is_quiet()
        reset(sock)
        if stage == "permit":
            assert lane.is_quiet()
            lane.engine.answer(ask.arrival, permit(silent.address))
        handover = lane.next(Handover)
        assert lane.counts()[3:] == (0, 0)
        with lane.take(handover.fd) as inbound:
            if not handover.error:
                with pytest.raises(ConnectionResetError):
                    inbound.recv(1)
            else:
                assert handover.error == errno.ECONNRESET


@pytest.mark.parametrize("buckets", [(), (1,)], ids=["at once", "in its turn"])
def test_a_reset_that_the_reply_meets_is_passed_on_behind_what_came_early(
    build: str, buckets: tuple[int, ...]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, opened(build) as lane:
        listener.settimeout(DEADLINE)
        there = listener.getsockname()
        request = request4(1, *there)
        lane.door()
        lane.engine.set_bucket(1, 1_000_000)
        with lane.client(request) as first:
            lane.engine.answer(lane.next(Ask).arrival, permit(there, limits=FlowLimits(buckets=buckets)))
            assert read_exactly(first, 2) == b"\x00\x5a"
        listener.accept()[0].close()
        lane.next_end()
        lane.engine.stop_accepting(lane.listener.fileno())
        reset_in_queue(lane.client(request + b"last words"))
        lane.engine.accept_from(lane.listener.fileno())
        with listener.accept()[0] as target:
            target.settimeout(DEADLINE)
            assert read_to_the_end(target) == (b"last words", errno.ECONNRESET)
        end = lane.next_end()
        assert (end.closer, end.cause, end.errno) == (Closer.CLIENT, Cause.RST, errno.ECONNRESET)


def test_a_client_that_ends_is_handed_over_with_its_end(build: str) -> None:
    with opened(build) as lane:
        lane.door()
        with lane.client() as sock:
            assert lane.is_quiet()
            sock.shutdown(socket.SHUT_WR)
            with lane.take(lane.next(Handover).fd) as inbound:
                assert inbound.recv(1) == b""


def test_a_client_that_says_nothing_is_handed_over_in_a_while(build: str) -> None:
    clock = HandClock()
    with opened(build, patience=10.0, clock=clock) as lane:
        lane.door()
        with lane.client(), greeted(lane):
            clock.advance(lane.engine, 9)
            assert lane.is_quiet()
            clock.advance(lane.engine, 1.1)
            assert [lane.next(Handover).sent, lane.next(Handover).sent] == [0, 2]
            assert lane.counts() == (2, 2, 2, 0, 0)


def test_all_are_called_in_at_once_and_late_answers_are_passed_by(build: str) -> None:
    with opened(build) as lane, target() as there:
        lane.door()
        sock, ask = asking(lane, there)
        with sock, greeted(lane):
            lane.engine.call_in()
            calls = lane.calls()
            assert sorted(len(call.received) for call in calls if isinstance(call, Handover)) == [3, 13]
            lane.engine.answer(ask.arrival, permit(there))
            assert lane.is_quiet()
            assert not lane.engine.snapshot()
            for call in calls:
                assert isinstance(call, Handover)
                lane.take(call.fd).close()


def test_after_forgetting_nothing_is_known(build: str) -> None:
    with opened(build) as lane, target() as there:
        door = lane.door()
        lane.teach_pass(door)
        sock, ask = asking(lane, there)
        lane.engine.answer(ask.arrival, permit(there))
        with sock, greeted(lane):
            read_reply5(sock)
            lane.engine.forget()
            assert len(lane.calls()) == 1
            assert len(lane.engine.snapshot()) == 1
            with lane.client(GREETING):
                assert lane.next(Handover).counted is False
        lane.next_end()


def test_a_listener_that_is_left_alone_keeps_its_queue(build: str) -> None:
    with opened(build) as lane:
        lane.door()
        lane.engine.stop_accepting(lane.listener.fileno())
        with lane.client(GREETING):
            assert lane.is_quiet()
            lane.listener.settimeout(20)
            lane.listener.accept()[0].close()
        lane.listener.setblocking(False)
        lane.engine.accept_from(lane.listener.fileno())
        with greeted(lane):
            pass


def test_a_thousand_calls_that_nobody_takes_stop_the_accepting(build: str) -> None:
    with opened(build) as lane, ExitStack() as stack:
        clients = [stack.enter_context(lane.client(GREETING)) for _ in range(1300)]
        while lane.rows.number(5) < 1024:  # each is told one
            lane.settle()
        lane.settle()
        waiting = lane.calls()
        assert 1024 <= len(waiting) < 1100
        for call in waiting:
            assert isinstance(call, Handover)
            lane.take(call.fd).close()
        for _ in clients[len(waiting) :]:
            lane.take(lane.next(Handover).fd).close()


def test_a_lifetime_counts_from_accept(build: str) -> None:
    clock = HandClock()
    with opened(build, clock=clock) as lane, target() as there:
        lane.door()
        sock, ask = asking(lane, there)
        clock.advance(lane.engine, 6)
        lane.engine.answer(ask.arrival, permit(there, until=clock.now, limits=FlowLimits(lifetime=10.0)))
        with sock:
            assert read_reply5(sock)[0] == 0
            clock.advance(lane.engine, 3)
            assert lane.is_quiet()
            assert lane.engine.snapshot()
            clock.advance(lane.engine, 1.1)
            assert lane.next_end().cause is Cause.LIFETIME
            assert is_reset(sock)


def test_who_waits_when_the_engine_stops_is_handed_over(build: str) -> None:
    with opened(build) as lane:
        lane.door()
        with greeted(lane):
            lane.engine.stop()
            (call,) = lane.calls()
            assert isinstance(call, Handover)
            lane.take(call.fd).close()


def test_numbers_are_of_one_sequence(build: str) -> None:
    with opened(build) as lane:
        lane.door()
        numbers = []
        for _ in range(3):
            with lane.client(b"\x05"):
                numbers += [lane.next(Handover).number, lane.rows.number(5)]
        assert numbers == [1, 2, 3, 4, 5, 6]


def test_requests_differ_by_every_byte(build: str) -> None:
    with opened(build) as lane, target() as there:
        lane.door()
        for host in (b"localhost", b"LOCALHOST"):
            sock = greeted(lane)
            sock.sendall(request5(1, host, there[1]))
            ask = lane.next(Ask)
            assert host in ask.message
            lane.engine.answer(ask.arrival, permit(there))
            with sock:
                assert read_reply5(sock)[0] == 0
            lane.next_end()
