"""Ways to cut a stream of bytes, for machines in memory and for real sockets.

A cut takes bytes and yields them in pieces, none empty; joined they are the same bytes. A parser that is
right does not see the difference.
"""

import random
import socket
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

__all__ = ["Cut", "each_byte", "random_cuts", "send_dribbled", "whole"]

Cut: TypeAlias = Callable[[bytes], Iterator[bytes]]
"""Bytes in, the same bytes out in pieces."""


def whole(data: bytes) -> Iterator[bytes]:
    """Yield `data` in one piece, as a client that pipelines sends it.

    >>> list(whole(b"SOCKS"))
    [b'SOCKS']
    """
    if data:
        yield data


def each_byte(data: bytes) -> Iterator[bytes]:
    """Yield one byte at a time.

    >>> list(each_byte(b"abc"))
    [b'a', b'b', b'c']
    """
    for at in range(len(data)):
        yield data[at : at + 1]


def random_cuts(seed: int, *, longest: int = 8) -> Cut:
    """Make a cut into pieces of 1 to `longest` bytes, the same for the same seed.

    >>> pieces = list(random_cuts(7)(b"a greeting and a request"))
    >>> b"".join(pieces)
    b'a greeting and a request'
    >>> max(map(len, pieces)) <= 8
    True
    """
    dice = random.Random(seed)

    def cut(data: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(data):
            size = dice.randint(1, longest)
            yield data[at : at + size]
            at += size

    return cut


def send_dribbled(sock: socket.socket, data: bytes, *, cut: Cut = each_byte, pause: float = 0.0) -> None:
    """Send `data` over TCP in segments of its own for each piece.

    Args:
        sock: connected and blocking; its own timeout is the deadline of each send.
        data: what to send.
        cut: where to cut.
        pause: seconds between the pieces. Without a pause the segments are apart on the wire, but a receiver
            that is slow to read may find some of them joined.

    Raises:
        OSError: the peer closed or reset; TimeoutError: it does not read.

    >>> ours, theirs = socket.socketpair()
    >>> with ours, theirs:
    ...     send_dribbled(ours, bytes.fromhex("05 01 00"))
    ...     theirs.recv(9)
    b'\\x05\\x01\\x00'
    """
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for number, piece in enumerate(cut(data)):
        if pause and number:
            time.sleep(pause)
        sock.sendall(piece)
