"""The house: a program in a network namespace of its own, the gate before it, and the sockets that lie in the gate.

`open_house` starts a keeper (`tabi.wrap.keeper`), which makes it all. The program waits until `House.start`, so that
whoever answers it is there first.
"""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from typing import Final, Self

from tabi.addr import Endpoint
from tabi.errors import TabiError
from tabi.wrap import messages
from tabi.wrap.keeper import KEPT_FROM
from tabi.wrap.ladder import advice, is_privileged
from tabi.wrap.messages import Ended, Made, Make, Plan, Ready, Refused, Signal, Start
from tabi.wrap.program import Program

__all__ = ["House", "HouseError", "Sockets", "open_house"]

_MOST_ASKED: Final = 64  # sockets that are asked for at once; what is sent to the keeper never has to wait for room


class HouseError(TabiError):
    """The house cannot be made, or has broken down.

    Args:
        text: the step and what it met.
        advice: what would help, in lines; empty where nobody knows.
        code: the errno.
    """

    def __init__(self, text: str, *, advice: str = "", code: int = 0) -> None:
        super().__init__(f"{text}\n{advice}" if advice else text)
        self.advice = advice
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Sockets:
    """All lie in the gate, do not block, and belong to whoever holds the house.

    Args:
        syns: copies of the program's SYNs, each from its IP header on (AF_PACKET).
        raw4, raw6: for packets whose header we write ourselves.
        listener4, listener6: take every re-injected SYN, whatever it is meant for; None: there is no tproxy here, and
            `House.listen` makes one for a target.
        udp4, udp6: every datagram of the program but those to the responder, with IP_RECVORIGDSTADDR.
        names_udp, names_tcp: where names are asked, the latter listening.
    """

    syns: socket.socket
    raw4: socket.socket
    raw6: socket.socket
    listener4: socket.socket | None
    listener6: socket.socket | None
    udp4: socket.socket
    udp6: socket.socket
    names_udp: tuple[socket.socket, ...]
    names_tcp: tuple[socket.socket, ...]

    @classmethod
    def of(cls, named: dict[str, socket.socket]) -> Self:
        """Sort what `tabi.wrap.wiring.open_sockets` has opened."""
        return cls(
            syns=named["syns"],
            raw4=named["raw4"],
            raw6=named["raw6"],
            listener4=named.get("listener4"),
            listener6=named.get("listener6"),
            udp4=named["udp4"],
            udp6=named["udp6"],
            names_udp=tuple(named[name] for name in ("names_udp4", "names_udp6") if name in named),
            names_tcp=tuple(named[name] for name in ("names_tcp4", "names_tcp6") if name in named),
        )

    def all(self) -> list[socket.socket]:
        """List them."""
        single = (self.syns, self.raw4, self.raw6, self.listener4, self.listener6, self.udp4, self.udp6)
        return [one for one in (*single, *self.names_udp, *self.names_tcp) if one is not None]


class House:
    """A house that stands. Made by `open_house`; close it."""

    def __init__(self, keeper: subprocess.Popen[bytes], control: socket.socket, ready: Ready, sockets: Sockets) -> None:
        self.sockets = sockets
        self.tproxy: bool = ready.tproxy
        self.pid: int = ready.pid
        self._keeper = keeper
        self._control = control
        self._has_begun = False
        self._loop = asyncio.get_running_loop()
        self._asked: deque[asyncio.Future[socket.socket]] = deque()
        self._room = asyncio.Semaphore(_MOST_ASKED)
        self._end: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(control.fileno(), self._on_readable)

    async def transparent(self, family: int, kind: int, bind: Endpoint | None) -> socket.socket:
        """Have a socket made in the gate that may have any address (IP_TRANSPARENT, SO_REUSEADDR); it does not block.

        Args:
            family: AF_INET or AF_INET6.
            kind: SOCK_STREAM or SOCK_DGRAM.
            bind: an address to bind it to, if any.

        Raises:
            OSError: the kernel refuses, or the keeper is gone.
        """
        return await self._make(Make(family, kind, _sockaddr(bind), is_listening=False))

    async def listen(self, target: Endpoint) -> socket.socket:
        """Have a listener made in the gate at the very address that the program wants to reach.

        Raises:
            OSError: the kernel refuses, or the keeper is gone.
        """
        family = socket.AF_INET6 if ":" in str(target.host) else socket.AF_INET
        return await self._make(Make(family, socket.SOCK_STREAM, _sockaddr(target), is_listening=True))

    def start(self) -> None:
        """Let the program begin."""
        self._has_begun = True
        self._tell(Start())

    def signal(self, number: int) -> None:
        """Send the program a signal; nothing happens where it has ended."""
        self._tell(Signal(number))

    async def wait(self) -> int:
        """Wait for the program's end.

        Returns:
            its exit code; 128 and the number of the signal that killed it, as shells have it; 126 where it cannot be
            run, 127 where it is not there, 125 where what comes before it fails.

        Raises:
            HouseError: the keeper has died; the program has no way out any more.
        """
        return await asyncio.shield(self._end)

    async def close(self) -> None:
        """Give the sockets back and end the keeper. A program that still runs has no way out from here on."""
        self._loop.remove_reader(self._control.fileno())
        self._control.close()
        for sock in self.sockets.all():
            sock.close()
        if not self._end.done():
            self._break()
        if self._has_begun and not self._has_ended():
            self._keeper.returncode = 0  # it stays for the program, and is nobody's to wait for
        else:
            self._keeper.wait()

    async def _make(self, order: Make) -> socket.socket:
        async with self._room:
            if self._end.done():
                raise ConnectionError("the keeper is gone")
            answer: asyncio.Future[socket.socket] = self._loop.create_future()
            self._asked.append(answer)
            self._tell(order)
            return await answer

    def _tell(self, message: messages.Message) -> None:
        try:
            messages.send(self._control, message)
        except ConnectionError:  # it is gone, which its socket tells as well
            pass

    def _on_readable(self) -> None:
        try:
            while True:
                message, fds = messages.receive(self._control)
                if message is None:
                    self._loop.remove_reader(self._control.fileno())
                    self._break()
                    return
                self._hear(message, [socket.socket(fileno=fd) for fd in fds])
        except BlockingIOError:
            pass

    def _hear(self, message: messages.Message, sockets: list[socket.socket]) -> None:
        match message:
            case Made(code=code):
                answer = self._asked.popleft()
                if answer.done():  # whoever asked was cancelled
                    for sock in sockets:
                        sock.close()
                elif sockets:
                    sockets[0].setblocking(False)
                    answer.set_result(sockets[0])
                else:
                    answer.set_exception(OSError(code, f"a socket in the gate: {os.strerror(code)}"))
            case Ended(status=status) if not self._end.done():
                self._end.set_result(_exit_code(status))

    def _has_ended(self) -> bool:
        """Say whether the program has ended, as far as the keeper could tell."""
        return self._end.done() and self._end.exception() is None

    def _break(self) -> None:
        """Tell all who wait that the keeper is gone."""
        while self._asked:
            if not (answer := self._asked.popleft()).done():
                answer.set_exception(ConnectionError("the keeper is gone"))
        if not self._end.done():
            self._end.set_exception(HouseError("the keeper of the program's network has died; the program is cut off"))
            self._end.exception()  # somebody who does not wait need not hear


async def open_house(program: Program) -> House:
    """Make a house for a program, which waits in it.

    Raises:
        HouseError: a step was refused; it says which, and what would help.
    """
    is_rootless = not is_privileged()
    outside = os.stat("/proc/self/ns/net").st_ino
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        keeper = _start_keeper(theirs, Plan(program, is_rootless, outside, frozenset(_mask())))
    ours.setblocking(False)
    try:
        return await _first_word(keeper, ours, is_rootless=is_rootless)
    except BaseException:
        ours.close()
        keeper.wait()
        raise


async def _first_word(keeper: subprocess.Popen[bytes], control: socket.socket, *, is_rootless: bool) -> House:
    loop = asyncio.get_running_loop()
    there = asyncio.Event()
    loop.add_reader(control.fileno(), there.set)
    try:
        await there.wait()
    finally:
        loop.remove_reader(control.fileno())
    message, fds = messages.receive(control)
    match message:
        case Ready(names=names):
            named = dict(zip(names, (socket.socket(fileno=fd) for fd in fds), strict=True))
            for sock in named.values():
                sock.setblocking(False)
            return House(keeper, control, message, Sockets.of(named))
        case Refused(step=step, code=code, text=text):
            raise HouseError(f"{step}: {text}", advice=advice(step, code, is_rootless=is_rootless), code=code)
        case _:
            raise HouseError("the keeper of the program's network ended before it had said anything")


def _mask() -> set[signal.Signals | int]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _start_keeper(theirs: socket.socket, plan: Plan) -> subprocess.Popen[bytes]:
    """Start it with all that the program is to inherit, and with the signals blocked that it will ignore at once."""
    fd = os.memfd_create("plan", 0)
    try:
        with open(fd, "wb", closefd=False) as stream:
            pickle.dump(plan, stream)
        os.lseek(fd, 0, os.SEEK_SET)
        theirs.set_inheritable(True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, KEPT_FROM)
        try:
            arguments = [sys.executable, "-P", "-m", "tabi.wrap.keeper", str(theirs.fileno()), str(fd)]
            return subprocess.Popen(arguments, close_fds=False)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except OSError as error:
        raise HouseError(f"the keeper cannot be started: {error.strerror}", code=error.errno or 0) from None
    finally:
        os.close(fd)


def _sockaddr(endpoint: Endpoint | None) -> tuple[str, int] | None:
    return None if endpoint is None else (str(endpoint.host), endpoint.port)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
