"""Accounts for tests: real argon2id hashes of the least cost, and a count of what is hashed."""

import threading
from collections.abc import Mapping
from typing import Any

from argon2.low_level import Type, hash_secret

from helpers.virtual_time import InlineExecutor
from tabi.config.stored import Hash, parse_stored
from tabi.server.accounts import Account, Accounts, Table
from tabi.server.hashing import HashQueue
from tabi.server.passwords import matches

CHEAP = {"memory_cost": 8, "time_cost": 1, "parallelism": 1, "hash_len": 32}


def cheap_hash(password: bytes, **costs: int) -> str:
    """Hash as `tabi passwd` does, in a tenth of a millisecond."""
    return hash_secret(password, b"0123456789abcdef", type=Type.ID, **(CHEAP | costs)).decode()


def table(users: Mapping[bytes, bytes | str], generation: int = 0, groups: frozenset[str] = frozenset()) -> Table:
    """Make a table: bytes are hashed, text is taken as it would stand in the file."""
    stored = {name: parse_stored(cheap_hash(it) if isinstance(it, bytes) else it) for name, it in users.items()}
    return Table((Account(name, one, groups) for name, one in stored.items()), generation)


class Comparisons:
    """Stands for `passwords.matches` and keeps account of it.

    Attributes:
        seen: (costs, password) of each.
        go_on: set, unless a test wants hashes to take long.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[tuple[int, int, int], bytes]] = []
        self.go_on = threading.Event()
        self.go_on.set()

    def __call__(self, stored: Hash, password: bytes) -> bool:
        """Compare."""
        self.seen.append(((stored.memory, stored.passes, stored.lanes), password))
        self.go_on.wait(60)
        return matches(stored, password)

    def __len__(self) -> int:
        return len(self.seen)


def inline_accounts(users: Mapping[bytes, bytes | str] | Table, **options: Any) -> tuple[Accounts, Comparisons]:
    """Make accounts that hash without threads; to be called where the loop runs, whose clock is theirs."""
    import asyncio

    compared = Comparisons()
    options.setdefault("queue", HashQueue(2, executor=InlineExecutor()))
    options.setdefault("clock", asyncio.get_running_loop().time)
    made = users if isinstance(users, Table) else table(users)
    return Accounts(made, compare=compared, **options), compared
