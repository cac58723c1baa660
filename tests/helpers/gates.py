"""A gate for tests: two network namespaces as `tabi run` has them, and a `Gate` of this process between them.

::

    this process                    gate                              program
    scripted proxy on 127.0.0.1     e1 198.18.0.1, fd00:5ec::1 ------ e0 198.18.0.2, fd00:5ec::2
    the gate's tasks                every address is local            everything goes to e1
"""

import asyncio
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from helpers.ipv6 import why_no_ipv6
from helpers.namespaces import Namespace, why_not
from helpers.scripted import ScriptedProxy, scripted_proxy
from helpers.waiting import PATIENCE
from tabi.addr import Endpoint
from tabi.machine.url import parse_proxies
from tabi.relay import End
from tabi.wrap import wiring
from tabi.wrap.gate import Gate, GateOptions, Watcher
from tabi.wrap.held import Decided
from tabi.wrap.house import Sockets
from tabi.wrap.names import Names

__all__ = ["Lab", "Running", "gating", "laboratory", "waiting", "why_no_hosts"]

T = TypeVar("T")

_SYN_SENT = "02"  # include/net/tcp_states.h


class Lab:
    """The two hosts."""

    def __init__(self, gate: Namespace, program: Namespace) -> None:
        self.gate = gate
        self.program = program
        self.has_tproxy = gate.call(wiring.filter_gate)

    @contextmanager
    def sockets(self, tproxy: bool = True) -> Iterator[Sockets]:
        """Make fresh ones."""
        made = Sockets.of(self.gate.call(wiring.open_sockets, tproxy=tproxy and self.has_tproxy))
        try:
            yield made
        finally:
            for sock in made.all():
                sock.close()

    async def listen(self, target: Endpoint) -> socket.socket:
        """Make a listener for one target, where there is no tproxy."""
        return await asyncio.to_thread(self.gate.call, self._listen, target)

    async def transparent(self, family: int, kind: int, bind: Endpoint | None) -> socket.socket:
        """Make a socket of the gate's, as `House.transparent` does."""
        sock = await asyncio.to_thread(self.gate.call, wiring.transparent, family, kind)
        if bind is not None:
            sock.bind((str(bind.host), bind.port))
        return sock

    @contextmanager
    def deaf(self) -> Iterator[None]:
        """Have the program hear nothing for a while: what is sent to it is addressed to another card."""
        self._address_program("02:00:00:00:00:99")
        try:
            yield
        finally:
            self._address_program("02:00:00:00:00:02")

    def _address_program(self, hardware: str) -> None:
        for address in (wiring.PROGRAM4, wiring.PROGRAM6):
            link = ("dev", wiring.GATE_LINK)
            self.gate.ip("neighbour", "replace", str(address), "lladdr", hardware, "nud", "permanent", *link)

    @staticmethod
    def _listen(target: Endpoint) -> socket.socket:
        sock = wiring.transparent(socket.AF_INET6 if ":" in str(target.host) else socket.AF_INET, socket.SOCK_STREAM)
        sock.bind((str(target.host), target.port))
        sock.listen(4096)
        return sock


def why_no_hosts() -> str | None:
    """Say why no hosts with both families can be made, None where they can."""
    if (reason := why_not()) is not None:
        return reason
    with Namespace("try") as host:
        return host.call(why_no_ipv6)


@contextmanager
def laboratory() -> Iterator[Lab]:
    """Make the two hosts."""
    with Namespace("gate") as gate, Namespace("program") as program:
        ours, theirs = (("address", f"02:00:00:00:00:0{last}", "mtu", "65535") for last in (1, 2))
        gate.ip("link", "add", "e1", *ours, "type", "veth", "peer", "name", "e0", *theirs, "netns", program.name)
        for host, link, last in ((gate, "e1", 1), (program, "e0", 2)):
            host.ip("link", "set", link, "up")
            host.address(link, f"198.18.0.{last}/30", f"fd00:5ec::{last}/64")
            for other in (f"198.18.0.{3 - last}", f"fd00:5ec::{3 - last}"):
                host.ip("neighbour", "add", other, "lladdr", f"02:00:00:00:00:0{3 - last}", "dev", link)
        program.ip("route", "add", "default", "via", "198.18.0.1")
        program.ip("-6", "route", "add", "default", "via", "fd00:5ec::1")
        for family in ("-4", "-6"):
            gate.ip(family, "route", "add", "local", "default", "dev", "lo", "table", "main")
        yield Lab(gate, program)


def waiting(program: Namespace, port: int) -> int:
    """Count the program's sockets that wait for an answer from `port`."""

    def count() -> int:
        # thread-self: a process' /proc/net is that of its first thread
        tables = [Path("/proc/thread-self/net", name).read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        rows = [line.split() for table in tables for line in table]
        return sum(row[3] == _SYN_SENT and int(row[2].rpartition(":")[2], 16) == port for row in rows)

    return program.call(count)


class Running(Watcher):
    """A gate at work, its proxy, and what it has told.

    Args:
        loop: where it works.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.gate: Gate
        self.close: Callable[[], Awaitable[None]]
        """Closes the gate before its time."""
        self.proxy: ScriptedProxy
        self.decisions: list[Decided] = []
        self.ends: list[End] = []
        self.crowds: list[int] = []
        self.failures: list[Exception] = []

    def decided(self, decided: Decided) -> None:
        self.decisions.append(decided)

    def ended(self, end: End) -> None:
        self.ends.append(end)

    def crowded(self, most: int) -> None:
        self.crowds.append(most)

    def failed(self, error: Exception) -> None:
        self.failures.append(error)

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine on its loop."""

        async def run() -> T:
            return await function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE)


@contextmanager
def gating(
    lab: Lab,
    *,
    proxies: Sequence[str] | None = None,
    names: Names | None = None,
    options: GateOptions | None = None,
    tproxy: bool = True,
) -> Iterator[Running]:
    """Run a gate, on a loop in a thread; through its scripted proxy unless `proxies` (URLs) says otherwise."""
    loop = asyncio.new_event_loop()
    bugs: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _loop, context: bugs.append(context))
    thread = threading.Thread(target=loop.run_forever, name="gate under test")
    thread.start()
    running = Running(loop)
    stack = AsyncExitStack()

    async def open_all(sockets: Sockets) -> None:
        running.proxy = await stack.enter_async_context(scripted_proxy())
        hops = parse_proxies(proxies or [f"socks5h://127.0.0.1:{running.proxy.port}"])
        how = options or GateOptions()
        gate = Gate(sockets, hops, names or Names(), listen=lab.listen, options=how, watcher=running)
        entered = await stack.enter_async_context(AsyncExitStack())
        running.gate, running.close = await entered.enter_async_context(gate), entered.aclose

    try:
        with lab.sockets(tproxy) as sockets:
            try:
                running.call(lambda: open_all(sockets))
                yield running
            finally:
                running.call(stack.aclose)
    finally:
        running.call(loop.shutdown_default_executor)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE)
        loop.close()
    assert not bugs, bugs
    assert not running.failures, running.failures
