"""Reload: all or nothing, and what goes on, what ends, what changes."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.configured import ALLOW, JSON, LISTEN, Configured, configured, logged_in, tunnel_as, user
from helpers.processes import freeze
from helpers.socks import ask5, connect5, dial, echoes, greet5, read_exactly, read_reply5, request5
from helpers.targets import target
from helpers.udp import Association, datagrams
from helpers.waiting import PATIENCE, until
from loop.engine_helpers import is_reset

OPEN = LISTEN + JSON + ALLOW
CHUNK = os.urandom(1 << 16)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Configured]:
    with configured(tmp_path, OPEN) as running:
        running.ports()
        yield running


def refuse(port: int, name: str = "no more") -> str:
    """Rules that refuse one port, and allow the rest."""
    return LISTEN + JSON + f'[[rule]]\nname = "{name}"\nrefuse = "not-allowed"\nport = "{port}"\n' + ALLOW


class Load:
    """Tunnels that carry data all the time."""

    def __init__(self, proxy: tuple[str, int], there: tuple[str, int], count: int) -> None:
        self._over = threading.Event()
        self.rounds = [0] * count
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(number, proxy, there)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int, proxy: tuple[str, int], there: tuple[str, int]) -> None:
        try:
            with connect5(proxy, *there) as sock:
                while not self._over.is_set():
                    assert echoes(sock, CHUNK)
                    self.rounds[number] += 1
        except (OSError, AssertionError) as error:
            self.failures.append(error)

    def goes_on(self) -> None:
        """Wait until each has carried more, whole."""
        before = list(self.rounds)

        def more() -> bool:
            return bool(self.failures) or all(now > then for now, then in zip(self.rounds, before, strict=True))

        until(more, "all transfers to go on")
        assert not self.failures, self.failures

    def end(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not self.failures, self.failures


# what stays


def test_reloads_under_load_lose_no_session(server: Configured, echo: tuple[str, int]) -> None:
    load = Load(server.address, echo, 8)
    try:
        load.goes_on()
        for number in range(6):
            server.reload(refuse(1 + number) + f"[cap]\nper_client = {100 + number}\n")
            load.goes_on()
            with connect5(server.address, *echo) as sock:
                assert echoes(sock)
    finally:
        load.end()
    assert server.stop() == 0
    assert {record["why"] for record in server.records} == {"fin"}


@pytest.mark.parametrize("by", ["signal", "control"])
def test_an_error_changes_nothing_and_says_where_it_is(server: Configured, echo: tuple[str, int], by: str) -> None:
    load = Load(server.address, echo, 4)
    try:
        server.write(
            'listen = ["127.0.0.1:0", "127.0.0.1:1"]\n[[rule]]\nrefuse = "never-heard-of"\n[[rule]]\nprot = 1\n'
        )
        if by == "signal":
            os.kill(server.process.pid, signal.SIGHUP)
            server.line("was not reloaded")
            for line in (3, 5):
                server.line(f"{server.file}:{line}: ")
        else:
            done = server.tabi("reload")
            assert done.returncode == 1
            assert all(f"{server.file}:{line}: " in done.stderr for line in (3, 5)), done.stderr
            assert "nothing was changed" in done.stderr
        load.goes_on()
        with connect5(server.address, *echo) as sock:
            assert echoes(sock)
    finally:
        load.end()
    assert server.stop() == 0
    assert not [line for line in server.errors if "Traceback" in line]


def test_port_0_stays_the_port_that_it_got(server: Configured, echo: tuple[str, int]) -> None:
    server.reload(OPEN + "[time]\nhandshake = 7\n")
    with connect5(server.address, *echo) as sock:
        assert echoes(sock)
    with socket.socket() as probe:
        assert probe.connect_ex(server.address) == 0


def test_an_address_in_use_changes_nothing(server: Configured, echo: tuple[str, int]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server.write(OPEN.replace('"127.0.0.1:0"', f'"127.0.0.1:0", "127.0.0.1:{taken.getsockname()[1]}"'))
        answer = server.ask("reload")
        assert not answer["ok"]
        assert "address in use" in answer["error"]
    with connect5(server.address, *echo) as sock:
        assert echoes(sock)


def test_a_worker_that_dies_while_it_prepares_changes_nothing_anywhere(
    server: Configured, echo: tuple[str, int]
) -> None:
    pids = server.workers(2)
    freeze(pids[1])  # it will not answer
    failed: list[dict[str, object]] = []
    server.write(refuse(echo[1]).replace('"127.0.0.1:0"', '"127.0.0.1:0", "[::1]:0"'))
    before = len(os.listdir(f"/proc/{pids[0]}/fd"))
    asking = threading.Thread(target=lambda: failed.append(server.ask("reload")))
    asking.start()
    # the other has prepared when it has the new listener
    until(lambda: len(os.listdir(f"/proc/{pids[0]}/fd")) > before, "the other worker to prepare")
    os.kill(pids[1], signal.SIGKILL)
    asking.join(PATIENCE)
    assert not failed[0]["ok"]
    assert "worker 1" in str(failed[0]["error"])
    until(lambda: len(os.listdir(f"/proc/{pids[0]}/fd")) == before, "the other worker to forget it")
    server.workers(2)
    kept = [connect5(server.address, *echo) for _ in range(8)]
    assert all(map(echoes, kept))
    server.reload(refuse(echo[1]))
    assert all(map(is_reset, kept))
    for sock in kept:
        sock.close()


def test_reloads_at_once_are_made_one_after_the_other(server: Configured, echo: tuple[str, int]) -> None:
    with connect5(server.address, *echo) as sock:
        server.write(refuse(1))
        answers: list[dict[str, object]] = []
        threads = [threading.Thread(target=lambda: answers.append(server.ask("reload"))) for _ in range(5)]
        for thread in threads:
            thread.start()
        os.kill(server.process.pid, signal.SIGHUP)
        os.kill(server.process.pid, signal.SIGHUP)
        for thread in threads:
            thread.join(PATIENCE)
        assert [answer["ok"] for answer in answers] == [True] * 5
        assert echoes(sock)
        other, reply, _, _ = ask5(server.address, 1, "127.0.0.1", 1)
        other.close()
        assert reply == 2


# what ends


def test_just_what_the_new_rules_refuse_is_reset(server: Configured, echo: tuple[str, int]) -> None:
    with target() as other:
        ending = [connect5(server.address, *echo) for _ in range(6)]
        staying = [connect5(server.address, *other) for _ in range(6)]
        server.reload(refuse(echo[1]))
        assert all(map(is_reset, ending))
        assert all(map(echoes, staying))
        sock, reply, _, _ = ask5(server.address, 1, *echo)
        assert reply == 2
        for one in (*ending, *staying, sock):
            one.close()
        until(lambda: len(server.sessions) >= 13, "all lines")
        policy = [record for record in server.records if record.get("to") == f"127.0.0.1:{echo[1]}"]
        assert [(record["by"], record["why"]) for record in policy] == [("tabi", "policy")] * 6


def test_the_sessions_of_a_removed_user_end(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN + user("alice") + user("bob")) as server:
        alice, bob = (tunnel_as(server.address, name, echo) for name in (b"alice", b"bob"))
        halfway = logged_in(server.address, b"alice")  # no request yet
        server.reload(OPEN + user("bob"))
        assert is_reset(alice)
        assert is_reset(halfway)
        assert echoes(bob)
        assert server.record(user="alice", why="policy", by="tabi")
        with dial(server.address) as sock:
            sock.sendall(b"\x05\x01\x02\x01\x05alice\x06secret")
            assert read_exactly(sock, 4) == b"\x05\x02\x01\x01"
        for sock in (alice, bob, halfway):
            sock.close()


STAFF = '[[rule]]\nname = "staff"\nallow = true\nuser = "@staff"\nto = "@private"\n'


def test_a_user_who_left_a_group_is_judged_as_one_outside(tmp_path: Path, echo: tuple[str, int]) -> None:
    nobody = user("carol", b"secret", 'groups = ["staff"]')
    before = LISTEN + JSON + user("alice", b"secret", 'groups = ["staff"]') + nobody + STAFF
    with configured(tmp_path, before) as server:
        tunnel = tunnel_as(server.address, b"alice", echo)
        halfway = logged_in(server.address, b"alice")
        server.reload(LISTEN + JSON + user("alice") + nobody + STAFF)
        assert is_reset(tunnel)
        halfway.sendall(request5(1, *echo))
        assert read_reply5(halfway)[0] == 2
        for sock in (tunnel, halfway):
            sock.close()


def test_handshakes_under_way_are_judged_by_the_new_rules(server: Configured, echo: tuple[str, int]) -> None:
    greeted = [greet5(server.address) for _ in range(4)]
    server.reload(refuse(echo[1]))
    for sock in greeted:
        sock.sendall(request5(1, *echo))
        assert read_reply5(sock)[0] == 2
        sock.close()


def test_a_connection_that_comes_about_after_the_reload_is_judged_by_the_new_rules(server: Configured) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the queue is full: who connects now has to wait
            sock = greet5(server.address)
            sock.sendall(request5(1, b"localhost", port))
            until(lambda: server.rows("sessions", target="localhost:*", stage="serving"), "the request to be served")
            server.reload(
                LISTEN + JSON + f'[[rule]]\nrefuse = "not-allowed"\nport = {port}\nto = "127.0.0.1"\n' + ALLOW
            )
            assert server.rows("sessions", stage="serving")
            listener.accept()[0].close()
            assert read_reply5(sock)[0] == 2
            sock.close()


def test_a_waiting_bind_that_the_new_rules_refuse_ends(server: Configured) -> None:
    sock, reply, _, _ = ask5(server.address, 2, "127.0.0.1", 9)
    assert reply == 0
    other, reply, _, _ = ask5(server.address, 2, "127.0.0.1", 10)
    assert reply == 0
    server.reload(refuse(9))
    assert is_reset(sock)
    assert server.record(command="bind", why="policy")
    assert [row["target"] for row in server.rows("sessions", command="bind")] == ["127.0.0.1:10"]
    for one in (sock, other):
        one.close()


def test_datagrams_are_judged_anew_and_the_association_stays(server: Configured) -> None:
    with Association(server.address) as association, datagrams() as first, datagrams() as second:
        association.talk(first)
        association.talk(second)
        server.reload(refuse(first.getsockname()[1]))
        association.send("127.0.0.1", first.getsockname()[1], b"refused now")
        association.talk(second)
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            first.recv(100)
        server.reload(OPEN)
        first.settimeout(PATIENCE)
        association.talk(first)


def test_an_association_that_the_new_rules_refuse_as_such_ends(server: Configured) -> None:
    with Association(server.address) as association:
        server.reload(LISTEN + JSON + '[[rule]]\nallow = true\ncommand = "connect"\nto = "@private"\n')
        assert is_reset(association.control)
    assert server.record(command="udp_associate", why="policy")


# what changes


def test_a_listener_comes_and_goes(server: Configured, echo: tuple[str, int]) -> None:
    server.reload(OPEN.replace('"127.0.0.1:0"', '"127.0.0.1:0", "[::1]:0"'))
    six = until(lambda: listening(server.workers(2)[0], "tcp6"), "the IPv6 listener")
    for _ in range(6):
        with connect5(("::1", six), *echo) as sock:
            assert echoes(sock)
    kept = [connect5(("::1", six), *echo) for _ in range(4)]
    server.reload(OPEN)
    until(lambda: is_refused(six), "the listener to be closed")
    assert all(map(echoes, kept))
    for sock in kept:
        sock.close()
    with connect5(server.address, *echo) as sock:
        assert echoes(sock)


def test_who_waits_at_a_listener_that_goes_is_served_first(server: Configured, echo: tuple[str, int]) -> None:
    server.reload(OPEN.replace('"127.0.0.1:0"', '"127.0.0.1:0", "[::1]:0"'))
    pids = server.workers(2)
    six = until(lambda: listening(pids[0], "tcp6"), "the IPv6 listener")
    for pid in pids:
        freeze(pid)
    waiting = [dial(("::1", six)) for _ in range(10)]
    for sock in waiting:
        sock.sendall(b"\x05\x01\x00" + request5(1, *echo))
    server.write(OPEN)
    os.kill(server.process.pid, signal.SIGHUP)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for sock in waiting:
        assert read_exactly(sock, 2) == b"\x05\x00"
        assert read_reply5(sock)[0] == 0
        assert echoes(sock)
        sock.close()
    server.line("reloaded")
    until(lambda: is_refused(six), "the listener to be closed")


def test_caps_apply_to_who_comes_next(server: Configured, echo: tuple[str, int]) -> None:
    kept = [connect5(server.address, *echo) for _ in range(3)]
    server.reload(OPEN + "[cap]\nper_client = 3\n")
    with dial(server.address) as sock:
        assert is_reset(sock) or sock.recv(1) == b""
    assert server.record(why="cap:per_client")
    assert all(map(echoes, kept))
    for sock in kept:
        sock.close()
    server.reload(OPEN)
    with connect5(server.address, *echo) as sock:
        assert echoes(sock)


def test_time_limits_apply_to_who_comes_next(server: Configured) -> None:
    server.reload(OPEN + "[time]\nhandshake = 0.1\n")
    with dial(server.address) as sock:
        assert sock.recv(1) == b""
    assert server.record(why="limit:handshake")


def test_the_format_of_the_log_changes(server: Configured, echo: tuple[str, int]) -> None:
    with connect5(server.address, *echo) as sock:
        server.reload(LISTEN + '[log]\nformat = "text"\n' + ALLOW)
        assert echoes(sock)
    assert " why=fin" in server.line("client=127")
    server.sessions.clear()


def test_limits_of_a_user_change(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN + user("alice")) as server:
        kept = [tunnel_as(server.address, b"alice", echo) for _ in range(3)]
        server.reload(OPEN + user("alice", b"secret", "sessions = 3"))
        sock = logged_in(server.address, b"alice")
        sock.sendall(request5(1, *echo))
        assert read_reply5(sock)[0] == 2
        assert all(map(echoes, kept))
        for one in (sock, *kept):
            one.close()


def is_refused(port: int) -> bool:
    with socket.socket(socket.AF_INET6) as sock:
        return sock.connect_ex(("::1", port)) != 0


def listening(pid: int, table: str) -> int:
    """Give the port of the one socket of this process that listens, as the kernel's table has it; 0 for none."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            inodes.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:  # closed meanwhile
            continue
    for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
            return int(fields[1].rpartition(":")[2], 16)
    return 0


@pytest.mark.parametrize(("text", "why"), [
    ('run_as = "nobody"\n' + OPEN, "run_as cannot change"),
    (OPEN + "[udp]\nshared_port = 1080\n", "shared_port can be had by one process only, and 2 workers run"),
])  # fmt: skip
def test_what_needs_a_restart_says_so_and_changes_nothing(
    server: Configured, echo: tuple[str, int], text: str, why: str
) -> None:
    server.write(text)
    answer = server.ask("reload")
    assert not answer["ok"]
    assert why in answer["error"]
    assert "restart" in answer["error"]
    with connect5(server.address, *echo) as sock:
        assert echoes(sock)
