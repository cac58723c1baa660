"""The system's own look-ups, for whoever drives plans on asyncio without a resolver of his own."""

import asyncio
from collections.abc import Hashable

from tabi.addr import Address, Name
from tabi.dial.wishes import Family
from tabi.net.system_names import addresses_of

__all__ = ["SystemResolver"]


class SystemResolver:
    """getaddrinfo in the threads of the running loop."""

    def ask(self, name: Name, family: Family, _client: Hashable) -> asyncio.Future[tuple[Address, ...]]:
        """See `tabi.net.driver.Asks`."""
        return asyncio.get_running_loop().run_in_executor(None, addresses_of, name, family)
