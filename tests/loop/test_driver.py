"""Plans over real sockets: what opens, how failures are told, and that nothing is left behind."""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from helpers.looping import run, until
from tabi.addr import Address, Endpoint, Name
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.wishes import Cancel, Close, Connection, Done, Failed, Open, Peek, Plan, Read, Resolve, Send, Sleep
from tabi.errors import DeniedError, DialError, DialTimeoutError, Reply, Stage
from tabi.net import driver as driver_module
from tabi.net.driver import drive

V4 = IPv4Address("127.0.0.1")
V6 = IPv6Address("::1")
NAME = Name("target.example")


class FakeResolver:
    """Answers by a table; a missing entry never answers. Futures that were handed out are kept in `asked`."""

    def __init__(self, answers: dict[int, tuple[Address, ...] | BaseException] | None = None) -> None:
        self.answers = answers or {}
        self.asked: list[tuple[Name, int, object, asyncio.Future]] = []

    def ask(self, name: Name, family: int, client: object) -> asyncio.Future:
        future = asyncio.get_running_loop().create_future()
        answer = self.answers.get(family)
        if isinstance(answer, BaseException):
            future.set_exception(answer)
        elif answer is not None:
            future.set_result(answer)
        self.asked.append((name, family, client, future))
        return future


@contextmanager
def listening(address: Address, backlog: int = 16) -> Iterator[tuple[socket.socket, int]]:
    with socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6) as listener:
        listener.bind((str(address), 0))
        listener.listen(backlog)
        yield listener, listener.getsockname()[1]


@contextmanager
def full_listener() -> Iterator[int]:
    """A port of loopback that answers no SYN: its queue of connections is full and stays so (tcp(7))."""
    with listening(V4, backlog=0) as (_, port), socket.socket() as first, socket.socket() as second:
        for sock in (first, second):
            sock.setblocking(False)
            sock.connect_ex((str(V4), port))
        yield port


def closed_port(address: Address = V4) -> int:
    with listening(address) as (_, port):
        return port


def sockets_open() -> set[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the descriptor of the listing itself
            pass
    return {link for link in found if link.startswith("socket:")}


def dial(host: Address | Name, port: int, resolver: FakeResolver | None = None, **options: object) -> Connection:
    egress = options.pop("egress", None)
    permit = options.pop("permit", lambda _: True)
    plan = direct(Endpoint(host, port), permit=permit, options=DirectOptions(**options))

    async def main() -> Connection:
        before = sockets_open()
        try:
            connection = await drive(plan, resolver=resolver or FakeResolver(), client="me", egress=lambda _: egress)
            mine = {f"socket:[{os.fstat(connection.handle.fileno()).st_ino}]"}
        except (DialError, DeniedError):
            assert sockets_open() == before
            raise
        assert sockets_open() == before | mine
        loop = asyncio.get_running_loop()
        assert not loop.remove_writer(connection.handle)  # True would mean that there was one
        assert not loop.remove_reader(connection.handle)
        assert asyncio.all_tasks() == {asyncio.current_task(), *outer}
        return connection

    outer: set[asyncio.Task] = set()

    async def wrapped() -> Connection:
        outer.update(asyncio.all_tasks())
        return await main()

    return run(wrapped())


@pytest.mark.parametrize("address", [V4, V6])
def test_a_literal_is_connected_and_both_ends_are_told_truly(address: Address) -> None:
    with listening(address) as (listener, port):
        connection = dial(address, port)
        accepted, peer = listener.accept()
        with accepted, connection.handle as sock:
            assert connection.remote == Endpoint(address, port)
            assert connection.local == Endpoint.from_sockaddr(peer)
            assert sock.getblocking() is False
            assert sock.get_inheritable() is False
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
            accepted.sendall(b"x")
            sock.setblocking(True)
            assert sock.recv(9) == b"x"


def test_a_literal_on_loopback_waits_for_no_turn_of_the_loop() -> None:
    async def main() -> None:
        with listening(V4) as (_, port):
            plan = direct(Endpoint(V4, port), permit=lambda _: True)
            coroutine = drive(plan, resolver=FakeResolver(), client="me")
            with pytest.raises(StopIteration) as stopped:
                coroutine.send(None)
            stopped.value.value.handle.close()

    run(main())


def test_only_what_has_to_wait_is_told_and_needs_a_timer() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        waits: list[str] = []
        timers = []
        call_at = loop.call_at
        loop.call_at = lambda *call, **more: timers.append(call) or call_at(*call, **more)  # type: ignore[method-assign]

        def drive_to(port: int, who: str) -> "asyncio.Task[Connection]":
            plan = direct(Endpoint(V4, port), permit=lambda _: True, options=DirectOptions(timeout=600))
            work = drive(plan, resolver=FakeResolver(), client="me", on_wait=lambda: waits.append(who))
            return loop.create_task(work)

        with listening(V4) as (_, port):
            connection = await drive_to(port, "at once")
            connection.handle.close()
            assert (waits, timers) == ([], [])
        with full_listener() as port:
            task = drive_to(port, "waiting")
            await until(lambda: waits)
            assert waits == ["waiting"]
            assert len([when for when, *_ in timers if when > loop.time() + 300]) == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(main())


@pytest.mark.parametrize("address", [V4, V6])
def test_a_port_without_listener_is_refused(address: Address) -> None:
    with pytest.raises(DialError) as caught:
        dial(address, closed_port(address))
    assert caught.value.reply is Reply.CONNECTION_REFUSED


def test_a_target_that_does_not_answer_runs_into_the_time_limit() -> None:
    with full_listener() as port:
        with pytest.raises(DialTimeoutError) as caught:
            dial(V4, port, timeout=0.05)
    assert caught.value.stage is Stage.CONNECT


class Slow(socket.socket):
    """Loopback decides within connect; that path away, the answer is heard by the loop."""

    def connect_ex(self, where: object, /) -> int:
        code = super().connect_ex(where)
        return errno.EINPROGRESS if code in (0, errno.EISCONN) else code


def test_a_connection_that_takes_its_time_is_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module.socket, "socket", Slow)
    with listening(V4) as (_, port):
        connection = dial(V4, port)
        connection.handle.close()
        assert connection.remote.port == port


def test_a_refusal_that_takes_its_time_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(socket.socket):
        def connect_ex(self, where: object, /) -> int:
            self.asked = getattr(self, "asked", 0) + 1
            return super().connect_ex(where) if self.asked == 1 else errno.EALREADY

    monkeypatch.setattr(driver_module.socket, "socket", Slow)
    with pytest.raises(DialError) as caught:
        dial(V4, closed_port())
    assert caught.value.reply is Reply.CONNECTION_REFUSED


def test_a_name_whose_first_address_is_refused_reaches_the_second() -> None:
    with listening(V4) as (_, port):
        resolver = FakeResolver({6: (V6,), 4: (V4,)})
        connection = dial(NAME, port, resolver)
        connection.handle.close()
    assert connection.remote.host == V4
    assert [(name, family, client) for name, family, client, _ in resolver.asked] == [
        (NAME, 6, "me"), (NAME, 4, "me"),
    ]  # fmt: skip


def test_the_loser_of_a_race_is_closed() -> None:
    with full_listener() as port, socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # an earlier listener's connections may linger
        listener.bind(("::1", port))
        listener.listen()
        resolver = FakeResolver({4: (V4,)})  # AAAA is answered below

        async def main() -> Connection:
            options = DirectOptions(resolution_delay=0, attempt_delay=0.01)
            plan = direct(Endpoint(NAME, port), permit=lambda _: True, options=options)
            before = sockets_open()
            running = asyncio.create_task(drive(plan, resolver=resolver, client="me"))
            await until(lambda: len(sockets_open() - before) == 1)  # IPv4 is under way and stays so
            aaaa = next(future for _, family, _, future in resolver.asked if family == 6)
            aaaa.set_result((V6,))
            return await running

        before = sockets_open()
        connection = run(main())
        with connection.handle:
            assert connection.remote.host == V6
            assert sockets_open() - before == {f"socket:[{os.fstat(connection.handle.fileno()).st_ino}]"}


def test_a_look_up_that_is_not_needed_any_more_is_cancelled() -> None:
    resolver = FakeResolver({6: (V6,)})
    with listening(V6) as (_, port):
        dial(NAME, port, resolver).handle.close()
    assert [future.cancelled() for _, family, _, future in resolver.asked if family == 4] == [True]


def test_an_error_of_the_resolver_is_told_to_the_plan() -> None:
    failure = DialError("SERVFAIL", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE)
    with pytest.raises(DialError) as caught:
        dial(NAME, 80, FakeResolver({6: failure, 4: failure}))
    assert caught.value is failure


def test_a_bug_of_the_resolver_ends_the_dial() -> None:
    with pytest.raises(ZeroDivisionError):
        dial(NAME, 80, FakeResolver({6: ZeroDivisionError()}))


def test_policy_is_asked_and_heard() -> None:
    with pytest.raises(DeniedError):
        dial(NAME, 80, FakeResolver({6: (), 4: (V4,)}), permit=lambda _: False)


@pytest.mark.parametrize("waits_for", ["connect", "look-up"])
def test_cancellation_leaves_nothing(waits_for: str) -> None:
    resolver = FakeResolver()

    async def main() -> None:
        with full_listener() as port:
            before = sockets_open()
            target = Endpoint(V4 if waits_for == "connect" else NAME, port)
            plan = direct(target, permit=lambda _: True)
            running = asyncio.create_task(drive(plan, resolver=resolver, client="me"))
            await until(lambda: resolver.asked or sockets_open() != before)
            loop = asyncio.get_running_loop()
            assert resolver.asked or len(loop._selector.get_map()) == 2  # the loop's own, and the socket
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert sockets_open() == before
            assert len(loop._selector.get_map()) == 1
            assert all(future.cancelled() for *_, future in resolver.asked)
            assert plan.gi_frame is None  # the generator is closed, not forgotten
            assert not [timer for timer in loop._scheduled if not timer.cancelled() and is_ours(timer)]

    run(main())


@pytest.mark.parametrize("turns", [0, 1, 2], ids=["before it is heard", "as it is heard", "before it is told"])
def test_a_target_that_was_reached_as_the_dial_was_cancelled_is_reset(
    turns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has the connection already, and must not take the end of it for all that there was to be said."""
    monkeypatch.setattr(driver_module.socket, "socket", Slow)

    async def main(listener: socket.socket, port: int) -> socket.socket:
        plan = direct(Endpoint(V4, port), permit=lambda _: True)
        dialling = asyncio.create_task(drive(plan, resolver=FakeResolver(), client="me"))
        await asyncio.sleep(0)  # it waits for the answer now, which the kernel has
        peer, _ = listener.accept()
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not dialling.done()
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling
        return peer

    with listening(V4) as (listener, port):
        listener.settimeout(10)
        with run(main(listener, port)) as peer, pytest.raises(ConnectionResetError):
            peer.settimeout(10)
            peer.recv(1)


def is_ours(timer: asyncio.TimerHandle) -> bool:
    return "_Driver" in repr(timer)


def test_a_connection_that_the_plan_was_not_told_of_is_closed() -> None:
    def both(port: int) -> Plan:
        fact = yield (Open(V4, port), Open(V4, port))
        assert isinstance(fact, Done)
        assert isinstance(fact.value, Connection)
        return fact.value

    with listening(V4) as (_, port):
        before = sockets_open()
        connection = run(drive(both(port), resolver=FakeResolver(), client="me"))
        left = sockets_open() - before
        with connection.handle:
            assert len(left) == 1
            assert connection.handle.fileno() >= 0


@pytest.mark.parametrize("failure", ["refused", "to oneself"])
def test_the_socket_of_a_failed_attempt_is_closed_at_once(failure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []
    closed = closed_port()
    if failure == "to oneself":
        monkeypatch.setattr(driver_module, "prepare_outbound", lambda sock: sock.bind((str(V4), closed)))

    def look_after() -> Plan:
        fact = yield (Open(V4, closed),)
        assert isinstance(fact, Failed)
        seen.append(sockets_open())
        raise fact.error

    async def main() -> None:
        seen.append(sockets_open())
        with pytest.raises(DialError):
            await drive(look_after(), resolver=FakeResolver(), client="me")

    run(main())
    assert seen[0] == seen[1]


def test_connections_of_a_plan_that_fails_are_closed() -> None:
    def give_up(port: int) -> Plan:
        yield (Open(V4, port),)
        raise DialError("changed my mind")

    with listening(V4) as (_, port):
        before = sockets_open()
        with pytest.raises(DialError, match="changed my mind"):
            run(drive(give_up(port), resolver=FakeResolver(), client="me"))
        assert sockets_open() == before


def test_a_wish_cancelled_after_it_came_true_has_no_fact_and_no_socket() -> None:
    def fickle(port: int) -> Plan:
        unwanted, wanted = Open(V4, port), Open(V4, port)
        fact = yield (unwanted, Cancel(unwanted), wanted)
        assert fact.wish is wanted
        return fact.value

    with listening(V4) as (_, port):
        before = sockets_open()
        connection = run(drive(fickle(port), resolver=FakeResolver(), client="me"))
        with connection.handle:
            assert len(sockets_open() - before) == 1


def test_sleeps_come_in_the_order_of_their_ends_and_zero_at_once() -> None:
    order: list[float] = []

    def sleepy(port: int) -> Plan:
        sleeps = (Sleep(0.3), Sleep(0), Sleep(0.01))
        fact = yield sleeps
        for _ in sleeps:
            order.append(fact.wish.seconds)
            fact = yield () if len(order) < 3 else (Open(V4, port),)
        return fact.value

    with listening(V4) as (_, port):
        run(drive(sleepy(port), resolver=FakeResolver(), client="me")).handle.close()
    assert order == [0, 0.01, 0.3]


def test_send_sends_all_and_read_never_more_than_asked() -> None:
    blob = os.urandom(8 << 20)  # more than both buffers of a loopback socket hold

    def converse(port: int) -> Plan:
        opened = yield (Open(V4, port),)
        connection = opened.value
        for data in (blob, b""):
            fact = yield (Send(connection, data),)
            assert fact.value is None
        got = b""
        while len(got) < 5:
            fact = yield (Read(connection, min(2, 5 - len(got))),)
            assert 1 <= len(fact.value) <= 2
            got += fact.value
        assert got == b"12345"
        return connection

    async def main() -> None:
        with listening(V4) as (listener, port):
            running = asyncio.create_task(drive(converse(port), resolver=FakeResolver(), client="me"))
            accepted = await asyncio.to_thread(listener.accept)
            with accepted[0] as peer:
                received = bytearray()
                while len(received) < len(blob):
                    received += await asyncio.to_thread(peer.recv, 1 << 20)
                assert received == blob
                peer.sendall(b"12345banner")
                connection = await running
                with connection.handle as sock:
                    await until(lambda: readable(sock))
                    assert sock.recv(99) == b"banner"

    run(main())


def readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("wish", ["send", "read"])
def test_a_reset_while_talking_is_a_failure_of_the_negotiation(wish: str) -> None:
    def converse(port: int) -> Plan:
        opened = yield (Open(V4, port),)
        connection = opened.value
        fact = yield (Send(connection, bytes(8 << 20)) if wish == "send" else Read(connection, 1),)
        assert isinstance(fact, Failed)
        raise fact.error

    async def main() -> None:
        with listening(V4) as (listener, port):
            running = asyncio.create_task(drive(converse(port), resolver=FakeResolver(), client="me"))
            peer, _ = await asyncio.to_thread(listener.accept)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await running

    with pytest.raises(DialError) as caught:
        run(main())
    assert caught.value.stage is Stage.NEGOTIATE


def test_what_is_peeked_at_stays_to_be_read() -> None:
    def converse(port: int) -> Plan:
        opened = yield (Open(V4, port),)
        for _ in range(2):
            fact = yield (Peek(opened.value, 3),)
            assert fact.value == b"abc"
        fact = yield (Read(opened.value, 2),)
        assert fact.value == b"ab"
        return opened.value

    async def main() -> None:
        with listening(V4) as (listener, port):
            running = asyncio.create_task(drive(converse(port), resolver=FakeResolver(), client="me"))
            peer, _ = await asyncio.to_thread(listener.accept)
            with peer:
                peer.sendall(b"abcd")
                sock = (await running).handle
                assert isinstance(sock, socket.socket)
                with sock:
                    assert sock.recv(9) == b"cd"

    run(main())


def test_a_connection_is_closed_at_the_plans_word_and_not_twice() -> None:
    def converse(port: int, other: int) -> Plan:
        first = yield (Open(V4, port),)
        yield (Close(first.value), Sleep(0))
        yield (Close(first.value), Sleep(0))
        opened = yield (Open(V4, other),)
        return opened.value

    async def main() -> None:
        with listening(V4) as (listener, port), listening(V4) as (_, other):
            connection = await drive(converse(port, other), resolver=FakeResolver(), client="me")
            peer, _ = listener.accept()
            with peer, connection.handle:
                assert peer.recv(1) == b""
                assert connection.handle.getpeername()[1] == other

    run(main())


def test_the_end_of_the_stream_is_empty_bytes() -> None:
    def converse(port: int) -> Plan:
        opened = yield (Open(V4, port),)
        fact = yield (Read(opened.value, 9),)
        assert fact.value == b""
        return opened.value

    async def main() -> None:
        with listening(V4) as (listener, port):
            running = asyncio.create_task(drive(converse(port), resolver=FakeResolver(), client="me"))
            peer, _ = await asyncio.to_thread(listener.accept)
            peer.close()
            (await running).handle.close()

    run(main())


def test_connecting_to_oneself_counts_as_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()

    def take_the_same_port(sock: socket.socket) -> None:
        sock.bind((str(V4), port))  # what the kernel does by chance with an ephemeral port

    monkeypatch.setattr(driver_module, "prepare_outbound", take_the_same_port)
    with pytest.raises(DialError) as caught:
        dial(V4, port)
    assert caught.value.reply is Reply.CONNECTION_REFUSED


@pytest.mark.parametrize("egress", [ip_address("127.0.0.9"), V6])
def test_connections_come_from_the_egress_address(egress: Address) -> None:
    target = V4 if egress.version == 4 else V6
    with listening(target) as (_, port):
        connection = dial(target, port, egress=egress)
        with connection.handle as sock:
            assert connection.local.host == egress
            level, option = socket.IPPROTO_IP, driver_module.IP_BIND_ADDRESS_NO_PORT
            assert sock.getsockopt(level, option) == 1


def test_targets_of_another_family_than_the_egress_address_are_unreachable() -> None:
    with listening(V6) as (_, port):
        with pytest.raises(DialError) as caught:
            dial(V6, port, egress=V4)
    assert caught.value.reply is Reply.NETWORK_UNREACHABLE
    assert "egress" in str(caught.value)


def test_an_egress_address_that_is_not_ours_is_told() -> None:
    with pytest.raises(DialError) as caught:
        dial(V4, 80, egress=IPv4Address("192.0.2.1"))
    assert caught.value.reply is Reply.GENERAL_FAILURE
    assert "egress" in str(caught.value)


def failing_socket(code: int) -> Callable[..., socket.socket]:
    def make(*_: object) -> socket.socket:
        raise OSError(code, os.strerror(code))

    return make


@pytest.mark.parametrize(
    ("code", "reply"),
    [(errno.EMFILE, Reply.GENERAL_FAILURE), (errno.EAFNOSUPPORT, Reply.NETWORK_UNREACHABLE)],
)
def test_a_socket_that_cannot_be_made_is_told(code: int, reply: Reply, monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.socket
    loop = asyncio.new_event_loop()
    try:
        monkeypatch.setattr(driver_module.socket, "socket", failing_socket(code))
        plan = direct(Endpoint(V6, 80), permit=lambda _: True)
        with pytest.raises(DialError) as caught:
            loop.run_until_complete(drive(plan, resolver=FakeResolver(), client="me"))
    finally:
        monkeypatch.setattr(driver_module.socket, "socket", original)
        loop.close()
    assert caught.value.reply is reply


def test_the_wish_to_resolve_reaches_the_resolver_with_the_client() -> None:
    resolver = FakeResolver({4: (V4,)})

    def ask(port: int) -> Plan:
        fact = yield (Resolve(NAME, 4),)
        assert fact.value == (V4,)
        fact = yield (Open(V4, port),)
        return fact.value

    with listening(V4) as (_, port):
        run(drive(ask(port), resolver=resolver, client="client 7")).handle.close()
    assert resolver.asked[0][:3] == (NAME, 4, "client 7")


def test_an_attempt_that_failed_unheard_does_not_spoil_the_one_that_won() -> None:
    with listening(V4) as (_, port):
        won, failed = Open(V4, port), Open(V4, closed_port())

        def plan() -> Plan:
            fact = yield won, failed  # both are decided at once; the failure is never asked for
            assert isinstance(fact, Done)
            return fact.value

        async def main() -> None:
            before = sockets_open()
            connection = await drive(plan(), resolver=FakeResolver(), client="me")
            assert connection.remote.port == port
            connection.handle.close()
            assert sockets_open() == before

        run(main())


def test_an_attempt_that_failed_unheard_can_be_cancelled() -> None:
    with listening(V4) as (_, port):
        won, failed = Open(V4, port), Open(V4, closed_port())

        def plan() -> Plan:
            fact = yield won, failed
            assert isinstance(fact, Done)
            pause = Sleep(0)
            yield Cancel(failed), pause
            return fact.value

        async def main() -> None:
            connection = await drive(plan(), resolver=FakeResolver(), client="me")
            connection.handle.close()

        run(main())
