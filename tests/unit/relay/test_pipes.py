"""The pool of pipes keeps to its budget, whatever the kernel says."""

import fcntl
import os
from collections.abc import Iterator

import pytest

from tabi.relay import _pipes
from tabi.relay._pipes import PIPE_SIZE, PipePool, fair_share

PAGE = os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("soft_pages", "workers", "pipes"),
    [
        (64 * PIPE_SIZE // PAGE, 1, 32),  # the kernel's default: 64 pipes of 1 MiB, half for us
        (64 * PIPE_SIZE // PAGE, 4, 8),
        (64 * PIPE_SIZE // PAGE, 33, 0),
        (PIPE_SIZE // PAGE, 1, 0),
        (0, 1, 64),  # no limit is not no end
        (0, 4, 16),
    ],
)
def test_workers_share_half_of_the_pages_of_their_user(soft_pages: int, workers: int, pipes: int) -> None:
    assert fair_share(soft_pages, workers) == pipes


@pytest.fixture
def pool() -> Iterator[PipePool]:
    pool = PipePool(2)
    yield pool
    pool.close()


def test_a_pipe_is_large_and_does_not_block(pool: PipePool) -> None:
    pipe = pool.take()
    assert pipe is not None
    assert fcntl.fcntl(pipe[1], fcntl.F_GETPIPE_SZ) == PIPE_SIZE
    with pytest.raises(BlockingIOError):
        os.read(pipe[0], 1)
    assert not os.get_inheritable(pipe[0])
    pool.give(pipe)


def test_the_budget_is_not_exceeded_and_what_comes_back_is_lent_again(pool: PipePool) -> None:
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert pool.take() is None
    pool.give(first)
    assert pool.take() == first
    pool.discard(second)
    third = pool.take()
    assert third is not None
    assert pool.take() is None
    pool.give(first)
    pool.give(third)


@pytest.mark.parametrize("failing", ["pipe2", "fcntl"])
def test_a_kernel_that_refuses_is_asked_again_after_a_while(
    pool: PipePool, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    def refuse(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise PermissionError(1, "no pages")

    held = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patched:
        patched.setattr(_pipes.os if failing == "pipe2" else _pipes.fcntl, failing, refuse)
        assert [pool.take() for _ in range(200)] == [None] * 200
    assert asked == 1
    assert len(os.listdir("/proc/self/fd")) == held
    taken = [pipe for pipe in (pool.take() for _ in range(200)) if pipe]
    assert len(taken) == 2
    for pipe in taken:
        pool.give(pipe)
