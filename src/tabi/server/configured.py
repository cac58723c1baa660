"""A server that lives by a configuration, and goes over to another without losing a session that both allow."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from tabi.addr import Address, Endpoint
from tabi.config.load import Configuration
from tabi.machine.server import ServerOptions
from tabi.policy.memory import Memory
from tabi.server.accounts import Accounts, Table
from tabi.server.counts import Counts
from tabi.server.hashing import HashQueue
from tabi.server.lockouts import Lockouts
from tabi.server.review import MOVED, RELOADED, Review
from tabi.server.server import Server

__all__ = ["ConfiguredServer", "Prepared"]


class Prepared(NamedTuple):
    """A configuration of which all is made that can fail."""

    configuration: Configuration
    accounts: Table


class ConfiguredServer:
    """A `Server` and its `Accounts`.

    Args:
        prepared: what to live by first.
        write_log: takes session lines.
        counts: see `Server`.
        lockouts: see `Accounts`.
        workers: how many processes there are.
        hashes: see `Accounts`.
        numbers: see `Server`.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        write_log: Callable[[str], None],
        counts: Counts | None = None,
        lockouts: Lockouts | None = None,
        workers: int = 1,
        hashes: HashQueue | None = None,
        numbers: Iterator[int] | None = None,
    ) -> None:
        configuration = prepared.configuration
        self.configuration: Configuration = configuration
        trusted = configuration.settings.trusted
        self.accounts: Accounts = Accounts(prepared.accounts, trusted=trusted, lockouts=lockouts, queue=hashes)
        self.server: Server = Server(
            configuration.settings,
            policy=Memory(configuration.rules),
            authenticator=self.accounts,
            write_log=write_log,
            log_format=configuration.settings.log.format,
            access=_access(configuration),
            upstreams=configuration.upstreams,
            user_limits={name: user.limits for name, user in configuration.users.items()},
            counts=counts,
            numbers=numbers,
            workers=workers,
        )

    @staticmethod
    def prepare(configuration: Configuration, generation: int) -> Prepared:
        """Make all that can fail.

        Raises:
            ConfigError: a password that cannot be used, or a package that is missing.
        """
        return Prepared(configuration, Table.of(configuration.users.values(), generation))

    async def swap(self, prepared: Prepared, listeners: Sequence[socket.socket]) -> int:
        """Live by another configuration from now on.

        Handshakes that are under way are judged by it; sessions go on, but for those that it would refuse.

        Args:
            prepared: what to live by.
            listeners: all that are to be listened on; the others are closed once their queue is accepted.

        Returns:
            how many sessions were ended.
        """
        configuration = prepared.configuration
        changed = self.accounts.swap(prepared.accounts, configuration.settings.trusted)
        self._live_by(configuration, RELOADED)
        self.server.listen_on(listeners)
        return await Review(self.server, self._groups, changed).run()

    async def move(self, own: frozenset[Address]) -> int:
        """Live by the same configuration on a host that has other addresses now; as with `swap`, sessions go on.

        Returns:
            how many sessions were ended.
        """
        configuration = await asyncio.to_thread(self.configuration.on_host, own)
        self._live_by(configuration, MOVED)
        return await Review(self.server, self._groups, since=MOVED).run()

    def _live_by(self, configuration: Configuration, since: str) -> None:
        self.configuration = configuration
        self.server.reconfigure(
            configuration.settings,
            policy=Memory(configuration.rules),
            access=_access(configuration),
            upstreams=configuration.upstreams,
            user_limits={name: user.limits for name, user in configuration.users.items()},
            rule_limits={rule.name: rule.grants.limits for rule in configuration.rules.rules},
            since=since,
        )

    async def stop(self, drain: float | None = None) -> None:
        """Stop the server, then what verifies passwords."""
        await self.server.stop(drain)
        self.accounts.close()

    def _groups(self, user: bytes | None) -> frozenset[str] | None:
        return frozenset() if user is None else self.accounts.groups(user)


def _access(configuration: Configuration) -> Callable[[Endpoint, Address], ServerOptions]:
    """Make of the configuration's terms what a handshake is begun with; alike ones are one object."""
    known: dict[tuple[frozenset[object], bool], ServerOptions] = {}

    def options_for(listener: Endpoint, client: Address) -> ServerOptions:
        terms = configuration.terms(listener, client)
        key = (frozenset(terms.methods), terms.socks4)
        if key not in known:
            known[key] = ServerOptions(
                methods=terms.methods, socks4=terms.socks4, tor_resolve=configuration.settings.tor_resolve
            )
        return known[key]

    return options_for
