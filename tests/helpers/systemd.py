"""A systemd of its own, as process 1 of namespaces that end with the test, with the units of packaging/ installed.

It needs root, namespaces, cgroup 2 and systemd itself; where one of them is missing, `booted` says so.
"""

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from helpers.namespaces import Namespace, why_not
from helpers.pages import ROOT
from helpers.programs import find
from helpers.waiting import PATIENCE, until

__all__ = ["CannotBootError", "Systemd", "booted"]

_NEEDED = ("unshare", "nsenter", "systemctl", "systemd-sysusers")


class CannotBootError(Exception):
    """This machine does not let a systemd run; the text says why."""


class Systemd:
    """The system that runs.

    Args:
        network: where it is; sockets that are made there reach it.
        pid: of its process 1, as it is seen from here.
    """

    def __init__(self, network: Namespace, pid: int) -> None:
        self.network = network
        self.pid = pid

    def path(self, name: str) -> Path:
        """Give a file of the system, as it is reached from here."""
        return Path(f"/proc/{self.pid}/root", name.lstrip("/"))

    def systemctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run systemctl there, to its end."""
        program = ["nsenter", "--target", str(self.pid), "--all", "systemctl", "--no-pager", *arguments]
        return subprocess.run(program, capture_output=True, text=True, timeout=5 * PATIENCE, check=False)

    def show(self, unit: str, what: str) -> str:
        """Give a property of a unit."""
        return self.systemctl("show", unit, f"--property={what}", "--value").stdout.strip()

    def configure(self, text: str) -> None:
        """Write the configuration; owner and mode of the file stay."""
        self.path("/etc/tabi/tabi.toml").write_text(text)

    def change(self, text: str) -> None:
        """Change the service, as `systemctl edit` does; empty text takes that back."""
        self.path("/etc/systemd/system/tabi.service.d/changed.conf").write_text(text)
        assert self.systemctl("daemon-reload").returncode == 0

    def diagnostics(self) -> str:
        """Give what tabi has written to standard error."""
        path = self.path("/run/diagnostics")
        return path.read_text() if path.exists() else ""

    def process(self, inside: int) -> dict[str, str]:
        """Give what /proc/PID/status says of a process; `inside` is its number there."""
        lines = self.path(f"/proc/{inside}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}

    def kill(self, inside: int, number: int) -> None:
        """Send a signal to a process there."""
        program = ["nsenter", "--target", str(self.pid), "--pid", "--mount", "kill", f"-{number}", str(inside)]
        subprocess.run(program, check=True, timeout=PATIENCE)

    def processes(self) -> list[int]:
        """List the processes of the service, its main process first."""
        main = int(self.show("tabi.service", "MainPID"))
        listed = self.path("/sys/fs/cgroup/system.slice/tabi.service/cgroup.procs").read_text().split()
        return sorted(map(int, self._inside(listed)), key=lambda pid: (pid != main, pid))

    def _inside(self, outside: list[str]) -> list[str]:
        """Translate numbers of processes: the kernel gives them as the reader sees them."""
        found = []
        for pid in outside:
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            found.append(next(line.split()[-1] for line in lines if line.startswith("NSpid:")))
        return found


def _cgroup() -> Path | None:
    """Say where our own cgroup is in the tree of version 2; None: it is not mounted here."""
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next((point for _, point, kind, *_ in mounts if kind == "cgroup2"), None)
    own = next((line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), None)
    return None if root is None or own is None else Path(root, own.lstrip("/"))


@contextmanager
def _new_cgroup() -> Iterator[Path]:
    """Make a cgroup that the system sees as the root of all, so that what it makes can be taken away again."""
    own = _cgroup()
    if own is None:
        raise CannotBootError("cgroup version 2 is not mounted here")
    made = own / f"tabi-test-{os.getpid()}"
    try:
        made.mkdir()
    except OSError as error:
        raise CannotBootError(f"no cgroup can be made: {error}") from None
    try:
        yield made
    finally:
        until(lambda: "populated 0" in (made / "cgroup.events").read_text(), "the end of all processes")
        for directory, _, _ in os.walk(made, topdown=False):
            os.rmdir(directory)


def _why_not() -> str | None:
    missing = [program for program in _NEEDED if find(program) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return why_not()


@contextmanager
def booted() -> Iterator[Systemd]:
    """Boot a system, and end it with all that it has started.

    Raises:
        CannotBootError: this machine does not let it.
    """
    if (reason := _why_not()) is not None:
        raise CannotBootError(reason)
    script = str(Path(__file__).with_suffix(".sh"))
    arguments = (str(ROOT), sysconfig.get_path("purelib"), sys.base_prefix, sysconfig.get_python_version())
    unshare = ["unshare", "--fork", "--kill-child", "--pid", "--mount-proc", "--mount", "--uts", "--ipc", "--cgroup"]
    with Namespace("systemd") as network, _new_cgroup() as cgroup:
        program = network.command(*unshare, "sh", script, *arguments)
        process = subprocess.Popen(
            ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(cgroup / "cgroup.procs"), *program],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        pid = 0
        try:
            pid = until(lambda: _child(process.pid) or -(process.poll() is not None), "the namespaces")
            if pid > 0:
                system = Systemd(network, pid)
                until(lambda: process.poll() is not None or _is_up(system), "systemd to come up")
            if process.poll() is not None:
                assert process.stdout is not None
                raise CannotBootError(f"systemd does not run here: {process.stdout.read().strip()}")
            yield system
        finally:
            if pid > 0 and process.poll() is None:
                os.kill(pid, signal.SIGKILL)  # process 1: all others go with it
            process.wait(PATIENCE)
            assert process.stdout is not None
            process.stdout.close()


def _child(pid: int) -> int:
    """Give the number of a process' only child, 0 for none yet."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0]) if children else 0


def _is_up(system: Systemd) -> bool:
    listens = system.path("/run/systemd/private").exists()
    return listens and system.systemctl("is-active", "nothing.target").returncode == 0
