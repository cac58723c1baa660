"""Engines, servers and targets for the loop tests, and a look at what a test leaves behind."""

import gc
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from helpers.fronts import FRONTS, Front
from helpers.hostile import SECRET
from helpers.name_service import NameService
from helpers.routing import Where
from helpers.serving import Running, serving
from helpers.targets import target
from helpers.udp import datagrams
from helpers.waiting import PATIENCE
from loop.engine_helpers import BUILDS, NOT_BUILT, HandClock, allocated, running
from tabi.relay import Engine, make_ferry
from tabi.server import Passwords

DEADLINE = 10.0

NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "peer.example": ["127.0.0.1", "::1"],
    "other.example": ["127.0.0.2"],
}

# Modules whose tests must not be able to tell whether the express lane is on.
CONFORMANCE = frozenset({
    "test_adversarial_bind",
    "test_adversarial_exhaustion",
    "test_adversarial_handshake",
    "test_adversarial_logins",
    "test_adversarial_names",
    "test_adversarial_peers",
    "test_adversarial_rebinding",
    "test_adversarial_requests",
    "test_connect",
    "test_control",
    "test_engine_death",
    "test_exhaustion",
    "test_limits",
    "test_limits_through_server",
    "test_log_batches",
    "test_log_settings",
    "test_logins",
    "test_prefer",
    "test_races",
    "test_reload",
    "test_reload_listeners",
    "test_reload_running",
    "test_resets_through_server",
    "test_signals",
    "test_upstreams",
})  # fmt: skip

# These must not tell whether a ferry carries datagrams that need no thought.
WITH_FERRY = frozenset({
    "test_adversarial_udp",
    "test_adversarial_udp_limits",
    "test_adversarial_udp_sizes",
    "test_shared_udp_port",
})  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of these modules with the lane, or the ferry, off and on."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if module in CONFORMANCE:
        metafunc.parametrize("lane", ["0", "1"], ids=["lane-off", "lane-on"], indirect=True)
    if module in WITH_FERRY and make_ferry(-1, "127.0.0.1", 1):
        metafunc.parametrize("ferry", [False, True], ids=["ferry-off", "ferry-on"], indirect=True)


@pytest.fixture(autouse=True)
def lane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the express lane on or off, for servers in this process and in others; before any is made."""
    if hasattr(request, "param"):
        monkeypatch.setenv("TABI_LANE", request.param)


@pytest.fixture(autouse=True)
def ferry(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the ferry away from servers in this process, where the test is told so."""
    if not getattr(request, "param", True):
        monkeypatch.setattr("tabi.server.legs.make_ferry", lambda *_: None)


@pytest.fixture(params=sorted(BUILDS))
def build(request: pytest.FixtureRequest) -> str:
    """Name each build of the engine; skip the test where it is not there."""
    if BUILDS[request.param] is None:
        pytest.skip(NOT_BUILT)
    return str(request.param)


@pytest.fixture
def engine(build: str) -> Iterator[Engine]:
    """Run an engine as it is run in earnest."""
    with running(build) as running_engine:
        yield running_engine


@pytest.fixture
def clock() -> HandClock:
    """Make a clock that the test moves."""
    return HandClock()


@pytest.fixture
def timed(build: str, clock: HandClock) -> Iterator[Engine]:
    """Run an engine by that clock."""
    with running(build, clock=clock) as running_engine:
        yield running_engine


@pytest.fixture(name="running")
def server_with_names() -> Iterator[Running]:
    """Run a server as it is without configuration; the names that it finds are `NAMES`."""
    with serving() as server:
        NameService(NAMES).serve(server)
        yield server


@pytest.fixture
def guarded() -> Iterator[Running]:
    """Run a server that wants a login."""
    with serving(authenticator=Passwords({b"user": SECRET, b"u" * 255: b"p" * 255})) as server:
        yield server


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """Run a target that sends back what it gets."""
    with target() as address:
        yield address


@pytest.fixture
def nobody() -> Iterator[Where]:
    """Hold a port on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.fixture
def dead() -> Iterator[tuple[Where, list[None]]]:
    """Run what closes each connection at once; every one is kept."""
    came: list[None] = []
    with target(lambda _sock: came.append(None)) as where:
        yield where, came


@pytest.fixture
def there() -> Iterator[socket.socket]:
    """Open the socket of a target of datagrams."""
    with datagrams() as sock:
        yield sock


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Listen as a target that the test itself plays."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.settimeout(PATIENCE)
        yield sock


@pytest.fixture
def nothing_left(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail the test if it, or what it tested, left a descriptor, a thread or memory of a compiled engine behind."""
    gc.collect()  # an engine goes with the last object that knows it
    descriptors, threads, blocks = open_descriptors(), set(threading.enumerate()), allocated()
    yield
    request.node.funcargs.clear()  # the test is over
    caplog.get_records("call").clear()  # a traceback knows the server that it went through
    gc.collect()
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        has_left = not set(threading.enumerate()) <= threads or not open_descriptors().keys() <= descriptors.keys()
        if not has_left and allocated() <= blocks:
            return
        for thread in set(threading.enumerate()) - threads:
            thread.join(0.1)
    left = {fd: what for fd, what in open_descriptors().items() if fd not in descriptors}
    running_on = set(threading.enumerate()) - threads
    pytest.fail(f"left behind: descriptors {left}, threads {running_on}, blocks of memory {allocated() - blocks}")


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
