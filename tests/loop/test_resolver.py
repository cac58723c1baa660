"""The resolver: one query for many, answers kept for a while, and no client in another's way."""

import asyncio
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from helpers.looping import run, until
from tabi.addr import Address, Name
from tabi.errors import DialError, DialTimeoutError, Reply, Stage
from tabi.net.backends import Answer
from tabi.net.resolver import MAX_TTL, WAITING, Resolver

V4 = IPv4Address("192.0.2.1")
V6 = IPv6Address("2001:db8::1")


def name(number: int = 1) -> Name:
    return Name(f"host{number}.example")


class FakeBackend:
    """Holds every query until the test answers it; `queries` is what was asked, in order."""

    def __init__(self) -> None:
        self.queries: list[tuple[object, asyncio.Future]] = []
        self.is_closed = False
        self.allowed: list[float] = []

    def allow(self, seconds: float) -> None:
        self.allowed.append(seconds)

    def addresses(self, name: Name, family: int) -> asyncio.Future:
        return self._ask((str(name), family))

    def name(self, address: Address) -> asyncio.Future:
        return self._ask(address)

    async def close(self) -> None:
        self.is_closed = True

    def _ask(self, what: object) -> asyncio.Future:
        future = asyncio.get_running_loop().create_future()
        self.queries.append((what, future))
        return future

    def answer(self, index: int, *addresses: Address, ttl: float | None = None) -> None:
        self.queries[index][1].set_result(Answer(addresses, ttl))

    def fail(self, index: int, error: Exception) -> None:
        self.queries[index][1].set_exception(error)


class Bench:
    """A resolver on a fake backend and a clock that the test turns."""

    def __init__(self, **options: object) -> None:
        self.now = 1000.0
        self.backend = FakeBackend()
        self.resolver = Resolver(backend=self.backend, clock=lambda: self.now, **options)
        self.handed_out: list[asyncio.Future] = []

    def ask(self, number: int = 1, family: int = 4, client: object = "client") -> asyncio.Future:
        future = self.resolver.ask(name(number), family, client)
        self.handed_out.append(future)
        return future

    @property
    def asked(self) -> list[object]:
        return [what for what, _ in self.backend.queries]


def bench(test: Callable[[Bench], object], **options: object) -> None:
    async def main() -> None:
        it = Bench(**options)
        await test(it)
        for future in it.handed_out:  # a test looks at some only; asyncio complains of errors nobody looked at
            if future.done() and not future.cancelled():
                future.exception()

    run(main())


def server_failure() -> DialError:
    return DialError("SERVFAIL", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE)


def test_an_answer_is_returned_in_its_order() -> None:
    async def story(it: Bench) -> None:
        lookup = asyncio.create_task(it.resolver.lookup(name(), 6, "client"))
        await until(lambda: it.asked)
        it.backend.answer(0, V6, ip_address("2001:db8::2"))
        assert await lookup == (V6, ip_address("2001:db8::2"))
        assert it.asked == [("host1.example", 6)]

    bench(story)


def test_an_answer_without_ttl_is_kept_for_thirty_seconds() -> None:
    async def story(it: Bench) -> None:
        first = it.ask()
        it.backend.answer(0, V4)
        await first
        it.now += 29.9
        again = it.ask()
        assert again.done()  # at once, without a turn of the loop
        assert again.result() == (V4,)
        it.now += 0.1
        assert not it.ask().done()
        assert len(it.asked) == 2

    bench(story)


@pytest.mark.parametrize(("ttl", "kept"), [(0, 1), (7, 7), (86400, MAX_TTL)])
def test_a_ttl_is_honoured_between_one_second_and_five_minutes(ttl: float, kept: float) -> None:
    async def story(it: Bench) -> None:
        first = it.ask()
        it.backend.answer(0, V4, ttl=ttl)
        await first
        it.now += kept - 0.1
        assert it.ask().done()
        it.now += 0.2
        assert not it.ask().done()

    bench(story)


def test_the_families_are_kept_apart() -> None:
    async def story(it: Bench) -> None:
        it.ask(family=4)
        it.ask(family=6)
        assert it.asked == [("host1.example", 4), ("host1.example", 6)]
        it.backend.answer(0, V4)
        it.backend.answer(1)
        await until(lambda: it.ask(family=6).done())
        assert it.ask(family=4).result() == (V4,)
        assert it.ask(family=6).result() == ()

    bench(story)


@pytest.mark.parametrize("kind", ["no such name", "server failure", "no data"])
def test_failures_are_kept_for_five_seconds(kind: str) -> None:
    async def story(it: Bench) -> None:
        first = it.ask()
        if kind == "no data":
            it.backend.answer(0, ttl=600)
        elif kind == "server failure":
            it.backend.fail(0, server_failure())
        else:
            it.backend.fail(0, DialError("none", reply=Reply.HOST_UNREACHABLE, retryable=False))
        await asyncio.wait({first})
        assert first.exception() is None or first.exception().stage is Stage.RESOLVE
        it.now += 4.9
        second = it.ask()
        assert second.done()
        assert (second.exception() is None) == (kind == "no data")
        it.now += 0.2
        assert not it.ask().done()

    bench(story)


def test_a_kept_failure_is_the_same_in_words_and_a_new_object() -> None:
    async def story(it: Bench) -> None:
        first = it.ask()
        it.backend.fail(0, server_failure())
        await asyncio.wait({first})
        one, two = it.ask().exception(), it.ask().exception()
        assert one is not two  # one object raised over and over would collect tracebacks
        assert (str(one), one.reply, one.retryable) == (str(two), two.reply, two.retryable)
        assert (str(one), one.reply, one.retryable) == ("SERVFAIL", Reply.HOST_UNREACHABLE, True)

    bench(story)


def test_look_ups_of_the_same_name_share_one_query() -> None:
    async def story(it: Bench) -> None:
        waiting = [it.ask(client=client) for client in range(50)]
        assert len(it.asked) == 1
        it.backend.answer(0, V4)
        assert await asyncio.gather(*waiting) == [(V4,)] * 50

    bench(story)


def test_a_cancelled_look_up_does_not_harm_those_who_share_it() -> None:
    async def story(it: Bench) -> None:
        first, second = it.ask(), it.ask()
        first.cancel()
        await asyncio.sleep(0)
        it.backend.answer(0, V4)
        assert await second == (V4,)

    bench(story)


def test_an_answer_that_nobody_waits_for_any_more_is_kept() -> None:
    async def story(it: Bench) -> None:
        it.ask().cancel()
        it.backend.answer(0, V4)
        await until(lambda: it.ask().done())
        assert it.ask().result() == (V4,)
        assert len(it.asked) == 1

    bench(story)


def test_the_oldest_answer_goes_first() -> None:
    async def story(it: Bench) -> None:
        for number in range(3):
            asked = it.ask(number)
            it.backend.answer(number, V4)
            await asked
        assert it.ask(1).done()
        assert it.ask(2).done()
        assert not it.ask(0).done()

    bench(story, max_names=2)


def test_the_time_for_look_ups_can_be_changed_and_the_backend_is_told() -> None:
    async def story(it: Bench) -> None:
        it.resolver.allow(0.01)
        with pytest.raises(DialTimeoutError, match=r"0\.01 s"):
            await it.ask()
        assert it.backend.allowed == [600.0, 0.01]

    bench(story, query_timeout=600.0)


def test_an_answer_in_time_is_not_overtaken_by_its_time_limit() -> None:
    async def story(it: Bench) -> None:
        first = it.ask(1)
        it.backend.answer(0, V4)
        await first
        with pytest.raises(DialTimeoutError):
            await it.ask(2)  # began later, so the other's time is over as well
        assert it.ask(1).result() == (V4,)

    bench(story, query_timeout=0.01)


def test_withdrawn_look_ups_leave_no_memory_behind() -> None:
    async def story(it: Bench) -> None:
        it.ask(0)
        queued = [it.ask(number) for number in range(1, 200)]
        for future in queued:
            future.cancel()
        await asyncio.sleep(0)
        assert len(it.resolver._forward._queries) == 1
        it.backend.answer(0, V4)
        await until(lambda: not it.resolver._forward._queries)
        assert len(it.asked) == 1

    bench(story, pool_size=8)


def test_an_answer_that_was_renewed_is_not_the_oldest() -> None:
    async def story(it: Bench) -> None:
        async def learn(number: int) -> None:
            asked = it.ask(number)
            it.backend.answer(len(it.asked) - 1, V4)
            await asked

        await learn(0)
        await learn(1)
        it.now += 31
        await learn(0)
        await learn(2)
        assert it.ask(0).done()

    bench(story, max_names=2)


def test_a_timeout_that_the_backend_tells_stays_a_timeout() -> None:
    async def story(it: Bench) -> None:
        asked = it.ask()
        it.backend.fail(0, DialTimeoutError("silent"))
        with pytest.raises(DialTimeoutError) as caught:
            await asked
        assert (caught.value.reply, caught.value.stage) == (Reply.TTL_EXPIRED, Stage.RESOLVE)

    bench(story)


def test_a_silent_backend_is_given_up_and_the_failure_kept() -> None:
    async def story(it: Bench) -> None:
        with pytest.raises(DialTimeoutError) as caught:
            await it.ask()
        assert (caught.value.stage, caught.value.reply) == (Stage.RESOLVE, Reply.TTL_EXPIRED)
        assert "host1.example" in str(caught.value)
        assert isinstance(it.ask().exception(), DialTimeoutError)
        assert len(it.asked) == 1

    bench(story, query_timeout=0.01)


def test_an_answer_that_comes_after_giving_up_is_used_from_then_on() -> None:
    async def story(it: Bench) -> None:
        with pytest.raises(DialTimeoutError):
            await it.ask()
        it.backend.answer(0, V4)
        await asyncio.sleep(0)
        assert it.ask().result() == (V4,)

    bench(story, query_timeout=0.01)


def test_a_client_holds_an_eighth_of_the_places_and_others_are_not_delayed() -> None:
    async def story(it: Bench) -> None:
        for number in range(20):
            it.ask(number, client="greedy")
        assert len(it.asked) == 4
        it.ask(99, client="modest")
        assert it.asked[-1] == ("host99.example", 4)
        it.backend.answer(0, V4)
        await until(lambda: len(it.asked) == 6)
        assert it.asked[-1] == ("host4.example", 4)  # its own queue, first in, first out

    bench(story, pool_size=32)


def test_a_query_that_was_given_up_still_counts_until_the_backend_is_done() -> None:
    async def story(it: Bench) -> None:
        with pytest.raises(DialTimeoutError):
            await it.ask(1, client="greedy")
        it.ask(2, client="greedy")
        assert len(it.asked) == 1  # the share of one place is still taken
        it.backend.answer(0, V4)
        await until(lambda: len(it.asked) == 2)

    bench(story, pool_size=8, query_timeout=0.1)


def test_a_look_up_that_only_waited_for_its_turn_is_not_held_against_the_name() -> None:
    async def story(it: Bench) -> None:
        it.ask(1, client="greedy")
        with pytest.raises(DialTimeoutError, match="behind others of this client"):
            await it.ask(2, client="greedy")
        asked = it.ask(2, client="modest")
        assert it.asked[-1] == ("host2.example", 4)
        it.backend.answer(1, V4)
        assert await asked == (V4,)

    bench(story, pool_size=8, query_timeout=0.02)


def test_a_name_in_a_greedy_clients_queue_starts_at_once_for_another() -> None:
    async def story(it: Bench) -> None:
        it.ask(1, client="greedy")
        queued = it.ask(2, client="greedy")
        assert len(it.asked) == 1
        direct = it.ask(2, client="modest")
        assert it.asked == [("host1.example", 4), ("host2.example", 4)]
        it.backend.answer(1, V4)
        assert await direct == await queued == (V4,)
        it.backend.answer(0, V4)
        await asyncio.sleep(0)
        assert len(it.asked) == 2  # the queued claim is gone

    bench(story, pool_size=8)


def test_a_client_with_too_many_look_ups_is_refused_and_only_that_one() -> None:
    async def story(it: Bench) -> None:
        for number in range(WAITING + 1):
            it.ask(number, client="greedy")
        with pytest.raises(DialError, match="too many look-ups") as caught:
            await it.ask(5000, client="greedy")
        assert caught.value.retryable
        assert caught.value.stage is Stage.RESOLVE
        it.ask(5000, client="modest")
        assert it.asked[-1] == ("host5000.example", 4)

    bench(story, pool_size=8)


def test_a_queued_look_up_that_is_cancelled_is_never_asked() -> None:
    async def story(it: Bench) -> None:
        it.ask(1)
        it.ask(2).cancel()
        third = it.ask(3)
        await asyncio.sleep(0)
        it.backend.answer(0, V4)
        await until(lambda: len(it.asked) == 2)
        assert it.asked[1] == ("host3.example", 4)
        it.backend.answer(1, V4)
        await third

    bench(story, pool_size=8)


def test_a_bug_of_the_backend_reaches_those_who_asked_and_is_not_kept() -> None:
    async def story(it: Bench) -> None:
        asked = it.ask()
        it.backend.fail(0, ZeroDivisionError())
        with pytest.raises(ZeroDivisionError):
            await asked
        assert not it.ask().done()

    bench(story)


def test_the_name_of_an_address_is_looked_up_and_kept() -> None:
    async def story(it: Bench) -> None:
        lookup = asyncio.create_task(it.resolver.reverse(V4, "client"))
        await until(lambda: it.asked)
        it.backend.queries[0][1].set_result(Answer(name()))
        assert await lookup == name()
        assert await it.resolver.reverse(V4, "client") == name()
        assert it.asked == [V4]

    bench(story)


def test_both_kinds_of_look_up_share_a_clients_places() -> None:
    async def story(it: Bench) -> None:
        it.ask(1)
        reverse = asyncio.create_task(it.resolver.reverse(V4, "client"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(it.asked) == 1
        it.backend.answer(0, V4)
        await until(lambda: it.asked[1:] == [V4])
        it.backend.queries[1][1].set_result(Answer(name()))
        await reverse

    bench(story, pool_size=8)


def test_closing_ends_all_look_ups_and_refuses_later_ones() -> None:
    async def story(it: Bench) -> None:
        running, queued = it.ask(1), it.ask(2)
        await it.resolver.close()
        for asked in (running, queued, it.ask(3)):
            with pytest.raises(DialError, match="closed"):
                await asked
        assert it.backend.is_closed
        assert len(it.asked) == 1

    bench(story, pool_size=8)
