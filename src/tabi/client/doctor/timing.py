"""How long each stage takes."""

import socket
import statistics
import time
from typing import Final

from tabi.client.doctor.examination import Examination
from tabi.client.doctor.finding import Result, Verdict
from tabi.client.doctor.patient import Need, Patient
from tabi.wire.socks5 import MethodSelection
from tabi.wire.userpass import Status

__all__ = ["TIMING"]

_ROUNDS: Final = 9
_STAGES: Final[dict[type, str]] = {MethodSelection: "greeting", Status: "login"}


class _Stopwatch:
    """Milliseconds of each stage, over several rounds."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {}
        self._last = time.perf_counter()

    def start(self) -> None:
        """Begin a round."""
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Note that a stage is over."""
        now = time.perf_counter()
        self.times.setdefault(stage, []).append((now - self._last) * 1000)
        self._last = now


def _stages(patient: Patient) -> Result:
    target, spot = patient.place_to_go()
    turns = patient.turns(target)
    watch = _Stopwatch()
    for _ in range(_ROUNDS):
        watch.start()
        line = patient.line()
        watch.lap("connection")
        for turn in turns:
            line.send(turn.says, patient.shown(turn.says))
            patient.must_succeed(line.message(turn.hears))
            watch.lap(_STAGES.get(turn.hears, "request"))
        if spot is not None:
            there = spot.accept()
            watch.start()
            line.send(b"x")
            there.send(there.read(1))
            line.read(1)
            watch.lap("round trip of data")
            there.close()
        line.close()
    return _told(watch)


def _directly(patient: Patient) -> Result:
    target, _ = patient.place_to_go()
    watch = _Stopwatch()
    for _ in range(_ROUNDS):
        watch.start()
        with socket.create_connection((str(target.host), target.port), patient.patience):
            watch.lap("connection")
    return _told(watch)


def _told(watch: _Stopwatch) -> Result:
    medians = {stage: round(statistics.median(times), 3) for stage, times in watch.times.items()}
    detail = ", ".join(f"{stage} {value:.2f} ms" for stage, value in medians.items())
    return Result(Verdict.OK, detail, medians)


TIMING: Final = (
    Examination(
        name="stages", title=f"median of {_ROUNDS}", run=_stages, needs=(Need.TARGET, Need.TUNNEL),
        why="each stage is a round trip to the proxy that a client waits for",
    ),
    Examination(
        name="directly", title="without the proxy", run=_directly, needs=(Need.NEAR, Need.TUNNEL),
        why="what the proxy adds is the difference",
    ),
)  # fmt: skip
