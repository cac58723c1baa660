"""Drive plans on asyncio for the library: `tabi.net.driver`, with the system's own look-ups in the loop's threads."""

import asyncio
from collections.abc import Hashable
from typing import TypeVar

from tabi.addr import Address, Name
from tabi.dial.wishes import Family, Steps
from tabi.net import driver
from tabi.net.system_names import addresses_of

__all__ = ["drive"]

T = TypeVar("T")


async def drive(plan: Steps[T]) -> T:
    """Carry `plan` out; see `tabi.net.driver.drive`."""
    return await driver.drive(plan, resolver=_SystemNames(), client=None)


class _SystemNames:
    """getaddrinfo in the threads of the running loop."""

    def ask(self, name: Name, family: Family, _client: Hashable) -> asyncio.Future[tuple[Address, ...]]:
        """See `tabi.net.driver.Asks`."""
        return asyncio.get_running_loop().run_in_executor(None, addresses_of, name, family)
