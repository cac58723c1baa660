"""Counting failed logins: how long the next one has to wait, and who is closed out for a while.

Failures count twice: by user and client, and by client alone (an IPv4 address, or an IPv6 /64). Each makes the next
attempt wait. Too many by one user and client close that pair, too many users by one client close the client. A login
that succeeds clears its pair; it never clears its client, or an attacker with one account could go on for ever.

Whoever has logged in lately and not failed since is *known*: the failures of others behind the same address do not
delay such a user. Only what closes the address does.

All workers count in one memory (`tabi.server.failures`): a failure holds for each of them before its answer is sent.
Of W workers that judge at the same moment each may have looked before the others counted, so W - 1 guesses more than
the rules say may be answered, and never more: one worker judges those of a pair one after the other, and those of a
client as well, but for users who are known. That something is closed is not written down; it follows from the moments
of the failures, for whoever reads them.

No clock, no loop, no waiting here: the time is an argument (seconds of a monotonic clock, which is the same one for all
processes of a host), and `tabi.server.turns` does the waiting.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv6Network, ip_address
from typing import Final, NamedTuple

from tabi.addr import escape, unmap
from tabi.errors import UsageError
from tabi.server.admission import ClientKey, client_key, show_client
from tabi.server.failures import NOTHING, Book, Failures, Key, Past, Shape, Weight

__all__ = ["Gate", "Lockout", "LockoutRules", "Lockouts", "parse_client"]

KNOWN_FOR: Final = 3600.0  # seconds
MOST_KNOWN: Final = 8192


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
        entries: pairs, and clients, that there is room for. A new one that finds none displaces the one of its
            neighbours that counts least: with the fewest failures (of clients: users), and of those the longest
            ago. So whoever wants a pair forgotten has to fail as often with many others: nobody knows where it is.
    """

    delays: tuple[float, ...] = (1.0, 2.0, 4.0)
    window: float = 600.0
    failures: int = 10
    users: int = 20
    closed: float = 900.0
    entries: int = 16_384

    @property
    def shape(self) -> Shape:
        """The memory that these need."""
        return Shape(self.entries, max(self.failures, len(self.delays)), self.users)


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


class _Counts:
    """What counts against keys of one kind, from the moments of a book.

    Args:
        rules: how much is too much.
        book: where the moments are.
        most: so many close: failures of a pair, users of a client.
        why: to tell whoever is closed out.
    """

    def __init__(self, rules: LockoutRules, book: Book, most: int, why: str) -> None:
        self._rules = rules
        self._book = book
        self._most = most
        self._why = why

    def add(self, now: float, key: Key, user: bytes) -> None:
        """Count a failure, under the lock; one of a key that is closed already changes nothing."""
        row = self._book.take(key, partial(self._weigh, now))
        live, closed_until = self._look(now, self._book.read(row))
        if not closed_until:
            if not live.failures:  # with what once closed it
                self._book.wipe(row)
            self._book.note(row, now, user)

    def gate(self, now: float, key: Key) -> Gate:
        past = self._book.past(key)
        if past is NOTHING:  # of nearly all
            return _OPEN
        live, closed_until = self._look(now, past)
        if closed_until:
            return Gate(closed_until, closed=True, why=self._why)
        if not live.failures:
            return _OPEN
        return Gate(live.failures[-1] + self._rules.delays[min(len(live.failures), len(self._rules.delays)) - 1])

    def last(self, key: Key) -> float:
        """Say when a key failed last, as far as that is remembered; 0: it has not."""
        return max(self._book.past(key).failures, default=0.0)

    def remove(self, key: Key) -> None:
        """Forget what counts against a key; under the lock."""
        if (row := self._book.find(key)) is not None:
            self._book.wipe(row)

    def all(self, now: float) -> Iterator[tuple[Key, Past]]:
        """Go through the keys against which something counts."""
        for row, key in self._book.taken():
            live, _ = self._look(now, self._book.read(row))
            if live.failures:
                yield key, live

    def _look(self, now: float, past: Past) -> tuple[Past, float]:
        """Leave out what does not count any more, and say until when the rest closes the key; 0: it does not.

        Nothing is added while it is closed, so what closed it are the last moments that there are.
        """
        counted = past.users if self._book.has_users else past.failures
        horizon, closed_until = now - self._rules.window, 0.0
        if len(counted) >= self._most and counted[-self._most] > counted[-1] - self._rules.window:
            horizon, closed_until = counted[-1] - self._rules.window, counted[-1] + self._rules.closed
            if closed_until <= now:
                return NOTHING, 0.0
        return Past(*([one for one in moments if one > horizon] for moments in past)), closed_until

    def _weigh(self, now: float, past: Past) -> Weight:
        """Say how much a key counts, beside others of which one has to go."""
        live, closed_until = self._look(now, past)
        if closed_until:
            return math.inf, closed_until
        return len(live.users), len(live.failures), max(past.failures, default=0.0)


class Lockouts:
    """See the module.

    Args:
        rules: how much is too much.
        failures: of the shape of these rules; None: a memory of our own.
    """

    def __init__(self, rules: LockoutRules | None = None, failures: Failures | None = None) -> None:
        rules = rules or LockoutRules()
        self.rules: LockoutRules = rules
        self._failures = failures or Failures.private(rules.shape)
        why = f"{rules.failures} failed logins of this user from this address"
        self._pairs = _Counts(rules, self._failures.pairs, rules.failures, why)
        why = f"failed logins of {rules.users} users from this address"
        self._clients = _Counts(rules, self._failures.clients, rules.users, why)
        self._known: dict[Key, float] = {}

    @classmethod
    def create(cls) -> "Lockouts":
        """Make those that workers are to share, by the rules that there are without others."""
        return cls(failures=Failures.create(LockoutRules().shape))

    @classmethod
    def attach(cls, descriptor: int) -> "Lockouts":
        """Share those whose descriptor was inherited."""
        return cls(failures=Failures.attach(descriptor, LockoutRules().shape))

    def fileno(self) -> int:
        """Return the descriptor of those that were made to be shared."""
        return self._failures.fileno()

    def pair_gate(self, now: float, client: ClientKey, user: bytes) -> Gate:
        """Say when the next attempt of this user from this client may be judged."""
        return self._pairs.gate(now, (client, user))

    def client_gate(self, now: float, client: ClientKey) -> Gate:
        """Say when the next attempt from this client may be judged."""
        return self._clients.gate(now, (client, b""))

    def is_known(self, now: float, client: ClientKey, user: bytes) -> bool:
        """Say whether this user has logged in here from this client within an hour, and not failed since."""
        key = (client, user)
        since = self._known.get(key)
        if since is not None and self._pairs.last(key) >= since:
            del self._known[key]
            return False
        return since is not None and now < since + KNOWN_FOR

    def failed(self, now: float, client: ClientKey, user: bytes, *, exempt: bool = False) -> None:
        """Count a failed login; with `exempt` not against the client."""
        self._known.pop((client, user), None)
        with self._failures.changing():
            self._pairs.add(now, (client, user), user)
            if not exempt:
                self._clients.add(now, (client, b""), user)

    def succeeded(self, now: float, client: ClientKey, user: bytes) -> None:
        """Note a login, which makes the pair known and clears what counts against it."""
        key = (client, user)
        self._known.pop(key, None)
        if len(self._known) >= MOST_KNOWN:
            del self._known[next(iter(self._known))]
        self._known[key] = now
        if self._pairs.last(key):
            with self._failures.changing():
                self._pairs.remove(key)

    def entries(self, now: float) -> list[Lockout]:
        """List what counts against whom: the closed first, then those whose next attempt waits longest."""
        listed = [_entry(now, self._clients, client, None, past) for (client, _), past in self._clients.all(now)]
        listed += [_entry(now, self._pairs, client, user, past) for (client, user), past in self._pairs.all(now)]
        return sorted(listed, key=lambda one: (not one.closed, -one.seconds, one.client, one.user or b""))

    def lift(self, now: float, client: ClientKey | None = None, user: bytes | None = None) -> int:
        """Forget what counts against a client, a user, or both; without arguments against all.

        Returns:
            how many entries that were.
        """
        lifted = 0
        with self._failures.changing():
            for counts in (self._pairs,) if user is not None else (self._pairs, self._clients):
                for key, _ in list(counts.all(now)):
                    if client in (None, key[0]) and user in (None, key[1]):
                        counts.remove(key)
                        lifted += 1
        return lifted


def _entry(now: float, counts: _Counts, client: ClientKey, user: bytes | None, past: Past) -> Lockout:
    gate = counts.gate(now, (client, user or b""))
    seconds = max(0.0, gate.opens - now)
    return Lockout(show_client(client), user, len(past.failures), len(past.users), gate.closed, seconds)


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
