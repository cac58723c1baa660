"""Counters that processes share: both builds keep the same books."""

import threading

import pytest

from tabi.relay.rows import PIN, Rows, SharedRows

try:
    from tabi.relay._engine import CompiledRows
except ImportError:
    CompiledRows = None  # type: ignore[assignment,misc]

BUILDS = [Rows] if CompiledRows is None else [Rows, CompiledRows]
ROW, OTHER = 0, 3


@pytest.fixture(params=BUILDS)
def pair(request: pytest.FixtureRequest) -> tuple[SharedRows, SharedRows]:
    """Two of three columns of one memory, in which there are two rows."""
    words = memoryview(bytearray(8 * 6)).cast("q")
    return request.param(words, 3, 0), request.param(words, 3, 2)


def test_a_limit_holds_over_all_columns(pair: tuple[SharedRows, SharedRows]) -> None:
    one, two = pair
    assert one.enter(ROW, 2)
    assert two.enter(ROW, 2)
    assert not one.enter(ROW, 2)
    assert (one.own(ROW), two.own(ROW), one.total(ROW), two.total(OTHER)) == (1, 1, 2, 0)
    two.leave(ROW)
    assert one.enter(ROW, 2)
    assert one.enter(ROW, -1)


def test_numbers_are_taken_once(pair: tuple[SharedRows, SharedRows]) -> None:
    one, two = pair
    assert [one.number(ROW), two.number(ROW), one.number(ROW), two.number(ROW)] == [1, 3, 4, 6]


def test_a_pin_is_no_count_and_goes_only_when_nothing_is_counted(pair: tuple[SharedRows, SharedRows]) -> None:
    one, two = pair
    assert not one.unpin(ROW)
    one.add(ROW, PIN)
    two.add(ROW, PIN)
    assert one.enter(ROW, 1)
    assert one.total(ROW) == 1
    assert not one.unpin(ROW)
    one.leave(ROW)
    assert one.unpin(ROW)
    assert not one.unpin(ROW)


def test_threads_lose_no_count(pair: tuple[SharedRows, SharedRows]) -> None:
    one = pair[0]
    threads = [threading.Thread(target=lambda: [one.add(ROW, 1) for _ in range(5000)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert one.own(ROW) == 20_000


def test_rows_that_are_closed_count_nothing(pair: tuple[SharedRows, SharedRows]) -> None:
    pair[0].close()
    with pytest.raises((ValueError, IndexError)):
        pair[0].enter(ROW, 1)


def test_a_row_beyond_the_memory_is_refused(pair: tuple[SharedRows, SharedRows]) -> None:
    with pytest.raises(IndexError):
        pair[0].add(6, 1)
