"""Turns by key: in order, one at a time, and nothing is kept for keys that nobody wants."""

import asyncio

from helpers.looping import run
from tabi.server.turns import Turns


def test_one_key_is_held_by_one_in_the_order_of_coming() -> None:
    async def main() -> None:
        turns, order, inside = Turns(), [], 0

        async def one(number: int) -> None:
            nonlocal inside
            async with turns.hold("key"):
                inside += 1
                assert inside == 1
                order.append(number)
                await asyncio.sleep(0)
                inside -= 1

        await asyncio.gather(*(one(number) for number in range(20)))
        assert order == list(range(20))
        assert len(turns) == 0

    run(main())


def test_other_keys_do_not_wait() -> None:
    async def main() -> None:
        turns = Turns()
        async with turns.hold("one"), turns.hold("other"):
            assert not turns.is_free("one")
            assert turns.is_free("third")
        assert turns.is_free("one")

    run(main())


def test_whoever_gives_up_waiting_leaves_the_line_to_the_others() -> None:
    async def main() -> None:
        turns, got = Turns(), []

        async def one(number: int) -> None:
            async with turns.hold("key"):
                got.append(number)

        async with turns.hold("key"):
            tasks = [asyncio.create_task(one(number)) for number in range(3)]
            await asyncio.sleep(0)
            tasks[0].cancel()
            await asyncio.sleep(0)
            assert not turns.is_free("key")
        await asyncio.gather(*tasks, return_exceptions=True)
        assert got == [1, 2]
        assert len(turns) == 0

    run(main())
