"""Run a coroutine to its end on a loop of its own, and fail rather than hang."""

import asyncio
import gc
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 30.0  # seconds; no measurement, only an end to a test that would hang


def run(coro: Coroutine[Any, Any, T]) -> T:
    """Return what `coro` returns; errors that the loop was told of instead fail the test."""
    told: list[dict[str, Any]] = []

    async def bounded() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        return await asyncio.wait_for(coro, PATIENCE)

    result = asyncio.run(bounded())
    gc.collect()
    assert told == []
    return result


async def until(condition: Callable[[], object]) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)
