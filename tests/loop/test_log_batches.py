"""Lines that are ready together leave together: one call for a batch of ends, one write for the lines of a turn."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.serving import serving
from helpers.socks import connect5
from helpers.targets import target
from helpers.waiting import until
from tabi.net.lines import LineWriter
from tabi.relay.interface import Cause


def test_the_lines_of_one_turn_cost_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    write = os.write

    def counted(fd: int, data: bytes) -> int:
        written.append(data)
        return write(fd, data)

    async def body() -> None:
        with open(tmp_path / "log", "wb") as file:
            lines = LineWriter(file.fileno(), asyncio.get_running_loop())
            monkeypatch.setattr("tabi.net.lines.os", SimpleNamespace(**{**vars(os), "write": counted}))
            for number in range(200):
                lines.write(f"line {number}")
            lines.flush()

    asyncio.run(body())
    assert written == [b"".join(b"line %d\n" % number for number in range(200))]


def test_ends_that_come_together_are_logged_by_one_call() -> None:
    calls: list[str] = []
    with target() as there, serving() as server:
        socks = [connect5(server.address, *there) for _ in range(20)]
        # A client has its reply before the engine has its sockets.
        until(lambda: len(server.server.engine.snapshot()) == len(socks), "the engine to have all tunnels")

        def end_together() -> None:
            engine = server.server.engine
            server.server.journal._write = calls.append
            flows = [live.flow for live in engine.snapshot()]
            engine.kill(flows, Cause.KILL)
            gathered = []
            while len(gathered) < len(flows):
                gathered += engine.ends()
            server.server.endings._engine = SimpleNamespace(ends=lambda: gathered)
            server.server.endings.take()
            server.server.endings._engine = engine

        server.call_sync(end_together)
        for sock in socks:
            sock.close()
    assert [text.count("\n") + 1 for text in calls] == [20]
