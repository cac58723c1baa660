"""What a busy control plane has to do while data is relayed: rules are reloaded over and over, and 1,000 sessions a
second begin, end and are logged."""

import subprocess
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from tabi.server.control import ask

if TYPE_CHECKING:
    from bench.runs import Bench, Started

__all__ = ["Disturbance"]

_SESSIONS_A_SECOND = 1000
_AT_ONCE = 16
_LONGEST = 600.0  # seconds after which the sessions end, whatever happens to us


class Disturbance:
    """Disturb a server as long as the `with` block lasts; `done` then tells how much that was.

    Raises:
        RuntimeError: a reload failed, on leaving the block.
    """

    def __init__(self, bench: "Bench", proxy: "Started") -> None:
        self.done: dict[str, Any] = {}
        self._proxy = proxy
        self._line = bench.line(
            "connections", bench.way_through(proxy), count=_AT_ONCE, rate=_SESSIONS_A_SECOND, seconds=_LONGEST, warmup=0
        )
        self._file = proxy.setup.directory / "tabi.toml"
        self._control = proxy.setup.directory / "control.sock"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._reload, name="reloads")
        self._reloads = 0
        self._failure = ""

    def __enter__(self) -> Self:
        self._logged = self._proxy.sessions_logged
        self._began = time.monotonic()
        self._sessions = subprocess.Popen(self._line, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        seconds = time.monotonic() - self._began
        self._sessions.kill()
        self._sessions.wait()
        self.done = {
            "reloads": self._reloads,
            "sessions_per_s": (self._proxy.sessions_logged - self._logged) / seconds,
        }
        if self._failure:
            raise RuntimeError(f"a reload failed: {self._failure}")

    def _reload(self) -> None:
        """Change a rule and have the file read, again and again."""
        text = self._file.read_text()
        while not self._stop.is_set() and not self._failure:
            self._file.write_text(f'{text}[[rule]]\nallow = true\nto = "reload{self._reloads}.example"\n')
            answer = ask(self._control, "reload")
            self._reloads += 1
            if not answer["ok"]:
                self._failure = str(answer)
