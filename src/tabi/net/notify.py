"""Talking to systemd: readiness, reload, watchdog (sd_notify(3)), and inherited sockets (sd_listen_fds(3))."""

import os
import socket
import time

from tabi.errors import ConfigError

__all__ = ["inherited_listeners", "notify", "reloading", "watchdog_interval"]

_FIRST_FD = 3  # SD_LISTEN_FDS_START


def notify(*lines: str) -> bool:
    """Send assignments such as ``READY=1`` to the service manager.

    Returns:
        whether there is one.
    """
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return False
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto("\n".join(lines).encode(), address)
        except OSError:  # the manager's own trouble; it must not become ours
            return False
    return True


def reloading() -> None:
    """Say that a reload has begun (Type=notify-reload wants the time with it)."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float | None:
    """Give the seconds between two ``WATCHDOG=1``, half of what the manager allows; None where it wants none."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    micros = os.environ.get("WATCHDOG_USEC", "")
    return int(micros) / 2e6 if micros.isdigit() and int(micros) else None


def inherited_listeners() -> list[socket.socket]:
    """Take the listening TCP sockets that the service manager opened for us.

    Raises:
        ConfigError: one of them is no listening stream socket.
    """
    if os.environ.pop("LISTEN_PID", None) != str(os.getpid()):
        return []
    count = os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    taken: list[socket.socket] = []
    for fd in range(_FIRST_FD, _FIRST_FD + (int(count) if count.isascii() and count.isdigit() else 0)):
        try:
            sock = socket.socket(fileno=fd)
        except OSError as error:
            raise ConfigError(f"descriptor {fd} of LISTEN_FDS: {error.strerror}; there is no socket") from None
        is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and sock.type == socket.SOCK_STREAM
        if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            for one in (*taken, sock):
                one.close()
            raise ConfigError(f"descriptor {fd} of LISTEN_FDS is no listening TCP socket; use ListenStream=HOST:PORT")
        sock.set_inheritable(False)
        sock.setblocking(False)
        taken.append(sock)
    return taken
