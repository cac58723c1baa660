"""Building the knobs of tunnels, and holding them against what this host's kernel grants an ordinary user.

What it does not grant is a warning, as a file may be checked on one host for another, and a server starts before a
module is loaded. A name that no kernel has is an error.
"""

from functools import cache
from pathlib import Path
from typing import Final

from tabi.config.document import Part
from tabi.config.kinds import hint
from tabi.config.knobs import show_size
from tabi.config.problems import Report, shown
from tabi.config.settings import TunnelSettings
from tabi.policy.verdict import Knobs

__all__ = ["KNOB_KEYS", "TunnelBuilder"]

KNOB_KEYS: Final = ("congestion", "keepalive", "send_buffer", "receive_buffer", "splice")

_PROC: Final = Path("/proc/sys/net")
_ALLOWED: Final = "ipv4/tcp_allowed_congestion_control"
_AVAILABLE: Final = "ipv4/tcp_available_congestion_control"
_BUFFERS: Final = {"send_buffer": "core/wmem_max", "receive_buffer": "core/rmem_max"}

_ALWAYS: Final = ("auto", "system")

_OF_LINUX: Final = frozenset({
    "bbr", "bic", "cdg", "cubic", "dctcp", "highspeed", "htcp", "hybla", "illinois", "lp", "nv", "reno", "scalable",
    "vegas", "veno", "westwood", "yeah",
})  # fmt: skip
"""Those of its source; each may be a module that is not loaded now."""


class TunnelBuilder:
    """Makes knobs of what was read.

    Args:
        report: takes what is wrong.
        proc: where the kernel says what it has.
    """

    def __init__(self, report: Report, proc: Path = _PROC) -> None:
        self._report = report
        self._proc = proc
        self._words = cache(self._read)

    def settings(self, part: Part) -> TunnelSettings:
        """Make what holds for the whole server."""
        self._check(part)
        return TunnelSettings(**part.values)

    def knobs(self, part: Part) -> Knobs:
        """Make what a rule says."""
        self._check(part)
        return Knobs(**part.given(KNOB_KEYS))

    def _check(self, part: Part) -> None:
        name: str | None = part.get("congestion")
        if name is not None and name not in _ALWAYS:
            self._check_control(part, name)
        for key, file in _BUFFERS.items():
            most = self._words(file)
            if most and (part.get(key) or 0) > int(most[0]):
                advice = f"raise {self._proc / file}, or write at most {show_size(int(most[0]))}"
                found = show_size(part.get(key))
                self._report.warn(
                    (*part.path, key), "is more than the kernel of this host gives", advice, found=found
                )

    def _check_control(self, part: Part, name: str) -> None:
        path, allowed, available = (*part.path, "congestion"), self._words(_ALLOWED), self._words(_AVAILABLE)
        others = f"take one that is: {', '.join(allowed)}"
        if not allowed or name in allowed:  # or nobody can tell here
            return
        if name in available:
            advice = f"add it to {self._proc / _ALLOWED}, or {others}"
            self._report.warn(path, "is not granted to ordinary users of this host", advice, found=shown(name))
        elif name in _OF_LINUX:
            advice = f"run modprobe tcp_{name} and add it to {self._proc / _ALLOWED}, or {others}"
            self._report.warn(path, "is not loaded in the kernel of this host", advice, found=shown(name))
        else:
            near = hint(name, {*_ALWAYS, *available, *_OF_LINUX})
            accepted = f"accepted here are {', '.join((*_ALWAYS, *allowed))}{near}"
            self._report.error(path, "is no congestion control", accepted, found=shown(name))

    def _read(self, file: str) -> tuple[str, ...]:
        """Read the words of a file of the kernel's; none where there is no such file."""
        try:
            return tuple((self._proc / file).read_text().split())
        except OSError:
            return ()
