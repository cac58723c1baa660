"""Ports, what a refusal tells, and what a SOCKS4 client claims (rows D6, D8, E8), for clients from another host.

The proxy host stands before a world that answers at every address there is, so what would have been dialled is seen.
"""

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest

from helpers.configured import JSON, Configured, configured, user
from helpers.dns import Dns
from helpers.namespaces import Network
from helpers.serving import SERVE
from helpers.socks import dial, read_all, read_exactly, request4, request5
from helpers.syns import Syns, watching
from helpers.targets import echo, target

HERE, HERE6 = "203.0.113.2", "2001:db8:2::2"
PROXY, PROXY6 = "198.51.100.1", "2001:db8:1::1"
WEB, SOME_NAMES, EVERYTHING, CLAIMS, USERS = range(1080, 1085)
IDENT = 113  # RFC 1413
RULES = f"""\
listen = [{", ".join(f'"0.0.0.0:{port}"' for port in range(WEB, CLAIMS))}]
[[rule]]
name = "web"
listener = "0.0.0.0:{WEB}"
allow = true
open = true
port = ["80", "443"]
[[rule]]
name = "some names"
listener = "0.0.0.0:{SOME_NAMES}"
allow = true
open = true
to = "*.allowed.test"
[[rule]]
name = "everything"
listener = "0.0.0.0:{EVERYTHING}"
allow = true
open = true
{JSON}"""
CLAIMING = f"""\
listen = ["0.0.0.0:{CLAIMS}", "0.0.0.0:{USERS}"]
auth = "any"
{user("alice", b"secret", 'groups = ["staff"]')}
[[client]]
from = "198.51.100.0/24"
socks4 = true
[[rule]]
name = "users"
listener = "0.0.0.0:{USERS}"
allow = true
user = ["alice", "@staff"]
[[rule]]
name = "whoever logged in"
listener = "0.0.0.0:{USERS}"
allow = true
auth = "password"
[[rule]]
name = "claims"
listener = "0.0.0.0:{CLAIMS}"
allow = true
open = true
userid = "alice"
{JSON}"""

_names = count(1)


@pytest.fixture(scope="module")
def server(world: Network, world_dns: Dns, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """Run a server before the world."""
    program = world.proxy.command(*SERVE)
    with configured(tmp_path_factory.mktemp("policy"), RULES, program=program) as running:
        running.workers(2)
        yield running
        assert running.stop() == 0, running.errors


@pytest.fixture
def to_world(world: Network) -> Iterator[Syns]:
    """Watch what reaches the world."""
    with world.target.entering(watching()) as seen:
        yield seen


def told(world: Network, listener: int, *says: bytes) -> bytes:
    """Send a request to the end, and give all that the server says until it closes."""
    with world.client.call(dial, (PROXY, listener)) as sock:
        for one in says:
            sock.sendall(one)
        return read_all(sock)


def told5(world: Network, listener: int, host: str | bytes, port: int) -> bytes:
    """Ask for a CONNECT (RFC 1928); gives the reply, which must be a refusal."""
    answer = told(world, listener, b"\x05\x01\x00", request5(1, host, port))
    assert answer[:2] == b"\x05\x00"
    assert answer[3] != 0
    return answer[2:]


def refused5(code: int) -> bytes:
    """Give a whole failure reply (RFC 1928 section 6)."""
    return bytes((5, code, 0, 1)) + bytes(6)


def fresh(dns: Dns, *addresses: str, below: str = "test") -> bytes:
    """Give a name that leads there and that nobody has asked for."""
    return dns.add(f"p{next(_names)}.{below}", addresses).encode()


# D6: the ports that rules name


@pytest.mark.parametrize("port", [22, 25, 79, 81, 442, 444, 65535])
def test_a_port_that_no_rule_names_is_reached_in_no_way(
    world: Network, world_dns: Dns, server: Configured, to_world: Syns, port: int
) -> None:
    name = fresh(world_dns, HERE)
    world_dns.asked.clear()
    for host in (HERE, HERE.encode(), HERE6, f"::ffff:{HERE}", name):
        assert told5(world, WEB, host, port) == refused5(2)
    for address, domain in ((HERE, None), ("0.0.0.1", HERE.encode()), ("0.0.0.1", name)):
        assert told(world, WEB, request4(1, address, port, b"me", domain))[:2] == b"\x00\x5b"
    assert (to_world.seen(port), world_dns.asked) == ([], [])


def test_a_port_that_a_rule_names_is_reached(world: Network, world_dns: Dns, server: Configured) -> None:
    with world.target.entering(target(echo, host="0.0.0.0", port=443)):
        for host in (HERE, fresh(world_dns, HERE)):
            with world.client.call(dial, (PROXY, WEB)) as sock:
                sock.sendall(b"\x05\x01\x00" + request5(1, host, 443) + b"through")
                assert read_exactly(sock, 4) == b"\x05\x00\x05\x00"
                assert read_exactly(sock, 8 + 7)[-7:] == b"through"


# D8: what a refusal tells


def test_a_refused_name_is_refused_alike_whether_it_exists_or_not(
    world: Network, world_dns: Dns, server: Configured, to_world: Syns
) -> None:
    names = [fresh(world_dns, HERE), fresh(world_dns, "127.0.0.1"), fresh(world_dns), b"nowhere.test", b"allowed.test"]
    world_dns.asked.clear()
    assert {told5(world, SOME_NAMES, name, 80) for name in names} == {refused5(2)}
    four = {told(world, SOME_NAMES, request4(1, "0.0.0.1", 80, b"me", name)) for name in names}
    assert len(four) == 1
    assert four.pop()[:2] == b"\x00\x5b"
    assert (to_world.seen(80), world_dns.asked) == ([], [])


@pytest.mark.parametrize("host", ["127.0.0.1", PROXY, "203.0.113.1", "::1", PROXY6, "10.0.0.1"])
def test_a_service_that_clients_must_not_reach_is_refused_alike_whether_it_is_there_or_not(
    world: Network, world_dns: Dns, server: Configured, to_world: Syns, host: str
) -> None:
    """On the proxy host itself, on its networks, and in the world, under an address of @private."""
    with ExitStack() as stack:
        for where in (world.proxy, world.target):
            for every in ("0.0.0.0", "::"):
                stack.enter_context(where.entering(target(echo, host=every, port=7777)))
        name = world_dns.add(f"p{next(_names)}.test", *(((), (host,)) if ":" in host else ((host,), ()))).encode()
        for port in (7777, 7778):  # on one somebody listens, on the other nobody
            assert {told5(world, EVERYTHING, one, port) for one in (host, host.encode(), name)} == {refused5(2)}
    assert [*to_world.seen(7777), *to_world.seen(7778)] == []


# E8: what a SOCKS4 client claims


@pytest.fixture(scope="module")
def claiming(world: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """Run a server with a user, which takes SOCKS4 of the clients' network."""
    program = world.proxy.command(*SERVE)
    with configured(tmp_path_factory.mktemp("claims"), CLAIMING, program=program) as running:
        running.workers(2)
        yield running
        assert running.stop() == 0, running.errors


def test_a_claim_is_no_login_and_nobody_asks_the_client_for_it(
    world: Network, claiming: Configured, to_world: Syns
) -> None:
    with world.client.entering(watching()) as to_client, world.target.entering(target(echo, "0.0.0.0", 443)):
        assert told(world, USERS, request4(1, HERE, 443, b"alice"))[:2] == b"\x00\x5b"
        refused = claiming.record(rule="whoever logged in")
        assert (refused["why"], refused["userid"], refused["method"]) == ("policy", "alice", "none")
        assert "user" not in refused
        assert to_world.seen(443) == []
        with world.client.call(dial, (PROXY, CLAIMS)) as sock:
            sock.sendall(request4(1, HERE, 443, b"alice") + b"through")
            assert read_exactly(sock, 8 + 7)[:2] == b"\x00\x5a"
        served = claiming.record(rule="claims")
        assert (served["userid"], served["method"]) == ("alice", "none")
        assert "user" not in served
        assert told(world, CLAIMS, request4(1, HERE, 443, b"mallory"))[:2] == b"\x00\x5b"
        assert to_client.seen(IDENT) == []
        world.proxy.call(probe, IDENT)
        to_client.wait("198.51.100.2", IDENT)  # it would have been seen


def probe(port: int) -> None:
    """Connect to the client host, where nobody listens."""
    with socket.socket() as sock:
        assert sock.connect_ex(("198.51.100.2", port)) == errno.ECONNREFUSED
