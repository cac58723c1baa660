"""Programs that others wrote: find them, or skip the test that wants them; run them, and be sure that they end.

The end of a run counts skipped tests and names what was missing (tests/conftest.py); `make peers` installs
it.
"""

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers.waiting import PATIENCE, until

__all__ = ["NOT_INSTALLED", "find", "need", "need_path", "run", "running", "wait_for_port"]

NOT_INSTALLED = "not installed: "
"""How the reason of such a skip begins; the summary tells by it what `make peers` would mend."""

# Debian keeps daemons out of an ordinary user's PATH.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

# Of our own environment only this much: a proxy variable or a dot file of the user's must not decide a test.
_ENVIRONMENT = {"PATH": _SEARCH_PATH, "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}


def find(program: str) -> str | None:
    """Return the path of a program, those of system daemons included, or None."""
    return shutil.which(program, path=_SEARCH_PATH)


def need(program: str) -> str:
    """Return the path of a program; skip the test where it is not installed."""
    path = find(program)
    if path is None:
        pytest.skip(NOT_INSTALLED + program)
    return path


def need_path(path: str | Path, what: str) -> Path:
    """Return the path of a library's file or directory; skip the test, naming `what`, where there is none."""
    path = Path(path)
    if not path.exists():
        pytest.skip(NOT_INSTALLED + what)
    return path


def run(
    *command: str | Path,
    sends: bytes = b"",
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    patience: float = 3 * PATIENCE,
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and give its exit code and output.

    Args:
        command: program and arguments.
        sends: its standard input.
        environment: variables beside PATH, HOME and the locale; ours are not passed on.
        cwd: where it runs.
        patience: seconds after which it and its children are killed, and the test fails.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command,
        stdin=pipe,
        stdout=pipe,
        stderr=pipe,
        env=_ENVIRONMENT | dict(environment or {}),
        cwd=cwd,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(sends, patience)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            raise AssertionError(f"{command} did not end in {patience:g} s: {out[-999:]!r} {err[-999:]!r}") from None
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@contextmanager
def running(
    *command: str | Path, environment: Mapping[str, str] | None = None, cwd: Path | None = None, log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program beside the test, its output in the file `log`; end it, and its children, by their ids."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_ENVIRONMENT | dict(environment or {}),
            cwd=cwd,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:  # not reaped yet, so the id is still its own
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(PATIENCE)


def wait_for_port(address: tuple[str, int], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until `process` accepts connections on `address`; show its log where it ends before."""

    def is_there() -> bool:
        assert process.poll() is None, log.read_text(errors="replace")
        with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as sock:
            return sock.connect_ex(address) == 0

    until(is_there, f"{process.args} to listen on {address}")
