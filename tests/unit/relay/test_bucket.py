"""Token buckets: never more than the rate and the burst, in any stretch of time, whoever takes."""

import math
import os
import subprocess
import sys
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.relay.bucket import QUANTUM, Bucket, Cell, burst_of, lock_byte, unlock_byte

START = 5_000.0


def shared(processes: int) -> list[Cell]:
    """Make the cells that so many processes would have of one bucket."""
    words = memoryview(bytearray(8 * (1 + processes))).cast("q")
    return [Cell(words, column) for column in range(processes)]


def test_a_new_bucket_is_full_and_then_fills_at_the_rate() -> None:
    bucket = Bucket(100, 1000)
    assert bucket.draw(START) == 1000
    assert bucket.draw(START) == 0
    assert bucket.draw(START + 0.5) == 50
    assert bucket.draw(START + 1e6) == 1000


def test_less_than_a_quantum_is_not_drawn_and_the_wait_for_it_is_known() -> None:
    bucket = Bucket(100, 1000, quantum=200)
    bucket.draw(START)
    assert bucket.draw(START + 1.99) == 0
    assert bucket.wait(START) == pytest.approx(2.0)
    assert bucket.wait(START + 3) == 0
    assert bucket.draw(START + 2.001) >= 200


def test_what_is_given_back_is_there_again() -> None:
    bucket = Bucket(100, 1000)
    bucket.give_back(bucket.draw(START) - 10)
    assert bucket.draw(START) == 990
    bucket.give_back(5_000_000)  # more than it holds: it is full
    assert bucket.draw(START) == 1000


def test_what_is_held_is_not_there() -> None:
    bucket = Bucket(100, 1000)
    held = bucket.draw(START)
    assert bucket.draw(START + 1e6, held=held) == 0
    assert bucket.draw(START + 1e6, held=400) == 600


def test_spending_takes_all_or_nothing() -> None:
    bucket = Bucket(100, 1000)
    assert bucket.spend(600, START)
    assert not bucket.spend(600, START)
    assert bucket.spend(400, START)


def test_one_that_is_larger_than_the_burst_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = Bucket(100, 1000)
    assert bucket.spend(5000, START)
    assert not bucket.spend(1, START + 39.9)
    assert bucket.spend(1, START + 40.1)
    assert not bucket.spend(5000, START + 49.9)
    assert bucket.spend(5000, START + 50.2)


def test_without_a_rate_there_is_always_plenty() -> None:
    bucket = Bucket()
    assert bucket.draw(START) >= 1 << 30
    assert bucket.spend(1 << 40, START)
    assert bucket.wait(START) == 0
    bucket.give_back(1 << 32)


def test_another_rate_holds_at_once() -> None:
    bucket = Bucket(1, 1000)
    bucket.draw(START)
    bucket.set_rate(100, 500, START)  # not to wait a thousand seconds for what was taken at the old rate
    assert bucket.draw(START) == 0
    assert bucket.draw(START + 1) == 100
    bucket.set_rate(1000, 2000, START + 1)
    assert bucket.draw(START + 1.1) in range(100, 2000)
    bucket.set_rate(None, 0, START)
    assert bucket.draw(START) >= 1 << 30
    bucket.set_rate(1, 10, START)
    bucket.give_back(1 << 32)  # of the time without a rate
    assert bucket.draw(START + 100) == 10


@pytest.mark.parametrize(("rate", "burst"), [(1, 4096), (16_384, 4096), (1_000_000, 250_000)])
def test_the_burst_is_a_quarter_of_a_second_and_some_kilobytes_at_least(rate: int, burst: int) -> None:
    assert burst_of(rate) == burst >= QUANTUM


steps = st.lists(
    st.tuples(
        st.floats(0, 3, allow_nan=False),  # seconds until then
        st.sampled_from(["draw", "spend", "return"]),
        st.integers(1, 3000),
        st.integers(0, 2),  # which process
    ),
    max_size=60,
)


@given(st.integers(1, 5000), st.integers(1, 4000), st.integers(1, 600), steps)
def test_in_no_stretch_of_time_is_more_taken_than_the_rate_and_the_burst(
    rate: int, burst: int, quantum: int, steps: list[tuple[float, str, int, int]]
) -> None:
    buckets = [Bucket(rate, burst, quantum=quantum, cell=cell) for cell in shared(3)]
    burst = max(burst, quantum)
    now = START
    taken: list[tuple[float, int]] = []
    for pause, kind, count, who in steps:
        now += pause
        if kind == "draw":
            taken.append((now, buckets[who].draw(now, waiting=1)))
        elif kind == "spend":
            if count <= burst and buckets[who].spend(count, now):
                taken.append((now, count))
        elif taken and taken[-1][0] == now:
            back = min(count, taken[-1][1])
            buckets[who].give_back(back)
            taken[-1] = (now, taken[-1][1] - back)
    for index, (begin, _) in enumerate(taken):
        total = 0
        for end, count in taken[index:]:
            total += count
            assert total <= Fraction(end - begin) * rate + burst + 1  # of nanoseconds and floats


@pytest.mark.parametrize("quantum", [1, 100])  # a hundredth and the whole of what comes in between two looks
def test_processes_that_wait_take_by_how_many_of_theirs_do(quantum: int) -> None:
    one, two = (Bucket(1000, 1000, quantum=quantum, cell=cell) for cell in shared(2))
    assert one.draw(START, waiting=3) == 1000  # nobody else waits yet
    two.tell(1)
    taken = [0, 0]
    for tick in range(1, 1000):
        taken[0] += one.draw(START + tick * 0.02, waiting=3)
        taken[1] += two.draw(START + tick * 0.02 + 0.007, waiting=1)
    assert 19_000 < sum(taken) <= 1000 + 1000 * 20
    assert taken[0] / taken[1] == pytest.approx(3, rel=0.1)
    two.tell(0)
    one.draw(START + 30, waiting=3)
    assert one.draw(START + 31, waiting=3) == 1000


def test_a_cell_keeps_what_its_maker_put_beside_the_count() -> None:
    cell = shared(1)[0]
    cell.words[1] = 1 << 40
    bucket = Bucket(10, 10, cell=cell)
    bucket.draw(START, waiting=7)
    assert cell.words[1] == (1 << 40) + 7
    bucket.tell(0)
    assert cell.words[1] == 1 << 40


HOLDER = """
import fcntl, sys
fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 1, 5)
print("locked", flush=True)
sys.stdin.readline()
"""


def test_a_lock_that_another_process_keeps_is_given_up_and_nothing_is_taken() -> None:
    memory = os.memfd_create("cells")
    os.truncate(memory, 4096)
    words = memoryview(bytearray(16)).cast("q")
    bucket = Bucket(10, 10, cell=Cell(words, 0, memory, 5))
    neighbour = Bucket(10, 10, cell=Cell(memoryview(bytearray(16)).cast("q"), 0, memory, 6))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(memory)],
        pass_fds=[memory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert bucket.draw(START) == 0
        assert not bucket.spend(1, START)
        assert neighbour.draw(START) == 10
        holder.kill()  # whoever dies gives its locks back
    assert bucket.draw(START) == 10
    bucket.give_back(3)
    assert words[0] == math.ceil(START * 1e9 + 7e8)
    os.close(memory)


def test_a_lock_on_something_that_is_no_file_is_an_error() -> None:
    memory = os.memfd_create("cells")
    assert lock_byte(memory, 0)
    unlock_byte(memory, 0)
    os.close(memory)
    with pytest.raises(OSError, match="Bad file descriptor"):
        lock_byte(memory, 0)
