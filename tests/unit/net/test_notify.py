"""What the service manager is told, and what it hands over (sd_notify(3), sd_listen_fds(3))."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.waiting import PATIENCE
from tabi.errors import ConfigError
from tabi.net import notify as module
from tabi.net.notify import inherited_listeners, notify, reloading, watchdog_interval


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(name if request.param == "path" else "\0" + name)
        sock.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", name if request.param == "path" else "@" + name)
        yield sock


def test_assignments_go_in_one_datagram(manager: socket.socket) -> None:
    assert notify("READY=1", "STATUS=fine") is True
    assert manager.recv(100) == b"READY=1\nSTATUS=fine"


def test_a_reload_has_its_time(manager: socket.socket) -> None:
    reloading()
    first, second = manager.recv(100).split(b"\n")
    assert first == b"RELOADING=1"
    assert second.startswith(b"MONOTONIC_USEC=")


def test_without_a_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert notify("READY=1") is False
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "missing"))
    assert notify("READY=1") is False


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", None, 15.0),
        ("30000000", str(os.getpid()), 15.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        ("", None, None),
        ("-5", None, None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str | None, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_interval() == seconds


def handed_over(monkeypatch: pytest.MonkeyPatch, *fds: int, pid: int | None = None) -> list[socket.socket]:
    """Take sockets as if they were handed over under descriptors from 3 on; those that follow each other are given."""
    monkeypatch.setattr(module, "_FIRST_FD", fds[0] if fds else 3)
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() if pid is None else pid))
    monkeypatch.setenv("LISTEN_FDS", str(len(fds)))
    monkeypatch.setenv("LISTEN_FDNAMES", "tabi")
    return inherited_listeners()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_listening_sockets_are_taken_once(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as given:
        address, fd = given.getsockname(), os.dup(given.fileno())
        (taken,) = handed_over(monkeypatch, fd)
        with taken:
            assert taken.getsockname() == address
            assert taken.getblocking() is False
            assert not os.get_inheritable(fd)
            assert not {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} & set(os.environ)
            assert inherited_listeners() == []


def test_what_is_another_process_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert handed_over(monkeypatch, 3, pid=1) == []


@pytest.mark.parametrize("kind", ["not listening", "udp", "unix", "file", "closed"])
def test_other_descriptors_are_refused(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    if kind == "file":
        fd = os.open("/dev/null", os.O_RDONLY)
    elif kind == "closed":
        fd = 1_000_000
    else:
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        fd = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM).detach()
    with pytest.raises(ConfigError, match="LISTEN_FDS"):
        handed_over(monkeypatch, fd)
    if kind == "file":
        os.close(fd)


def test_a_count_that_is_none_is_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "many")
    assert inherited_listeners() == []
