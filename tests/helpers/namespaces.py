"""Hosts for tests: network namespaces joined by veth pairs, all made and taken away by the test that wants them.

::

    client host                     proxy host                      target host, also a router
    +------------------+            +-------------------+           +-----------------------+
    | 10.91.1.2        |            | 10.91.1.1         |           | 10.91.2.2, .3, .4, .6 |
    | 10.91.1.20 - .29 |-- "lan" ---| 10.91.1.11        |           | fd91:2::2, 3, 4, 6    |
    | fd91:1::2        |            | fd91:1::1         |           |                       |
    +------------------+            |                   |-- "wan" --| drops what comes for  |
                                    | 10.91.2.1         |           | 10.91.2.5, fd91:2::5  |
                                    | 10.91.2.11        |           +-----------------------+
                                    | fd91:2::1         |             10.92.0.0/16, fd92::/16
                                    +-------------------+             lie behind it, as far as
                                                                      the proxy host knows

What the proxy host's own table says (10.93.KIND.0/24, fd93:0:KIND::/48) and what the router says of what lies behind it
(10.92.KIND.0/24, fd92:0:KIND::/48), KIND being: 1 unreachable, 2 prohibit, 3 blackhole, 4 no route at all. 10.92.5.0/24
and fd92:0:5::/64 are a link of the router on which there is nobody.

For what must never be reached there is `internet`: behind the proxy is a host that has every address there is::

    client host                     proxy host                      the rest of the world
    +------------------+            +-------------------+           +-----------------------+
    | 198.51.100.2     |            | 198.51.100.1      |           | 203.0.113.2, 2001:db8:|
    | 198.51.100.20-99 |-- "lan" ---| 2001:db8:1::1     |           | 2::2 and all others   |
    | 2001:db8:1::/64  |            |                   |-- "wan" --| that are not the      |
    | 2001:db8:9::2/64 |            | 203.0.113.1       |           | proxy host's own      |
    +------------------+            | 2001:db8:2::1     |           +-----------------------+
                                    +-------------------+

A namespace has its own /etc/hosts and /etc/resolv.conf, from /etc/netns/NAME, for programs that are started by
`Namespace.command`. Names of namespaces hold this process' id, so that runs beside each other do not meet. Root and
iproute2 are needed.
"""

import ctypes
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

from helpers.programs import find
from helpers.waiting import PATIENCE

__all__ = ["Namespace", "Network", "internet", "network", "why_not"]

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_ETC = Path("/etc/netns")  # ip-netns(8)
_numbers = count(1)


def why_not() -> str | None:
    """Say why no namespace can be made here, None where one can."""
    if find("ip") is None:
        return "ip (iproute2) is not installed"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        with Namespace("try"):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        return f"no network namespace can be made: {said.strip()}"


class Namespace:
    """One host. A context manager: it exists from enter to exit, and nothing of it stays.

    Args:
        role: part of its name.
    """

    def __init__(self, role: str) -> None:
        self.name = f"tabi-{os.getpid()}-{next(_numbers)}-{role}"
        self._etc = _ETC / self.name

    def __enter__(self) -> Self:
        _run("netns", "add", self.name)
        try:
            self.ip("link", "set", "lo", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._etc, ignore_errors=True)
        try:
            _ETC.rmdir()
        except OSError:  # never made, or another run's or the administrator's files are in it
            pass
        _run("netns", "delete", self.name)

    def ip(self, *arguments: str) -> str:
        """Run ip(8) on this host."""
        return _run("-n", self.name, *arguments)

    def call(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """Call a function on this host, in a thread of its own; a socket that it makes stays on this host."""
        results: list[T] = []
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self._enter()
                results.append(function(*arguments, **named))
            except BaseException as error:  # noqa: BLE001  it is raised again where it can be seen
                errors.append(error)

        thread = threading.Thread(target=work, name=f"in {self.name}")
        thread.start()
        thread.join(PATIENCE * 3)
        assert not thread.is_alive(), f"{function} does not come back from {self.name}"
        if errors:
            raise errors[0]
        return results[0]

    @contextmanager
    def entering(self, manager: AbstractContextManager[T]) -> Iterator[T]:
        """Enter a context manager on this host, so that its sockets are here."""
        with ExitStack() as stack:
            yield self.call(stack.enter_context, manager)

    def command(self, *arguments: str) -> list[str]:
        """Say how a program is started on this host; ip replaces itself by it, so the process id is the program's."""
        return [find("ip") or "ip", "netns", "exec", self.name, *arguments]

    def etc(self, name: str, text: str) -> None:
        """Give programs that are started from now on a file in /etc; changed in place later, they see the change."""
        self._etc.mkdir(parents=True, exist_ok=True)
        (self._etc / name).write_text(text)

    def set(self, key: str, value: object) -> None:
        """Set a sysctl of this host, as a path below /proc/sys/net."""
        self.call(Path("/proc/sys/net", key).write_text, str(value))

    def join(self, other: "Namespace", link: str) -> None:
        """Lay a cable; the interface has the same name on both sides."""
        self.ip("link", "add", link, "type", "veth", "peer", "name", link, "netns", other.name)
        for host in (self, other):
            host.ip("link", "set", link, "up")

    def address(self, link: str, *addresses: str) -> None:
        """Give an interface addresses, at once usable."""
        for address in addresses:
            self.ip("address", "add", address, "dev", link, *(("nodad",) if ":" in address else ()))

    def _enter(self) -> None:
        # os.setns came with Python 3.12.
        libc = ctypes.CDLL(None, use_errno=True)
        fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if libc.setns(fd, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"setns {self.name}")
        finally:
            os.close(fd)


class Network:
    """The three hosts of the drawing."""

    def __init__(self, client: Namespace, proxy: Namespace, target: Namespace) -> None:
        self.client = client
        self.proxy = proxy
        self.target = target


_KINDS = {1: "unreachable", 2: "prohibit", 3: "blackhole"}  # of routes, ip-route(8)


@contextmanager
def network() -> Iterator[Network]:
    """Make the hosts of the drawing."""
    with Namespace("client") as client, Namespace("proxy") as proxy, Namespace("target") as target:
        client.join(proxy, "lan")
        proxy.join(target, "wan")
        client.address("lan", "10.91.1.2/24", "fd91:1::2/64", *(f"10.91.1.{last}/24" for last in range(20, 30)))
        proxy.address("lan", "10.91.1.1/24", "10.91.1.11/24", "fd91:1::1/64")
        proxy.address("wan", "10.91.2.1/24", "10.91.2.11/24", "fd91:2::1/64")
        for last in (2, 3, 4, 6):
            target.address("wan", f"10.91.2.{last}/24", f"fd91:2::{last}/64")
        proxy.ip("route", "add", "10.92.0.0/16", "via", "10.91.2.2")
        proxy.ip("route", "add", "fd92::/16", "via", "fd91:2::2")
        for kind, route in _KINDS.items():
            proxy.ip("route", "add", route, f"10.93.{kind}.0/24")
            proxy.ip("route", "add", route, f"fd93:0:{kind}::/48")
            target.ip("route", "add", route, f"10.92.{kind}.0/24")
            target.ip("route", "add", route, f"fd92:0:{kind}::/48")
        target.ip("link", "add", "far", "type", "veth", "peer", "name", "end")
        for link in ("far", "end"):
            target.ip("link", "set", link, "up")
        target.address("far", "10.92.5.1/24", "fd92:0:5::1/64")
        _drop(proxy, target, "10.91.2.5", "fd91:2::5")
        _tune(proxy, target)
        yield Network(client, proxy, target)


@contextmanager
def internet() -> Iterator[Network]:
    """Make the hosts of the second drawing. Documentation addresses stand for public ones (RFC 5737, RFC 3849)."""
    with Namespace("client") as client, Namespace("proxy") as proxy, Namespace("world") as world:
        client.join(proxy, "lan")
        proxy.join(world, "wan")
        client.address("lan", "198.51.100.2/24", *(f"198.51.100.{last}/24" for last in range(20, 100)))
        client.address("lan", *(f"2001:db8:1::{last}/64" for last in range(2, 42)), "2001:db8:9::2/64")
        proxy.address("lan", "198.51.100.1/24", "2001:db8:1::1/64", "2001:db8:9::1/64")
        proxy.address("wan", "203.0.113.1/24", "2001:db8:2::1/64")
        world.address("wan", "203.0.113.2/24", "2001:db8:2::2/64")
        for family, gateway in (("-4", "203.0.113.2"), ("-6", "2001:db8:2::2")):
            proxy.ip(family, "route", "add", "default", "via", gateway)
            # not in the table of that name, where it would come before the way back to the proxy host
            world.ip(family, "route", "add", "local", "default", "dev", "lo", "table", "main")
        yield Network(client, proxy, world)


def _drop(proxy: Namespace, router: Namespace, *addresses: str) -> None:
    """Make addresses on the link that swallow what is sent to them."""
    hardware = json.loads(router.ip("-json", "link", "show", "wan"))[0]["address"]
    for address in addresses:
        proxy.ip("neighbour", "add", address, "lladdr", hardware, "dev", "wan")
        router.ip("route", "add", "blackhole", address)


def _tune(proxy: Namespace, router: Namespace) -> None:
    router.set("ipv4/ip_forward", 1)
    router.set("ipv6/conf/all/forwarding", 1)
    # Otherwise only one answer in a second says that there is no way.
    router.set("ipv4/icmp_ratelimit", 0)
    router.set("ipv6/icmp/ratelimit", 0)
    # Who asks for a neighbour that is not there shall know soon (arp(7)).
    for family in ("ipv4", "ipv6"):
        proxy.set(f"{family}/neigh/wan/retrans_time_ms", 20)
        router.set(f"{family}/neigh/far/retrans_time_ms", 20)


def _run(*arguments: str) -> str:
    done = subprocess.run(
        [find("ip") or "ip", *arguments], check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    return done.stdout
