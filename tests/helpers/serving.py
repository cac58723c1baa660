"""A tabi server for tests: in this process on a loop in a thread, or as the command that users start."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address
from types import MappingProxyType
from typing import Any, TypeVar

from helpers.waiting import PATIENCE, until
from tabi.addr import Endpoint
from tabi.config.settings import Settings
from tabi.policy import loopback
from tabi.policy.verdict import Context, Grants, Policy, Request, Verdict
from tabi.server import Authenticator, Server
from tabi.server.line import LogFormat

T = TypeVar("T")
SERVE = (sys.executable, "-m", "tabi", "serve")
LOOPBACK = (Endpoint.parse("127.0.0.1:0"), Endpoint.parse("[::1]:0"))


def allow_all(_request: Request, _context: Context) -> Verdict:
    """A policy for tests: everything, any peer and full cone included."""
    return Verdict(allow=True, rule="all", grants=Grants(any_peer=True, full_cone=True))


class Running:
    """A server on a loop of its own, in a thread. Log lines are kept in `raw`, and as parsed JSON in `lines`."""

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        authenticator: Authenticator | None,
        log_format: LogFormat = "json",
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.raw: list[str] = []
        self.lines: list[dict[str, Any]] = []
        self._log_format = log_format
        self.loop = asyncio.new_event_loop()
        self.bugs: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.bugs.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, name="tabi under test")
        self._thread.start()
        self.server = self.call_sync(
            lambda: Server(
                settings,
                policy=policy,
                authenticator=authenticator,
                write_log=self._take,
                log_format=log_format,
                **options,
            )
        )
        self.call(self.server.start())
        self.call_sync(self._open_doors)

    def _open_doors(self) -> None:
        """Have the express lane know the clients of this host, if it is on: else the first of each is no test of it."""
        if not self.server.lane.is_open:
            return
        for acceptor in self.server.acceptors():
            host = acceptor.listener.getsockname()[0]
            if not ip_address(host).is_unspecified:
                place = (acceptor.listener.fileno(), host, host)
                self.server.lane.open_door(place, acceptor.endpoint, acceptor.endpoint)
        self.server.engine.stop_accepting(-1)  # so that they are open when this returns

    def _take(self, text: str) -> None:
        self.raw += text.split("\n")
        if self._log_format == "json":
            self.lines += map(json.loads, text.split("\n"))

    @property
    def addresses(self) -> tuple[Endpoint, ...]:
        """Where it listens."""
        return self.server.addresses

    @property
    def address(self) -> tuple[str, int]:
        """The first listener, for `socket.create_connection`."""
        first = self.addresses[0]
        return str(first.host), first.port

    def call(self, coroutine: Any) -> Any:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def call_sync(self, function: Callable[[], T]) -> T:
        """Call a function on the server's loop."""

        async def call() -> T:
            return function()

        result: T = self.call(call())
        return result

    def line(self, **expected: Any) -> dict[str, Any]:
        """Wait for a log line with these fields."""

        def find() -> dict[str, Any] | None:
            return next((one for one in self.lines if expected.items() <= one.items()), None)

        found = until(find, lambda: f"a line with {expected} among {self.lines}")
        assert found is not None
        return found

    def only_line(self) -> dict[str, Any]:
        """Wait until all sessions have ended, and give the one line that there must be."""
        until(lambda: self.raw, "a line")
        self.idle()
        assert len(self.raw) == 1, self.raw
        return self.lines[0]

    def idle(self) -> None:
        """Wait until no session is left, and all their lines are written."""
        until(lambda: len(self.server) == 0, "all sessions to end")
        self.call_sync(lambda: None)  # a session is counted out and its line written in one turn of the loop

    def close(self, drain: float = 0.0) -> None:
        """Stop the server and its loop, once; a bug that the loop was told of fails the test."""
        if self.loop.is_closed():
            return
        try:
            self.call(self.server.stop(drain))
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE)
            self.loop.close()
        assert not self.bugs, self.bugs
        assert not [line for line in self.lines if line.get("why") == "bug"], self.lines


@contextmanager
def serving(
    settings: Settings | None = None,
    *,
    policy: Policy = loopback.judge,
    authenticator: Authenticator | None = None,
    log_format: LogFormat = "json",
    options: Mapping[str, Any] = MappingProxyType({}),
    **settings_fields: Any,
) -> Iterator[Running]:
    """Run a server in this process, on free loopback ports.

    Args:
        options: more arguments for `Server`.
        settings_fields: fields of `Settings`.
    """
    settings_fields.setdefault("listen", LOOPBACK)
    running = Running(settings or Settings(**settings_fields), policy, authenticator, log_format, options)
    try:
        yield running
    finally:
        running.close()


class Command:
    """`tabi serve` as users start it, or another program that says where it listens in the same way.

    Args:
        arguments: for the command.
        program: the command; SERVE with something before it runs elsewhere.
        popen: for subprocess.Popen.
    """

    def __init__(self, *arguments: str, program: Sequence[str] = SERVE, **popen: Any) -> None:
        self.process = subprocess.Popen(
            [*program, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **popen,
        )
        self.errors: list[str] = []
        self.sessions: list[str] = []
        streams = ((self.process.stderr, self.errors), (self.process.stdout, self.sessions))
        self._readers = [threading.Thread(target=self._read, args=stream) for stream in streams]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any, lines: list[str]) -> None:
        lines.extend(line.rstrip("\n") for line in stream)

    def ports(self, count: int = 1) -> list[int]:
        """Wait until it listens on `count` addresses and give their ports."""

        def find() -> list[int]:
            found = [re.fullmatch(r"tabi: listening on (.*):(\d+)", line) for line in self.errors]
            return [int(match[2]) for match in found if match]

        until(lambda: len(find()) >= count or self.process.poll() is not None, "tabi serve to listen")
        assert len(find()) >= count, self.errors
        return find()

    @property
    def address(self) -> tuple[str, int]:
        """The first listener on 127.0.0.1, for `socket.create_connection`."""
        return "127.0.0.1", self.ports()[0]

    def line(self, pattern: str) -> str:
        """Wait for a line that matches: of a session (standard output) or a diagnostic (standard error)."""
        return until(
            lambda: next((line for line in self.sessions + self.errors if re.search(pattern, line)), ""),
            lambda: f"{pattern!r} in {self.sessions + self.errors}",
        )

    @property
    def records(self) -> list[dict[str, Any]]:
        """The log lines so far, where the program logs JSON."""
        return [json.loads(line) for line in list(self.sessions)]

    def record(self, **expected: Any) -> dict[str, Any]:
        """Wait for a JSON log line with these fields."""
        return until(
            lambda: next((one for one in self.records if expected.items() <= one.items()), {}),
            lambda: f"a line with {expected} among {self.sessions}",
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@contextmanager
def command(*arguments: str, program: Sequence[str] = SERVE, **popen: Any) -> Iterator[Command]:
    """Run `tabi serve` with arguments; on free loopback ports unless told otherwise."""
    if tuple(program[-len(SERVE) :]) == SERVE and not {"--listen", "--config"} & set(arguments):
        arguments = ("--listen", "127.0.0.1:0", "--listen", "[::1]:0", *arguments)
    running = Command(*arguments, program=program, **popen)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop(signal.SIGKILL)
        else:
            running.stop()
