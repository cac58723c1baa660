"""Addresses that the proxy host is given, and loses, while the server runs: they are in @private for that time.

The proxy host stands before a world that has every other address. So the same address is the world's before and after.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address
from pathlib import Path

import pytest

from helpers.configured import JSON, Configured, configured
from helpers.namespaces import Namespace, Network, internet, why_not
from helpers.serving import SERVE
from helpers.socks import ask5, echoes
from helpers.targets import target
from helpers.udp import Association, address_of, datagrams, is_quiet
from helpers.waiting import PATIENCE, until
from tabi.addr import Address
from tabi.net.own import AddressWatch, own_addresses

CLIENT, PROXY = "198.51.100.2", "198.51.100.1"
EVERYTHING, PRIVATE, NAMED = 1080, 1081, 1082
NOT_ALLOWED = 2
NAMED_ONES = ("192.0.2.77", "2001:db8:77::7")  # what the rule names; all others are used once, for lines to be found
RULES = f"""\
listen = ["0.0.0.0:{EVERYTHING}", "0.0.0.0:{PRIVATE}", "0.0.0.0:{NAMED}"]
[[rule]]
name = "private"
listener = "0.0.0.0:{PRIVATE}"
allow = true
open = true
to = "@private"
[[rule]]
name = "named"
listener = "0.0.0.0:{NAMED}"
allow = true
open = true
to = ["192.0.2.77", "2001:db8:77::7"]
[[rule]]
name = "everything"
listener = "0.0.0.0:{EVERYTHING}"
allow = true
open = true
{JSON}"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Network]:
    """Make hosts of our own, whose addresses come and go."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with internet() as made:
        yield made


@pytest.fixture(scope="module")
def port(hosts: Network) -> Iterator[int]:
    """Run a target on all addresses of the world and of the proxy host, and give its port."""
    with ExitStack() as stack:
        found: int = stack.enter_context(hosts.target.entering(target(host="0.0.0.0")))[1]
        for host, everywhere in ((hosts.target, "::"), (hosts.proxy, "0.0.0.0"), (hosts.proxy, "::")):
            stack.enter_context(host.entering(target(host=everywhere, port=found)))
        yield found


@pytest.fixture(scope="module", params=["0", "1"], ids=["lane-off", "lane-on"])
def server(
    hosts: Network, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Configured]:
    """Run a server with two workers."""
    env = {**os.environ, "TABI_LANE": request.param}
    with configured(tmp_path_factory.mktemp("own"), RULES, program=hosts.proxy.command(*SERVE), env=env) as running:
        running.workers(2)
        yield running
        assert running.stop() == 0, running.errors


@contextmanager
def moved_in(hosts: Network, server: Configured, address: str) -> Iterator[None]:
    """Let the proxy host have an address, and every worker know of it; afterwards that it has it no more."""
    hosts.proxy.address("wan", address)
    try:
        known_by_all(server, f"this host has {address} now")
        yield
    finally:
        hosts.proxy.ip("address", "del", address, "dev", "wan")
    known_by_all(server, f"this host has {address} no more")


def known_by_all(server: Configured, line: str) -> None:
    """Wait until the supervisor says it, and the workers have answered what they were asked after they were told."""
    server.line(line)
    server.workers(2)


def ask(hosts: Network, address: str, port: int, listener: int = EVERYTHING) -> int:
    """CONNECT, and give the reply; what is granted must work."""
    sock, reply, _, _ = hosts.client.call(ask5, (PROXY, listener), 1, address, port)
    with sock:
        assert reply or echoes(sock)
    return reply


def replies(hosts: Network, address: str, port: int, listener: int = EVERYTHING) -> set[int]:
    """Ask so often that each worker is asked by a client that it knows (their sockets take turns by chance)."""
    return {ask(hosts, address, port, listener) for _ in range(12)}


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8:77::1"])
def test_an_address_is_private_for_as_long_as_it_is_our_own(
    hosts: Network, server: Configured, port: int, address: str
) -> None:
    assert replies(hosts, address, port) == {0}
    with moved_in(hosts, server, address):
        assert replies(hosts, address, port) == {NOT_ALLOWED}
        shown = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        line = server.record(why="policy", rule="private networks", reply=NOT_ALLOWED, target=shown)
        assert "names @private or a network inside it" in line["note"]
    assert replies(hosts, address, port) == {0}


@pytest.mark.parametrize("address", NAMED_ONES)
def test_a_rule_that_names_it_opens_it(hosts: Network, server: Configured, port: int, address: str) -> None:
    assert replies(hosts, address, port, PRIVATE) == {NOT_ALLOWED}
    assert replies(hosts, address, port, NAMED) == {0}
    with moved_in(hosts, server, address):
        assert replies(hosts, address, port, PRIVATE) == {0}
        assert replies(hosts, address, port, NAMED) == {0}
    assert replies(hosts, address, port, PRIVATE) == {NOT_ALLOWED}


def test_tunnels_to_an_address_that_becomes_our_own_are_ended_and_others_are_not(
    hosts: Network, server: Configured, port: int
) -> None:
    to_it, reply, _, _ = hosts.client.call(ask5, (PROXY, EVERYTHING), 1, "192.0.2.2", port)
    elsewhere, other_reply, _, _ = hosts.client.call(ask5, (PROXY, EVERYTHING), 1, "192.0.2.3", port)
    with to_it, elsewhere:
        assert (reply, other_reply) == (0, 0)
        assert echoes(to_it)
        with moved_in(hosts, server, "192.0.2.2"):
            line = server.record(why="policy", target=f"192.0.2.2:{port}")
            assert line["note"].startswith("private networks since this host has other addresses: ")
            assert echoes(elsewhere)
        assert echoes(elsewhere)


def test_datagrams_to_an_address_that_becomes_our_own_are_dropped(hosts: Network, server: Configured) -> None:
    with ExitStack() as stack:
        there = stack.enter_context(hosts.target.entering(datagrams("0.0.0.0")))
        port = address_of(there)[1]
        here = stack.enter_context(hosts.proxy.entering(datagrams("0.0.0.0", port)))
        client = stack.enter_context(hosts.client.call(Association, (PROXY, EVERYTHING), CLIENT))
        client.send("192.0.2.6", port, b"before")
        assert there.recv(99) == b"before"
        with moved_in(hosts, server, "192.0.2.6"):
            client.send("192.0.2.6", port, b"meanwhile")
            client.send("192.0.2.7", port, b"to another")
            assert there.recv(99) == b"to another"
            assert is_quiet(here)
        client.send("192.0.2.6", port, b"after")
        assert there.recv(99) == b"after"
    assert "dropped: " in server.record(command="udp_associate")["note"]


def test_workers_that_start_later_know_it(hosts: Network, server: Configured, port: int) -> None:
    with moved_in(hosts, server, "192.0.2.4"):
        before = server.workers(2)
        for pid in before:
            os.kill(pid, 9)
        server.line(r"worker 0 .* starting another")
        server.line(r"worker 1 .* starting another")
        until(lambda: not set(server.workers(2)) & set(before), "two other workers")
        assert replies(hosts, "192.0.2.4", port) == {NOT_ALLOWED}


def test_a_reload_knows_it_as_well(hosts: Network, server: Configured, port: int) -> None:
    with moved_in(hosts, server, "192.0.2.5"):
        server.reload(RULES)
        assert replies(hosts, "192.0.2.5", port) == {NOT_ALLOWED}
    assert replies(hosts, "192.0.2.5", port) == {0}


def test_changes_that_the_kernel_could_not_tell_of_are_found_all_the_same(hosts: Network, tmp_path: Path) -> None:
    """ENOBUFS: so many come that the socket has no room for them."""
    wanted = {ip_address(f"10.77.{number >> 8}.{number & 255}") for number in range(2048)}
    batch = tmp_path / "batch"
    batch.write_text("".join(f"address add {address}/32 dev lo\n" for address in wanted))

    def watched() -> frozenset[Address]:
        loop = asyncio.new_event_loop()
        told: asyncio.Future[frozenset[Address]] = loop.create_future()
        watch = AddressWatch(lambda: None if told.done() else told.set_result(own_addresses()), loop=loop)
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as beside:
            beside.bind((0, 0x10))  # RTMGRP_IPV4_IFADDR
            for one in (beside, watch._sock):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                here.ip("-batch", str(batch))
                with pytest.raises(OSError, match=r".") as caught:
                    beside.recv(1)
                assert caught.value.errno == errno.ENOBUFS
                return loop.run_until_complete(asyncio.wait_for(told, PATIENCE))
            finally:
                watch.close()
                loop.close()

    with Namespace("crowded") as here:
        assert wanted <= here.call(watched)
