"""Many thousands of sessions, in and out in every way, and nothing of them is left."""

import asyncio
import gc
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from helpers import load
from helpers.serving import Running, serving
from helpers.socks import dial, read_all
from helpers.waiting import until
from tabi.config.settings import TimeLimits

pytestmark = pytest.mark.soak

WORKERS = 10
CONNECTIONS = 20_000
ASSOCIATIONS = 2_000
WARM_UP = 10  # part of it that goes first: caches fill, pools grow, modules load

SERVED = {"orderly": "fin", "socks4a": "fin", "client_resets": "rst", "target_resets": "rst", "associate": ""}
"""What the log says of the kinds of helpers.load that are served; the others fail."""

# A thing per session that is not let go would be 20,000 blocks at least.
BLOCKS = 5_000
RESIDENT = 64 << 20
HALF_OPEN = 5.0
MOST = 300.0  # seconds, only spent by a run that fails; on two idle cores it takes 6


class Footprint(NamedTuple):
    """What a process has at a time when nothing goes on."""

    descriptors: int
    threads: frozenset[threading.Thread]
    tasks: int
    blocks: int
    resident: int


def footprint(server: Running) -> Footprint:
    """Look, after the garbage has been taken out."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Footprint(
        len(os.listdir("/proc/self/fd")),
        frozenset(threading.enumerate()),
        len(asyncio.all_tasks(server.loop)),
        sys.getallocatedblocks(),
        pages * os.sysconf("SC_PAGE_SIZE"),
    )


def drive(server: Running, connections: int, associations: int, seed: int) -> Counter[str]:
    """Have the load done by another process; gives what it did."""
    options = {
        "proxy": server.address, "connections": connections, "associations": associations, "workers": WORKERS,
        "seed": seed,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, load.__file__, json.dumps(options)],
        env={**os.environ, "PYTHONPATH": str(Path(load.__file__).parents[1])},
        check=False,
        timeout=MOST,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    server.idle()
    return Counter(json.loads(done.stdout))


def fail_once(server: Running, source: str) -> None:
    """Open a connection that is nothing, and wait for its end."""
    with dial(server.address, (source, 0)) as sock:
        sock.sendall(b"\xff")
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    server.idle()


def tell_what_was_held_back(server: Running) -> int:
    """Fail from each address until that is logged, with the count of what was not; gives the failures that it took."""
    failures = 0
    for number in range(1, WORKERS + 1):
        source = f"127.0.1.{number}"

        def is_told(source: str = source) -> bool:
            nonlocal failures
            before = len(server.lines)
            fail_once(server, source)
            failures += 1
            return len(server.lines) > before

        until(is_told, f"a line about {source}")
    return failures


def failures_told(lines: list[dict[str, object]]) -> int:
    """Count the failed sessions that the log tells of: in a line of their own, or as held back."""
    told = 0
    for line in lines:
        if line.get("reply") != 0:
            held = re.search(r"(\d+) more failed sessions", str(line.get("note", "")))
            told += 1 + (int(held[1]) if held else 0)
    return told


def check_the_log(server: Running, done: Counter[str]) -> None:
    """One line for each session, the held-back ones by their number."""
    extra = tell_what_was_held_back(server)
    served = Counter((line["command"], line["why"]) for line in server.lines if line.get("reply") == 0)
    assert served["connect", "fin"] == done["orderly"] + done["socks4a"]
    assert served["connect", "rst"] == done["client_resets"] + done["target_resets"]
    assert served["udp_associate", "fin"] + served["udp_associate", "rst"] == done["associate"]
    assert served.total() == sum(done[kind] for kind in SERVED)
    assert failures_told(server.lines) == sum(count for kind, count in done.items() if kind not in SERVED) + extra
    numbers = [line["session"] for line in server.lines]
    assert len(numbers) == len(set(numbers))


def test_after_20_000_connections_and_2_000_associations_nothing_is_left() -> None:
    # Soon over, for the engine remembers the numbers of flows that it wanted to look at until their time has come.
    with serving(time=TimeLimits(half_open=HALF_OPEN)) as server:
        warm_up = drive(server, CONNECTIONS // WARM_UP, ASSOCIATIONS // WARM_UP, 1)
        check_the_log(server, warm_up)
        server.raw.clear()
        server.lines.clear()
        before = footprint(server)

        done = drive(server, CONNECTIONS - CONNECTIONS // WARM_UP, ASSOCIATIONS - ASSOCIATIONS // WARM_UP, 2)
        check_the_log(server, done)
        server.raw.clear()
        server.lines.clear()

        assert (warm_up + done).total() == CONNECTIONS + ASSOCIATIONS
        until(lambda: footprint(server).blocks - before.blocks < BLOCKS, "memory to be given back")
        after = footprint(server)
        assert after[:3] == before[:3]
        assert after.resident - before.resident < RESIDENT
        assert len(server.server.engine) == 0
        assert server.server.engine.snapshot() == []
        assert server.server.admission._counts.counted() == []
