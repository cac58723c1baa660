"""What a client is offered when it connects, by the listener that it came in by and the network that it comes from.

It is settled by what is known at the greeting. Of the methods that both sides offer the strongest is taken.
"""

from dataclasses import dataclass

from tabi.addr import Address, Endpoint
from tabi.policy.criteria import Clients, listener_of
from tabi.wire.socks5 import Method

__all__ = ["Access", "ClientTable", "Terms"]


@dataclass(frozen=True, slots=True)
class Terms:
    """What a client is offered.

    Args:
        methods: of SOCKS5 (RFC 1928 section 3).
        socks4: whether SOCKS4 and 4a are taken, which carry no password; refused, they hear 91.
    """

    methods: frozenset[Method]
    socks4: bool

    @property
    def lets_anybody_in(self) -> bool:
        """Whether a client can do without authentication."""
        return self.socks4 or Method.NONE in self.methods


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTable:
    """One ``[[client]]``.

    Args:
        clients: whom it is about.
        methods: in place of the listener's; None: those.
        socks4: see `Terms`; None: as where there is no table.
    """

    clients: Clients
    methods: frozenset[Method] | None = None
    socks4: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The listeners' and clients' part of a configuration.

    Args:
        listeners: each as written, with what it offers.
        methods: offered where none of `listeners` is meant, as with sockets from the service manager.
        clients: the first that has the client's address counts.
        socks4: whether SOCKS4 is taken where no table says so: not where there are users.
    """

    listeners: dict[Endpoint, frozenset[Method]]
    methods: frozenset[Method]
    clients: tuple[ClientTable, ...] = ()
    socks4: bool = True

    def terms(self, listener: Endpoint, client: Address) -> Terms:
        """Say what a client is offered.

        Args:
            listener: our end of its connection.
            client: its address, IPv4-mapped already unmapped.
        """
        known = listener_of(self.listeners, listener)
        table = next((table for table in self.clients if table.clients.has(client)), None)
        return self.terms_of(known, table)

    def terms_of(self, listener: Endpoint | None, table: ClientTable | None) -> Terms:
        """Say what clients of a table are offered at a listener as it is written."""
        methods = self.methods if listener is None else self.listeners[listener]
        socks4 = self.socks4
        if table is not None:
            methods = methods if table.methods is None else table.methods
            socks4 = socks4 if table.socks4 is None else table.socks4
        return Terms(methods, socks4)
