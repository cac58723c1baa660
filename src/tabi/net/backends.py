"""Who looks names up: c-ares by aiodns, with the answers' TTL, or getaddrinfo on threads.

/etc/hosts comes first by `tabi.net.hostsfile`; what it does not have c-ares looks up as nsswitch.conf says, of which it
knows "files" and "dns" alone. getaddrinfo does whatever the system does, without telling how long an answer holds. Here
their errors become DialErrors.
"""

import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from tabi.addr import Address, Name
from tabi.dial.wishes import Family
from tabi.errors import DialError, DialTimeoutError, Reply, Stage
from tabi.net.hostsfile import HostsFile
from tabi.net.pool import Pool
from tabi.net.system_names import addresses_of, failed, name_of, no_such, read_addresses, read_name
from tabi.net.tasks import spawn

if TYPE_CHECKING:
    import aiodns

__all__ = ["Answer", "AresBackend", "Backend", "GetaddrinfoBackend", "best_backend"]

V = TypeVar("V")

ARES_TRIES = 2
ARES_TRY = 0.3  # of the time that a query has: c-ares doubles it for the second try, so it ends just within


@dataclass(frozen=True, slots=True)
class Answer(Generic[V]):
    """What a backend found.

    Args:
        value: the addresses, perhaps none; or the name of an address.
        ttl: seconds for which it holds, None where the backend cannot tell.
    """

    value: V
    ttl: float | None = None


class Backend(Protocol):
    """Who does the look-ups. Its futures fail with DialError (stage RESOLVE) and are never cancelled by tabi."""

    def allow(self, seconds: float) -> None:
        """Let queries that begin from here on take so long, where the backend can be told; nobody waits longer."""

    def addresses(self, name: Name, family: Family) -> asyncio.Future[Answer[tuple[Address, ...]]]:
        """Look the addresses of one family up; a name without any is an empty answer."""

    def name(self, address: Address) -> asyncio.Future[Answer[Name]]:
        """Look the name of an address up."""

    async def close(self) -> None:
        """End all queries and let go of threads and sockets."""


def best_backend(pool_size: int) -> Backend:
    """Take c-ares where aiodns is installed, else getaddrinfo on at most `pool_size` threads."""
    try:
        import aiodns  # noqa: F401 - only whether it can be had
    except ImportError:
        return GetaddrinfoBackend(pool_size)
    return AresBackend()


class GetaddrinfoBackend:
    """The system's own look-ups on threads, one family each.

    Args:
        pool_size: threads at most.
    """

    def __init__(self, pool_size: int = 32) -> None:
        self._pool = Pool(pool_size)

    def allow(self, seconds: float) -> None:
        """The system's resolver has its own times (resolv.conf(5)); nobody waits for it beyond ours."""

    def addresses(self, name: Name, family: Family) -> asyncio.Future[Answer[tuple[Address, ...]]]:
        """Ask getaddrinfo in a thread."""
        return self._pool.submit(_getaddrinfo, name, family)

    def name(self, address: Address) -> asyncio.Future[Answer[Name]]:
        """Ask getnameinfo in a thread."""
        return self._pool.submit(_getnameinfo, address)

    async def close(self) -> None:
        """Let the threads end after what they are doing."""
        self._pool.close()


def _getaddrinfo(name: Name, family: Family) -> Answer[tuple[Address, ...]]:
    return Answer(addresses_of(name, family))


def _getnameinfo(address: Address) -> Answer[Name]:
    return Answer(name_of(address))


class AresBackend:
    """c-ares by aiodns: no threads of ours, and answers with their TTL.

    Args:
        nameservers: "ADDRESS" or "ADDRESS:PORT" each; None takes those of the system.
        hosts: names that need no name server; None: /etc/hosts.
    """

    def __init__(self, *, nameservers: Sequence[str] | None = None, hosts: HostsFile | None = None) -> None:
        self._nameservers = nameservers
        self._hosts = hosts or HostsFile()
        self._made: aiodns.DNSResolver | None = None
        self._retired: list[aiodns.DNSResolver] = []  # of which queries may be under way
        self._seconds = 5.0

    def allow(self, seconds: float) -> None:
        """Have the next query open a channel with other times: those of a channel cannot be changed."""
        if self._made is not None and seconds != self._seconds:
            self._retired.append(self._made)
            self._made = None
        self._seconds = seconds

    def addresses(self, name: Name, family: Family) -> asyncio.Future[Answer[tuple[Address, ...]]]:
        """Look into /etc/hosts, then ask c-ares."""
        return spawn(self._addresses(name, family), name=f"look up {name}")

    def name(self, address: Address) -> asyncio.Future[Answer[Name]]:
        """Look into /etc/hosts, then ask c-ares."""
        return spawn(self._name(address), name=f"look up {address}")

    async def close(self) -> None:
        """End all queries and close c-ares' sockets."""
        for made in (*self._retired, self._made):
            if made is not None:
                await made.close()

    def _resolver(self) -> "aiodns.DNSResolver":
        if self._made is None:
            from aiodns import DNSResolver

            # No option may be a text: pycares 5.2 lets go of it before c-ares has read it. lookups="b" was garbage to
            # one channel in four (2026-11-21), on which no name could be looked up.
            self._made = DNSResolver(
                nameservers=self._nameservers,
                loop=asyncio.get_running_loop(),
                timeout=ARES_TRY * self._seconds,
                tries=ARES_TRIES,
            )
        return self._made

    async def _addresses(self, name: Name, family: Family) -> Answer[tuple[Address, ...]]:
        from aiodns import error as ares

        written = self._hosts.addresses(name)
        if written is not None:
            return Answer(tuple(address for address in written if address.version == family))
        try:
            asked = self._resolver().getaddrinfo(name.text, family=_AF[family], type=socket.SOCK_STREAM)
            found = await asked
        except ares.DNSError as error:
            if error.args[0] == ares.ARES_ENODATA:
                return Answer(())
            raise _from_ares(name, error.args[0], str(error.args[1])) from None
        # An alias may hold for a shorter time than what it stands for.
        ttls = [node.ttl for node in found.nodes] + [alias.ttl for alias in found.cnames]
        return Answer(read_addresses(_text(node.addr[0]) for node in found.nodes), min(ttls, default=None))

    async def _name(self, address: Address) -> Answer[Name]:
        from aiodns import error as ares

        if (written := self._hosts.name(address)) is not None:
            return Answer(written)
        zero = (str(address), 0) if address.version == 4 else (str(address), 0, 0, 0)
        try:
            found = await self._resolver().getnameinfo(zero, _ARES_NI_NAMEREQD | _ARES_NI_LOOKUPHOST)
        except ares.DNSError as error:
            raise _from_ares(address, error.args[0], str(error.args[1])) from None
        return Answer(read_name(address, _text(found.node)))


_AF = {4: socket.AF_INET, 6: socket.AF_INET6}
_ARES_NI_NAMEREQD = 1 << 2  # ares.h
_ARES_NI_LOOKUPHOST = 1 << 8


def _from_ares(what: Name | Address, code: int, text: str) -> DialError:
    from aiodns import error as ares

    if code in (ares.ARES_ENOTFOUND, ares.ARES_ENONAME, ares.ARES_EBADNAME, ares.ARES_ENODATA):
        return no_such(what)
    if code == ares.ARES_ETIMEOUT:
        return DialTimeoutError(f"{what}: the name servers are silent", stage=Stage.RESOLVE)
    if code in (ares.ARES_ENOMEM, ares.ARES_EFILE, ares.ARES_ECANCELLED, ares.ARES_EDESTRUCTION):
        return failed(what, text, Reply.GENERAL_FAILURE)
    return failed(what, text)  # SERVFAIL, REFUSED and whatever else a server says


def _text(raw: str | bytes) -> str:
    return raw.decode("ascii", "replace") if isinstance(raw, bytes) else raw
