"""What a session does at its end, and what it tells of the proxies."""

import asyncio
import logging

import pytest

from helpers.looping import run, until
from tabi.addr import Endpoint
from tabi.errors import ProxyUnreachableError, RefusedError, TabiError
from tabi.relay import Cause, Closer, End
from tabi.wrap import session
from tabi.wrap.held import Decided
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
