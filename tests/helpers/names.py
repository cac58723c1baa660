"""Names that only the server under test knows: a client that reaches one has left the look-up to the proxy."""

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address

from helpers.serving import Running
from tabi.addr import Address, Name
from tabi.dial.wishes import Family
from tabi.errors import DialError, Reply, Stage
from tabi.net.backends import Answer
from tabi.net.resolver import Resolver

__all__ = ["ONLY_HERE", "teach"]

ONLY_HERE = "only.tabi.test"
"""A name that no file and no name server has (RFC 6761 section 6.2)."""


class _Table:
    """A backend for `tabi.net.resolver`."""

    def __init__(self, table: Mapping[str, tuple[str, ...]]) -> None:
        self._table = {name: tuple(map(ip_address, addresses)) for name, addresses in table.items()}

    def allow(self, seconds: float) -> None:
        """It answers at once."""

    def addresses(self, name: Name, family: Family) -> asyncio.Future[Answer[tuple[Address, ...]]]:
        future: asyncio.Future[Answer[tuple[Address, ...]]] = asyncio.get_running_loop().create_future()
        if (found := self._table.get(str(name))) is None:
            future.set_exception(_unknown(name))
        else:
            future.set_result(Answer(tuple(address for address in found if address.version == family)))
        return future

    def name(self, address: Address) -> asyncio.Future[Answer[Name]]:
        future: asyncio.Future[Answer[Name]] = asyncio.get_running_loop().create_future()
        future.set_exception(_unknown(address))
        return future

    async def close(self) -> None:
        """Nothing to let go of."""


def _unknown(what: Name | Address) -> DialError:
    return DialError(f"{what} is not in the table", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE, retryable=False)


def teach(server: Running, *addresses: str, name: str = ONLY_HERE) -> None:
    """Let the server look names up in a table in which `name` has these addresses, and in nothing else."""
    old = server.server.resolver
    server.server.resolver = server.call_sync(lambda: Resolver(backend=_Table({name: addresses})))
    server.call(old.close())
