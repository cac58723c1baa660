"""The pump's copying, with sockets whose every answer is scripted: any cut, any refusal, the same bytes."""

import errno
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.relay._flow import Flow, Side
from tabi.relay._pipes import PipePool
from tabi.relay._pump import READ_SIZE, Pump, Pumped
from tabi.relay.interface import FlowLimits

EMPTY = BlockingIOError(errno.EAGAIN, "empty")


class Scripted:
    """A socket that gives these pieces and takes these sizes; an exception among them is raised."""

    def __init__(self, gives: list[bytes | OSError], takes: list[int | OSError]) -> None:
        self.gives = gives
        self.takes = takes
        self.reads = 0
        self.got = bytearray()

    def recv_into(self, buffer: bytearray, size: int) -> int:
        self.reads += 1
        assert self.reads < 1000, "the pump does not stop"
        piece = self.gives.pop(0) if self.gives else EMPTY
        if isinstance(piece, OSError):
            raise piece
        if len(piece) > size:
            self.gives.insert(0, piece[size:])
            piece = piece[:size]
        buffer[: len(piece)] = piece
        return len(piece)

    def send(self, data: memoryview, flags: int) -> int:
        size = self.takes.pop(0) if self.takes else len(data)
        if isinstance(size, OSError):
            raise size
        taken = bytes(data[:size])
        self.got += taken
        return len(taken)


def make_sides(
    gives: list[bytes | OSError], takes: list[int | OSError] | None = None
) -> tuple[Side, Side, Scripted, Scripted]:
    source, sink = Side(-1, b""), Side(-1, b"")
    Flow(1, source, sink, FlowLimits(), b"", 0.0)
    from_socket, to_socket = Scripted(gives, []), Scripted([], takes or [])
    source.sock, sink.sock = from_socket, to_socket  # type: ignore[assignment]
    return source, sink, from_socket, to_socket


def pump() -> Pump:
    return Pump(PipePool(0), 2)


pieces = st.lists(st.one_of(st.binary(min_size=1, max_size=50), st.just(EMPTY)), max_size=20)
sizes = st.lists(st.one_of(st.integers(1, 20), st.just(EMPTY)), max_size=60)


@given(pieces, sizes, st.binary(max_size=30), st.booleans())
def test_any_cut_and_any_refusal_give_the_same_bytes(
    gives: list[bytes | OSError], takes: list[int | OSError], owed: bytes, sure: bool
) -> None:
    expected = owed + b"".join(piece for piece in gives if isinstance(piece, bytes))
    source, sink, _, to_socket = make_sides([*gives, b""], takes)
    sink.out = memoryview(owed) if owed else None
    for _ in range(200):  # events
        if pump().run(source, sink, sure=sure) is Pumped.ENDED:
            break
        assert sink.taken == len(to_socket.got)
    assert bytes(to_socket.got) == expected
    assert (sink.taken, source.eof, sink.out) == (len(expected), True, None)


def test_nothing_is_read_while_bytes_wait_for_the_sink() -> None:
    source, sink, from_socket, to_socket = make_sides([b"12345", b"678"], [2, EMPTY, EMPTY])
    assert pump().run(source, sink, sure=False) is Pumped.WAITS
    assert pump().run(source, sink, sure=False) is Pumped.WAITS
    assert (from_socket.reads, bytes(to_socket.got)) == (1, b"12")
    pump().run(source, sink, sure=False)
    assert bytes(to_socket.got) == b"12345678"


def test_a_turn_is_bounded_and_says_that_there_may_be_more() -> None:
    source, sink, from_socket, _ = make_sides([bytes(READ_SIZE)] * 900)
    assert pump().run(source, sink, sure=True) is Pumped.MORE
    assert from_socket.reads <= 16


@pytest.mark.parametrize(("sure", "reads"), [(True, 1), (False, 2)])
def test_a_short_read_is_believed_when_the_event_vouches_for_it(sure: bool, reads: int) -> None:
    source, sink, from_socket, _ = make_sides([b"short"])
    assert pump().run(source, sink, sure=sure) is Pumped.WAITS
    assert from_socket.reads == reads


def test_a_full_read_is_followed_by_another() -> None:
    source, sink, from_socket, _ = make_sides([bytes(READ_SIZE)])
    assert pump().run(source, sink, sure=True) is Pumped.WAITS
    assert from_socket.reads == 2


def test_a_short_write_is_followed_by_another_so_that_an_edge_will_come() -> None:
    source, sink, _, to_socket = make_sides([b"12345"], [2])
    pump().run(source, sink, sure=True)
    assert bytes(to_socket.got) == b"12345"


def test_a_read_error_ends_the_source_and_a_write_error_breaks_the_sink() -> None:
    source, sink, _, to_socket = make_sides([b"data", ConnectionResetError(errno.ECONNRESET, "x")])
    assert pump().run(source, sink, sure=False) is Pumped.ENDED
    assert (source.err, source.eof, sink.err, bytes(to_socket.got)) == (errno.ECONNRESET, True, 0, b"data")
    source, sink, _, _ = make_sides([b"data"], [BrokenPipeError(errno.EPIPE, "x")])
    assert pump().run(source, sink, sure=False) is Pumped.WAITS
    assert (source.err, source.eof, sink.err, sink.taken) == (0, False, errno.EPIPE, 0)


class CountingPool(PipePool):
    """A pool that never has a pipe and counts who asks."""

    asked = 0

    def take(self) -> None:
        self.asked += 1


@pytest.mark.parametrize(
    ("reads", "asked"),
    [
        ([READ_SIZE // 2, READ_SIZE // 2, 10], 1),
        ([READ_SIZE // 2, 10, READ_SIZE // 2, 10], 0),
        ([READ_SIZE // 2 - 1] * 5, 0),
    ],
)
def test_a_pipe_is_asked_for_after_two_large_reads_in_a_row(reads: list[int], asked: int) -> None:
    pool = CountingPool(0)
    source, sink, _, _ = make_sides([bytes(size) for size in reads])
    Pump(pool, 2).run(source, sink, sure=False)
    assert pool.asked == asked
    assert cast(Scripted, sink.sock).got == bytes(sum(reads))
