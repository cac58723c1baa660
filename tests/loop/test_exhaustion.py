"""What runs out: descriptors, places under the caps, the log's room. The server stays, and says what happened."""

import fcntl
import json
import os
import re
import resource
import select
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import pytest

from helpers.clocks import endless
from helpers.serving import SERVE, Command, command, serving
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
from helpers.targets import closed_port, target
from helpers.udp import Association, datagrams
from helpers.waiting import PATIENCE, until
from tabi.config.settings import Caps, TimeLimits
from tabi.policy.verdict import Limits
from tabi.server.limiter import BURST, RefusalLimiter

pytestmark = pytest.mark.usefixtures("nothing_left")

FEW = 64  # descriptors of a server that is to run out of them
MANY = 1000  # idle clients
NO_AUTH = b"\x05\x01\x00"
LOCAL = "127.0.0.1"


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Raise this process' soft limit, as the server raises its own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3 * MANY:
        pytest.skip(f"the hard limit of descriptors is {hard}, {3 * MANY} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3 * MANY), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def starving() -> Iterator[tuple[Command, tuple[str, int]]]:
    """Run `tabi serve` with few descriptors, which it cannot raise; gives it and where it listens."""
    limited = ("sh", "-c", f'ulimit -n {FEW} && exec "$@"', "sh", *SERVE)
    with command("--log-format", "json", program=limited) as server:
        yield server, (LOCAL, server.ports(2)[0])
        assert server.stop() == 0


def descriptors(server: Command) -> int:
    """Count what the server has open."""
    return len(os.listdir(f"/proc/{server.process.pid}/fd"))


def crowd(stack: ExitStack, where: tuple[str, int], count: int, says: bytes = b"") -> list[socket.socket]:
    """Connect clients that say something and then nothing more."""
    clients = [stack.enter_context(dial(where)) for _ in range(count)]
    for client in clients:
        if says:
            client.sendall(says)
    return clients


def ended(clients: list[socket.socket]) -> list[socket.socket]:
    """Give those whose server side has ended; a reset raises."""
    readable = select.select(clients, [], [], 0)[0]
    return [client for client in readable if not client.recv(1, socket.MSG_PEEK)]


def served(where: tuple[str, int], there: tuple[str, int]) -> bool:
    """Try a whole CONNECT; False where the server had no place for it yet."""
    with dial(where) as sock:
        try:
            sock.sendall(NO_AUTH + request5(1, *there))
            if read_exactly(sock, 12)[:4] != b"\x05\x00\x05\x00":
                return False
            sock.sendall(b"echo")
            return read_exactly(sock, 4) == b"echo"
        except ConnectionError:
            return False


# descriptors


@pytest.mark.parametrize("says", [b"", NO_AUTH[:2]], ids=["silent", "talking"])
def test_clients_beyond_the_descriptors_see_a_clean_end_and_the_server_goes_on(says: bytes) -> None:
    with starving() as (server, where), target() as there:
        assert served(where, there)
        with ExitStack() as stack:
            clients = crowd(stack, where, 2 * FEW, says)
            until(lambda: len(ended(clients)) >= 3, "three clients that were refused")  # each a new exhaustion
        until(lambda: served(where, there), "the server to serve again")
        server.line("out of descriptors")
        warnings = [line for line in server.errors if "out of descriptors" in line]
        assert len(warnings) == 1
        assert not [line for line in server.errors if "Traceback" in line]


def test_nothing_stays_open_after_an_exhaustion() -> None:
    with starving() as (server, where), target() as there:
        assert served(where, there)
        server.record(command="connect", why="fin")
        before = descriptors(server)
        for _ in range(3):
            with ExitStack() as stack:
                clients = crowd(stack, where, 2 * FEW)
                until(lambda clients=clients: ended(clients), "a client that was refused")
            until(lambda: served(where, there), "the server to serve again")
        until(lambda: descriptors(server) <= before, "all descriptors but the first to be closed")


def test_tunnels_and_associations_live_on_while_descriptors_are_out() -> None:
    data = bytes(range(256)) * 8192  # more than every buffer and pipe on the way holds
    with starving() as (server, where), target() as there, datagrams() as udp_there:
        with ExitStack() as stack:
            tunnel = stack.enter_context(connect5(where, *there))
            association = stack.enter_context(Association(where))
            association.talk(udp_there)
            clients = crowd(stack, where, 2 * FEW)
            until(lambda: ended(clients), "a client that was refused")
            with sending(tunnel, data):
                assert read_exactly(tunnel, len(data)) == data
            association.talk(udp_there)
        server.line("out of descriptors")


@contextmanager
def sending(sock: socket.socket, data: bytes) -> Iterator[None]:
    """Send in a thread meanwhile."""
    thread = threading.Thread(target=sock.sendall, args=(data,))
    thread.start()
    yield
    thread.join(PATIENCE)


@pytest.mark.parametrize("command_byte", [1, 2, 3])
def test_a_request_without_a_descriptor_for_it_is_answered_by_1(command_byte: int) -> None:
    with starving() as (server, where), target() as there, ExitStack() as stack:
        asking = stack.enter_context(greet5(where))
        clients = crowd(stack, where, 2 * FEW)
        until(lambda: ended(clients), "a client that was refused")
        asking.sendall(request5(command_byte, *there))
        assert read_reply5(asking) == (1, "0.0.0.0", 0)
        assert read_all(asking) == b""
        line = server.record(reply=1)
        assert (line["by"], line["why"]) == ("tabi", "failed")


# caps


@pytest.mark.parametrize("says", [b"", NO_AUTH * 1000], ids=["silent", "talking"])
@pytest.mark.parametrize("name", ["connections", "per_client", "handshakes_per_client"])
def test_a_client_over_a_cap_sees_a_clean_end_and_the_log_names_the_cap(name: str, says: bytes) -> None:
    with serving(cap=Caps(**{name: 2})) as server, target() as there, ExitStack() as stack:
        crowd(stack, server.address, 2)

        def talk_and_wait() -> socket.socket:  # its bytes are there before the server can see it
            sock = stack.enter_context(dial(server.address))
            sock.sendall(says)
            return sock

        assert read_all(server.call_sync(talk_and_wait)) == b""
        line = server.line(why=f"cap:{name}")
        assert (line["by"], line["client"].partition(":")[0], line["up"], line["down"]) == ("tabi", LOCAL, 0, 0)
        stack.close()
        server.idle()
        assert served(server.address, there)


@pytest.mark.parametrize("name", ["per_client", "handshakes_per_client"])
def test_a_client_at_its_cap_is_in_nobody_elses_way(name: str) -> None:
    with serving(cap=Caps(**{name: 1})) as server, target() as there, ExitStack() as stack:
        crowd(stack, server.address, 1)
        with greet5(server.address, ("127.0.0.2", 0)) as other:
            other.sendall(request5(1, *there))
            assert read_reply5(other)[0] == 0


def test_the_cap_on_connections_is_everybodys() -> None:
    with serving(cap=Caps(connections=1)) as server, ExitStack() as stack:
        crowd(stack, server.address, 1)
        with dial(server.address, ("127.0.0.2", 0)) as other:
            assert read_all(other) == b""
        server.line(why="cap:connections")


def test_a_tunnel_counts_until_it_ends_but_not_as_a_handshake() -> None:
    caps = Caps(connections=2, per_client=2, handshakes_per_client=1)
    with serving(cap=caps) as server, target() as there:
        with connect5(server.address, *there), connect5(server.address, *there):
            with dial(server.address) as third:
                assert read_all(third) == b""
            server.line(why="cap:connections")
        server.idle()
        assert served(server.address, there)


def test_what_is_over_makes_room_before_anybody_is_turned_away() -> None:
    with serving(cap=Caps(connections=1)) as server, target() as there:
        engine = server.server.engine
        with connect5(server.address, *there) as first:

            def end_unheard() -> None:
                first.close()
                until(lambda: len(engine) == 0, "the end of the tunnel")
                select.select([engine.fileno()], [], [])
                os.eventfd_read(engine.fileno())

            server.call_sync(end_unheard)
            assert served(server.address, there)


def test_whoever_makes_room_hears_what_else_was_told() -> None:
    with serving() as server, target() as there, ExitStack() as stack:

        def arrive_unheard() -> socket.socket:  # with half a greeting: the lane hands it over
            sock = stack.enter_context(dial(server.address))
            sock.sendall(NO_AUTH[:1])
            if server.server.lane.is_open:
                select.select([server.server.engine.fileno()], [], [])
            server.server._make_room()
            return sock

        sock = server.call_sync(arrive_unheard)
        sock.sendall(NO_AUTH[1:] + request5(1, *there))
        assert read_exactly(sock, 2) == b"\x05\x00"
        assert read_reply5(sock)[0] == 0


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({}, {}, True),
        ({"cap": Caps(per_client=1000)}, {}, False),
        ({"cap": Caps(connections=1000)}, {}, False),
        ({}, {"user_limits": {b"alice": Limits(sessions=100)}}, False),
    ],
    ids=["wide", "few per client", "few in all", "few of a user"],
)
def test_ends_are_told_together_only_where_nobody_is_near_a_limit(
    settings: dict[str, Any], options: dict[str, Any], expected: bool
) -> None:
    with serving(**settings, options=options) as server:
        assert server.server._tells_together is expected


def failures(there: tuple[str, int]) -> list[bytes]:
    """Whole sessions, each of which ends in another way."""
    return [
        b"",
        b"\x05",
        b"\x05\x01\x02",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00",
        NO_AUTH,
        NO_AUTH + b"\x05\x01\x00\x09",
        NO_AUTH + request5(9, *there),
        NO_AUTH + request5(1, LOCAL, closed_port()),
        NO_AUTH + request5(1, b"a..b", 80),
        NO_AUTH + request5(2, "0.0.0.0", 0),
        NO_AUTH + request5(2, LOCAL, 0),
        NO_AUTH + request5(3, LOCAL, 0),
        NO_AUTH + request5(1, *there),
        request4(1, *there),
        request4(1, "0.0.0.0", 80),
        request4(2, LOCAL, 0),
    ]


@pytest.mark.parametrize("by_reset", [False, True])
def test_every_way_to_end_gives_its_places_back(by_reset: bool) -> None:
    caps = Caps(connections=1, per_client=1, handshakes_per_client=1)
    with serving(cap=caps) as server, target() as there:
        server.server.journal._limiter = RefusalLimiter(endless())
        ways = [(says, fin) for says in failures(there) for fin in (False, True)]
        for count, (says, fin) in enumerate(ways, 1):
            with dial(server.address) as sock:
                sock.sendall(says)
                if fin:
                    sock.shutdown(socket.SHUT_WR)
                    read_all(sock)
                if by_reset:
                    reset(sock)
            until(lambda count=count: len(server.raw) == count, "the line of the session")
            server.idle()
        assert served(server.address, there)
        assert not [line for line in server.lines if line["why"].startswith("cap:")]


# many idle clients


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("says", [b"", b"\x05", NO_AUTH, NO_AUTH + b"\x05\x01\x00\x03\xff"])
def test_a_thousand_idle_clients_are_in_nobodys_way(says: bytes) -> None:
    with serving(time=TimeLimits(handshake=600)) as server, target() as there, ExitStack() as stack:
        crowd(stack, server.address, MANY, says)
        until(lambda: len(server.server) == MANY, "all to be accepted")
        for _ in range(3):
            assert served(server.address, there)


@pytest.mark.usefixtures("many_descriptors")
def test_a_thousand_tunnels_are_in_nobodys_way_and_leave_nothing() -> None:
    with serving() as server, target() as there:
        with ExitStack() as stack:
            for _ in range(MANY // 5):
                stack.enter_context(connect5(server.address, *there))
            assert served(server.address, there)
        server.idle()
        assert len(server.raw) == MANY // 5 + 1


def test_a_crowd_that_resets_leaves_nothing() -> None:
    with serving() as server, target() as there:
        for says in (b"", NO_AUTH, NO_AUTH + request5(1, *there), NO_AUTH + request5(3, LOCAL, 0)):
            socks = [dial(server.address) for _ in range(50)]
            for sock in socks:
                sock.sendall(says)
                reset(sock)
        server.idle()
        assert served(server.address, there)


# the log


def fail(where: tuple[str, int], source: str = LOCAL) -> None:
    """Have one session fail."""
    with dial(where, (source, 0)) as sock:
        sock.sendall(b"\x00")
        assert read_all(sock) == b""


def test_a_flood_of_failures_is_limited_by_client_and_counted() -> None:
    now = [0.0]
    with serving() as server, target() as there:
        server.server.journal._limiter = RefusalLimiter(lambda: now[0])
        for _ in range(60):
            fail(server.address)
        server.idle()
        assert len(server.raw) == BURST
        fail(server.address, "127.0.0.2")  # somebody else's first
        server.idle()
        assert len(server.raw) == BURST + 1
        assert "not logged" not in server.lines[-1]["note"]
        assert served(server.address, there)  # what was served is always told
        server.idle()
        assert len(server.raw) == BURST + 2
        now[0] += 1.0
        fail(server.address)
        fail(server.address)
        server.idle()
        assert len(server.raw) == BURST + 3
        assert "40 more failed sessions of this client were not logged" in server.lines[-1]["note"]


def test_capped_connections_cannot_flood_the_log() -> None:
    now = [0.0]
    with serving(cap=Caps(per_client=1)) as server, ExitStack() as stack:
        server.server.journal._limiter = RefusalLimiter(lambda: now[0])
        crowd(stack, server.address, 1)
        for _ in range(50):
            with dial(server.address) as sock:
                assert read_all(sock) == b""
        assert len(server.raw) == BURST


class Unread:
    """`tabi serve --log-format json` whose standard output is a small pipe that nobody reads before `read`."""

    def __init__(self) -> None:
        self._end, write_end = os.pipe()
        self._unread = b""
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, 4096)
        arguments = ("--listen", "127.0.0.1:0", "--log-format", "json")
        self.process = subprocess.Popen(
            [*SERVE, *arguments], stdin=subprocess.DEVNULL, stdout=write_end, stderr=subprocess.PIPE, text=True
        )
        os.close(write_end)
        assert self.process.stderr is not None
        said = re.fullmatch(r"tabi: listening on (.*):(\d+)\n", self.process.stderr.readline())
        assert said is not None
        self.address = (said[1], int(said[2]))

    def read(self, lines: int) -> list[str]:
        """Read so many lines."""
        found: list[str] = []
        while len(found) < lines:
            line, newline, rest = self._unread.partition(b"\n")
            if newline:
                found.append(line.decode())
                self._unread = rest
            else:
                assert select.select([self._end], [], [], PATIENCE)[0], f"only {len(found)} lines of {lines} came"
                self._unread += os.read(self._end, 1 << 16)
        return found

    def widen(self) -> None:
        """Let the pipe take more at once, for a reader in a hurry."""
        fcntl.fcntl(self._end, fcntl.F_SETPIPE_SZ, 1 << 20)

    def stop(self) -> int:
        """End it by SIGTERM and give its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        """Let nothing of it stay."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        os.close(self._end)
        assert self.process.stderr is not None
        self.process.stderr.close()


def test_a_log_that_nobody_reads_stops_nothing_and_loses_nothing_while_there_is_room() -> None:
    with closing(Unread()) as server, target() as there:
        for _ in range(200):  # some 80 kB of lines; the pipe takes 4
            assert served(server.address, there)
        lines = [json.loads(line) for line in server.read(200)]
        assert sorted(line["session"] for line in lines) == list(range(1, 201))  # in the order of their ends
        assert server.stop() == 0


def test_a_log_that_nobody_ever_reads_does_not_stop_the_end() -> None:
    with closing(Unread()) as server, target() as there:
        for _ in range(50):
            assert served(server.address, there)
        assert server.stop() == 0


def test_lines_that_find_no_room_are_counted() -> None:
    userid = b"\x01" * 255  # six characters each in JSON
    count = 3000
    with closing(Unread()) as server, target(lambda _sock: None) as there:
        for _ in range(count):
            with dial(server.address) as sock:
                sock.sendall(request4(1, *there, userid=userid))
                assert read_all(sock)[:2] == b"\x00\x5a"
        server.widen()
        lines: list[str] = []
        while not lines or "lost" not in lines[-1]:
            lines += server.read(1)
        sessions = [json.loads(line)["session"] for line in lines[:-1]]
        assert len(sessions) + json.loads(lines[-1])["lost_lines"] == count
        assert server.stop() == 0


def test_when_a_flood_is_over_what_it_hid_is_told_at_the_latest_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as server:
        server.server.journal._limiter = RefusalLimiter(lambda: 0.0)
        for _ in range(int(BURST) + 5):
            fail(server.address)
        server.idle()
    assert "5 failed sessions of 127.0.0.1 were not logged" in caplog.text


def test_dials_that_fail_leave_a_line_each_however_many() -> None:
    with serving() as server:
        server.server.journal._limiter = RefusalLimiter(lambda: 0.0)
        for _ in range(int(BURST) + 10):
            sock, reply, _, _ = ask5(server.address, 1, "127.0.0.1", 1)
            assert reply == 5
            sock.close()
        server.idle()
        assert len(server.raw) == BURST + 10
