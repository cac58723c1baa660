"""What a session does at its end, and what it tells of the proxies."""

import asyncio
import logging
import resource
import signal

import pytest

from helpers.looping import run, until
from tabi.addr import Endpoint
from tabi.errors import ProxyUnreachableError, RefusedError, TabiError
from tabi.relay import Cause, Closer, End
from tabi.wrap import session
from tabi.wrap.held import Decided
from tabi.wrap.house import HouseError
from tabi.wrap.session import _Teller

_END = End(1, b"", Closer.CLIENT, Cause.FIN, 0, 0, 0, 0.0, 0.0)
_PROGRAM, _TARGET = Endpoint.parse("198.18.0.2:40000"), Endpoint.parse("example.org:80")


class Gate:
    """As much of a gate as is looked at; bytes move whenever somebody looks, if they do."""

    def __init__(self, connections: int, *, step: int = 0, until: int = 0) -> None:
        self.connections = connections
        self.looks = 0
        self._step = step
        self._until = until

    @property
    def moved(self) -> int:
        self.looks += 1
        if self.looks == self._until:
            self.connections = 0
        return self.looks * self._step


def test_what_the_program_has_written_last_is_waited_for() -> None:
    async def scenario() -> None:
        gate, teller = Gate(2), _Teller()
        draining = asyncio.create_task(teller.drain(gate))  # type: ignore[arg-type]
        await until(lambda: gate.looks == 1)
        gate.connections = 1
        teller.ended(_END)
        await until(lambda: gate.looks == 2)
        assert not draining.done()
        gate.connections = 0
        teller.ended(_END)
        await draining

    run(scenario())


def test_connections_that_move_nothing_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_IDLE", 0.001)
    gate = Gate(1)
    run(_Teller().drain(gate))  # type: ignore[arg-type]
    assert gate.connections == 1


def test_connections_that_move_bytes_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_IDLE", 0.001)
    gate = Gate(1, step=1, until=20)
    run(_Teller().drain(gate))  # type: ignore[arg-type]
    assert gate.connections == 0


def test_nothing_is_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_IDLE", 0.001)
    monkeypatch.setattr(session, "_DRAIN", 0.05)
    gate = Gate(1, step=1)
    run(_Teller().drain(gate))  # type: ignore[arg-type]
    assert gate.connections == 1


def decided(error: TabiError | None) -> Decided:
    return Decided(source=_PROGRAM, target=_TARGET, error=error, seconds=0.0)


def test_trouble_with_a_proxy_is_told_once_and_that_of_a_target_not(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        teller = _Teller()
        for error in (None, RefusedError("no"), ProxyUnreachableError("no proxy"), ProxyUnreachableError("no proxy")):
            teller.decided(decided(error))
        teller.decided(decided(ProxyUnreachableError("other")))

    with caplog.at_level(logging.WARNING, "tabi"):
        run(scenario())
    assert caplog.messages == ["no proxy", "other"]


class House:
    """As much of a house as is waited for."""

    def __init__(self) -> None:
        self.end: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def wait(self) -> int:
        return await asyncio.shield(self.end)


def test_a_failure_of_the_relay_ends_the_run() -> None:
    async def scenario() -> None:
        teller = _Teller()
        teller.failed(ValueError("a bug"))
        with pytest.raises(HouseError, match="the program is cut off"):
            await session._end_of(House(), teller)  # type: ignore[arg-type]

    run(scenario())


def test_a_program_that_has_ended_has_its_code() -> None:
    async def scenario() -> None:
        house = House()
        house.end.set_result(7)
        assert await session._end_of(house, _Teller()) == 7  # type: ignore[arg-type]

    run(scenario())


def test_a_caller_has_its_signals_and_limits_back() -> None:
    heard = signal.getsignal(signal.SIGUSR2)
    handlers = {signal.SIGUSR2: lambda *_: None}

    async def scenario() -> None:
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with session._many_descriptors(), session._signals(House()):  # type: ignore[arg-type]
            assert signal.getsignal(signal.SIGUSR2) is not handlers[signal.SIGUSR2]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits

    try:
        signal.signal(signal.SIGUSR2, handlers[signal.SIGUSR2])
        run(scenario())
        assert signal.getsignal(signal.SIGUSR2) is handlers[signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, heard)
