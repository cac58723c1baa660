"""One connect that is held: the program waits, and knows nothing of it.

Its SYN has been dropped, so its kernel says "in progress" in every style of connecting that there is. Meanwhile the way
to the target is dialled. Where that succeeds, the very SYN that was dropped is sent on to a listener that takes every
address, and what is accepted there is the program's connection. Where it fails, what is sent is the packet that a
network sends.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tabi.addr import Endpoint
from tabi.dial.wishes import Connection
from tabi.errors import TabiError
from tabi.net.linger import reset
from tabi.net.tasks import spawn
from tabi.wrap.answers import Answer, answer_to
from tabi.wrap.packets import Syn, reinjected

__all__ = ["Decided", "Desk", "Held"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """How a connect has ended.

    Args:
        source: the program's end.
        target: where to, as the proxy was asked: a name where the program had asked for one.
        answer: what the program was told; None: it is connected.
        error: why it is not.
        seconds: how long it was held.
    """

    source: Endpoint
    target: Endpoint
    answer: Answer | None = None
    error: TabiError | None = None
    seconds: float


class Desk(Protocol):
    """What a held connect needs of the gate."""

    async def dial(self, target: Endpoint) -> Connection:
        """Connect to the target through the proxies; raises TabiError."""

    async def open_door(self, target: Endpoint) -> Callable[[], None]:
        """Have somebody listen for the target; returns what ends that. Raises TabiError."""

    def send(self, packet: bytes, target: Endpoint) -> None:
        """Put a packet into the gate; one that cannot be sent is lost, as packets may be."""

    def relay(self, held: "Held", inbound: socket.socket, outbound: socket.socket) -> None:
        """Take both over."""

    def over(self, held: "Held", decided: Decided | None, packet: bytes | None) -> None:
        """Hear that this connect is over, and how it was answered; None: it was given up."""


class Held:
    """A connect from its SYN to its answer.

    Args:
        syn: what the program has sent.
        target: where to, as the proxy is to be asked.
        desk: the gate.
        delay: seconds that a program is kept from hearing of an unreachable target.
        patience: seconds for the program's part, once its SYN has been sent on.
    """

    def __init__(self, syn: Syn, target: Endpoint, desk: Desk, *, delay: float, patience: float) -> None:
        self.syn = syn
        self.target = target
        self._desk = desk
        self._delay = delay
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._begun = self._loop.time()
        self._accepted: asyncio.Future[socket.socket | None] | None = None
        self.task: asyncio.Task[None] = spawn(self._run(), name=f"connect {syn.flow.source} to {target}")

    def again(self) -> None:
        """Hear that the program's kernel has sent its SYN again: the one that was sent on may have been lost."""
        if self._accepted is not None and not self._accepted.done():
            self._let_pass()

    def take(self, sock: socket.socket) -> bool:
        """Take the program's connection; False where it is not waited for."""
        if self._accepted is None or self._accepted.done():
            return False
        self._accepted.set_result(sock)
        return True

    def give_up(self) -> None:
        """End without an answer."""
        self.task.cancel()

    async def _run(self) -> None:
        decided, packet = None, None
        try:
            try:
                outbound = _socket((await self._desk.dial(self.target)).handle)
                decided = await self._release(outbound)
            except TabiError as error:
                decided, packet = await self._refuse(error)
        finally:
            self._desk.over(self, decided, packet)

    async def _refuse(self, error: TabiError) -> tuple[Decided, bytes | None]:
        answer = answer_to(error)
        if answer.is_unreachable and self._delay:
            await asyncio.sleep(self._delay)
        packet = answer.packet(self.syn)
        if packet is not None:
            self._desk.send(packet, self.syn.flow.source)
        return self._decided(answer, error), packet

    async def _release(self, outbound: socket.socket) -> Decided | None:
        """Let the program connect, and have both sides relayed; None where it has gone."""
        try:
            inbound = await self._connected()
        except BaseException:
            outbound.close()
            raise
        if inbound is None:
            reset(outbound)
            return None
        self._desk.relay(self, inbound, outbound)
        return self._decided()

    async def _connected(self) -> socket.socket | None:
        close_door = await self._desk.open_door(self.syn.flow.target)
        accepted: asyncio.Future[socket.socket | None] = self._loop.create_future()
        self._accepted = accepted
        timer = self._loop.call_later(self._patience, _set, accepted)
        try:
            self._let_pass()
            return await accepted
        except asyncio.CancelledError:
            if accepted.done() and not accepted.cancelled() and (sock := accepted.result()) is not None:
                reset(sock)
            raise
        finally:
            timer.cancel()
            close_door()

    def _let_pass(self) -> None:
        self._desk.send(reinjected(self.syn), self.syn.flow.target)

    def _decided(self, answer: Answer | None = None, error: TabiError | None = None) -> Decided:
        seconds = self._loop.time() - self._begun
        source = self.syn.flow.source
        return Decided(source=source, target=self.target, answer=answer, error=error, seconds=seconds)


def _set(future: asyncio.Future[socket.socket | None]) -> None:
    if not future.done():
        future.set_result(None)


def _socket(handle: object) -> socket.socket:
    assert isinstance(handle, socket.socket)
    return handle
