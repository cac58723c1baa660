"""The hosts that tests of this directory use, and the servers on them."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers import open_server
from helpers.dns import Dns, serving_dns
from helpers.namespaces import Network, internet, network, why_not
from helpers.serving import SERVE, Command, command
from helpers.syns import Syns, watching

_HOSTS = """\
127.0.0.1 localhost
10.91.2.4 two.test
10.91.2.6 two.test
10.91.2.6 twisted.test
10.91.2.4 twisted.test
10.91.2.3 six.test
fd91:2::3 six.test
"""  # no address of one is another's: c-ares gives a name also those of names that it shares an address with
_NAME_SERVER = "10.91.2.2"  # an address of the target host
WORLD = "203.0.113.2"


@pytest.fixture(scope="session")
def hosts() -> Iterator[Network]:
    """Make client host, proxy host and target host (see helpers.namespaces for the drawing)."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with network() as made:
        made.proxy.etc("resolv.conf", f"nameserver {_NAME_SERVER}\n")
        made.proxy.etc("hosts", _HOSTS)
        yield made


@pytest.fixture(scope="session")
def dns(hosts: Network) -> Iterator[Dns]:
    """Run the name server that the proxy host asks."""
    with hosts.target.entering(serving_dns(_NAME_SERVER)) as server:
        yield server


@pytest.fixture
def syns(hosts: Network) -> Iterator[Syns]:
    """Watch what reaches the target host."""
    with hosts.target.entering(watching()) as seen:
        yield seen


@pytest.fixture(scope="session")
def world() -> Iterator[Network]:
    """Make client host, proxy host and a host that has every other address (see helpers.namespaces)."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with internet() as made:
        made.proxy.etc("resolv.conf", f"nameserver {WORLD}\noptions timeout:2\n")
        made.proxy.etc("hosts", "127.0.0.1 localhost here.test\n::1 localhost\n")
        yield made


@pytest.fixture(scope="session")
def world_dns(world: Network) -> Iterator[Dns]:
    """Run the name server that the proxy host before the world asks; answers hold for no time at all."""
    with world.target.entering(serving_dns(WORLD)) as server:
        server.ttl = 0
        yield server


class Proxies:
    """Starts servers on the proxy host."""

    def __init__(self, hosts: Network) -> None:
        self._hosts = hosts

    def command(self, *arguments: str) -> AbstractContextManager[Command]:
        """Run the command as users start it."""
        return command("--log-format", "json", *arguments, program=self._hosts.proxy.command(*SERVE))

    @contextmanager
    def open(self, **options: Any) -> Iterator[Command]:
        """Run a server for clients of every host (see helpers.open_server); it listens on all addresses, port 1080."""
        options.setdefault("listen", ["[::]:1080"])
        program = self._hosts.proxy.command(sys.executable, open_server.__file__)
        path = os.pathsep.join([str(Path(open_server.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        with command(json.dumps(options), program=program, env={**os.environ, "PYTHONPATH": path}) as running:
            running.ports(len(options["listen"]))
            yield running
            assert running.stop() == 0, running.errors


@pytest.fixture(scope="session")
def proxies(hosts: Network) -> Proxies:
    """Give the starter of servers."""
    return Proxies(hosts)


@pytest.fixture(scope="session")
def proxy(proxies: Proxies) -> Iterator[Command]:
    """Run one server for everybody, with the limits as they are by default."""
    with ExitStack() as stack:
        yield stack.enter_context(proxies.open())


@pytest.fixture(scope="session")
def impatient(proxies: Proxies) -> Iterator[Command]:
    """Run a server that gives a connection one second."""
    with proxies.open(listen=["[::]:1081"], time={"connect": 1.0}) as running:
        yield running


@pytest.fixture(scope="session", params=["c-ares", "getaddrinfo"])
def asking(proxies: Proxies, dns: Dns, request: pytest.FixtureRequest) -> Iterator[Command]:
    """Run a server that gives a connection three seconds; with each of the ways to look names up."""
    if request.param == "c-ares":
        pytest.importorskip("aiodns")
    options = {"listen": ["[::]:1082"], "time": {"connect": 3.0}}
    with proxies.open(**options, getaddrinfo=request.param == "getaddrinfo") as running:
        yield running
