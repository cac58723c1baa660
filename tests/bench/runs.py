"""One run: start a proxy afresh, put the generator to it, end it, keep what it cost. And many runs: A B A B."""

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import socks
from bench.axes import ALL_ECHO_PORTS, Point
from bench.configuration import LOGIN
from bench.disturbance import Disturbance
from bench.load import GeneratorError, Target, command, run
from bench.peers import DIRECT, Peer, Setup
from bench.places import Place, PlaceError, free_ports

__all__ = ["TARGETS", "Bench", "Outcome", "ProxyError", "Started"]

TARGETS = 32  # addresses of the target
_START_PATIENCE = 30.0  # seconds that a proxy is given to listen
_STOP_PATIENCE = 5.0  # seconds that it is given to end before it is killed
_LOCALE = {"HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}


class ProxyError(Exception):
    """A proxy did not start, or not go on; the text has the end of what it said."""


@dataclass(slots=True)
class Outcome:
    """What came of one proxy at one point.

    Attributes:
        runs: the generator's objects, one for each good run.
        errors: why other runs came to nothing.
        line: the generator's command line.
        proxy: the proxy's command line.
    """

    runs: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    line: str = ""
    proxy: str = ""


@dataclass(frozen=True, slots=True)
class Started:
    """A proxy that listens."""

    peer: Peer
    setup: Setup
    process: "subprocess.Popen[bytes]"
    words: Sequence[str]

    @property
    def sessions_logged(self) -> int:
        """Lines on its standard output."""
        with (self.setup.directory / "out").open("rb") as lines:
            return sum(1 for _ in lines)


class Bench:
    """All that runs have in common.

    Args:
        generator: the program.
        target: the other end, which listens.
        place: where things run.
        seconds: that each run is measured.
        warmup: seconds before.
        told: called with a line about each run.
    """

    def __init__(
        self,
        generator: Path,
        target: Target,
        place: Place,
        *,
        seconds: float = 1.0,
        warmup: float = 0.3,
        told: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self.generator = generator
        self.target = target
        self.place = place
        self._seconds = seconds
        self._warmup = warmup
        self._told = told

    def compare(self, point: Point, peers: Sequence[Peer], repeat: int) -> dict[str, Outcome]:
        """Measure proxies in turn, `repeat` times, each time beginning with another; those that can do it."""
        able = [peer for peer in peers if point.needs <= peer.does]
        outcomes = {peer.name: Outcome() for peer in able}
        for turn in range(repeat):
            shift = turn % len(able) if able else 0
            for peer in able[shift:] + able[:shift]:
                self._measure_into(outcomes[peer.name], peer, point)
        return outcomes

    def _measure_into(self, outcome: Outcome, peer: Peer, point: Point) -> None:
        try:
            self.place.set_congestion_control(point.congestion)
            outcome.runs.append(self.measure(peer, point, outcome))
        except (GeneratorError, ProxyError, PlaceError) as error:
            outcome.errors.append(str(error))
            self._told(f"{peer.name}: {error}")

    def measure(self, peer: Peer, point: Point, outcome: Outcome | None = None) -> dict[str, Any]:
        """Make one run with a fresh process of the proxy.

        Raises:
            ProxyError: it does not start.
            GeneratorError: there is no result.
        """
        outcome = outcome or Outcome()
        if peer is DIRECT:
            return self._generate(point, {"proxy": "direct"}, [], outcome)
        with self.started(peer, point) as proxy:
            outcome.proxy = shlex.join(proxy.words)
            with Disturbance(self, proxy) if point.is_disturbed else nullcontext() as disturbance:
                result = self._generate(point, self.way_through(proxy), [proxy.process.pid], outcome)
            if disturbance:
                result |= disturbance.done
            if peer.kind == "ours" and point.mode == "connections":
                _check_log(proxy, result)
            return result

    def way_through(self, proxy: Started) -> dict[str, object]:
        """Give the generator's options that lead through a proxy: a plain relay stands in the target's place."""
        if proxy.peer.kind == "limit":
            return {"proxy": "direct", "port": proxy.setup.port, "targets": 1, "echo_ports": 1}
        login = ":".join(LOGIN) if proxy.setup.login else None
        return {"proxy": proxy.setup.address, "login": login}

    def line(self, mode: str, way: dict[str, object], tree: Sequence[int] = (), **options: object) -> list[str]:
        """Write a command line of the generator, with the words before it."""
        common = {"port": self.target.port, "targets": TARGETS, "echo_ports": ALL_ECHO_PORTS}
        return [*self.place.load_prefix(), *command(self.generator, mode, tree=tree, **(common | way | options))]

    def _generate(self, point: Point, way: dict[str, object], tree: Sequence[int], outcome: Outcome) -> dict[str, Any]:
        seconds = max(self._seconds, point.seconds_at_least)
        times: dict[str, object] = {"seconds": seconds, "warmup": self._warmup}
        if point.mode == "bulk":
            times["tally"] = self.target.port + 3
        line = self.line(point.mode, way, tree, **times, **point.options)
        outcome.line = shlex.join(line[len(self.place.load_prefix()) :])
        return run(line, patience=120 + 2 * seconds)

    @contextmanager
    def started(self, peer: Peer, point: Point) -> Iterator[Started]:
        """Start a proxy in a directory of its own, and end it.

        Raises:
            ProxyError: it does not listen.
        """
        # Not in $TMPDIR, into which another user may not be let.
        directory = Path(tempfile.mkdtemp(prefix="tabi-bench-", dir="/tmp"))
        try:
            directory.chmod(0o755)
            self.place.give(directory)
            setup = Setup(
                directory=directory, host=point.host, port=free_ports(3, point.host), login=point.login,
                target=self.target.port, targets=TARGETS, rules=point.rules, tail=peer.tail,
            )  # fmt: skip
            words = [*self.place.proxy_prefix(everywhere=point.everywhere), *peer.command(setup)]
            process = _start(words, peer, directory)
            try:
                _wait_until_it_serves(setup, process, peer)
                yield Started(peer, setup, process, words)
            finally:
                _stop(process)
        finally:
            shutil.rmtree(directory)


def _start(words: Sequence[str], peer: Peer, directory: Path) -> "subprocess.Popen[bytes]":
    environment = {"PATH": os.environ.get("PATH", os.defpath), **_LOCALE, **peer.environment}
    with (directory / "out").open("wb") as out, (directory / "err").open("wb") as err:
        return subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment, cwd="/", start_new_session=True
        )


def _wait_until_it_serves(setup: Setup, process: "subprocess.Popen[bytes]", peer: Peer) -> None:
    """Wait until a first client is served: a listener may be there long before a worker, whose start is not measured.

    Raises:
        ProxyError: it ended, or the time is over.
    """
    deadline = time.monotonic() + _START_PATIENCE
    while True:
        try:
            with socket.create_connection((setup.host, setup.port), _START_PATIENCE) as sock:
                if peer.kind != "limit":
                    socks.greet(sock, LOGIN if setup.login else None)
            return
        except (OSError, EOFError) as error:
            said = (setup.directory / "err").read_text(errors="replace")[-800:].strip()
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
                raise ProxyError(f"{peer.name} ended before it listened: {said}") from None
            if time.monotonic() > deadline:
                raise ProxyError(f"{peer.name} does not serve: {error}; {said}") from None
            time.sleep(0.02)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End a proxy and what it started: a process group of their own, which lasts until its leader is reaped."""
    os.killpg(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_PATIENCE
    while not os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _check_log(proxy: Started, result: dict[str, Any]) -> None:
    """Wait for the lines of all sessions: the figure of a server that did not log is none."""
    deadline = time.monotonic() + _STOP_PATIENCE
    while proxy.sessions_logged < result["succeeded"]:
        if time.monotonic() > deadline:
            raise ProxyError(f"{proxy.peer.name} logged {proxy.sessions_logged} of {result['succeeded']} sessions")
        time.sleep(0.02)
    result["sessions_logged"] = proxy.sessions_logged
