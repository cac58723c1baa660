"""Engines for the loop tests, and a look at what a test leaves behind."""

import os
import threading
import time
from collections.abc import Iterator

import pytest

from helpers.fronts import FRONTS, Front
from loop.engine_helpers import BUILDS, running
from tabi.relay import Engine

DEADLINE = 10.0


@pytest.fixture(params=sorted(BUILDS))
def build(request: pytest.FixtureRequest) -> str:
    """Name each build of the engine that is available."""
    return str(request.param)


@pytest.fixture
def engine(build: str) -> Iterator[Engine]:
    """Run an engine as it is run in earnest."""
    with running(build) as running_engine:
        yield running_engine


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fail the test if it, or what it tested, left a descriptor or a thread behind."""
    descriptors, threads = open_descriptors(), set(threading.enumerate())
    yield
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if set(threading.enumerate()) <= threads and open_descriptors().keys() <= descriptors.keys():
            return
        for thread in set(threading.enumerate()) - threads:
            thread.join(0.1)
    left = {fd: what for fd, what in open_descriptors().items() if fd not in descriptors}
    pytest.fail(f"left behind: descriptors {left}, threads {set(threading.enumerate()) - threads}")


def open_descriptors() -> dict[int, str]:
    """Say which descriptors are open and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            pass
    return found


@pytest.fixture(params=FRONTS)
def front(request: pytest.FixtureRequest, nothing_left: None) -> Iterator[Front]:
    """Give each front of the client library, and see that it leaves nothing behind."""
    front = FRONTS[request.param]()
    try:
        yield front
    finally:
        front.close()
