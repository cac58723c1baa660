"""The units of packaging/ under a real systemd: readiness, reload, watchdog, socket activation, the end."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from helpers.socks import connect5, echoes
from helpers.systemd import CannotBootError, Systemd, booted
from helpers.targets import target
from helpers.waiting import until

LOW = ("127.0.0.1", 80)  # a port that root alone may have
SOCKET = ("127.0.0.1", 1080)
RULE = '[[rule]]\nname = "all"\nallow = true\nto = "@private"\n'
OPEN = 'listen = ["127.0.0.1:80"]\nworkers = 2\n' + RULE
BIND = 1 << 10  # CAP_NET_BIND_SERVICE, linux/capability.h


@pytest.fixture(scope="module")
def machine() -> Iterator[Systemd]:
    with ExitStack() as stack:
        try:
            system = stack.enter_context(booted())
        except CannotBootError as error:
            pytest.skip(str(error))
        yield system


@pytest.fixture
def system(machine: Systemd) -> Iterator[Systemd]:
    machine.configure(OPEN)
    yield machine
    machine.systemctl("stop", "tabi.socket", "tabi.service")
    machine.change("")
    machine.systemctl("reset-failed")


@pytest.fixture
def echo(machine: Systemd) -> Iterator[tuple[str, int]]:
    with machine.network.entering(target()) as address:
        yield address


def start(system: Systemd, unit: str = "tabi.service") -> None:
    done = system.systemctl("start", unit)
    assert done.returncode == 0, done.stderr + system.diagnostics()


def is_served(system: Systemd, proxy: tuple[str, int], echo: tuple[str, int]) -> bool:
    with system.network.call(connect5, proxy, *echo) as sock:
        return echoes(sock)


def is_in_use(system: Systemd, address: tuple[str, int]) -> bool:
    def connects() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex(address) == 0

    return system.network.call(connects)


# start


def test_when_systemd_says_that_it_is_started_it_listens(system: Systemd, echo: tuple[str, int]) -> None:
    start(system)
    assert is_served(system, LOW, echo)
    assert system.show("tabi.service", "StatusText") == "listening on 127.0.0.1:80"
    assert system.show("tabi.service", "ActiveState") == "active"


def test_no_process_may_do_more_than_listen_on_low_ports(system: Systemd) -> None:
    start(system)
    supervisor, *workers = system.processes()
    assert len(workers) == 2
    for pid in (supervisor, *workers):
        status = system.process(pid)
        assert "0" not in status["Uid"].split() + status["Gid"].split()
        assert int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapBnd"], 16) == BIND
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
    control = system.path("/run/tabi/tabi.sock").stat()
    assert control.st_mode & 0o777 == 0o600
    assert str(control.st_uid) == system.process(supervisor)["Uid"].split()[0]


def test_a_file_with_an_error_fails_the_start_and_says_where_it_is(system: Systemd) -> None:
    system.change("[Service]\nRestart=no\n")
    system.configure('listen = ["nowhere"]\n')
    assert system.systemctl("start", "tabi.service").returncode != 0
    assert system.show("tabi.service", "Result") == "exit-code"
    assert "/etc/tabi/tabi.toml:1: " in system.diagnostics()


# reload


def test_a_reload_waits_for_its_outcome(system: Systemd, echo: tuple[str, int]) -> None:
    start(system)
    before = system.processes()
    system.configure(OPEN.replace(":80", ":81"))
    assert system.systemctl("reload", "tabi.service").returncode == 0
    assert is_served(system, ("127.0.0.1", 81), echo)
    assert not is_in_use(system, LOW)
    assert system.show("tabi.service", "StatusText") == "listening on 127.0.0.1:81"
    assert system.processes() == before


def test_a_reload_that_fails_is_told_and_changes_nothing(system: Systemd, echo: tuple[str, int]) -> None:
    start(system)
    with system.network.call(connect5, LOW, *echo) as sock:
        system.configure('listen = ["127.0.0.1:81"]\n[[rule]]\nallow = "perhaps"\n')
        assert system.systemctl("reload", "tabi.service").returncode != 0
        assert system.show("tabi.service", "ActiveState") == "active"
        assert echoes(sock)
    assert is_served(system, LOW, echo)
    assert "/etc/tabi/tabi.toml:3: " in system.diagnostics()
    system.configure(OPEN)
    assert system.systemctl("reload", "tabi.service").returncode == 0


# what goes wrong


def test_a_supervisor_that_hangs_is_replaced(system: Systemd, echo: tuple[str, int]) -> None:
    system.change("[Service]\nWatchdogSec=2s\n")
    start(system)
    before = system.processes()
    system.kill(before[0], signal.SIGSTOP)
    until(lambda: system.show("tabi.service", "NRestarts") == "1", "the watchdog")
    until(lambda: system.show("tabi.service", "ActiveState") == "active", "the next start")
    assert is_served(system, LOW, echo)
    assert not set(before) & set(system.processes())


def test_one_that_feeds_the_watchdog_lives_on(system: Systemd) -> None:
    system.change("[Service]\nWatchdogSec=1s\n")
    start(system)
    fed = system.show("tabi.service", "WatchdogTimestampMonotonic")
    times = {fed}

    def is_fed_often() -> bool:
        times.add(system.show("tabi.service", "WatchdogTimestampMonotonic"))
        return len(times) > 5

    until(is_fed_often, "the watchdog to be fed")
    assert system.show("tabi.service", "NRestarts") == "0"


def test_a_supervisor_that_dies_is_replaced_with_its_workers(system: Systemd, echo: tuple[str, int]) -> None:
    start(system)
    before = system.processes()
    system.kill(before[0], signal.SIGKILL)
    until(lambda: system.show("tabi.service", "NRestarts") == "1", "the restart")
    until(lambda: system.show("tabi.service", "ActiveState") == "active", "the next start")
    assert is_served(system, LOW, echo)
    assert not set(before) & set(system.processes())


# socket activation


def test_the_first_client_starts_it_and_none_is_refused_while_it_restarts(
    system: Systemd, echo: tuple[str, int]
) -> None:
    system.configure(OPEN.replace('["127.0.0.1:80"]', '["127.0.0.1:1080", "[::1]:1080"]'))
    start(system, "tabi.socket")
    assert system.show("tabi.service", "ActiveState") == "inactive"
    assert is_served(system, SOCKET, echo)
    until(lambda: system.show("tabi.service", "ActiveState") == "active", "the start")  # workers accept just before
    assert system.show("tabi.service", "StatusText") == "listening on 127.0.0.1:1080, [::1]:1080"
    assert is_served(system, ("::1", 1080), echo)
    first = system.show("tabi.service", "InvocationID")
    assert system.systemctl("restart", "--no-block", "tabi.service").returncode == 0

    def is_served_by_the_next() -> bool:
        assert is_served(system, SOCKET, echo)
        return system.show("tabi.service", "InvocationID") not in ("", first)

    until(is_served_by_the_next, "the restart")
    until(lambda: system.show("tabi.service", "ActiveState") == "active", "the next start")
    second = system.show("tabi.service", "InvocationID")
    assert system.systemctl("stop", "tabi.service").returncode == 0
    assert is_served(system, SOCKET, echo)
    assert system.show("tabi.service", "InvocationID") not in ("", first, second)


# the end


def test_a_stop_lets_sessions_finish(system: Systemd, echo: tuple[str, int]) -> None:
    system.configure(OPEN + "[time]\ndrain = 60\n")
    start(system)
    with system.network.call(connect5, LOW, *echo) as sock:
        assert system.systemctl("stop", "--no-block", "tabi.service").returncode == 0
        until(lambda: not is_in_use(system, LOW), "the listener to be closed")
        assert system.show("tabi.service", "ActiveState") == "deactivating"
        assert echoes(sock)
    until(lambda: system.show("tabi.service", "ActiveState") == "inactive", "the end")
    assert system.show("tabi.service", "Result") == "success"
    assert not system.path("/run/tabi").exists()


def test_a_stop_ends_sessions_that_do_not_finish(system: Systemd, echo: tuple[str, int]) -> None:
    start(system)
    with system.network.call(connect5, LOW, *echo) as sock:
        assert echoes(sock)
        assert system.systemctl("stop", "tabi.service").returncode == 0
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    assert system.show("tabi.service", "Result") == "success"
    assert os.listdir(system.path("/run/systemd/dynamic-uid")) == []
