"""Talking to a running server: a Unix socket of the supervisor's, for its owner alone (mode 0600).

One JSON object per connection and direction, each ended by a newline: ``{"do": "reload"}`` in, ``{"ok": true,
"rows": […]}`` or ``{"ok": false, "error": "…"}`` out. With a reload comes ``"problems": […]``: the errors and warnings
of the file, as `tabi check --json` has them; none where something else was in the way. With ``status`` come
``"wanted"`` and ``"running"``: how many workers there should be, and how many there are.
"""

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tabi.config.problems import ConfigurationError
from tabi.errors import ConfigError, TabiError, UsageError
from tabi.net.tasks import spawn
from tabi.server.live import FIELDS, Row
from tabi.server.supervisor import Reloaded, Supervisor

__all__ = ["ControlServer", "ask", "default_path"]

MOST: Final = 65_536  # bytes of a request
BACKLOG: Final = 100  # clients that wait to be accepted
PATIENCE: Final = 30.0  # seconds for a client to say what it wants
PAUSE: Final = 0.2  # seconds without accepting once descriptors have run out
ANSWER_WITHIN: Final = 60.0  # seconds for a reload of a large configuration
QUESTIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "sessions": FIELDS,
    "kill": FIELDS,
    "status": (),
    "lockouts": (),
    "lift": ("client", "user"),
}
"""What can be asked, and what it can be picked by."""


_logger = logging.getLogger("tabi")


def default_path() -> Path:
    """Give the path where there is no other: of the service manager, of the user's session, or by user number."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        if directory := os.environ.get(variable, "").split(":")[0]:
            return Path(directory) / "tabi.sock"
    if os.geteuid() == 0 and (of_the_unit := Path("/run/tabi/tabi.sock")).exists():  # packaging/tabi.service
        return of_the_unit
    return Path("/run/tabi.sock") if os.geteuid() == 0 else Path(f"/tmp/tabi-{os.getuid()}/tabi.sock")


class ControlServer:
    """The supervisor's end.

    Args:
        supervisor: what is asked.
        path: of the socket.
        reload: has the supervisor reload, and the service manager hear of it.
    """

    def __init__(self, supervisor: Supervisor, path: Path, reload: Callable[[], Awaitable[Reloaded]]) -> None:
        self._supervisor = supervisor
        self._reload = reload
        self._inode = 0
        self._listener: socket.socket | None = None
        self._resume: asyncio.TimerHandle | None = None  # while descriptors have run out
        self.path = path

    async def start(self) -> None:
        """Listen.

        Raises:
            ConfigError: the path cannot be used, or another server listens there.
        """
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.parent.stat().st_uid not in (0, os.geteuid()):
                raise ConfigError(f"{self.path.parent} is somebody else's; choose another path by --control")
            if _is_alive(self.path):
                raise ConfigError(f"{self.path}: another tabi listens there; choose another path by --control")
            if self.path.exists() and not self.path.is_socket():
                raise ConfigError(f"{self.path} is a file of another kind; choose another path by --control")
            self.path.unlink(missing_ok=True)
            self._listener = _listen(self.path)
            self._inode = self.path.stat().st_ino
            asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)
        except OSError as error:
            why = error.strerror or str(error)  # a path that is too long has no errno
            raise ConfigError(f"control socket {self.path}: {why}; choose another path by --control") from None

    async def stop(self) -> None:
        """End, and take the socket away."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            if self._resume is not None:
                self._resume.cancel()
            self._listener.close()
            try:
                if self.path.stat().st_ino == self._inode:
                    self.path.unlink()
            except OSError:  # somebody else took it away, which is as good
                pass

    def _accept(self, listener: socket.socket) -> None:
        """Accept one; without a descriptor for it pause, which asyncio's own server tells of without end."""
        try:
            sock = listener.accept()[0]
        except BlockingIOError:
            return
        except OSError as error:
            asyncio.get_running_loop().remove_reader(listener)
            if self._resume is None:
                _logger.error("the control socket cannot accept: %s; tried again until it can", error.strerror)
            self._resume = asyncio.get_running_loop().call_later(PAUSE, self._go_on, listener)
            return
        self._resume = None
        _ = spawn(self._serve(sock), name="control")

    def _go_on(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _serve(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MOST)
        try:
            async with asyncio.timeout(PATIENCE):
                line = await reader.readline()
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, TimeoutError, ValueError):  # it went away, said nothing, or a line without end
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, Any]:  # JSON
        try:
            what, arguments = _read(line)
            if what == "reload":
                return await self._reloaded()
            rows = await self._supervisor.ask(what, arguments)
            return {"ok": True, "rows": rows} | (self._count(rows) if what == "status" else {})
        except TabiError as error:
            return {"ok": False, "error": str(error)}

    def _count(self, rows: list[Row]) -> dict[str, int]:
        """Tell how many workers there should be, and how many serve."""
        return {"wanted": self._supervisor.wanted, "running": len(rows)}

    async def _reloaded(self) -> dict[str, Any]:  # JSON
        try:
            reloaded = await self._reload()
        except ConfigError as error:
            problems = error.problems if isinstance(error, ConfigurationError) else ()
            return {"ok": False, "error": str(error), "problems": [one.as_dict() for one in problems]}
        warnings = [one.as_dict() for one in self._supervisor.configuration.warnings]
        return {"ok": True, "rows": [_row(reloaded)], "problems": warnings}


def _row(reloaded: Reloaded) -> dict[str, Any]:  # JSON
    return {
        "generation": reloaded.generation,
        "opened": [str(address) for address in reloaded.opened],
        "closed": [str(address) for address in reloaded.closed],
        "ended": reloaded.ended,
        "missing": list(reloaded.missing),
    }


def _read(line: bytes) -> tuple[str, dict[str, str]]:
    """Take a request apart; what a worker gets to see is right.

    Raises:
        UsageError: it is not.
    """
    try:
        wish = json.loads(line)
        what, arguments = wish["do"], wish.get("arguments", {})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise UsageError('a request is one line of JSON: {"do": "status"}') from None
    if what not in (*QUESTIONS, "reload"):
        raise UsageError(f"{what!r} cannot be asked; {', '.join(sorted(QUESTIONS))} and reload can")
    if not isinstance(arguments, dict) or not all(isinstance(value, str) for value in arguments.values()):
        raise UsageError("arguments are an object whose values are text")
    if unknown := set(arguments) - set(QUESTIONS.get(what, ())):
        raise UsageError(
            f"{what} takes no {', '.join(map(repr, sorted(unknown)))}; it takes {', '.join(QUESTIONS.get(what, ()))}"
        )
    try:
        for value in arguments.values():
            value.encode("utf-8", "surrogateescape")  # as workers do
    except UnicodeEncodeError:
        raise UsageError("an argument is no text") from None
    return what, arguments


def ask(path: Path, do: str, arguments: Mapping[str, str] | None = None) -> dict[str, Any]:  # JSON
    """Ask a running server, and wait for its answer.

    Raises:
        ConfigError: nobody listens there, or we may not.
    """
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(ANSWER_WITHIN)
        try:
            sock.connect(str(path))
            sock.sendall(json.dumps({"do": do, "arguments": dict(arguments or {})}).encode() + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
        except OSError as error:
            why = error.strerror or "no answer"
            raise ConfigError(f"{path}: {why}; is the server running? `tabi serve --config` prints the path") from None
    if not line:
        raise ConfigError(f"{path}: the server ended before it answered")
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        raise ConfigError(f"{path}: what answers there is no tabi") from None
    return answer


def _listen(path: Path) -> socket.socket:
    """Open a socket that its owner alone can use."""
    sock = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o177)
    try:
        sock.bind(str(path))
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(mask)
    sock.setblocking(False)
    return sock


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        try:
            sock.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True
