"""Scenarios that need a process of their own; `test_engine_process` runs each in a child.

The ordinary user's are here because root may exceed every limit on pipes.
"""

import errno
import fcntl
import os
import signal
import socket

from loop.engine_helpers import (
    connected,
    exchange,
    next_ends,
    pipes_held,
    reset,
    running,
    tunnel,
)
from tabi.relay import Cause, Engine
from tabi.relay._pipes import PIPE_SIZE

NOBODY = 65534


def become_ordinary() -> None:
    """Give up root for good; whoever is not root stays what it is."""
    for end in connected():  # what this imports late may be unreadable afterwards
        end.close()
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    assert os.getuid() != 0


def relay_bulk(engine: Engine, count: int, size: int) -> None:
    """Relay so many bulk streams at once, both ways each, and check every byte."""
    data = os.urandom(size + count)
    pairs = [(tunnel(engine), data[n : n + size], data[count - n : count - n + size]) for n in range(count)]
    got = exchange(pairs, 256 * 1024)
    for (pair, up, down), (up_got, down_got) in zip(pairs, got, strict=True):
        assert up_got == up, "up is damaged"
        assert down_got == down, "down is damaged"
        pair.__exit__()
    for end in next_ends(engine, count):
        assert (end.cause, end.errno, end.up, end.down) == (Cause.FIN, 0, size, size)


def bulk_streams(build: str) -> None:
    """A hundred bulk streams, two hundred directions, where half the pages are good for 32 pipes."""
    become_ordinary()
    with running(build, splice_after=0) as engine:
        before = pipes_held()
        relay_bulk(engine, 100, 1 << 20)
        made = pipes_held() - before
        assert 0 < made <= 32, f"{made} pipes"
    with running(build) as engine:
        relay_bulk(engine, 100, 1 << 20)


def spent_pages(build: str) -> None:
    """Pipes that cannot grow, because the user's pages are spent: copying; with pages again: splice again."""
    become_ordinary()
    spent = []
    while True:
        pipe = os.pipe2(os.O_NONBLOCK)
        spent.append(pipe)
        try:
            fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_SIZE)
        except PermissionError:
            break
        assert len(spent) < 2000, "this user may have as many pages as it likes"
    before = pipes_held()
    with running(build, splice_after=0) as engine:
        relay_bulk(engine, 10, 1 << 20)
        assert pipes_held() == before
        for pipe in spent:
            os.close(pipe[0])
            os.close(pipe[1])
        relay_bulk(engine, 10, 32 << 18)
        assert pipes_held() > before - len(spent)


def spent_descriptors(build: str) -> None:
    """No descriptor left for a pipe: copying."""
    with running(build, splice_after=0) as engine, tunnel(engine) as pair:
        held = []
        while True:
            try:
                held.append(os.dup(0))
            except OSError:  # EMFILE
                break
        data = os.urandom(4 << 20)
        pair.client.setblocking(False)
        left, got = memoryview(data), b""
        while len(got) < len(data):
            try:
                left = left[pair.client.send(left) :]
            except BlockingIOError:
                pass
            got += pair.target.recv(1 << 20)
        assert got == data
        for fd in held:
            os.close(fd)


def sigpipe(build: str) -> None:
    """The program has SIGPIPE at its default, and a splice goes to a socket that has told its reset already."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)

    def hide_the_reset(inbound: socket.socket, outbound: socket.socket) -> None:
        assert outbound.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNRESET

    with running(build, splice_after=0) as engine:
        with tunnel(engine, before=lambda client, target: reset(target), prepare=hide_the_reset) as pair:
            pair.client.sendall(b"into the pipe")
            (end,) = next_ends(engine)
            assert (end.cause, end.errno) == (Cause.RST, errno.EPIPE)


SCENARIOS = {scenario.__name__: scenario for scenario in (bulk_streams, spent_pages, spent_descriptors, sigpipe)}
