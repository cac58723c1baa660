"""Counting failed logins: how long the next one has to wait, and who is closed out for a while.

Failures count twice: by user and client, and by client alone (an IPv4 address, or an IPv6 /64). Each makes the next
attempt wait. Too many by one user and client close that pair, too many users by one client close the client. A login
that succeeds clears its pair; it never clears its client, or an attacker with one account could go on for ever.

Whoever has logged in lately and not failed since is *known*: the failures of others behind the same address do not
delay such a user. Only what closes the address does.

No clock, no loop, no waiting here: the time is an argument (seconds of a monotonic clock, which is the same one for all
processes of a host), and `tabi.server.turns` does the waiting. So what another worker counted can be put in by the same
calls.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv6Network, ip_address
from typing import Final, Generic, NamedTuple, TypeVar

from tabi.addr import escape, unmap
from tabi.errors import UsageError
from tabi.server.admission import ClientKey, client_key, show_client

__all__ = ["Gate", "Lockout", "LockoutRules", "Lockouts", "parse_client"]

KNOWN_FOR: Final = 3600.0  # seconds

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class LockoutRules:
    """How much is too much. Durations are seconds.

    Args:
        delays: that the first, second … failure puts before the next answer; the last one stands for all that follow.
        window: failures older than this are forgotten.
        failures: of one user and client within the window that close the pair.
        users: different user names that failed from one client within the window that close the client. Twenty: a
            household or an office with a changed password stays below, a list of names does not.
        closed: how long.
        entries: pairs, and clients, that are remembered; beyond that the longest untouched is forgotten.
    """

    delays: tuple[float, ...] = (1.0, 2.0, 4.0)
    window: float = 600.0
    failures: int = 10
    users: int = 20
    closed: float = 900.0
    entries: int = 8192


class Gate(NamedTuple):
    """When an attempt may be judged: not before `opens`; where `closed`, it is refused until then."""

    opens: float
    closed: bool = False
    why: str = ""


_OPEN: Final = Gate(0.0)


@dataclass(frozen=True, slots=True)
class Lockout:
    """What counts against a pair or a client, for the administrator.

    Args:
        client: address, or network of an IPv6 client.
        user: None: it counts against the client.
        failures: within the window; of a client as many as matter for its delay.
        users: different users that failed, of a client.
        closed: no login is taken; otherwise the next one is delayed.
        seconds: until the next attempt is judged, 0: at once.
    """

    client: str
    user: bytes | None
    failures: int
    users: int
    closed: bool
    seconds: float

    def row(self) -> dict[str, str | int | float]:
        """Give it ready for JSON."""
        return {
            "client": self.client,
            "user": "" if self.user is None else self.user.decode("utf-8", "backslashreplace"),
            "failures": self.failures,
            "users": self.users,
            "closed": int(self.closed),
            "seconds": round(self.seconds, 1),
        }


class _Count:
    """Failures of one pair or client."""

    __slots__ = ("closed_until", "times", "users", "why")

    def __init__(self, keep: int) -> None:
        self.times: deque[float] = deque(maxlen=keep)
        self.users: dict[bytes, float] = {}
        self.closed_until = 0.0
        self.why = ""


class _Book(Generic[K]):
    """Counts by key, bounded: those longest without a failure stand first."""

    def __init__(self, rules: LockoutRules) -> None:
        self._rules = rules
        self._keep = max(rules.failures, len(rules.delays))
        self._counts: dict[K, _Count] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def get(self, now: float, key: K) -> _Count | None:
        """Give what still counts against `key`."""
        count = self._counts.get(key)
        if count is None:
            return None
        if count.closed_until:
            if count.closed_until > now:
                return count
            del self._counts[key]
            return None
        horizon = now - self._rules.window
        while count.times and count.times[0] <= horizon:
            count.times.popleft()
        if not count.times:
            del self._counts[key]
            return None
        return count

    def add(self, now: float, key: K) -> _Count:
        """Count a failure; one of a key that is closed already changes nothing."""
        count = self.get(now, key)
        if count is None:
            while len(self._counts) >= self._rules.entries:
                del self._counts[next(iter(self._counts))]
            count = self._counts[key] = _Count(self._keep)
        elif not count.closed_until:
            self._counts[key] = self._counts.pop(key)
        if not count.closed_until:
            count.times.append(now)
        return count

    def gate(self, now: float, key: K) -> Gate:
        count = self.get(now, key)
        if count is None:
            return _OPEN
        if count.closed_until:
            return Gate(count.closed_until, closed=True, why=count.why)
        return Gate(count.times[-1] + self._rules.delays[min(len(count.times), len(self._rules.delays)) - 1])

    def remove(self, key: K) -> bool:
        return self._counts.pop(key, None) is not None

    def all(self) -> list[K]:
        return list(self._counts)


class Lockouts:
    """See the module.

    Args:
        rules: how much is too much.
    """

    def __init__(self, rules: LockoutRules | None = None) -> None:
        self.rules = rules or LockoutRules()
        self._pairs: _Book[tuple[ClientKey, bytes]] = _Book(self.rules)
        self._clients: _Book[ClientKey] = _Book(self.rules)
        self._known: dict[tuple[ClientKey, bytes], float] = {}

    def __len__(self) -> int:
        """Pairs and clients remembered, those included that will be forgotten when next looked at."""
        return len(self._pairs) + len(self._clients)

    def pair_gate(self, now: float, client: ClientKey, user: bytes) -> Gate:
        """Say when the next attempt of this user from this client may be judged."""
        return self._pairs.gate(now, (client, user))

    def client_gate(self, now: float, client: ClientKey) -> Gate:
        """Say when the next attempt from this client may be judged."""
        return self._clients.gate(now, client)

    def is_known(self, now: float, client: ClientKey, user: bytes) -> bool:
        """Say whether this user has logged in from this client within an hour, and not failed since."""
        since = self._known.get((client, user))
        return since is not None and now < since + KNOWN_FOR

    def failed(self, now: float, client: ClientKey, user: bytes, *, exempt: bool = False) -> None:
        """Count a failed login; with `exempt` not against the client."""
        self._known.pop((client, user), None)
        pair = self._pairs.add(now, (client, user))
        if not pair.closed_until and len(pair.times) >= self.rules.failures:
            self._close(now, pair, f"{self.rules.failures} failed logins of this user from this address")
        if exempt:
            return
        count = self._clients.add(now, client)
        horizon = now - self.rules.window
        for old in [name for name, when in count.users.items() if when <= horizon]:
            del count.users[old]
        count.users[user] = now
        if not count.closed_until and len(count.users) >= self.rules.users:
            self._close(now, count, f"failed logins of {self.rules.users} users from this address")

    def succeeded(self, now: float, client: ClientKey, user: bytes) -> bool:
        """Note a login, which makes the pair known.

        Returns:
            whether there was something against the pair that is cleared now.
        """
        key = (client, user)
        self._known.pop(key, None)
        if len(self._known) >= self.rules.entries:
            del self._known[next(iter(self._known))]
        self._known[key] = now
        return self.clear(client, user)

    def clear(self, client: ClientKey, user: bytes) -> bool:
        """Forget what counts against a pair, if anything does."""
        return self._pairs.remove((client, user))

    def entries(self, now: float) -> list[Lockout]:
        """List what counts against whom: the closed first, then those whose next attempt waits longest."""
        found = [self._entry(now, self._clients.get(now, client), client, None) for client in self._clients.all()]
        found += [self._entry(now, self._pairs.get(now, key), *key) for key in self._pairs.all()]
        listed = [entry for entry in found if entry is not None]
        return sorted(listed, key=lambda one: (not one.closed, -one.seconds, one.client, one.user or b""))

    def lift(self, client: ClientKey | None = None, user: bytes | None = None) -> int:
        """Forget what counts against a client, a user, or both; without arguments against all.

        Returns:
            how many entries that were.
        """
        lifted = 0
        for key in self._pairs.all():
            if client in (None, key[0]) and user in (None, key[1]):
                lifted += self._pairs.remove(key)
        if user is None:
            for one in self._clients.all():
                if client in (None, one):
                    lifted += self._clients.remove(one)
        return lifted

    def _close(self, now: float, count: _Count, why: str) -> None:
        count.closed_until = now + self.rules.closed
        count.why = why

    def _entry(self, now: float, count: _Count | None, client: ClientKey, user: bytes | None) -> Lockout | None:
        if count is None:
            return None
        gate = self.client_gate(now, client) if user is None else self.pair_gate(now, client, user)
        seconds = max(0.0, gate.opens - now)
        return Lockout(show_client(client), user, len(count.times), len(count.users), gate.closed, seconds)


def parse_client(text: str) -> ClientKey:
    """Read what `show_client` wrote, or any address of the client.

    Raises:
        UsageError: neither an address nor the /64 of one.
    """
    try:
        if "/" in text:
            network = IPv6Network(text)
            if network.prefixlen == 64:
                return client_key(network.network_address)
        else:
            return client_key(unmap(ip_address(text)))
    except ValueError:
        pass  # said below
    raise UsageError(f"{escape(text)} is no client; accepted are an IPv4 address, an IPv6 address and an IPv6 /64")
