"""The small parts of `tabi.net` over real sockets: hang-ups, closing in order, log lines, listeners, ports."""

import asyncio
import contextlib
import os
import select
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from helpers.socks import read_all, reset
from helpers.waiting import PATIENCE
from tabi.addr import Endpoint
from tabi.errors import ConfigError, DialError
from tabi.net import linger as linger_module
from tabi.net.deadlines import Deadlines
from tabi.net.lines import MOST, LineWriter
from tabi.net.linger import Lingerer
from tabi.net.listeners import Acceptor, open_listener, open_listeners
from tabi.net.ports import bind_within, open_datagram_socket, route_source, same_family, told_address
from tabi.net.watch import Watch


def run(body: Callable[[], Awaitable[None]]) -> None:
    """Run a test body with a bound on its time."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await body()

    asyncio.run(bounded())


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected TCP pair: ours (non-blocking) and the peer's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    peer.settimeout(PATIENCE)
    yield ours, peer
    ours.close()
    peer.close()


# hang-ups


def test_a_reset_is_heard_although_nobody_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        watch = Watch(loop)
        heard: asyncio.Future[bool] = loop.create_future()
        watch.hangup(pair[0].fileno(), heard.set_result)
        pair[1].sendall(b"unread")
        reset(pair[1])
        assert await heard is True
        watch.close()

    run(body)


def test_the_end_of_the_peers_direction_is_heard_only_when_asked_for(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        watch = Watch(loop)
        quiet: list[bool] = []
        watch.hangup(pair[0].fileno(), quiet.append)
        pair[1].shutdown(socket.SHUT_WR)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            other = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        heard: asyncio.Future[bool] = loop.create_future()
        watch.hangup(ours.fileno(), heard.set_result, fin=True)
        other.shutdown(socket.SHUT_WR)
        assert await heard is False
        assert quiet == []
        watch.forget(pair[0].fileno())
        watch.forget(pair[0].fileno())
        watch.close()
        ours.close()
        other.close()

    run(body)


def test_what_was_forgotten_is_not_heard(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        watch = Watch(loop)
        heard: list[bool] = []
        watch.hangup(pair[0].fileno(), heard.append)
        watch.forget(pair[0].fileno())
        reset(pair[1])
        gone: asyncio.Future[bool] = loop.create_future()
        watch.hangup(pair[0].fileno(), gone.set_result)  # the same event, heard by a new watch
        assert await gone is True
        assert heard == []
        watch.close()

    run(body)


def test_what_is_there_to_be_read_is_told_until_it_is_forgotten(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        watch = Watch(loop)
        told: asyncio.Queue[None] = asyncio.Queue()
        watch.read(pair[0].fileno(), lambda: told.put_nowait(None))
        watch.read(pair[0].fileno(), lambda: told.put_nowait(None))
        pair[1].sendall(b"unread")
        for _ in range(2):
            await told.get()
        watch.forget(pair[0].fileno())
        watch.forget(pair[0].fileno())
        while not told.empty():
            told.get_nowait()
        heard: asyncio.Future[bool] = loop.create_future()
        watch.hangup(pair[0].fileno(), heard.set_result)
        reset(pair[1])
        assert await heard is True
        assert told.empty()
        watch.close()

    run(body)


@pytest.mark.parametrize("first", [0, 1])
def test_what_was_forgotten_by_another_in_the_same_batch_is_not_told(
    first: int, pair: tuple[socket.socket, socket.socket]
) -> None:
    async def body() -> None:
        watch = Watch(asyncio.get_running_loop())
        numbers = [end.fileno() for end in pair]
        told: list[int] = []

        def on_readable(number: int) -> None:
            told.append(number)
            for other in numbers:
                watch.forget(other)

        for number in (numbers[first], numbers[1 - first]):
            watch.read(number, lambda number=number: on_readable(number))
        for end in pair:
            end.sendall(b"x")
        while not told:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(told) == 1
        watch.close()

    run(body)


def test_a_bug_of_one_reader_does_not_harm_the_others(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        bugs: list[object] = []
        loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))
        watch = Watch(loop)
        both = [asyncio.Event(), asyncio.Event()]

        def on_readable(which: int) -> None:
            both[which].set()
            watch.forget(pair[which].fileno())
            raise ZeroDivisionError

        for which, end in enumerate(pair):
            watch.read(end.fileno(), lambda which=which: on_readable(which))
            end.sendall(b"x")
        for event in both:
            await event.wait()
        await asyncio.sleep(0)
        assert [type(bug) for bug in bugs] == [ZeroDivisionError, ZeroDivisionError]
        watch.close()

    run(body)


# deadlines


class Hand:
    """A loop whose clock is moved by hand."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.now = float(int(self.loop.time()))  # exact sums
        self.loop.time = lambda: self.now  # type: ignore[method-assign]

    async def advance(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        self.now += seconds
        for _ in range(3):
            await asyncio.sleep(0)


def test_each_deadline_comes_at_its_time_and_not_when_it_was_let_go() -> None:
    async def body() -> None:
        hand = Hand()
        over: list[str] = []
        deadlines = Deadlines(1.0, over.append, loop=hand.loop)
        deadlines.begin("first")
        await hand.advance(0.5)
        deadlines.begin("let go")
        deadlines.begin("second")
        await hand.advance(0.375)
        assert over == []
        await hand.advance(0.125)
        assert over == ["first"]
        deadlines.end("let go")
        deadlines.end("let go")
        deadlines.begin("third")
        await hand.advance(0.5)
        assert over == ["first", "second"]
        assert len(deadlines) == 1
        await hand.advance(0.5)
        assert over == ["first", "second", "third"]
        deadlines.begin("fourth")  # after the timer had nothing left to wait for
        await hand.advance(1)
        assert over[-1] == "fourth"
        deadlines.begin("fifth")
        deadlines.close()
        await hand.advance(1)
        assert over[-1] == "fourth"

    run(body)


def test_a_deadline_that_is_let_go_by_another_of_the_same_moment_does_not_come() -> None:
    async def body() -> None:
        hand = Hand()
        over: list[str] = []

        def then(key: str) -> None:
            over.append(key)
            deadlines.end("second")
            raise ZeroDivisionError

        bugs: list[object] = []
        hand.loop.set_exception_handler(lambda _, context: bugs.append(context["exception"]))
        deadlines = Deadlines(1.0, then, loop=hand.loop)
        for key in ("first", "second", "third"):
            deadlines.begin(key)
        await hand.advance(1)
        assert over == ["first", "third"]
        assert len(bugs) == 2

    run(body)


# closing in order


def test_the_last_bytes_arrive_although_the_peer_goes_on_sending(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        lingerer = Lingerer(loop)
        closed: asyncio.Future[None] = loop.create_future()
        pair[1].sendall(b"x" * 100_000)  # unread bytes: a plain close() would reset
        lingerer.close(pair[0], b"goodbye", then=lambda: closed.set_result(None))
        assert await asyncio.to_thread(read_all, pair[1]) == b"goodbye"
        assert not closed.done()
        assert len(lingerer) == 1
        pair[1].close()
        await closed
        assert len(lingerer) == 0
        assert pair[0].fileno() == -1

    run(body)


def test_a_peer_that_never_closes_is_closed_after_a_while(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linger_module, "PATIENCE", 0.01)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        Lingerer(loop).close(pair[0], b"", then=lambda: closed.set_result(None))
        await closed
        assert pair[0].fileno() == -1

    run(body)


def test_a_peer_that_floods_is_closed_after_a_megabyte(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        closed: asyncio.Future[None] = loop.create_future()
        Lingerer(loop).close(pair[0], b"", then=lambda: closed.set_result(None))

        def flood() -> int:
            sent = 0
            try:
                while sent < 64 << 20:
                    sent += pair[1].send(bytes(65536))
            except OSError:
                return sent
            return sent

        assert await asyncio.to_thread(flood) < 64 << 20
        await closed

    run(body)


def test_a_peer_that_has_gone_is_closed_at_once(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        lingerer = Lingerer(loop)
        reset(pair[1])
        closed: asyncio.Future[None] = loop.create_future()
        lingerer.close(pair[0], b"unheard", then=lambda: closed.set_result(None))
        await closed
        assert len(lingerer) == 0

    run(body)


def test_at_shutdown_all_that_linger_are_closed(pair: tuple[socket.socket, socket.socket]) -> None:
    async def body() -> None:
        closed: list[int] = []
        lingerer = Lingerer(asyncio.get_running_loop())
        lingerer.close(pair[0], b"", then=lambda: closed.append(1))
        lingerer.close_all()
        assert closed == [1]
        assert len(lingerer) == 0

    run(body)


# log lines


def test_lines_of_one_turn_are_written_together_and_in_order() -> None:
    async def body() -> None:
        reader, writer = os.pipe()
        lines = LineWriter(writer, asyncio.get_running_loop())
        lines.write("one")
        lines.write("two\nthree")
        assert await asyncio.to_thread(os.read, reader, 100) == b"one\ntwo\nthree\n"
        os.close(reader)
        os.close(writer)

    run(body)


def test_long_lines_of_several_writers_to_one_pipe_stay_whole() -> None:
    """Each is written in one piece, or it could be torn by what another process writes in between."""
    reader, writer = os.pipe()
    program = (
        "import asyncio, sys\n"
        "from tabi.net.lines import LineWriter\n"
        "async def main():\n"
        "    lines = LineWriter(1, asyncio.get_running_loop())\n"
        "    for size in range(3900, 4400):\n"
        "        lines.write(sys.argv[1] * size)\n"
        "    lines.flush(60)\n"
        "asyncio.run(main())\n"
    )
    processes = [subprocess.Popen([sys.executable, "-c", program, letter], stdout=writer) for letter in "äbc"]
    os.close(writer)
    with open(reader, "rb") as stream:
        lines = stream.read().decode().splitlines()
    assert [process.wait(PATIENCE) for process in processes] == [0, 0, 0]
    assert len(lines) == 3 * 500
    for line in lines:
        text = line.removesuffix(" [cut]")
        assert len(set(text)) == 1, line[:100]
        assert len(line.encode()) < select.PIPE_BUF
        assert text != line or len(text) >= 3900


def test_a_reader_that_stalls_loses_lines_by_count_and_never_stops_us() -> None:
    async def body() -> None:
        reader, writer = os.pipe()
        lines = LineWriter(writer, asyncio.get_running_loop())
        line = "x" * 999
        written = MOST // 1000 + 500
        for _ in range(written):
            lines.write(line)
        lines.flush(0.0)
        got = b""

        def read() -> bytes:
            data = got
            while b"were lost" not in data:
                data += os.read(reader, 1 << 16)
            return data

        reading = asyncio.get_running_loop().run_in_executor(None, read)
        got = await reading
        kept = got.count(b"x" * 999 + b"\n")
        assert got.endswith(b"tabi: %d log lines were lost: nobody read them fast enough\n" % (written - kept))
        assert MOST // 1000 - 100 <= kept < written
        os.close(reader)
        os.close(writer)

    run(body)


def test_a_reader_that_has_gone_costs_nothing() -> None:
    async def body() -> None:
        reader, writer = os.pipe()
        os.close(reader)
        lines = LineWriter(writer, asyncio.get_running_loop())
        lines.write("nobody hears this")
        lines.flush()
        lines.write("nor this")
        lines.flush()
        os.close(writer)

    run(body)


def test_room_that_another_process_took_first_stops_nobody() -> None:
    async def body() -> None:
        reader, writer = os.pipe()
        lines = LineWriter(writer, asyncio.get_running_loop())
        os.set_blocking(writer, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writer, b"o" * 4096)
        os.set_blocking(writer, True)
        lines._poll = SimpleNamespace(poll=lambda _: [(writer, select.POLLOUT)])  # as it was a moment before
        lines.write("kept")
        await asyncio.sleep(0)  # would block here
        await asyncio.sleep(0)
        while (data := os.read(reader, 4096)).strip(b"o") == b"":
            lines.flush(0.0)
        assert data.endswith(b"kept\n")
        os.close(reader)
        os.close(writer)

    run(body)


# listeners and ports


def test_an_address_in_use_is_said_with_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ConfigError, match=rf"cannot listen on 127\.0\.0\.1:{port}: address in use; stop the program"
        ):
            open_listener(Endpoint.parse(f"127.0.0.1:{port}"))


def test_an_address_that_is_not_ours_is_said() -> None:
    with pytest.raises(ConfigError, match="no interface of this host has that address"):
        open_listener(Endpoint.parse("192.0.2.77:0"))


def test_a_name_is_no_listen_address() -> None:
    with pytest.raises(ConfigError, match=r"localhost:1080 is a name; write an address, such as 127\.0\.0\.1:1080"):
        open_listener(Endpoint.parse("localhost:1080"))


def test_when_one_listener_cannot_be_opened_none_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        free = probe.getsockname()[1]
    with pytest.raises(ConfigError):
        open_listeners((Endpoint.parse(f"127.0.0.1:{free}"), Endpoint.parse("192.0.2.77:0")))
    socket.create_server(("127.0.0.1", free)).close()


def test_the_unspecified_ipv6_address_takes_ipv4_too_unless_that_is_asked_for() -> None:
    with open_listener(Endpoint.parse("[::]:0")) as both:
        socket.create_connection(("127.0.0.1", both.getsockname()[1])).close()
        port = both.getsockname()[1]
    first, second = open_listeners((Endpoint.parse(f"0.0.0.0:{port}"), Endpoint.parse(f"[::]:{port}")))
    first.close()
    second.close()


def test_ports_are_taken_from_the_range_until_it_is_empty() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        last = probe.getsockname()[1]
    address, ports = ip_address("127.0.0.1"), (last - 2, last)
    opened = []
    try:
        for _ in range(3):
            sock = socket.socket()
            opened.append(sock)
            try:
                bind_within(sock, address, ports)
            except OSError:  # something else on this machine has one of the three
                break
        else:
            assert {sock.getsockname()[1] for sock in opened} == {last - 2, last - 1, last}
        with (
            socket.socket() as one_more,
            pytest.raises(OSError, match=f"all ports from {last - 2} to {last} are taken"),
        ):
            bind_within(one_more, address, ports)
    finally:
        for sock in opened:
            sock.close()


def test_a_datagram_port_that_is_taken_is_a_dial_error_with_the_range() -> None:
    address = ip_address("127.0.0.1")
    with open_datagram_socket(address, None) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DialError, match=rf"no UDP port to be had on 127\.0\.0\.1 \(\({port}, {port}\)\)"):
            open_datagram_socket(address, (port, port))


def test_the_route_to_loopback_starts_on_loopback() -> None:
    assert route_source(ip_address("127.0.0.9")) == ip_address("127.0.0.1")
    assert route_source(ip_address("::1")) == ip_address("::1")


def test_a_configured_address_serves_its_own_family_only() -> None:
    four, six = ip_address("192.0.2.1"), ip_address("2001:db8::1")
    assert same_family(four, ip_address("127.0.0.1")) == four
    assert same_family(four, six) == six
    assert same_family(None, six) == six


def test_what_a_client_is_told_is_never_an_address_that_it_cannot_reach() -> None:
    bound, anywhere, control = ip_address("192.0.2.1"), ip_address("0.0.0.0"), ip_address("127.0.0.1")
    assert told_address(None, bound, control) == bound
    assert told_address(None, anywhere, control) == control
    assert told_address(None, anywhere, ip_address("::1")) == anywhere  # of another family: nothing better is known
    assert told_address(ip_address("198.51.100.1"), anywhere, control) == ip_address("198.51.100.1")
    assert told_address(ip_address("2001:db8::1"), bound, control) == bound


def test_a_log_that_cannot_be_written_is_said_once_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        full = os.open("/dev/full", os.O_WRONLY)
        lines = LineWriter(full, asyncio.get_running_loop())
        for _ in range(3):
            lines.write("no room for this")
            lines.flush(0.0)
        os.close(full)

    run(body)
    assert caplog.text.count("log lines cannot be written: No space left on device") == 1


def test_an_orderly_close_takes_no_more_than_the_ten_seconds_of_rfc_1928() -> None:
    assert linger_module.PATIENCE < 10


def _unexpected(*_: object) -> None:
    raise AssertionError("nothing is to be accepted")


def test_a_listener_that_is_abandoned_leaves_its_queue_to_whoever_has_it_as_well() -> None:
    async def body() -> None:
        listener = open_listener(Endpoint.parse("127.0.0.1:0"))
        other = listener.dup()
        acceptor = Acceptor(listener, _unexpected, _unexpected, asyncio.get_running_loop())
        with socket.create_connection(other.getsockname()) as client:
            acceptor.abandon()
            other.setblocking(True)
            accepted, peer = other.accept()
            assert peer == client.getsockname()
            accepted.close()
        other.close()

    run(body)
