"""Users with stored passwords, and the login that tells strangers nothing and lets nobody guess fast.

The way of one login: what no password can be is refused. A pair of user and client that has nothing against it and a
password that was verified within the hour is let in at once. Everybody else takes turns, by pair and then by client
(`tabi.server.turns`), waits out what failures have brought upon them (`tabi.server.lockouts`), and is then judged, by
one hash made off the loop (`tabi.server.hashing`). A user that does not exist costs the same hash as one that does.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple, Protocol, Self

from tabi.addr import Address, Endpoint, Name, escape
from tabi.config.accounts import User
from tabi.config.stored import Hash, Plain, Stored, is_sound, parse_stored
from tabi.errors import ConfigError
from tabi.policy.networks import NetworkSet
from tabi.server.admission import ClientKey, client_key
from tabi.server.auth import WRONG, Login
from tabi.server.hashing import HashQueue
from tabi.server.lockouts import Gate, Lockouts
from tabi.server.passwords import decoy, matches, require_argon2
from tabi.server.turns import Turns

__all__ = ["BUSY", "UNSOUND", "Account", "Accounts", "Believer", "Successes", "Table"]

BUSY: Final = "too many logins are waiting to be verified"
UNSOUND: Final = "user name or password with a control byte, or not of 1 to 255 bytes"

MAX_SUCCESSES: Final = 10_000
SUCCESS_LASTS: Final = 3600.0  # seconds
VOUCHED_FOR: Final = 300.0  # seconds


@dataclass(frozen=True, slots=True)
class Account:
    """One ``[[user]]``.

    Args:
        name: as it is sent, byte for byte.
        stored: see `tabi.config.stored.parse_stored`.
        groups: that rules call ``@group``.
    """

    name: bytes
    stored: Stored = field(repr=False)
    groups: frozenset[str] = frozenset()


class Table:
    """All accounts of one generation of the configuration; never changes.

    Args:
        accounts: with different names.
        generation: of the configuration that they come from.

    Raises:
        ConfigError: a name that is not possible or there twice; argon2-cffi is needed and missing.
    """

    def __init__(self, accounts: Iterable[Account] = (), generation: int = 0) -> None:
        self.generation = generation
        self._accounts: dict[bytes, Account] = {}
        for account in accounts:
            if not is_sound(account.name):
                raise ConfigError(
                    f"user {escape(account.name)}: a name is 1 to 255 bytes (RFC 1929), without control bytes"
                )
            if account.name in self._accounts:
                raise ConfigError(f"user {escape(account.name)} is there twice; keep one of them")
            self._accounts[account.name] = account
        hashes = [one.stored for one in self._accounts.values() if isinstance(one.stored, Hash)]
        if hashes:
            require_argon2("there are users with argon2id passwords")
        strongest = max(hashes, key=lambda one: (one.cost, one.memory), default=None)
        # not the strongest itself: whoever named nobody and sent that user's password would show up as somebody
        self.decoy: Hash | None = None if strongest is None else decoy(strongest)

    @classmethod
    def of(cls, users: Iterable[User], generation: int = 0) -> Self:
        """Make the table of a configuration's users.

        Raises:
            ConfigError: as above, or a password that cannot be used.
        """
        return cls((Account(user.name, _parse(user), user.groups) for user in users), generation)

    def __len__(self) -> int:
        return len(self._accounts)

    def __repr__(self) -> str:
        return f"Table({len(self)} users, generation {self.generation})"

    def changed_since(self, before: "Table") -> frozenset[bytes]:
        """Name the users who have another password than before, or the same one stored anew, which cannot be told."""
        pairs = ((account, before.find(name)) for name, account in self._accounts.items())
        return frozenset(new.name for new, old in pairs if old is not None and _stored(old) != _stored(new))

    def find(self, name: bytes) -> Account | None:
        """Give the account of that very name."""
        return self._accounts.get(name)


class Successes:
    """Passwords that were verified, as marks that mean nothing without this process' key.

    The mark holds the stored hash as well, so an account that was changed is not found here any more.
    """

    def __init__(self, entries: int = MAX_SUCCESSES, lasts: float = SUCCESS_LASTS) -> None:
        self._key = secrets.token_bytes(32)
        self._entries = entries
        self._lasts = lasts
        self._until: dict[bytes, float] = {}  # the oldest stand first

    def __len__(self) -> int:
        return len(self._until)

    def __repr__(self) -> str:
        return f"Successes({len(self)})"

    def add(self, now: float, account: Account, password: bytes) -> None:
        """Remember that this password was right."""
        mark = self._mark(account, password)
        self._until.pop(mark, None)
        if len(self._until) >= self._entries:
            del self._until[next(iter(self._until))]
        self._until[mark] = now + self._lasts

    def has(self, now: float, account: Account, password: bytes) -> bool:
        """Say whether it was, lately, and for the password that is stored now."""
        mark = self._mark(account, password)
        until = self._until.get(mark)
        if until is not None and until <= now:
            del self._until[mark]
            return False
        return until is not None

    def until(self, account: Account, password: bytes) -> float:
        """Say when it is to be verified anew; 0: at once."""
        return self._until.get(self._mark(account, password), 0.0)

    def _mark(self, account: Account, password: bytes) -> bytes:
        mark = blake2b(key=self._key, digest_size=32)
        for part in (account.name, password, account.stored.identity):
            mark.update(len(part).to_bytes(4, "big") + part)
        return mark.digest()


class _Who(NamedTuple):
    """Who asks to be let in; `pair` is the client and the user."""

    client: ClientKey
    user: bytes
    exempt: bool

    @property
    def pair(self) -> tuple[ClientKey, bytes]:
        return self.client, self.user


# What users that do not exist are compared with where nobody has a hash.
_NOBODY: Final = Plain(secrets.token_hex(32).encode())


class Believer(Protocol):
    """Whoever lets people in on our word, without asking each time."""

    def shut_out(self, client: ClientKey) -> None:
        """A login of this client has failed: ask again about everyone there."""

    def forget(self) -> None:
        """The accounts are others: ask again about everyone."""


class Accounts:
    """An `Authenticator` over a table of accounts; see the module. `close` it when its server has stopped.

    Args:
        table: the accounts.
        trusted: networks where many clients share an address; like loopback they are exempt from the count by client.
        lockouts: how failures are punished, and those of all workers where these share it; None: of this one alone.
        queue: makes the hashes; None: as many at once as there are cores.
        compare: verifies a password against a hash, in a thread.
        clock: seconds, monotonic; the loop's.

    Attributes:
        lockouts: what counts against whom.
        believer: whoever lets people in by `vouch`.
    """

    def __init__(
        self,
        table: Table,
        *,
        trusted: NetworkSet | None = None,
        lockouts: Lockouts | None = None,
        queue: HashQueue | None = None,
        compare: Callable[[Hash, bytes], bool] = matches,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lockouts: Lockouts = lockouts or Lockouts()
        self.believer: Believer | None = None
        self._table = table
        self._trusted = NetworkSet() if trusted is None else trusted
        self._queue = HashQueue() if queue is None else queue  # an empty one is false
        self._compare_hash = compare
        self._clock = clock
        self._successes = Successes()
        self._turns = Turns()

    def __repr__(self) -> str:
        return f"Accounts({self._table!r})"

    @property
    def generation(self) -> int:
        """Of the table that logins are judged by."""
        return self._table.generation

    def swap(self, table: Table, trusted: NetworkSet | None = None) -> frozenset[bytes]:
        """Judge by another table from now on, logins that are under way included; counts and delays stay.

        Args:
            table: the accounts.
            trusted: as at the beginning; None: as before.

        Returns:
            the users whose password has changed.
        """
        if self.believer is not None:  # while those whom it has let in are known still
            self.believer.forget()
        before, self._table = self._table, table
        if trusted is not None:
            self._trusted = trusted
        return table.changed_since(before)

    def groups(self, user: bytes) -> frozenset[str] | None:
        """Give the groups of a user as they are now; None: there is no such user."""
        account = self._table.find(user)
        return None if account is None else account.groups

    def close(self) -> None:
        """End the threads."""
        self._queue.close()

    async def verify(self, username: bytes, password: bytes, client: Endpoint) -> Login:
        """Judge; see the module. Takes as long as failures before it demand; cancel it when the client leaves."""
        if not (is_sound(username) and is_sound(password)):
            return Login(ok=False, reason=UNSOUND)
        address = _address(client)
        who = _Who(client_key(address), username, exempt=address.is_loopback or self._trusted.holds(address))
        if (login := self._at_once(who, password)) is not None:
            return login
        async with self._turns.hold(who.pair):
            if (refused := await self._wait_for(lambda now: self.lockouts.pair_gate(now, *who.pair))) is not None:
                return refused
            if who.exempt or self._is_known(who):
                return await self._admit(who, password)
            async with self._turns.hold(who.client):
                return await self._admit(who, password)

    def vouch(self, username: bytes, password: bytes, client: Endpoint) -> float:
        """Say until when the same login may be let in unasked, unless `believer` hears otherwise; 0: it may not."""
        address, now = _address(client), self._clock()
        who = _Who(client_key(address), username, exempt=address.is_loopback or self._trusted.holds(address))
        account = self._table.find(username)
        if account is None or self._gate(who, now).opens > now or not self._is_plainly_right(now, account, password):
            return 0.0
        until = now + VOUCHED_FOR
        return until if isinstance(account.stored, Plain) else min(until, self._successes.until(account, password))

    # turns and gates

    def _at_once(self, who: _Who, password: bytes) -> Login | None:
        """Let in who is known to be right, where neither turn nor delay is due. No guess is answered here."""
        free = self._turns.is_free(who.pair) and (who.exempt or self._turns.is_free(who.client) or self._is_known(who))
        now = self._clock()
        if not free or self._gate(who, now).opens > now:
            return None
        account = self._table.find(who.user)
        if account is None or not self._is_plainly_right(now, account, password):
            return None
        return self._let_in(who, account)

    def _is_known(self, who: _Who) -> bool:
        return self.lockouts.is_known(self._clock(), *who.pair)

    def _gate(self, who: _Who, now: float) -> Gate:
        """Say when this attempt may be judged."""
        pair = self.lockouts.pair_gate(now, *who.pair)
        if who.exempt or pair.closed:
            return pair
        client = self.lockouts.client_gate(now, who.client)
        if client.closed:
            return client
        return pair if client.opens <= pair.opens or self.lockouts.is_known(now, *who.pair) else client

    async def _wait_for(self, look: Callable[[float], Gate]) -> Login | None:
        """Wait until a gate opens.

        Returns:
            None, or the refusal where it is closed.
        """
        while True:
            now = self._clock()
            gate = look(now)
            if gate.closed:
                until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + gate.opens - now))
                return Login(ok=False, reason=f"locked until {until}: {gate.why}")
            if gate.opens <= now:
                return None
            await asyncio.sleep(gate.opens - now)

    async def _admit(self, who: _Who, password: bytes) -> Login:
        """Judge when the turn has come and what is due has been waited for."""
        refused = await self._wait_for(lambda now: self._gate(who, now))
        return refused if refused is not None else await self._judge(who, password)

    # judging

    async def _judge(self, who: _Who, password: bytes) -> Login:
        while True:
            account = self._table.find(who.user)
            good = await self._is_right(who, account, password)
            current = self._table.find(who.user)
            if _stored(current) == _stored(account):
                break  # and else a reload has changed the user meanwhile: nobody is let in by what was
        if good is None:
            return Login(ok=False, reason=BUSY)
        if good and current is not None:
            return self._let_in(who, current)
        self._count_failure(who)
        return Login(ok=False, reason=WRONG)

    async def _is_right(self, who: _Who, account: Account | None, password: bytes) -> bool | None:
        """Compare, by exactly one hash unless the answer is known to be yes; None: there is no room for it."""
        if account is not None and self._is_plainly_right(self._clock(), account, password):
            return True
        stored = self._table.decoy
        if account is not None and isinstance(account.stored, Hash):
            stored = account.stored
        if stored is None:
            _NOBODY.matches(password)
            return False
        good = await self._hash(who, stored, password)
        if good is None or account is None or account.stored is not stored:
            return None if good is None else False
        if good:
            self._successes.add(self._clock(), account, password)
        return good

    def _is_plainly_right(self, now: float, account: Account, password: bytes) -> bool:
        """Say whether a password is right as far as that can be said without a hash."""
        if isinstance(account.stored, Plain):
            return account.stored.matches(password)
        return self._successes.has(now, account, password)

    async def _hash(self, who: _Who, stored: Hash, password: bytes) -> bool | None:
        job = self._queue.submit(who.client, lambda: self._compare_hash(stored, password))
        if job is None:
            return None
        try:
            return await job.result
        except asyncio.CancelledError:
            # a client that leaves in the middle has had its hash: it is no way to guess uncounted
            if job.begun:
                self._count_failure(who)
            else:
                self._queue.withdraw(job)
            raise

    def _let_in(self, who: _Who, account: Account) -> Login:
        self.lockouts.succeeded(self._clock(), *who.pair)
        return Login(ok=True, groups=account.groups)

    def _count_failure(self, who: _Who) -> None:
        self.lockouts.failed(self._clock(), *who.pair, exempt=who.exempt)
        if self.believer is not None:
            self.believer.shut_out(who.client)


def _parse(user: User) -> Stored:
    try:
        return parse_stored(user.stored)
    except ConfigError as error:
        raise ConfigError(f"user {escape(user.name)}: {error.text}") from None


def _stored(account: Account | None) -> bytes | None:
    return None if account is None else account.stored.identity


def _address(endpoint: Endpoint) -> Address:
    if isinstance(endpoint.host, Name):
        raise TypeError("a client has an address")
    return endpoint.host
