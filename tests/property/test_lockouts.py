"""Whatever fails, succeeds or is lifted in whichever worker: all say at once what a slow ledger says."""

import math
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from tabi.server.failures import Failures
from tabi.server.lockouts import KNOWN_FOR, Gate, LockoutRules, Lockouts

RULES = LockoutRules(delays=(1.0, 2.0, 4.0), window=64.0, failures=5, users=3, closed=96.0, entries=1)
ROOM = 16  # of one entry: a window
WORKERS = 3
CLIENTS = [b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02", b"\x20\x01\x0d\xb8\x00\x00\x00\x00"]
USERS = [b"alice", b"bob", b"carol", b"dave"]


class Step(NamedTuple):
    """What one worker does, some time after the step before."""

    later: float
    worker: int
    what: str
    client: bytes
    user: bytes


class Entry:
    """What the ledger has against one key."""

    def __init__(self) -> None:
        self.failures: list[float] = []
        self.users: dict[bytes, float] = {}
        self.closed_until = 0.0


class Ledger:
    """Entries by key, each brought up to date before it is looked at."""

    def __init__(self, *, of_clients: bool) -> None:
        self.of_clients = of_clients
        self.entries: dict[tuple[bytes, bytes], Entry] = {}

    def live(self, now: float) -> dict[tuple[bytes, bytes], Entry]:
        for key, entry in list(self.entries.items()):
            if entry.closed_until:
                is_over = entry.closed_until <= now
            else:
                entry.failures = [one for one in entry.failures if one > now - RULES.window]
                entry.users = {user: one for user, one in entry.users.items() if one > now - RULES.window}
                is_over = not entry.failures
            if is_over:
                del self.entries[key]
        return self.entries

    def failed(self, now: float, key: tuple[bytes, bytes], user: bytes) -> None:
        entries = self.live(now)
        if key not in entries:
            if len(entries) >= ROOM:
                del entries[min(entries, key=lambda one: self.weight(entries[one]))]
            entries[key] = Entry()
        entry = entries[key]
        if not entry.closed_until:
            entry.failures.append(now)
            entry.users[user] = now
            if self.count(entry) >= (RULES.users if self.of_clients else RULES.failures):
                entry.closed_until = now + RULES.closed

    def count(self, entry: Entry) -> int:
        return len(entry.users) if self.of_clients else len(entry.failures)

    def weight(self, entry: Entry) -> tuple[float, ...]:
        if entry.closed_until:
            return math.inf, entry.closed_until
        kept = min(len(entry.failures), RULES.failures)
        return (self.count(entry) if self.of_clients else 0), kept, entry.failures[-1]

    def gate(self, now: float, key: tuple[bytes, bytes]) -> tuple[float, bool]:
        entry = self.live(now).get(key)
        if entry is None:
            return 0.0, False
        if entry.closed_until:
            return entry.closed_until, True
        return entry.failures[-1] + RULES.delays[min(len(entry.failures), 3) - 1], False


def shown(gate: Gate) -> tuple[float, bool]:
    return gate.opens, gate.closed


ALL = ["failed", "failed", "failed", "failed", "failed", "failed", "exempt", "succeeded", "lift", "lift user"]
GAPS = [0.125, 0.125, 0.125, 1.0, 4.0, 30.0, 64.0, 96.0]  # never at the same moment


def steps(
    clients: list[bytes], users: list[bytes], *, gaps: list[float] = GAPS, what: list[str] = ALL
) -> st.SearchStrategy[list[Step]]:
    return st.lists(
        st.builds(
            Step,
            later=st.sampled_from(gaps),
            worker=st.integers(0, WORKERS - 1),
            what=st.sampled_from(what),
            client=st.sampled_from(clients),
            user=st.sampled_from(users),
        ),
        max_size=60,
    )


class Play:
    """Workers that share a memory, and the ledger beside them."""

    def __init__(self) -> None:
        failures = Failures.private(RULES.shape)
        self.workers = [Lockouts(RULES, failures) for _ in range(WORKERS)]
        self.pairs, self.clients = Ledger(of_clients=False), Ledger(of_clients=True)
        self.known: list[dict[tuple[bytes, bytes], float]] = [{} for _ in range(WORKERS)]
        self.failed_since: set[tuple[bytes, bytes]] = set()
        self.now = 1000.0

    def take(self, step: Step) -> None:
        self.now += step.later
        worker, key = self.workers[step.worker], (step.client, step.user)
        if step.what == "succeeded":
            worker.succeeded(self.now, *key)
            self.pairs.entries.pop(key, None)
            self.known[step.worker][key] = self.now
            self.failed_since.discard(key)
        elif step.what == "lift":
            assert worker.lift(self.now, step.client) == self.lift(step.client, None)
        elif step.what == "lift user":
            assert worker.lift(self.now, user=step.user) == self.lift(None, step.user)
        else:
            worker.failed(self.now, *key, exempt=step.what == "exempt")
            self.pairs.failed(self.now, key, step.user)
            self.failed_since.add(key)
            if step.what != "exempt":
                self.clients.failed(self.now, (step.client, b""), step.user)

    def lift(self, client: bytes | None, user: bytes | None) -> int:
        lifted = 0
        for ledger in (self.pairs,) if user is not None else (self.pairs, self.clients):
            for key in list(ledger.live(self.now)):
                if client in (None, key[0]) and user in (None, key[1]):
                    del ledger.entries[key]
                    lifted += 1
        return lifted

    def compare(self, clients: list[bytes], users: list[bytes]) -> None:
        for worker in self.workers:
            for client in clients:
                assert shown(worker.client_gate(self.now, client)) == self.clients.gate(self.now, (client, b""))
                for user in users:
                    assert shown(worker.pair_gate(self.now, client, user)) == self.pairs.gate(self.now, (client, user))
            listed = worker.entries(self.now)
            assert len(listed) == len(self.pairs.entries) + len(self.clients.entries)


@given(steps(CLIENTS, USERS))
@settings(max_examples=200)
def test_all_workers_agree_with_the_ledger(taken: list[Step]) -> None:
    play = Play()
    for step in taken:
        play.take(step)
        play.compare(CLIENTS, USERS)


@given(steps(CLIENTS, USERS))
def test_who_is_known_has_logged_in_here_and_has_not_failed_anywhere_since(taken: list[Step]) -> None:
    play = Play()
    for step in taken:
        if step.what.startswith("lift"):  # makes failures forgotten
            continue
        play.take(step)
        for index, worker in enumerate(play.workers):
            for key in ((client, user) for client in CLIENTS for user in USERS):
                since = play.known[index].get(key, -math.inf)
                if play.now >= since + KNOWN_FOR or key in play.failed_since:
                    assert not worker.is_known(play.now, *key)
                elif play.pairs.entries.get(key) is None and all(since >= one.get(key, 0.0) for one in play.known):
                    assert worker.is_known(play.now, *key), "the last login was here"


CROWD = [number.to_bytes(4, "big") for number in range(20)]


def crowded() -> Play:
    """Let there be just room for all: some of them have failed often, some are closed, some have failed once."""
    play = Play()
    for number, client in enumerate(CROWD[:ROOM]):
        for user in USERS[: 1 + number % 4]:
            for _ in range(1 + number % 3):
                play.take(Step(0.125, number % WORKERS, "failed", client, user))
    return play


@given(steps(CROWD, USERS, gaps=[0.125, 0.125, 8.0], what=["failed", "failed", "exempt", "succeeded"]))
@settings(max_examples=50)
def test_where_there_is_no_room_the_ledger_says_who_goes(taken: list[Step]) -> None:
    play = crowded()
    for step in taken:
        play.take(step)
        play.compare(CROWD, USERS)
