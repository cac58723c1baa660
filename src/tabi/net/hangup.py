"""Hearing that a peer hung up while nobody reads its socket.

While a target is being dialled the client's bytes stay in the kernel, where they cost nothing and push back; but a
client that resets must end the dialling. One epoll of its own, in asyncio's selector as one more descriptor, listens
for hang-ups without asking for readability, which asyncio's readers cannot.
"""

import asyncio
import select
from collections.abc import Callable
from typing import TypeAlias

__all__ = ["HangupWatch"]

OnHangup: TypeAlias = Callable[[bool], None]
"""Called once with True for a reset, False for an orderly end of the peer's direction."""

_BATCH = 256


class HangupWatch:
    """Watch sockets for hang-ups. Call from the event loop only."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._epoll = select.epoll()
        self._callbacks: dict[int, OnHangup] = {}
        loop.add_reader(self._epoll.fileno(), self._on_events)

    def watch(self, fd: int, on_hangup: OnHangup, *, fin: bool = False) -> None:
        """Call `on_hangup` once when the peer of `fd` resets; with `fin` also when it closes its direction."""
        self._callbacks[fd] = on_hangup
        self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT if fin else select.EPOLLONESHOT)

    def forget(self, fd: int) -> None:
        """Stop watching; to be called before the descriptor is closed or handed over. Harmless when not watched."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def close(self) -> None:
        """End; what is still watched is forgotten."""
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()
        self._callbacks.clear()

    def _on_events(self) -> None:
        for fd, events in self._epoll.poll(0, _BATCH):
            on_hangup = self._callbacks.pop(fd, None)
            if on_hangup is not None:
                self._epoll.unregister(fd)
                on_hangup(bool(events & (select.EPOLLERR | select.EPOLLHUP)))
