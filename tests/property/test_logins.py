"""However logins come in, no guess is answered before its time: a ledger kept the slow way agrees with each answer."""

import asyncio
from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.accounts import inline_accounts, table
from helpers.virtual_time import run_virtually
from tabi.addr import Endpoint
from tabi.server.auth import WRONG, Login
from tabi.server.lockouts import LockoutRules, Lockouts

CLIENTS = [Endpoint.parse(text) for text in ("192.0.2.1:1", "[2001:db8::1]:1", "[2001:db8::2]:1", "127.0.0.1:1")]
NETS = ["192.0.2.1", "2001:db8::/64", "2001:db8::/64", ""]  # what counts as one client; loopback does not count
USERS = [b"alice", b"bob", b"carol", b"nobody"]
RIGHT = b"right"
TABLE = table(dict.fromkeys(USERS[:3], RIGHT))
RULES = LockoutRules(delays=(1.0, 2.0, 4.0), window=64.0, failures=5, users=3, closed=96.0)


class Attempt(NamedTuple):
    """One login: it comes `at` a time, and is given up after a while."""

    at: float
    client: int
    user: bytes
    password: bytes
    patience: float


class Answer(NamedTuple):
    """What came of an attempt that was not given up."""

    when: float
    attempt: Attempt
    login: Login


attempts = st.builds(
    Attempt,
    at=st.integers(0, 1600).map(lambda eighths: eighths / 8) | st.sampled_from([0.0, 64.0]),
    client=st.integers(0, len(CLIENTS) - 1),
    user=st.sampled_from(USERS),
    password=st.sampled_from([RIGHT, b"wrong", b"other"]),
    patience=st.sampled_from([0.5, 10.0, 300.0]),
)


async def answers_to(given_attempts: list[Attempt]) -> list[Answer]:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    accounts, _ = inline_accounts(TABLE, lockouts=Lockouts(RULES))
    answers: list[Answer] = []

    async def make(attempt: Attempt) -> None:
        await asyncio.sleep(attempt.at)
        try:
            async with asyncio.timeout(attempt.patience):
                login = await accounts.verify(attempt.user, attempt.password, CLIENTS[attempt.client])
        except TimeoutError:
            return
        answers.append(Answer(loop.time() - begin, attempt, login))

    await asyncio.gather(*map(make, given_attempts))
    assert len(accounts._turns) == 0
    return answers


class Ledger:
    """All that was judged, gone through anew for each answer."""

    def __init__(self) -> None:
        self.past: list[Answer] = []
        self.aside: list[Answer] = []  # judged beside others, for whoever was known does not take the client's turn

    def judged(self, now: float, net: int, user: bytes | None, but: list[Answer]) -> list[Answer]:
        """Failures that count against a pair, or without a user against a client.

        Of the latter those are left out that were judged in the very moment and are in `but`: the one in question had
        begun when they ended.
        """
        found: list[Answer] = []
        for answer in self.past:
            if user is None and answer.when == now and answer in but:
                continue
            mine = _net(answer.attempt.client) == _net(net) and (user is None or answer.attempt.user == user)
            if not mine or (not answer.login.ok and answer.login.reason != WRONG):
                continue
            if self._closes(found, user) and answer.when >= found[-1].when + RULES.closed:
                found = []
            if user is None and answer.login.ok:
                continue
            found = (
                [] if answer.login.ok else [*(one for one in found if one.when > answer.when - RULES.window), answer]
            )
        if self._closes(found, user):
            return found if now < found[-1].when + RULES.closed else []
        return [one for one in found if one.when > now - RULES.window]

    @staticmethod
    def _closes(found: list[Answer], user: bytes | None) -> bool:
        if user is None:
            return len({one.attempt.user for one in found}) >= RULES.users
        return len(found) >= RULES.failures

    def is_closed(self, now: float, net: int, user: bytes | None, but: list[Answer]) -> bool:
        return self._closes(self.judged(now, net, user, but), user)

    def opens(self, now: float, net: int, user: bytes | None) -> float:
        failures = self.judged(now, net, user, self.aside)
        return failures[-1].when + RULES.delays[min(len(failures), 3) - 1] if failures else 0.0

    def is_known(self, net: int, user: bytes) -> bool:
        mine = [
            one.login.ok
            for one in self.past
            if _net(one.attempt.client) == _net(net)
            and one.attempt.user == user
            and (one.login.ok or one.login.reason == WRONG)
        ]
        return bool(mine) and mine[-1]

    def check(self, answer: Answer) -> None:
        """Agree with one answer, or fail."""
        when, attempt, login = answer
        counts = [attempt.user] if NETS[attempt.client] == "" else [attempt.user, None]
        if login.reason.startswith("locked until"):
            assert any(self.is_closed(when, attempt.client, user, []) for user in counts)
            return
        known = self.is_known(attempt.client, attempt.user)
        beside = self.past if known else self.aside
        assert not any(self.is_closed(when, attempt.client, user, beside) for user in counts)
        assert login.ok is (attempt.password == RIGHT and attempt.user in USERS[:3])
        assert when >= self.opens(when, attempt.client, attempt.user)
        if known:
            self.aside.append(answer)
        elif None in counts:
            assert when >= self.opens(when, attempt.client, None)
        self.past.append(answer)


def _net(client: int) -> str:
    return NETS[client] or "loopback"


@given(st.lists(attempts, max_size=40))
def test_no_answer_comes_before_its_time_and_none_that_a_closed_door_should_have_kept(
    given_attempts: list[Attempt],
) -> None:
    ledger = Ledger()
    for answer in run_virtually(answers_to(given_attempts)):
        ledger.check(answer)


@given(st.integers(1, 200), st.integers(1, 20), st.booleans())
@settings(max_examples=30)
def test_the_number_of_guesses_in_ten_seconds_has_a_bound_whatever_is_tried(
    parallel: int, users: int, from_loopback: bool
) -> None:
    guesses = [
        Attempt(0.0, 3 if from_loopback else 0, b"%d" % (n % users), b"guess %d" % n, 10.0) for n in range(parallel)
    ]
    answered = [one for one in run_virtually(answers_to(guesses)) if one.login.reason == WRONG]
    assert len(answered) <= (4 * users if from_loopback else 4)  # at 0, 1, 3 and 7 seconds
