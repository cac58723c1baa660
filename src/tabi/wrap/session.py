"""A program run through proxies, from beginning to end: the house, and all who work in its gate."""

import asyncio
import logging
import os
import resource
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from typing import Final

from tabi.addr import Endpoint
from tabi.errors import ProxyAuthError, ProxyProtocolError, ProxyUnreachableError, TabiError
from tabi.machine.hop import Hop
from tabi.net.sockopts import raise_descriptor_limit
from tabi.net.system_resolver import SystemResolver
from tabi.net.tasks import spawn
from tabi.relay import End
from tabi.wrap.datagrams import Datagrams, associate
from tabi.wrap.gate import Gate, GateOptions, Watcher
from tabi.wrap.held import Decided
from tabi.wrap.house import House, HouseError, open_house
from tabi.wrap.inbound import Inbound
from tabi.wrap.names import Names
from tabi.wrap.program import Program
from tabi.wrap.responder import Responder
from tabi.wrap.trace import Trace

__all__ = ["run_program"]

_log = logging.getLogger("tabi")

_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_OF_TERMINALS: Final = (signal.SIGINT, signal.SIGQUIT)
_MOST_TOLD: Final = 100  # troubles of proxies; each is told once
_IDLE: Final = 2.0  # seconds without a byte, after which what the program has left behind is not waited for
_DRAIN: Final = 30.0  # seconds that it is waited for at all


async def run_program(
    program: Program,
    hops: Sequence[Hop],
    options: GateOptions,
    trace: Trace | None = None,
    *,
    inbound: Sequence[int] = (),
) -> int:
    """Run a program in a house of its own, and give its exit code (see `House.wait`).

    Args:
        program: to run.
        hops: the proxies, the nearest first; at least one.
        options: of the gate.
        trace: is told all that goes on.
        inbound: ports of the program that are to be reached through the last proxy.

    Raises:
        HouseError: the house cannot be made, or has broken down. A program never runs without one.
        TabiError: the proxy does not listen for a port; the program has not run.
    """
    house = await open_house(program)
    try:
        with _many_descriptors():  # not before: the program has what it was given
            return await _live(house, hops, options, trace, inbound)
    finally:
        await house.close()


async def _live(
    house: House, hops: Sequence[Hop], options: GateOptions, trace: Trace | None, inbound: Sequence[int]
) -> int:
    names, trace = Names(), trace or Trace(_ignore)
    teller = _Teller(trace)
    sockets = house.sockets
    responder = Responder(names, sockets.names_udp, sockets.names_tcp, on_answer=trace.answered)
    opening = partial(associate, hops, resolver=SystemResolver(), seconds=options.timeout)
    datagrams = Datagrams(sockets, names, opening, on_refusal=teller.refused, on_end=trace.flowed)
    try:
        async with Gate(sockets, hops, names, listen=house.listen, options=options, watcher=teller) as gate:
            async with AsyncExitStack() as listening:
                for port in inbound:
                    reached = Inbound(hops, port, transparent=house.transparent, adopt=gate.adopt, watcher=teller)
                    await listening.enter_async_context(reached)
                with _signals(house):
                    house.start()
                    code = await _end_of(house, teller)
            await teller.drain(gate)
            return code
    finally:
        datagrams.close()
        responder.close()


@contextmanager
def _many_descriptors() -> Iterator[None]:
    """Have as many descriptors as may be, for as long as the program runs."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    raise_descriptor_limit()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def _end_of(house: House, teller: "_Teller") -> int:
    """Wait for the program's end, or for a bug of ours that leaves it without connections."""
    ended = spawn(house.wait(), name="the program's end")
    failing = spawn(teller.failing.wait(), name="a failure of the relay")
    try:
        await asyncio.wait((ended, failing), return_when=asyncio.FIRST_COMPLETED)
        if not ended.done():
            raise HouseError("tabi's relay has failed, which is a bug; the program is cut off")
        return await ended
    finally:
        ended.cancel()
        failing.cancel()


def _ignore(_line: str) -> None:
    """Nobody wants to know."""


class _Teller(Watcher):
    """Hears of connections that end, and tells of troubles of the proxies, each once: the program is not told those."""

    def __init__(self, trace: Trace | None = None) -> None:
        self._trace = trace or Trace(_ignore)
        self._told: set[str] = set()
        self._one_ended = asyncio.Event()
        self.failing = asyncio.Event()  # set when no connection can be relayed any more

    def decided(self, decided: Decided) -> None:
        """Tell why, where it is not the target's own doing."""
        self._trace.decided(decided)
        if isinstance(decided.error, ProxyUnreachableError | ProxyAuthError | ProxyProtocolError):
            self.tell(decided.error)

    def failed(self, error: Exception) -> None:
        """Tell of the bug, and end the run."""
        super().failed(error)
        self.failing.set()

    def listening(self, port: int, address: Endpoint) -> None:
        """Tell where a port of the program can be reached."""
        _log.info("port %d of the program is reached at %s", port, address)

    def entered(self, port: int, peer: Endpoint, error: OSError | None) -> None:
        """Tell of somebody whom the program did not let in."""
        if error is not None:
            _log.warning("%s was not let in at port %d: %s", peer, port, error.strerror or error)

    def lost(self, port: int, error: TabiError) -> None:
        """Tell that a port cannot be reached for now."""
        self.tell(error)

    def ended(self, end: End) -> None:
        """Wake whoever drains."""
        self._trace.ended(end)
        self._one_ended.set()

    async def drain(self, gate: Gate) -> None:
        """Let arrive what the program has written before it ended; its own kernel would do the same."""
        try:
            async with asyncio.timeout(_DRAIN):
                while gate.connections:
                    before = gate.moved
                    try:
                        async with asyncio.timeout(_IDLE):
                            await self._one_ended.wait()
                    except TimeoutError:
                        if gate.moved == before:
                            return
                    self._one_ended.clear()
        except TimeoutError:
            pass

    def refused(self, error: TabiError) -> None:
        """Tell why datagrams are refused."""
        self._trace.refused(error)
        self.tell(error)

    def tell(self, error: TabiError) -> None:
        """Tell an error, if that has not been done."""
        text = str(error)
        if text not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(text)
            _log.warning("%s", text)


@contextmanager
def _signals(house: House) -> Iterator[None]:
    """Pass signals on to the program; those that were ignored stay so. A thread that is not the first one has none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in (*_FORWARDED, *_OF_TERMINALS)}
    watched = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in watched:
        loop.add_signal_handler(number, _pass_on, house, number)
    try:
        yield
    finally:
        for number in watched:
            loop.remove_signal_handler(number)
            if (handler := before[number]) is not None:  # None: it is none of Python's, and cannot be had back
                signal.signal(number, handler)


def _pass_on(house: House, number: signal.Signals) -> None:
    if number in _OF_TERMINALS and _is_in_foreground():
        return  # it came from the terminal, which has sent it to the program as well
    house.signal(number)


def _is_in_foreground() -> bool:
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:  # no terminal
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)
