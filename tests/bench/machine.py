"""The machine and what ran on it, as far as it decides figures: without that a figure is a rumour."""

import os
import platform
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bench.peers import Peer

__all__ = ["describe"]


def describe(peers: Iterable[Peer]) -> dict[str, object]:
    """Tell date, processor, kernel, its settings for TCP, interpreter, and the version of each proxy."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load": round(os.getloadavg()[0], 1),
        "kernel": platform.release(),
        "congestion_control": _sysctl("tcp_congestion_control"),
        "tcp_rmem": _sysctl("tcp_rmem"),
        "tcp_wmem": _sysctl("tcp_wmem"),
        "python": platform.python_version(),
        "versions": {peer.name: peer.version for peer in peers if peer.version},
    }


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.machine()


def _sysctl(name: str) -> str:
    return " ".join(Path("/proc/sys/net/ipv4", name).read_text().split())
