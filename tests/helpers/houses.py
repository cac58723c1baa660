"""Houses for tests (`tabi.wrap.house`), and somebody who lives there and does what the test says."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache, wraps
from typing import Any

from helpers.looping import run
from helpers.waiting import PATIENCE
from tabi.wrap.house import House, HouseError, open_house
from tabi.wrap.program import Program

__all__ = ["Resident", "looped", "program", "resident", "why_no_house", "why_no_tproxy"]

_RESIDENT = """\
import json, os, pathlib, socket, sys
with socket.socket(fileno=int(sys.argv[1])) as control, control.makefile("rw") as stream:
    kept = {}
    for line in stream:
        try:
            said = eval(line)
        except OSError as error:
            said = {"errno": error.errno}
        print(json.dumps(said), file=stream, flush=True)
"""


def program(*argv: str, **fields: Any) -> Program:
    """Describe a program with our own environment."""
    fields.setdefault("environ", dict(os.environ))
    return Program(argv=argv, **fields)


def looped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test that is a coroutine."""

    @wraps(test)
    def running(**fixtures: Any) -> None:
        run(test(**fixtures))

    return running


def why_no_house() -> str | None:
    """Say why no house can be made here, None where one can."""
    tried = _tried()
    return tried if isinstance(tried, str) else None


def why_no_tproxy() -> str | None:
    """Say why no datagram reaches a gate here, None where it does."""
    return None if _tried() is True else "this kernel has no tproxy, by which datagrams are caught"


@cache
def _tried() -> str | bool:
    """Make a house; say whether it has tproxy, or why there is none."""

    async def attempt() -> bool:
        house = await open_house(program("true"))
        house.start()
        await house.wait()
        await house.close()
        return house.tproxy

    try:
        return asyncio.run(attempt())
    except HouseError as error:
        return f"no house can be made: {error}"


class Resident:
    """A Python program in a house, which evaluates what it is told; `kept` is its memory."""

    def __init__(self, house: House, control: socket.socket) -> None:
        self.house = house
        self._control = control
        self._rest = b""

    async def call(self, expression: str) -> Any:
        """Have it evaluate an expression of one line, and give the result; an OSError comes as its errno."""
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self._control, expression.encode() + b"\n")
        async with asyncio.timeout(PATIENCE):
            while b"\n" not in self._rest:
                data = await loop.sock_recv(self._control, 65_536)
                assert data, "the resident has ended"
                self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def leave(self) -> None:
        """Let it end, with 0."""
        self._control.shutdown(socket.SHUT_WR)


@asynccontextmanager
async def resident(**fields: Any) -> AsyncIterator[Resident]:
    """Make a house and have somebody live there, until the end of the block."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.set_inheritable(True)
            house = await open_house(program(sys.executable, "-c", _RESIDENT, str(theirs.fileno()), **fields))
        try:
            ours.setblocking(False)
            house.start()
            yield (one := Resident(house, ours))
            one.leave()
            assert await house.wait() == 0
        finally:
            await house.close()
