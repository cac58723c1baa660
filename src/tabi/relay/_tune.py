"""Tuning the sides of a flow as it begins (`tabi.relay.tuning`)."""

import socket
from contextlib import suppress

from tabi.relay._flow import Flow, Side
from tabi.relay.tuning import AUTO, SYSTEM, Tuning

__all__ = ["tune"]


def tune(flow: Flow, tuning: Tuning) -> None:
    """Have both sides of a flow, which are open, used like this."""
    for side in (flow.inbound, flow.outbound):
        side.is_settled = tuning.congestion != AUTO
        side.is_copied = not tuning.splice
        for level, option, value in _options(tuning):
            _set(side, level, option, value)


def _options(tuning: Tuning) -> list[tuple[int, int, int | bytes]]:
    options: list[tuple[int, int, int | bytes]] = []
    if tuning.congestion not in {AUTO, SYSTEM}:
        options.append((socket.IPPROTO_TCP, socket.TCP_CONGESTION, tuning.congestion.encode()))
    if tuning.keepalive is not None:
        options.append((socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(tuning.keepalive > 0)))
    if tuning.keepalive:
        options.append((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, tuning.keepalive))
    if tuning.send_buffer:
        options.append((socket.SOL_SOCKET, socket.SO_SNDBUF, tuning.send_buffer))
    if tuning.receive_buffer:
        options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, tuning.receive_buffer))
    return options


def _set(side: Side, level: int, option: int, value: int | bytes) -> None:
    assert side.sock is not None
    with suppress(OSError):  # not granted; or the socket is broken, and will say so when it is used
        side.sock.setsockopt(level, option, value)
