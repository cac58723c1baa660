"""Following this host's addresses: what is told, and what where the kernel does not tell."""

import asyncio
import errno
from collections.abc import Callable, Iterable
from ipaddress import ip_address

import pytest

from helpers.waiting import PATIENCE
from tabi.addr import Address
from tabi.config.load import load_text
from tabi.errors import ConfigError
from tabi.net.channel import Channel
from tabi.net.lines import LineWriter
from tabi.server import home as home_module
from tabi.server.failures import Failures
from tabi.server.home import Home
from tabi.server.lockouts import LockoutRules
from tabi.server.orders import Answer, Ask, Moved, Prepare, Ready, Stop, Swap
from tabi.server.sharedtable import SharedTable
from tabi.server.worker import Worker

ONE, OTHER, SIX = map(ip_address, ("203.0.113.7", "192.0.2.1", "2001:db8::7"))
PRIVATE = tuple(map(ip_address, ("127.0.0.1", "172.17.0.1", "fe80::1", "fd00::1")))


class Kernel:
    """Says what the addresses are."""

    def __init__(self, *addresses: Address) -> None:
        self.addresses: Iterable[Address] = addresses
        self.fails = False

    def __call__(self) -> Iterable[Address]:
        """Say so, or fail."""
        if self.fails:
            raise ConfigError("the kernel does not tell")
        return self.addresses


def following(kernel: Kernel, act: Callable[[Home, list[frozenset[Address]]], None]) -> list[frozenset[Address]]:
    """Act on a home that has started; gives what it told."""
    told: list[frozenset[Address]] = []

    async def body() -> None:
        home = Home(told.append, read=kernel)
        home.start()
        try:
            act(home, told)
        finally:
            home.stop()

    asyncio.run(body())
    return told


def test_only_addresses_that_are_not_private_anyway_count(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel(ONE)

    def act(home: Home, _told: list[frozenset[Address]]) -> None:
        assert home.addresses == {ONE}
        kernel.addresses = (*PRIVATE, ONE)
        home.look()

    assert following(kernel, act) == []
    assert caplog.messages == []


def test_changes_are_told_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel(ONE)

    def act(home: Home, told: list[frozenset[Address]]) -> None:
        kernel.addresses = (SIX, OTHER)
        home.look()
        home.look()
        assert told == [{SIX, OTHER}]
        kernel.addresses = (SIX,)
        home.look()

    assert following(kernel, act) == [{SIX, OTHER}, {SIX}]
    assert caplog.messages == [
        "this host has 192.0.2.1, 2001:db8::7 now; @private holds it",
        "this host has 203.0.113.7 no more; @private holds it no more",
        "this host has 192.0.2.1 no more; @private holds it no more",
    ]


def test_where_the_kernel_does_not_tell_of_changes_that_is_said_and_a_look_still_finds_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_watch(*_: object, **__: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(home_module, "AddressWatch", no_watch)
    kernel = Kernel(ONE)

    def act(home: Home, _told: list[frozenset[Address]]) -> None:
        kernel.addresses = (OTHER,)
        home.look()

    assert following(kernel, act) == [{OTHER}]
    assert caplog.messages[0] == (
        "this host's addresses cannot be followed (Permission denied): one that it is given while the server runs is in"
        " @private after a reload only"
    )


def test_a_kernel_that_does_not_say_is_asked_until_it_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(home_module, "LOOK_AGAIN", 0.0)
    kernel = Kernel(ONE)

    async def body() -> None:
        told: asyncio.Future[frozenset[Address]] = asyncio.get_running_loop().create_future()
        home = Home(told.set_result, read=kernel)
        home.start()
        kernel.fails = True
        home.look()
        home.look()
        assert home.addresses == {ONE}
        kernel.addresses, kernel.fails = (OTHER,), False
        async with asyncio.timeout(PATIENCE):
            assert await told == {OTHER}
        home.stop()

    asyncio.run(body())
    assert [message for message in caplog.messages if "asking again" in message] == [
        "the kernel does not tell; asking again"
    ]


def test_addresses_that_change_during_a_reload_hold_for_what_is_prepared() -> None:
    order = Prepare(
        generation=1, configuration=load_text("", "x"), listeners=(), new=(), index=0, workers=1, own=frozenset({ONE})
    )

    async def body() -> None:
        ours, theirs = Channel.pair()
        table, failures = SharedTable.create(1), Failures.create(LockoutRules().shape)
        workers = Channel(theirs)
        worker = Worker(workers, LineWriter(1, asyncio.get_running_loop()))
        task = asyncio.create_task(worker.run())
        async with asyncio.timeout(PATIENCE):
            await ours.send(order, [table.fileno(), failures.fileno()])
            assert (await ours.receive()).value == Ready(1)
            await ours.send(Moved(frozenset({OTHER})))
            await ours.send(Swap(1))
            assert (await ours.receive()).value == Ready(1)
            assert own_of(worker) == {OTHER}
            await ours.send(Moved(frozenset({SIX})))
            await ours.send(Ask(1, "sessions"))  # answered when what came before is done
            assert (await ours.receive()).value == Answer(1, [])
            assert own_of(worker) == {SIX}
            await ours.send(Stop(0.0))
            assert await task == 0
        for end in (ours, workers, table, failures):
            end.close()

    asyncio.run(body())


def own_of(worker: Worker) -> frozenset[Address]:
    """Give the addresses that a worker judges by."""
    assert worker._configured is not None
    return worker._configured.configuration.rules.private.own
