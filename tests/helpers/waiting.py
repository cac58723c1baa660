"""Waiting for conditions instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 20.0  # seconds; only ever spent by a test that fails


def until(condition: Callable[[], T], what: str | Callable[[], str] = "", patience: float = PATIENCE) -> T:
    """Call `condition` until it is true and return what it gave; fail with `what` when it never is.

    Where `what` tells of something that changes meanwhile, it is a function: that is called at the end.
    """
    deadline = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            raise AssertionError(f"waited {patience:g} s in vain for {told or condition}")
        time.sleep(0.002)
    return value
