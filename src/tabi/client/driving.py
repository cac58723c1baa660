"""Drive plans on asyncio for the library: `tabi.net.driver`, with the system's own look-ups."""

from typing import TypeVar

from tabi.dial.wishes import Steps
from tabi.net import driver
from tabi.net.system_resolver import SystemResolver

__all__ = ["drive"]

T = TypeVar("T")


async def drive(plan: Steps[T]) -> T:
    """Carry `plan` out; see `tabi.net.driver.drive`."""
    return await driver.drive(plan, resolver=SystemResolver(), client=None)
