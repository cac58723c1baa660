"""``tabi serve``: run a server until a signal ends it.

Session lines go to standard output, all else to standard error, so that a JSON log is JSON from end to end.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path

from tabi.addr import Endpoint
from tabi.config.load import load
from tabi.config.problems import folded
from tabi.config.settings import DEFAULT_LISTEN, Settings
from tabi.errors import ConfigError
from tabi.net.lines import LineHandler, LineWriter
from tabi.net.notify import inherited_listeners, notify, reloading, watchdog_interval
from tabi.net.own import own_addresses
from tabi.net.sockopts import raise_descriptor_limit
from tabi.net.tasks import spawn
from tabi.relay import ENGINE_NAME
from tabi.server import Server
from tabi.server.control import ControlServer, default_path
from tabi.server.line import LogFormat
from tabi.server.supervisor import Reloaded, Supervisor

__all__ = ["run", "run_configured"]

STDOUT, STDERR = 1, 2


def run(*, listen: list[Endpoint] | None, log_format: LogFormat) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        listen: where to listen; None for the default.
        log_format: text or json.

    Returns:
        the exit code.

    Raises:
        ConfigError: a listener cannot be opened.
    """
    _occupy_standard_descriptors()
    raise_descriptor_limit()
    return asyncio.run(_serve(Settings(listen=tuple(listen) if listen else _default_listen()), log_format))


def _default_listen() -> tuple[Endpoint, ...]:
    """Give the default addresses that this host has: some, as many containers, have no IPv6."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        kept = tuple(endpoint for endpoint in DEFAULT_LISTEN if isinstance(endpoint.host, IPv4Address))
        for endpoint in set(DEFAULT_LISTEN) - set(kept):
            print(f"tabi: no IPv6 on this host, not listening on {endpoint}", file=sys.stderr)
        return kept
    return DEFAULT_LISTEN


async def _serve(settings: Settings, log_format: LogFormat) -> int:
    loop = asyncio.get_running_loop()
    diagnostics = LineWriter(STDERR, loop)
    if log_format == "json":
        sessions = LineWriter(STDOUT, loop, tell_loss=lambda count: f'{{"lost_lines": {count}}}')
    else:
        sessions = LineWriter(STDOUT, loop)
    logger = logging.getLogger("tabi")
    handler = LineHandler(diagnostics, loop)
    logger.addHandler(handler)
    logger.propagate = False
    server = Server(settings, write_log=sessions.write, log_format=log_format)
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            server.stop_at_once()
            return
        server.stop_accepting()
        if len(server):
            patience = f"{len(server)} sessions have {settings.time.drain:g} s to finish"
            diagnostics.write(f"tabi: {number.name}: not accepting any more; {patience}")
        stop.set()

    server.on_failure = stop.set
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        await server.start()
        for endpoint in server.addresses:
            diagnostics.write(f"tabi: listening on {endpoint}")
        diagnostics.write(f"tabi: engine {ENGINE_NAME}")
        await stop.wait()
        await server.stop()
    finally:
        logger.removeHandler(handler)
        sessions.flush()
        diagnostics.flush()
    return 1 if server.has_failed else 0


def run_configured(*, config: str, workers: int | None, control: str | None) -> int:
    """Serve by a configuration file, with workers, until SIGTERM or SIGINT; SIGHUP reloads.

    Args:
        config: path of the file.
        workers: how many; None: as the file says.
        control: path of the control socket; None: the default.

    Returns:
        the exit code.

    Raises:
        ConfigError: the file cannot be used, or a listener or the control socket not be opened.
    """
    _occupy_standard_descriptors()
    raise_descriptor_limit()
    return asyncio.run(_supervise(config, workers, Path(control) if control else default_path()))


async def _supervise(config: str, workers: int | None, control: Path) -> int:
    loop = asyncio.get_running_loop()
    diagnostics = LineWriter(STDERR, loop)
    logger = logging.getLogger("tabi")
    handler = LineHandler(diagnostics, loop)
    logger.addHandler(handler)
    logger.propagate = False
    try:
        await _Foreground(config, workers, control, diagnostics).run()
    finally:
        logger.removeHandler(handler)
        diagnostics.flush()
    return 0


class _Foreground:
    """A supervisor in the foreground: signals in, words for the administrator and the service manager out."""

    def __init__(self, config: str, workers: int | None, control: Path, diagnostics: LineWriter) -> None:
        self._config = config
        self._diagnostics = diagnostics
        self._supervisor = Supervisor(
            lambda: load(config, own=own_addresses()), workers=workers, inherited=inherited_listeners()
        )
        self._control = ControlServer(self._supervisor, control, self._reload)
        self._reloads = 0
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._on_reload)  # a reload that is asked for early waits its turn
        starting = spawn(self._start(), name="start")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_stop, starting)
        try:
            await starting
            if (interval := watchdog_interval()) is not None:
                _ = spawn(_feed_watchdog(interval), name="watchdog")
            await self._stop.wait()
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
        finally:
            notify("STOPPING=1")
            await self._supervisor.stop()
            await self._control.stop()

    async def _start(self) -> None:
        await self._supervisor.start()
        await self._control.start()
        self._tell_start()

    def _on_stop(self, starting: asyncio.Task[None]) -> None:
        if self._stop.is_set():
            self._supervisor.stop_at_once()
        self._stop.set()
        starting.cancel()  # where it has not started yet

    def _on_reload(self) -> None:
        _ = spawn(self._reload(), name="reload", on_error=self._tell_bug_of_reload)

    async def _reload(self) -> Reloaded:
        """Reload, and tell the service manager and the log.

        Raises:
            ConfigError: nothing has changed.
        """
        self._reloads += 1
        reloading()
        try:
            reloaded = await self._supervisor.reload()
        except ConfigError as error:
            self._say(f"{self._config} was not reloaded, the old configuration goes on:")
            for line in str(error).splitlines():
                self._say(line)
            raise
        finally:
            self._reloads -= 1
            if not self._reloads:  # of several the last tells that all is done
                notify("READY=1", self._status())
        self._say(f"{self._config}: {_describe(reloaded)}")
        self._tell_warnings()
        return reloaded

    @staticmethod
    def _tell_bug_of_reload(error: BaseException) -> None:
        if not isinstance(error, ConfigError):  # which has been told
            logging.getLogger("tabi").error("bug in the reload; please report it", exc_info=error)

    def _tell_start(self) -> None:
        self._tell_warnings()
        for endpoint in self._supervisor.addresses:
            self._say(f"listening on {endpoint}")
        self._say(f"engine {ENGINE_NAME}")
        self._say(f"control socket {self._control.path}")
        notify("READY=1", self._status())

    def _status(self) -> str:
        return f"STATUS=listening on {', '.join(map(str, self._supervisor.addresses))}"

    def _tell_warnings(self) -> None:
        for line in folded(self._supervisor.configuration.warnings):
            self._say(line)

    def _say(self, text: str) -> None:
        self._diagnostics.write(f"tabi: {text}")


def _describe(reloaded: Reloaded) -> str:
    """Say in one line what a reload has changed."""
    parts = [f"reloaded, generation {reloaded.generation}"]
    for word, addresses in (("opened", reloaded.opened), ("closed", reloaded.closed)):
        if addresses:
            parts.append(f"{word} {', '.join(map(str, addresses))}")
    parts.append(f"{reloaded.ended} session{'' if reloaded.ended == 1 else 's'} ended")
    parts += (f"worker {index} is missing" for index in reloaded.missing)
    return "; ".join(parts)


async def _feed_watchdog(interval: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval)


def _occupy_standard_descriptors() -> None:
    """Put /dev/null where a standard descriptor is closed, or a client's socket would get its number and our lines."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= STDERR:
        os.set_inheritable(fd, True)
    os.close(fd)
