"""`tabi serve --config` for tests: a file that can be written anew, workers, and the control socket."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from helpers.accounts import cheap_hash
from helpers.serving import SERVE, Command
from helpers.socks import dial, read_exactly, read_reply5, request5
from helpers.waiting import PATIENCE, until
from tabi.server.control import ask

LISTEN = 'listen = ["127.0.0.1:0"]\n'
JSON = '[log]\nformat = "json"\n'
ALLOW = '[[rule]]\nname = "all"\nallow = true\nto = ["@private", "0.0.0.0/0", "::/0"]\n'


def user(name: str, password: bytes = b"secret", *more: str) -> str:
    """A [[user]] table."""
    return "\n".join(("[[user]]", f'name = "{name}"', f'password = "{cheap_hash(password)}"', *more, ""))


class Configured(Command):
    """A server that lives by a file of its own."""

    def __init__(
        self, directory: Path, text: str, *, workers: int = 2, program: Sequence[str] = SERVE, **popen: Any
    ) -> None:
        self.file = directory / "tabi.toml"
        self.control = directory / "control.sock"
        self.write(text)
        arguments = ("--config", str(self.file), "--workers", str(workers), "--control", str(self.control))
        super().__init__(*arguments, program=program, **popen)

    def write(self, text: str) -> None:
        """Put other text into the file."""
        self.file.write_text(text)

    def ask(self, do: str, **arguments: str) -> dict[str, Any]:
        """Ask the supervisor, once it can be."""
        self.line("^tabi: control socket ")
        return ask(self.control, do, arguments)

    def rows(self, do: str, **arguments: str) -> list[dict[str, Any]]:
        """Ask what must succeed."""
        answer = self.ask(do, **arguments)
        assert answer["ok"], answer
        rows: list[dict[str, Any]] = answer["rows"]
        return rows

    def reload(self, text: str) -> None:
        """Have it live by other text."""
        self.write(text)
        answer = self.ask("reload")
        assert answer["ok"], answer

    def workers(self, count: int) -> list[int]:
        """Wait until there are so many workers; gives their process ids in order."""

        def find() -> list[int]:
            rows = self.rows("status")
            return [row["pid"] for row in rows] if len(rows) == count else []

        return until(find, f"{count} workers")

    def tabi(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one of the commands that talk to it."""
        return tabi(*arguments, "--control", str(self.control))


def tabi(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run tabi and wait for its end."""
    program = [sys.executable, "-m", "tabi", *arguments]
    return subprocess.run(program, capture_output=True, text=True, timeout=PATIENCE, check=False)


@contextmanager
def configured(directory: Path, text: str, **options: Any) -> Iterator[Configured]:
    """Run a server by a file; every process of it is gone afterwards."""
    running = Configured(directory, text, **options)
    workers: list[int] = []
    try:
        yield running
    finally:
        if running.process.poll() is None:
            workers = children(running.process.pid)
            running.stop(signal.SIGKILL)
            gone(workers)
        else:
            running.stop()


def children(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pids: Sequence[int]) -> None:
    """Wait until none of these processes is there any more; one that nobody has waited for yet is as good as gone."""

    def is_gone(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    until(lambda: all(map(is_gone, pids)), f"the end of {pids}")


def asked_as(
    proxy: tuple[str, int], name: bytes, target: tuple[str, int], password: bytes = b"secret", command: int = 1
) -> tuple[socket.socket, int]:
    """Log in and ask (RFC 1929, RFC 1928); gives the socket and REP."""
    sock = logged_in(proxy, name, password)
    sock.sendall(request5(command, *target))
    return sock, read_reply5(sock)[0]


def logged_in(proxy: tuple[str, int], name: bytes, password: bytes = b"secret") -> socket.socket:
    """Log in, which must succeed (RFC 1929)."""
    sock = dial(proxy)
    sock.sendall(b"\x05\x01\x02" + bytes((1, len(name))) + name + bytes((len(password),)) + password)
    assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
    return sock


def tunnel_as(proxy: tuple[str, int], name: bytes, target: tuple[str, int]) -> socket.socket:
    """CONNECT that must succeed."""
    sock, reply = asked_as(proxy, name, target)
    assert reply == 0, reply
    return sock


def as_json(text: str) -> Any:
    """Parse what --json printed."""
    return json.loads(text)
