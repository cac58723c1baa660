"""Logins against a table of accounts, on a loop whose time is virtual: who is let in, by how many hashes, and when."""

import asyncio
import random
from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.accounts import Comparisons, cheap_hash, inline_accounts, table
from helpers.looping import run
from helpers.virtual_time import HeldExecutor, run_virtually
from tabi.addr import Endpoint, Name
from tabi.config.accounts import User
from tabi.config.stored import parse_stored
from tabi.errors import ConfigError
from tabi.policy.networks import NetworkSet
from tabi.server.accounts import BUSY, UNSOUND, Account, Accounts, Successes, Table
from tabi.server.admission import client_key
from tabi.server.auth import WRONG, Login
from tabi.server.failures import Failures
from tabi.server.hashing import HashQueue
from tabi.server.lockouts import LockoutRules, Lockouts

HERE = Endpoint.parse("192.0.2.1:4000")
THERE = Endpoint.parse("192.0.2.2:4000")
LOOPBACK = Endpoint.parse("127.0.0.1:4000")
USERS: Mapping[bytes, bytes | str] = {b"alice": b"wonderland", b"bob": b"builder", b"carol": "plain:song"}


class Scene:
    """Accounts on the running loop. `answers` are (time, user, login) in the order of their coming."""

    def __init__(self, users: Mapping[bytes, bytes | str] | Table = USERS, **options: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.begin = self.loop.time()
        self.accounts, self.compared = inline_accounts(users, **options)
        self.answers: list[tuple[float, bytes, Login]] = []

    async def login(
        self, user: bytes, password: bytes, client: Endpoint = HERE, patience: float = 10.0
    ) -> Login | None:
        """Log in as a session does: for as long as a handshake may take."""
        try:
            async with asyncio.timeout(patience):
                login = await self.accounts.verify(user, password, client)
        except TimeoutError:
            return None
        self.answers.append((self.loop.time() - self.begin, user, login))
        return login

    @property
    def times(self) -> list[float]:
        return [time for time, _, _ in self.answers]

    @property
    def reasons(self) -> list[str]:
        return [login.reason for _, _, login in self.answers]


# who is let in


@pytest.mark.parametrize(
    ("user", "password", "good"),
    [
        (b"alice", b"wonderland", True),
        (b"carol", b"song", True),
        (b"alice", b"wonderlan", False),
        (b"alice", b"builder", False),
        (b"Alice", b"wonderland", False),
        (b"carol", b"son", False),
        (b"carol", b"plain:song", False),
        (b"nobody", b"wonderland", False),
        (b"alice", cheap_hash(b"wonderland").encode(), False),
    ],
)
def test_only_the_exact_pair_is_good(user: bytes, password: bytes, good: bool) -> None:
    async def main() -> None:
        login = await Scene().login(user, password)
        assert login is not None
        assert (login.ok, login.reason) == (good, "" if good else WRONG)
        assert bool(login) is good

    run_virtually(main())


@pytest.mark.parametrize(
    ("user", "password"),
    [
        (b"alice\0", b"wonderland"),
        (b"alice\0x", b"wonderland"),
        (b"alice", b"wonderland\0"),
        (b"alice", b"wonder\nland"),
        (b"alice\r", b"wonderland"),
        (b"alice", b""),
        (b"", b"wonderland"),
        (b"a" * 256, b"wonderland"),
        (b"alice", b"w" * 256),
    ],
)
def test_what_no_password_can_be_is_refused_without_a_hash(user: bytes, password: bytes) -> None:
    async def main() -> None:
        scene = Scene()
        assert await scene.login(user, password) == Login(ok=False, reason=UNSOUND)
        assert len(scene.compared) == 0

    run_virtually(main())


def test_groups_come_with_the_login() -> None:
    async def main() -> None:
        scene = Scene(table(USERS, groups=frozenset({"staff"})))
        for _ in range(2):
            login = await scene.login(b"alice", b"wonderland")
            assert login is not None
            assert login.groups == {"staff"}
        assert scene.accounts.groups(b"alice") == {"staff"}
        assert scene.accounts.groups(b"nobody") is None

    run_virtually(main())


# how many hashes


def hashes_of(users: Mapping[bytes, bytes | str], user: bytes, password: bytes) -> list[tuple[int, int, int]]:
    async def main() -> list[tuple[int, int, int]]:
        scene = Scene(users)
        await scene.login(user, password)
        return [costs for costs, _ in scene.compared.seen]

    return run_virtually(main())


@pytest.mark.parametrize("user", [b"alice", b"bob", b"carol", b"nobody", b"n" * 255])
def test_a_wrong_login_costs_one_hash_whoever_is_asked_for(user: bytes) -> None:
    assert hashes_of(USERS, user, b"wrong") == [(8, 1, 1)]


def test_who_does_not_exist_costs_as_much_as_the_strongest_hash_there_is() -> None:
    users = {b"weak": b"x", b"strong": cheap_hash(b"x", memory_cost=64, time_cost=3), b"other": "plain:x"}
    assert hashes_of(users, b"nobody", b"wrong") == [(64, 3, 1)]
    assert hashes_of(users, b"other", b"wrong") == [(64, 3, 1)]


def test_the_password_of_the_strongest_opens_nothing_to_nobody() -> None:
    async def main() -> None:
        scene = Scene({b"alice": b"wonderland"})
        assert await scene.login(b"nobody", b"wonderland") == Login(ok=False, reason=WRONG)
        assert len(scene.compared) == 1

    run_virtually(main())


def test_where_nobody_has_a_hash_nobody_costs_one() -> None:
    assert hashes_of({b"carol": "plain:song"}, b"carol", b"wrong") == []
    assert hashes_of({b"carol": "plain:song"}, b"nobody", b"wrong") == []
    assert hashes_of({}, b"nobody", b"wrong") == []


def test_a_password_that_was_right_lately_costs_no_hash_from_anywhere() -> None:
    async def main() -> None:
        scene = Scene()
        for client in (HERE, HERE, THERE, LOOPBACK):
            assert await scene.login(b"alice", b"wonderland", client)
        assert len(scene.compared) == 1
        await asyncio.sleep(3599)
        assert await scene.login(b"alice", b"wonderland")
        assert len(scene.compared) == 1
        await asyncio.sleep(1)
        assert await scene.login(b"alice", b"wonderland")
        assert len(scene.compared) == 2

    run_virtually(main())


def test_a_hundred_connections_at_once_cost_one_hash() -> None:
    async def main() -> None:
        scene = Scene()
        logins = await asyncio.gather(*(scene.login(b"alice", b"wonderland") for _ in range(100)))
        assert all(logins)
        assert len(scene.compared) == 1
        assert set(scene.times) == {0.0}

    run_virtually(main())


# reload


@pytest.mark.parametrize("then", [{}, {b"alice": b"other"}, {b"alice": "plain:other"}, {b"bob": b"wonderland"}])
def test_a_changed_or_removed_user_misses_the_cache_at_once(then: dict[bytes, bytes | str]) -> None:
    async def main() -> None:
        scene = Scene({b"alice": b"wonderland"})
        assert await scene.login(b"alice", b"wonderland")
        scene.accounts.swap(table(then, generation=2))
        assert scene.accounts.generation == 2
        login = await scene.login(b"alice", b"wonderland")
        assert login == Login(ok=False, reason=WRONG)

    run_virtually(main())


def test_a_reload_that_leaves_a_user_as_it_was_costs_no_hash() -> None:
    async def main() -> None:
        scene = Scene()
        assert await scene.login(b"alice", b"wonderland")
        scene.accounts.swap(table(USERS, generation=2, groups=frozenset({"new"})))
        assert await scene.login(b"alice", b"wonderland") == Login(ok=True, reason="", groups=frozenset({"new"}))
        assert len(scene.compared) == 1

    run_virtually(main())


@pytest.mark.parametrize(
    ("then", "good", "hashes"),
    [({}, False, 1), ({b"alice": b"other"}, False, 2), ({b"alice": b"wonderland", b"new": b"x"}, True, 1)],
)
def test_a_login_under_way_is_judged_by_the_new_users(then: dict[bytes, bytes | str], good: bool, hashes: int) -> None:
    async def main() -> None:
        executor = HeldExecutor()
        scene = Scene({b"alice": b"wonderland"}, queue=HashQueue(1, executor=executor))
        login = asyncio.create_task(scene.login(b"alice", b"wonderland"))
        while not executor.begun:
            await asyncio.sleep(0)
        scene.accounts.swap(table(then, generation=2))
        while not login.done():
            if executor.begun:
                executor.finish()
            await asyncio.sleep(0)
        assert bool(login.result()) is good
        assert len(scene.compared) == hashes

    run(main())


def test_what_counts_against_somebody_outlives_a_reload() -> None:
    async def main() -> None:
        scene = Scene()
        for _ in range(10):
            await scene.login(b"alice", b"wrong")
        scene.accounts.swap(table(USERS, generation=2))
        login = await scene.login(b"alice", b"wonderland")
        assert login is not None
        assert login.reason.startswith("locked until ")

    run_virtually(main())


# delays and lockouts


def test_each_failure_delays_the_next_answer() -> None:
    async def main() -> None:
        scene = Scene()
        for _ in range(5):
            await scene.login(b"alice", b"wrong")
        assert await scene.login(b"alice", b"wonderland")
        assert scene.times == [0, 1, 3, 7, 11, 15]

    run_virtually(main())


def test_guessing_in_parallel_gains_nothing() -> None:
    async def main() -> None:
        scene = Scene()
        guesses = (scene.login(b"alice", b"%d" % number) for number in range(500))
        assert [login for login in await asyncio.gather(*guesses) if login] == []
        assert scene.times == [0, 1, 3, 7]  # and by the tenth second all others have been closed
        assert [password for _, password in scene.compared.seen] == [b"0", b"1", b"2", b"3"]

    run_virtually(main())


def test_the_right_password_among_parallel_guesses_waits_its_turn_even_if_it_was_right_lately() -> None:
    async def main() -> None:
        scene = Scene()
        assert await scene.login(b"alice", b"wonderland")
        words = [b"a", b"b", b"c", b"d", b"wonderland", b"e"]
        logins = await asyncio.gather(*(scene.login(b"alice", word, patience=60) for word in words))
        assert [bool(login) for login in logins] == [False] * 4 + [True, False]
        assert scene.times == [0, 0, 1, 3, 7, 11, 11]

    run_virtually(main())


def test_guessing_from_many_users_at_one_address_in_parallel_gains_nothing_either() -> None:
    async def main() -> None:
        scene = Scene()
        await asyncio.gather(*(scene.login(b"user%d" % number, b"summer") for number in range(500)))
        assert scene.times == [0, 1, 3, 7]
        assert len(scene.compared) == 4

    run_virtually(main())


def test_ten_failures_close_the_pair_for_fifteen_minutes_and_cost_no_more_hashes() -> None:
    async def main() -> None:
        scene = Scene()
        for _ in range(30):
            await scene.login(b"alice", b"wrong")
        assert len(scene.compared) == 10
        assert len(set(scene.times[9:])) == 1  # the others were refused at once
        assert all(reason.startswith("locked until 2") for reason in scene.reasons[10:])
        assert "10 failed logins of this user from this address" in scene.reasons[-1]
        assert not await scene.login(b"alice", b"wonderland")
        assert await scene.login(b"alice", b"wonderland", THERE)
        await asyncio.sleep(899.5)
        assert not await scene.login(b"alice", b"wonderland")
        await asyncio.sleep(0.5)
        assert await scene.login(b"alice", b"wonderland")

    run_virtually(main())


def test_those_who_wait_when_the_pair_is_closed_are_refused_at_once() -> None:
    async def main() -> None:
        scene = Scene()
        await asyncio.gather(*(scene.login(b"alice", b"%d" % number, patience=600) for number in range(100)))
        assert len(scene.compared) == 10
        assert scene.times[9:] == [scene.times[9]] * 91

    run_virtually(main())


def test_a_list_of_names_closes_the_address_for_everybody() -> None:
    async def main() -> None:
        scene = Scene()
        assert await scene.login(b"bob", b"builder")
        for number in range(30):
            await scene.login(b"user%d" % number, b"summer")
        assert len(scene.compared) == 21
        login = await scene.login(b"bob", b"builder")
        assert login is not None
        assert "failed logins of 20 users" in login.reason
        assert await scene.login(b"alice", b"wonderland", THERE)

    run_virtually(main())


@pytest.mark.parametrize("client", [LOOPBACK, Endpoint.parse("[::1]:9"), Endpoint.parse("10.1.2.3:9")])
def test_loopback_and_trusted_networks_are_never_closed_or_delayed_as_a_whole(client: Endpoint) -> None:
    async def main() -> None:
        scene = Scene(trusted=NetworkSet([ip_network("10.0.0.0/8")]))
        for number in range(50):
            await scene.login(b"user%d" % number, b"summer", client)
        assert await scene.login(b"alice", b"wonderland", client)
        assert set(scene.times) == {0.0}
        for _ in range(10):
            await scene.login(b"alice", b"wrong", client)
        assert not await scene.login(b"alice", b"wonderland", client)
        assert await scene.login(b"bob", b"builder", client)

    run_virtually(main())


def test_whoever_has_logged_in_does_not_wait_for_a_neighbour_who_cannot() -> None:
    async def main() -> None:
        scene = Scene()
        assert await scene.login(b"bob", b"builder")
        await asyncio.gather(
            *(scene.login(b"user%d" % number, b"summer", patience=5) for number in range(10)),
            *(scene.login(b"bob", b"builder") for _ in range(10)),
            scene.login(b"alice", b"wonderland", patience=5),
        )
        assert {time for time, user, _ in scene.answers if user == b"bob"} == {0.0}
        assert [user for _, user, _ in scene.answers].count(b"alice") == 0

    run_virtually(main())


def test_a_success_clears_the_delay_of_its_pair() -> None:
    async def main() -> None:
        scene = Scene()
        for _ in range(3):
            for _ in range(4):
                await scene.login(b"alice", b"wrong", LOOPBACK)
            assert await scene.login(b"alice", b"wonderland", LOOPBACK)
        assert scene.times == [begin + time for begin in (0, 11, 22) for time in (0, 1, 3, 7, 11)]

    run_virtually(main())


def test_lifting_lets_in_at_once() -> None:
    async def main() -> None:
        scene = Scene()
        for _ in range(11):
            await scene.login(b"alice", b"wrong")
        assert scene.accounts.lockouts.lift(scene.loop.time()) == 2
        assert await scene.login(b"alice", b"wonderland")
        assert scene.times[-1] == scene.times[-2]

    run_virtually(main())


def test_nothing_is_kept_of_those_who_gave_up_waiting() -> None:
    async def main() -> None:
        scene = Scene()
        await asyncio.gather(*(scene.login(b"alice", b"%d" % number, patience=0.5) for number in range(100)))
        assert len(scene.answers) == 1
        assert len(scene.accounts._turns) == 0
        await asyncio.sleep(1)
        assert await scene.login(b"alice", b"wonderland")

    run_virtually(main())


# the queue


def test_a_login_that_finds_no_room_fails_without_a_hash_and_does_not_count() -> None:
    async def main() -> None:
        executor = HeldExecutor()
        scene = Scene(queue=HashQueue(1, waiting=1, executor=executor))
        clients = [Endpoint.parse(f"192.0.2.{number}:9") for number in range(1, 4)]
        first = asyncio.create_task(scene.login(b"alice", b"wonderland", clients[0]))
        second = asyncio.create_task(scene.login(b"alice", b"wonderland", clients[1]))
        while len(scene.accounts._queue) < 1:
            await asyncio.sleep(0)
        assert await scene.login(b"alice", b"wonderland", clients[2]) == Login(ok=False, reason=BUSY)
        assert scene.accounts.lockouts.entries(scene.loop.time()) == []
        while not (first.done() and second.done()):
            if executor.begun:
                executor.finish()
            await asyncio.sleep(0)
        assert first.result()
        assert second.result()
        assert len(scene.compared) == 2

    run(main())


@pytest.mark.parametrize("begun", [True, False])
def test_a_client_that_leaves_is_counted_if_its_hash_had_begun(begun: bool) -> None:
    async def main() -> None:
        executor = HeldExecutor()
        scene = Scene(queue=HashQueue(1, executor=executor))
        tasks = [asyncio.create_task(scene.login(b"alice", b"wrong", client)) for client in (HERE, THERE)]
        while len(scene.accounts._queue) < 1:
            await asyncio.sleep(0)
        tasks[0 if begun else 1].cancel()
        await asyncio.wait(tasks[:1] if begun else tasks[1:])
        entries = scene.accounts.lockouts.entries(scene.loop.time())
        assert {entry.client for entry in entries} == ({"192.0.2.1"} if begun else set())
        for task in tasks:
            task.cancel()
        while executor.begun:
            executor.finish()
            await asyncio.sleep(0)

    run(main())


# several workers


def workers(count: int, **options: Any) -> list[Scene]:
    """Make as many that share what counts against whom."""
    failures = Failures.private(LockoutRules().shape)
    return [Scene(lockouts=Lockouts(failures=failures), **options) for _ in range(count)]


def test_what_one_worker_judges_counts_in_the_others() -> None:
    async def main() -> None:
        one, other = workers(2)
        for _ in range(3):
            await one.login(b"alice", b"wrong")
        begin = other.loop.time()
        assert await other.login(b"alice", b"wonderland")
        assert other.loop.time() - begin == 4

    run_virtually(main())


def test_a_success_elsewhere_clears_the_pair() -> None:
    async def main() -> None:
        one, other = workers(2)
        for _ in range(4):
            await one.login(b"alice", b"wrong", LOOPBACK)
        assert await other.login(b"alice", b"wonderland", LOOPBACK)
        assert await one.login(b"alice", b"wonderland", LOOPBACK)
        assert one.times[-1] == other.times[-1]

    run_virtually(main())


def test_whoever_is_known_here_and_fails_elsewhere_waits_like_others() -> None:
    async def main() -> None:
        one, other = workers(2)
        assert await one.login(b"alice", b"wonderland")
        await other.login(b"alice", b"wrong")
        await other.login(b"bob", b"wrong")
        assert await one.login(b"alice", b"wonderland")
        assert one.times == [0, 3]

    run_virtually(main())


@given(st.integers(1, 4), st.integers(1, 12), st.sampled_from([HERE, LOOPBACK]), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_however_workers_race_no_more_guesses_are_judged_than_the_limit_and_one_for_each_other(
    count: int, guesses: int, client: Endpoint, chance: random.Random
) -> None:
    async def main() -> None:
        executors = [HeldExecutor() for _ in range(count)]
        scenes = workers(count)
        for scene, executor in zip(scenes, executors, strict=True):
            scene.accounts._queue = HashQueue(2, executor=executor)
        shared, pair = scenes[0].accounts.lockouts, (_key(client), b"alice")
        for second in range(9):  # so long ago that no delay is due
            shared.failed(scenes[0].loop.time() - 60 + second, *pair)
        tasks = [
            asyncio.create_task(scene.login(b"alice", b"%d" % number, client))
            for number in range(guesses)
            for scene in scenes
        ]
        while not all(task.done() for task in tasks):
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
            at_work = [executor for executor in executors if executor.begun]
            if at_work:
                chance.choice(at_work).finish()
            else:
                await asyncio.sleep(0)
        judged = sum(len(scene.compared) for scene in scenes)
        assert 1 <= judged <= 1 + count - 1
        assert sum(reason == WRONG for scene in scenes for reason in scene.reasons) == judged
        assert shared.pair_gate(scenes[0].loop.time(), *pair).closed

    run(main())


def _key(client: Endpoint) -> bytes:
    assert not isinstance(client.host, Name)
    return client_key(client.host)


# tables and cache


@pytest.mark.parametrize("name", [b"", b"a\0", b"a\nb", b"x" * 256])
def test_a_table_refuses_a_name_that_nobody_could_send(name: bytes) -> None:
    with pytest.raises(ConfigError, match="1 to 255 bytes"):
        Table([Account(name, parse_stored("plain:x"))])


def test_a_table_refuses_one_name_twice() -> None:
    account = Account(b"alice", parse_stored("plain:x"))
    with pytest.raises(ConfigError, match=r"alice.* is there twice"):
        Table([account, account])


def test_a_table_is_made_of_the_users_of_a_configuration() -> None:
    users = [
        User(name=b"alice", password=cheap_hash(b"wonderland"), groups=frozenset({"staff"})),
        User(name=b"carol", password="song", plain=True),
    ]
    made = Table.of(users, generation=7)
    assert (len(made), made.generation) == (2, 7)
    alice, carol = made.find(b"alice"), made.find(b"carol")
    assert alice is not None
    assert carol is not None
    assert alice.groups == {"staff"}
    assert carol.stored == parse_stored("plain:song")
    with pytest.raises(ConfigError, match=r'user "bob".*clear text without its mark') as caught:
        Table.of([User(name=b"bob", password="builder")])
    assert "builder" not in str(caught.value)


def test_a_table_with_hashes_needs_argon2_and_one_without_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'tabi\[server\]'"):
        table(USERS)
    assert len(table({b"carol": "plain:song"})) == 1


def test_nothing_secret_shows_in_a_repr() -> None:
    async def main() -> None:
        scene = Scene({b"alice": b"wonderland", b"carol": "plain:song"})
        await scene.login(b"alice", b"wonderland")
        made = scene.accounts
        account = made._table.find(b"carol")
        shown = " ".join(map(repr, (made, made._table, account, made._successes, made.lockouts, scene.answers)))
        assert "Accounts(Table(2 users, generation 0))" in shown
        for secret in ("wonderland", "song", "argon2id"):
            assert secret not in shown

    run_virtually(main())


def test_the_cache_is_bounded_and_forgets_the_oldest() -> None:
    cache = Successes(entries=3, lasts=100)
    account = Account(b"alice", parse_stored("plain:x"))
    for number in range(4):
        cache.add(number, account, b"%d" % number)
    assert len(cache) == 3
    assert [cache.has(4, account, b"%d" % number) for number in range(4)] == [False, True, True, True]
    assert not cache.has(101, account, b"1")
    assert len(cache) == 2


def test_the_parts_of_a_cached_login_cannot_be_shifted_into_each_other() -> None:
    cache = Successes()
    stored = parse_stored("plain:x")
    cache.add(0, Account(b"ab", stored), b"cd")
    assert cache.has(0, Account(b"ab", stored), b"cd")
    assert not cache.has(0, Account(b"abc", stored), b"d")
    assert not cache.has(0, Account(b"a", stored), b"bcd")
    assert not Successes().has(0, Account(b"ab", stored), b"cd")


def test_real_threads_verify_a_real_hash() -> None:
    async def main() -> None:
        compared = Comparisons()
        accounts = Accounts(table(USERS), compare=compared)
        assert await accounts.verify(b"alice", b"wonderland", HERE)
        assert await accounts.verify(b"alice", b"wonderland", HERE)
        assert len(compared) == 1
        assert not await accounts.verify(b"alice", b"wrong", THERE)
        accounts.close()

    run(main())


def test_trusted_networks_stay_unless_a_reload_brings_others() -> None:
    async def main() -> None:
        scene = Scene(trusted=NetworkSet([ip_network("192.0.2.0/24")]))
        for generation, networks in ((2, None), (3, NetworkSet())):
            scene.accounts.swap(table(USERS, generation), networks)
            for number in range(3):
                await scene.login(b"user %d %d" % (scene.accounts.generation, number), b"wrong")
        assert scene.times == [0, 0, 0, 0, 1, 3]

    run_virtually(main())
