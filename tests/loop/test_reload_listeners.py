"""Reloads that change where the server listens: no connection is dropped, and what fails has changed nothing."""

import os
import re
import signal
import socket
import threading
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, configured
from helpers.processes import freeze
from helpers.socks import connect5, dial, echoes, read_exactly, read_reply5, request5
from helpers.waiting import PATIENCE, until

LOCAL, ALL4, ALL6, LOCAL6 = "127.0.0.1", "0.0.0.0", "[::]", "[::1]"


@pytest.fixture
def port() -> int:
    """A port that is free with every address of this host."""
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as probe:
        return int(probe.getsockname()[1])


def listen(port: int, *hosts: str) -> str:
    addresses = ", ".join(f'"{host}:{port}"' for host in hosts)
    return f"listen = [{addresses}]\n" + JSON + ALLOW + 'from = ["127.0.0.0/8", "::1"]\n'


def is_served(address: tuple[str, int], echo: tuple[str, int]) -> bool:
    with connect5(address, *echo) as sock:
        return echoes(sock)


def is_refused(address: tuple[str, int]) -> bool:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as sock:
        sock.settimeout(PATIENCE)
        return sock.connect_ex(address) != 0


class Callers:
    """Clients that connect and ask all the time; each must be served."""

    def __init__(self, address: tuple[str, int], echo: tuple[str, int], count: int = 4) -> None:
        self._over = threading.Event()
        self.served = 0
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(address, echo)) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, address: tuple[str, int], echo: tuple[str, int]) -> None:
        try:
            while not self._over.is_set():
                assert is_served(address, echo)
                self.served += 1
        except (OSError, AssertionError) as error:
            self.failures.append(error)

    def go_on(self, more: int = 20) -> None:
        """Wait until so many more have been served."""
        wanted = self.served + more
        until(lambda: self.failures or self.served >= wanted, "clients to be served")
        assert not self.failures, self.failures

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not self.failures, self.failures


TRANSITIONS = [
    ((LOCAL,), (ALL4,), "127.0.0.1"),
    ((ALL4,), (LOCAL,), "127.0.0.1"),
    ((LOCAL,), (ALL6,), "127.0.0.1"),
    ((ALL6,), (LOCAL,), "127.0.0.1"),
    ((LOCAL6,), (ALL6,), "::1"),
    ((ALL6,), (LOCAL6,), "::1"),
    ((ALL4, ALL6), (ALL6,), "127.0.0.1"),
    ((ALL4, ALL6), (ALL6,), "::1"),
    ((ALL6,), (ALL4, ALL6), "127.0.0.1"),
    ((ALL6,), (ALL6, ALL4), "::1"),
    ((ALL4, ALL6), (ALL4,), "127.0.0.1"),
    ((LOCAL, LOCAL6), (ALL6,), "127.0.0.1"),
]
NAMES = [f"{'+'.join(before)} to {'+'.join(after)} by {client}" for before, after, client in TRANSITIONS]


@pytest.mark.parametrize(("before", "after", "client"), TRANSITIONS, ids=NAMES)
def test_who_calls_while_addresses_change_is_served(
    tmp_path: Path,
    echo: tuple[str, int],
    port: int,
    before: tuple[str, ...],
    after: tuple[str, ...],
    client: str,
) -> None:
    """Of a transition two of the four pairs of workers and lane are tried, which takes half as long.

    Those at even places: three workers with the lane off, and one with it on. Those at odd places: three with it on,
    and one with it off.
    """
    number = TRANSITIONS.index((before, after, client))
    workers = 3 if os.environ["TABI_LANE"] == str(number % 2) else 1
    with configured(tmp_path, listen(port, *before), workers=workers) as server:
        server.ports(len(before))
        callers = Callers((client, port), echo)
        try:
            callers.go_on()
            server.reload(listen(port, *after))
            callers.go_on()
        finally:
            callers.end()
        takes4 = {LOCAL, ALL4, ALL6} & set(after)
        takes6 = {ALL6, LOCAL6} & set(after)
        for address, taken in ((("127.0.0.1", port), takes4), (("::1", port), takes6)):
            assert is_served(address, echo) if taken else is_refused(address)
        assert server.stop() == 0
        assert {record["why"] for record in server.records} == {"fin"}


def test_there_and_back_many_times(tmp_path: Path, echo: tuple[str, int], port: int) -> None:
    with configured(tmp_path, listen(port, LOCAL)) as server:
        server.ports()
        callers = Callers(("127.0.0.1", port), echo)
        try:
            for hosts in ((ALL4,), (ALL4, ALL6), (ALL6,), (LOCAL, LOCAL6), (LOCAL,)):
                server.reload(listen(port, *hosts))
                callers.go_on()
        finally:
            callers.end()
        assert is_refused(("::1", port))


def test_an_address_that_another_program_has_changes_nothing_though_ours_overlap(
    tmp_path: Path, echo: tuple[str, int], port: int
) -> None:
    with configured(tmp_path, listen(port, LOCAL)) as server:
        server.ports()
        with socket.socket() as other:  # of the same user, and willing to share
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            other.bind(("127.0.0.2", port))
            other.listen()
            server.write(listen(port, ALL4))
            answer = server.ask("reload")
            assert not answer["ok"]
            assert f"another program listens on 127.0.0.2:{port}" in answer["error"]
            assert is_served(("127.0.0.1", port), echo)
            assert is_refused(("127.0.0.3", port))
        server.reload(listen(port, ALL4))
        assert is_served(("127.0.0.3", port), echo)


def test_the_port_that_port_0_became_can_be_written_down(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, listen(0, LOCAL)) as server:
        port = server.ports()[0]
        server.reload(listen(port, LOCAL))
        assert is_served(("127.0.0.1", port), echo)
        assert server.line("reloaded").endswith("reloaded, generation 2; 0 sessions ended")


# the log


@pytest.mark.parametrize("by", ["signal", "control"])
def test_the_log_says_in_one_line_what_a_reload_has_changed(
    tmp_path: Path, echo: tuple[str, int], port: int, by: str
) -> None:
    with configured(tmp_path, listen(port, LOCAL)) as server:
        server.ports()
        with connect5(("127.0.0.1", port), *echo):
            rule = f'[[rule]]\nrefuse = "not-allowed"\nport = {echo[1]}\n'
            server.write(listen(port, LOCAL6).replace(ALLOW, rule + ALLOW))
            if by == "signal":
                os.kill(server.process.pid, signal.SIGHUP)
            else:
                (row,) = server.rows("reload")
                assert row == {
                    "generation": 2, "opened": [f"[::1]:{port}"], "closed": [f"127.0.0.1:{port}"], "ended": 1,
                        "missing": [],
                }  # fmt: skip
            line = server.line("reloaded")
        assert line == (
            f"tabi: {server.file}: reloaded, generation 2; "
            f"opened [::1]:{port}; closed 127.0.0.1:{port}; 1 session ended"
        )


@pytest.mark.parametrize("by", ["signal", "control"])
def test_the_log_has_all_errors_of_a_reload_that_fails(tmp_path: Path, port: int, by: str) -> None:
    with configured(tmp_path, listen(port, LOCAL)) as server:
        server.ports()
        server.write('listen = ["nowhere"]\n[[rule]]\nallow = "perhaps"\nprot = 1\n')
        if by == "signal":
            os.kill(server.process.pid, signal.SIGHUP)
        else:
            assert not server.ask("reload")["ok"]
        for line in (1, 3, 4):
            server.line(rf"^tabi: {re.escape(str(server.file))}:{line}: ")
        until(lambda: len([one for one in server.errors if "was not reloaded" in one]) == 1, "the line that says so")


# the dead


def test_who_waits_for_a_dead_worker_at_a_listener_that_goes_is_served_by_its_successor(
    tmp_path: Path, echo: tuple[str, int], port: int
) -> None:
    with configured(tmp_path, listen(port, LOCAL, LOCAL6), workers=2) as server:
        pids = server.workers(2)
        for pid in pids:
            freeze(pid)
        waiting = [dial(("::1", port)) for _ in range(24)]
        for sock in waiting:
            sock.sendall(b"\x05\x01\x00" + request5(1, *echo))
        os.kill(pids[0], signal.SIGKILL)  # young as it is, its successor comes in a second
        server.line("worker 0 .* ended with -9")
        server.write(listen(port, LOCAL))
        os.kill(server.process.pid, signal.SIGHUP)
        os.kill(pids[1], signal.SIGCONT)
        for sock in waiting:
            assert read_exactly(sock, 2) == b"\x05\x00"
            assert read_reply5(sock)[0] == 0
            assert echoes(sock)
            sock.close()
        server.line("reloaded, generation 2; closed")
        until(lambda: is_refused(("::1", port)), "the listener to be closed")
        assert len(server.workers(2)) == 2
        server.reload(listen(port, LOCAL, LOCAL6))
        assert is_served(("::1", port), echo)
