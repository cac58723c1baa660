"""Options of TCP sockets on both legs of a tunnel.

Keepalive finds a dead peer of an idle connection within two minutes: 60 s of silence, then 5 probes 10 s
apart. TCP_USER_TIMEOUT is left alone on purpose. It would also bound unanswered data, but Linux applies it to
the probes of a closed window too (tcp(7)): a peer that lives and acknowledges but reads nothing for that
long, a paused download, would be killed. Data that is never acknowledged ends by tcp_retries2, the
administrator's own setting.
"""

import socket

__all__ = ["KEEPALIVE_COUNT", "KEEPALIVE_IDLE", "KEEPALIVE_INTERVAL", "prepare"]

KEEPALIVE_IDLE = 60  # seconds of silence before the first probe
KEEPALIVE_INTERVAL = 10  # seconds between probes
KEEPALIVE_COUNT = 5  # unanswered probes until the connection is dead

_OPTIONS = (
    # Handshakes and interactive tunnels are small writes; the engine coalesces bulk by itself.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT),
    # An urgent byte stays in its place of the stream; out of line it would be lost, and splice stops at it.
    (socket.SOL_SOCKET, socket.SO_OOBINLINE, 1),
)


def prepare(sock: socket.SocketType) -> None:
    """Set them on a socket that is about to listen or to connect; Linux hands those of a listener down.

    Raises:
        OSError: the socket is no TCP socket.
    """
    for level, option, value in _OPTIONS:
        sock.setsockopt(level, option, value)
