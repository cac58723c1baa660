"""A name service for tests: it knows what it is told, remembers what it was asked, and is as slow as is wanted."""

import asyncio
from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from helpers.serving import Running
from tabi.addr import Address, Name
from tabi.dial.wishes import Family
from tabi.errors import DialError, Reply, Stage
from tabi.net.backends import Answer
from tabi.net.resolver import Resolver

__all__ = ["NameService"]


class NameService:
    """A backend of `tabi.net.resolver`.

    Args:
        table: name -> addresses as text; other names are unknown.
        slow: names that are answered only after `answer`.
    """

    def __init__(self, table: Mapping[str, Sequence[str]] | None = None, slow: Sequence[str] = ()) -> None:
        self.asked: list[str] = []
        self._table = table or {}
        self._slow = frozenset(slow)
        self._held: list[tuple[asyncio.Future[Answer[tuple[Address, ...]]], Name, Family]] = []

    def serve(self, running: Running) -> "NameService":
        """Take the place of the resolver of a server."""

        async def replace() -> None:
            await running.server.resolver.close()
            limit = running.server.settings.time.resolve
            running.server.resolver = Resolver(backend=self, query_timeout=limit)

        running.call(replace())
        return self

    def allow(self, seconds: float) -> None:
        """See `tabi.net.backends.Backend`; it takes the time that the test wants."""

    def answer(self, running: Running) -> None:
        """Answer the slow names that were asked for; from now on none is slow."""

        def answer_all() -> None:
            self._slow = frozenset()
            while self._held:
                self._answer(*self._held.pop())

        running.call_sync(answer_all)

    def addresses(self, name: Name, family: Family) -> "asyncio.Future[Answer[tuple[Address, ...]]]":
        """See `tabi.net.backends.Backend`."""
        self.asked.append(name.text)
        future: asyncio.Future[Answer[tuple[Address, ...]]] = asyncio.get_running_loop().create_future()
        if name.text in self._slow:
            self._held.append((future, name, family))
        else:
            self._answer(future, name, family)
        return future

    def _answer(self, future: "asyncio.Future[Answer[tuple[Address, ...]]]", name: Name, family: Family) -> None:
        if future.done():
            return
        if name.text not in self._table:
            text = f"{name}: there is no such name"
            future.set_exception(DialError(text, stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE, retryable=False))
            return
        found = map(ip_address, self._table[name.text])
        future.set_result(Answer(tuple(address for address in found if address.version == family)))

    def name(self, address: Address) -> "asyncio.Future[Answer[Name]]":
        """See `tabi.net.backends.Backend`."""
        raise NotImplementedError(f"no test asks for the name of {address}")

    async def close(self) -> None:
        """Cancel what was never answered."""
        for future, _, _ in self._held:
            future.cancel()
