"""Waiting for conditions instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 20.0  # seconds; only ever spent by a test that fails


def until(condition: Callable[[], T], what: str = "", patience: float = PATIENCE) -> T:
    """Call `condition` until it is true and return what it gave; fail with `what` when it never is."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience:g} s in vain for {what or condition}")
        time.sleep(0.002)
    return value
