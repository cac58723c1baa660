"""Messages between processes: whole, in order, with descriptors, and an end that is noticed."""

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest

from helpers.waiting import PATIENCE
from tabi.net.channel import MOST_POSTED, Channel, ClosedError
from tabi.net.tasks import pending


def run(body: Callable[[Channel, Channel], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            ours, theirs = Channel.pair()
            other = Channel(theirs)
            try:
                await body(ours, other)
            finally:
                ours.close()
                other.close()

    asyncio.run(bounded())


@pytest.mark.parametrize("size", [0, 100, 32_767, 32_768, 5_000_000])
def test_objects_of_any_size_arrive_whole_and_in_order(size: int) -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        values = [{"n": n, "data": bytes(size)} for n in range(3)]
        sending = asyncio.ensure_future(asyncio.gather(*map(ours.send, values)))
        assert [(await theirs.receive()).value for _ in values] == values
        await sending

    run(body)


@pytest.mark.parametrize("size", [10, 100_000])
def test_descriptors_travel_with_the_object_and_no_other_is_left(size: int) -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        before = set(os.listdir("/proc/self/fd"))
        reader, writer = os.pipe()
        await ours.send(bytes(size), (writer,))
        os.close(writer)
        message = await theirs.receive()
        assert (len(message.value), message.lost) == (size, False)
        os.write(message.fds[0], b"through")
        os.close(message.fds[0])
        assert os.read(reader, 10) == b"through"
        os.close(reader)
        assert set(os.listdir("/proc/self/fd")) == before

    run(body)


@pytest.mark.parametrize("count", [1, 3])
def test_who_has_no_room_for_a_descriptor_gets_the_object_and_is_told(count: int) -> None:
    """As many as there is room for would be worse than none: nobody could tell which they are."""

    async def body(ours: Channel, theirs: Channel) -> None:
        before = set(os.listdir("/proc/self/fd"))
        with open(os.devnull) as file, running_out(count - 1):
            await ours.send("object", [file.fileno()] * count)
            assert await theirs.receive() == ("object", [], True)
            await ours.send(bytes(100_000))
            assert len((await theirs.receive()).value) == 100_000
        assert set(os.listdir("/proc/self/fd")) == before

    run(body)


@contextmanager
def running_out(left: int) -> Iterator[None]:
    """Let this process have but so many descriptors more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    filled = [os.dup(0) for _ in range(used[-1])]  # so that all below the limit are taken
    most = max(filled) + 1
    for fd in filled[len(filled) - left :] if left else ():
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for fd in filled[: len(filled) - left]:
        os.close(fd)


def test_a_message_whose_sender_was_cancelled_is_forgotten() -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        cancelled = asyncio.ensure_future(ours.send(bytes(5_000_000)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not cancelled.done()
        cancelled.cancel()
        following = asyncio.ensure_future(ours.send("whole"))
        assert (await theirs.receive()).value == "whole"
        await following

    run(body)


def test_a_full_channel_makes_the_sender_wait_and_loses_nothing() -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        count = 2000
        sending = asyncio.ensure_future(asyncio.gather(*(ours.send((n, bytes(8000))) for n in range(count))))
        assert [(await theirs.receive()).value[0] for _ in range(count)] == list(range(count))
        await sending

    run(body)


def test_the_end_of_the_other_process_is_noticed_by_both_directions() -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        waiting = asyncio.ensure_future(ours.receive())
        await asyncio.sleep(0)
        theirs.close()
        with pytest.raises(ClosedError):
            await waiting
        with pytest.raises(ClosedError):
            await ours.send("anything")

    run(body)


def test_who_hangs_up_hears_what_has_come_and_then_nothing() -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        await theirs.send("in time")
        assert (await ours.receive()).value == "in time"
        waiting = asyncio.ensure_future(ours.receive())
        await asyncio.sleep(0)
        ours.hang_up()
        with pytest.raises(ClosedError):
            await waiting

    run(body)


def test_what_is_posted_comes_in_order() -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        for number in range(3000):
            ours.post((number, bytes(100)))
        assert [(await theirs.receive()).value[0] for _ in range(3000)] == list(range(3000))
        ours.post("afterwards")
        assert (await theirs.receive()).value == "afterwards"

    run(body)


def test_of_what_is_posted_to_one_who_hangs_the_oldest_is_lost_and_one_task_waits() -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        count = 3 * MOST_POSTED
        for number in range(count):
            ours.post(number)
            if number % 1000 == 0:
                await asyncio.sleep(0)  # the task sends as long as there is room
        assert len(pending()) == 1
        ours.post("the last")
        got = []
        while not got or got[-1] != "the last":
            got.append((await theirs.receive()).value)
        assert MOST_POSTED <= len(got) < count
        assert got[-MOST_POSTED:-1] == list(range(count - MOST_POSTED + 1, count))

    run(body)


def test_what_is_posted_to_one_who_is_gone_is_forgotten() -> None:
    async def body(ours: Channel, theirs: Channel) -> None:
        theirs.close()
        ours.post("anybody?")
        await asyncio.gather(*pending())
        assert not pending()

    run(body)
