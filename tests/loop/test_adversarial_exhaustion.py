"""What runs out under a configuration, with workers (rows F1 to F8): the servers stay, and so do their tunnels.

What one server does is in `test_exhaustion`; here caps and clients are spread over processes, and the supervisor is to
be heard through it all.
"""

import os
import re
import select
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, Configured, configured, logged_in, tunnel_as, user
from helpers.serving import SERVE
from helpers.socks import connect5, dial, echoes, read_all, read_exactly, read_reply5, request5
from helpers.targets import closed_port
from helpers.udp import Association, datagrams
from helpers.waiting import until

FEW = 64  # descriptors of each process
LOCAL = "127.0.0.1"
OTHER = ("127.0.0.2", 0)
OPEN = LISTEN + JSON + ALLOW
NO_AUTH, USERPASS, LOGIN = b"\x05\x01\x00", b"\x05\x01\x02", b"\x01\x05alice\x06secret"
MANY_RULES = "".join(
    f'[[rule]]\nname = "{number}"\nallow = true\nport = {number + 1}\nto = "10.0.0.1"\n' for number in range(3000)
)


@contextmanager
def starving(directory: Path, text: str = OPEN) -> Iterator[Configured]:
    """Run a server whose processes have few descriptors, and cannot have more."""
    limited = ("sh", "-c", f'ulimit -n {FEW} && exec "$@"', "sh", *SERVE)
    with configured(directory, text, program=limited) as server:
        server.workers(2)
        yield server
        assert not [line for line in server.errors if "Traceback" in line]


def crowd(stack: ExitStack, where: tuple[str, int], count: int, says: bytes = b"") -> list[socket.socket]:
    """Connect clients that say something and then nothing more."""
    clients = [stack.enter_context(dial(where)) for _ in range(count)]
    for client in clients:
        client.sendall(says)
    return clients


def ended(clients: list[socket.socket]) -> list[socket.socket]:
    """Give those whose server side has ended; a reset raises."""
    readable = select.select(clients, [], [], 0)[0]
    return [client for client in readable if not client.recv(1, socket.MSG_PEEK)]


def served(where: tuple[str, int], there: tuple[str, int], source: tuple[str, int] | None = None) -> bool:
    """Try a whole CONNECT; False where there was no place for it yet."""
    with dial(where, source) as sock:
        try:
            sock.sendall(NO_AUTH + request5(1, *there))
            return read_exactly(sock, 12)[:4] == b"\x05\x00\x05\x00" and echoes(sock)
        except ConnectionError:
            return False


def exhaust(stack: ExitStack, server: Configured) -> None:
    """Take the descriptors of all workers."""
    clients = crowd(stack, server.address, 4 * FEW)

    def are_out() -> bool:
        return all(descriptors(pid) >= FEW - 1 for pid in server.workers(2))  # the reserve is given up now and then

    until(are_out, "both workers to run out")
    until(lambda: len(ended(clients)) >= 2, "clients that were refused")


def descriptors(pid: int) -> int:
    """Count what a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


# F1: caps hold over all workers


@pytest.mark.parametrize("name", ["connections", "per_client", "handshakes_per_client"])
def test_a_cap_holds_over_all_workers(tmp_path: Path, echo: tuple[str, int], name: str) -> None:
    with configured(tmp_path, OPEN + f"[cap]\n{name} = 3\n", workers=3) as server:
        server.workers(3)
        with ExitStack() as stack:
            for count in range(1, 4):
                crowd(stack, server.address, 1)
                until(lambda count=count: len(server.rows("sessions")) == count, "the session")
            for _ in range(6):
                with dial(server.address) as sock:
                    assert read_all(sock) == b""
            assert server.record(why=f"cap:{name}")["client"].startswith(f"{LOCAL}:")
            if name != "connections":
                assert served(server.address, echo, OTHER)
        until(lambda: not server.rows("sessions"), "all to end")
        assert served(server.address, echo)


def test_associations_and_waiting_binds_count_as_sessions_of_their_user(
    tmp_path: Path, echo: tuple[str, int]
) -> None:
    text = LISTEN + JSON + user("alice", b"secret", "sessions = 3") + ALLOW
    with configured(tmp_path, text, workers=3) as server, ExitStack() as stack:
        server.workers(3)
        for command, what in ((1, echo), (2, echo), (3, ("0.0.0.0", 0))):
            sock = stack.enter_context(logged_in(server.address, b"alice"))
            sock.sendall(request5(command, *what))
            assert read_reply5(sock)[0] == 0
        for command, what in ((1, echo), (2, echo), (3, ("0.0.0.0", 0))):
            sock = stack.enter_context(logged_in(server.address, b"alice"))
            sock.sendall(request5(command, *what))
            assert read_reply5(sock)[0] == 2
        assert server.record(why="limit:user-sessions", command="udp_associate")


# F2: idle clients against the accept loop


STAGES = [b"", b"\x05", USERPASS, USERPASS + b"\x01\x05alice", USERPASS + LOGIN + b"\x05\x01\x00\x03\xff"]


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_that_say_nothing_more_are_in_nobodys_way(
    tmp_path: Path, echo: tuple[str, int], workers: int
) -> None:
    text = LISTEN + JSON + user("alice") + ALLOW + '[time]\nhandshake = "10 min"\n'
    with configured(tmp_path, text, workers=workers) as server:
        server.workers(workers)
        for says in STAGES:
            for idle in (1, 200):
                with ExitStack() as stack:
                    crowd(stack, server.address, idle, says)
                    until(lambda idle=idle: len(server.rows("sessions")) == idle, "all to be accepted")
                    for _ in range(2 * workers):
                        with tunnel_as(server.address, b"alice", echo) as sock:
                            assert echoes(sock)
                until(lambda: not server.rows("sessions"), "all to end")


# F3: out of descriptors


def test_tunnels_and_associations_live_on_while_workers_are_out_of_descriptors(
    tmp_path: Path, echo: tuple[str, int]
) -> None:
    with starving(tmp_path) as server, datagrams() as peer:
        with ExitStack() as stack:
            tunnels = [stack.enter_context(connect5(server.address, *echo)) for _ in range(4)]
            association = stack.enter_context(Association(server.address))
            association.talk(peer)
            exhaust(stack, server)
            assert all(map(echoes, tunnels))
            association.talk(peer)
            assert len(server.rows("status")) == 2
            assert server.tabi("sessions", "command=connect").returncode == 0
        until(lambda: served(server.address, echo), "the server to serve again")
        server.line("out of descriptors")
        warnings = [line for line in server.errors if "out of descriptors" in line]
        assert 1 <= len(warnings) <= 2, "one of each worker"
        assert server.stop() == 0


@pytest.mark.parametrize(
    "more", ["[time]\nconnect = 5\n", MANY_RULES], ids=["other times", "more than a packet"]
)  # fmt: skip
def test_a_reload_without_descriptors_drops_nothing(tmp_path: Path, echo: tuple[str, int], more: str) -> None:
    with starving(tmp_path) as server, ExitStack() as stack:
        pids = server.workers(2)
        tunnels = [stack.enter_context(connect5(server.address, *echo)) for _ in range(4)]
        exhaust(stack, server)
        server.reload(OPEN + more)
        assert all(map(echoes, tunnels))
        assert server.workers(2) == pids


def test_a_reload_for_which_there_are_no_descriptors_changes_nothing(tmp_path: Path, echo: tuple[str, int]) -> None:
    port = closed_port()
    two = OPEN.replace("]", f', "127.0.0.1:{port}"]', 1)
    with starving(tmp_path) as server:
        pids = server.workers(2)
        with ExitStack() as stack:
            tunnels = [stack.enter_context(connect5(server.address, *echo)) for _ in range(4)]
            exhaust(stack, server)
            server.write(two)
            answer = server.ask("reload")
            assert answer["ok"] or "it is out of descriptors" in answer["error"], answer
            assert all(map(echoes, tunnels))
            assert server.workers(2) == pids
        server.reload(two)
        assert served((LOCAL, port), echo)
        assert server.workers(2) == pids


# F7: reloads and the end


def test_a_storm_of_signals_to_reload_drops_nothing(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN) as server, ExitStack() as stack:
        pids = server.workers(2)
        tunnels = [stack.enter_context(connect5(server.address, *echo)) for _ in range(8)]
        for _ in range(50):
            os.kill(server.process.pid, signal.SIGHUP)
            assert echoes(tunnels[0])
        assert served(server.address, echo)
        server.reload(OPEN)  # comes behind them
        assert all(map(echoes, tunnels))
        assert server.workers(2) == pids
        assert not [line for line in server.errors if "Traceback" in line]


def test_two_hundred_idle_clients_do_not_hold_up_the_end(tmp_path: Path) -> None:
    with configured(tmp_path, OPEN + '[time]\nhandshake = "10 min"\n') as server, ExitStack() as stack:
        server.workers(2)
        crowd(stack, server.address, 100)
        crowd(stack, server.address, 100, NO_AUTH)
        until(lambda: len(server.rows("sessions")) == 200, "all to be accepted")
        assert server.stop() == 0


# F8: the log


def test_a_flood_of_failures_is_limited_and_every_one_is_counted(tmp_path: Path) -> None:
    flood = 300
    with configured(tmp_path, OPEN) as server:
        server.workers(2)
        for _ in range(flood):
            with dial(server.address) as sock:
                sock.sendall(b"\x00")
                assert read_all(sock) == b""
        until(lambda: not server.rows("sessions"), "all to end")
        assert server.stop() == 0
        told = len(server.records)
        untold = [re.search(r"(\d+) more failed sessions", line.get("note", "")) for line in server.records]
        untold += [re.search(r"(\d+) failed sessions of", line) for line in server.errors]
        assert told < flood
        assert told + sum(int(found[1]) for found in untold if found) == flood
