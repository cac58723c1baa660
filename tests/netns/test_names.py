"""Names with several addresses of which some do not work, and name servers that do not (RFC 8305)."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

import pytest

from helpers.dns import AAAA, Dns, Say
from helpers.namespaces import Network
from helpers.serving import Command
from helpers.socks import ask5, dial, greet5, read_all, read_exactly, read_reply5, request4, request5
from helpers.syns import Syns
from helpers.targets import target

ASKING = ("10.91.1.1", 1082)
HOST, REFUSED, EXPIRED = 4, 5, 6

# getaddrinfo sorts (RFC 6724): these share as many bits with the proxy host's address, so they stay as they come.
HERE, HERE6 = "10.91.2.4", "fd91:2::4"  # the targets are here
REFUSES, REFUSES6 = "10.91.2.6", "fd91:2::6"  # and not here
SILENT, SILENT6 = "10.91.2.5", "fd91:2::5"
NO_ROUTE, NO_ROUTE6 = "10.93.4.1", "fd93:0:4::1"

_numbers, _sources = count(1), count(0)


def fresh() -> str:
    """Give a name that nobody has asked for, for answers are kept."""
    return f"n{next(_numbers)}.test"


@contextmanager
def targets(hosts: Network) -> Iterator[int]:
    """Run an echo on HERE and HERE6, on one port."""
    with ExitStack() as stack:
        _, port = stack.enter_context(hosts.target.entering(target(host=HERE)))
        stack.enter_context(hosts.target.entering(target(host=HERE6, port=port)))
        yield port


def ask(hosts: Network, name: str, port: int) -> tuple[socket.socket, int, str]:
    """Ask for a name; gives the socket, the reply and BND.ADDR.

    Each from another address: a getaddrinfo that waits for a silent name server counts against the client, long after
    the client has been told.
    """
    sock = hosts.client.call(greet5, ASKING, (f"10.91.1.{20 + next(_sources) % 10}", 0))
    sock.sendall(request5(1, name.encode(), port))
    return sock, *read_reply5(sock)[:2]


def reaches(hosts: Network, name: str, port: int, asking: Command) -> str:
    """Ask for a name that must be reached, and talk; gives the address that it led to, as the log has it."""
    sock, reply, bound = ask(hosts, name, port)
    with sock:
        assert reply == 0
        sock.sendall(b"through")
        assert read_exactly(sock, 7) == b"through"
    line = asking.record(target=f"{name}:{port}")
    to: str = line["to"]
    assert bound in ("10.91.2.1", "fd91:2::1")
    return to.rpartition(":")[0].strip("[]")


def fails(hosts: Network, name: str, port: int = 9) -> int:
    """Ask for a name that cannot be reached; gives the reply."""
    sock, reply, _ = ask(hosts, name, port)
    with sock:
        assert read_all(sock) == b""
    return reply


@pytest.mark.parametrize(
    ("a", "aaaa", "tried", "winner"),
    [
        pytest.param((REFUSES, HERE), (), [REFUSES, HERE], HERE, id="the first refuses"),
        pytest.param((SILENT, HERE), (), [SILENT, HERE], HERE, id="the first is silent"),
        pytest.param((NO_ROUTE, HERE), (), [HERE], HERE, id="the first has no route"),
        pytest.param((SILENT, REFUSES, HERE), (), [SILENT, REFUSES, HERE], HERE, id="silent, refuses, works"),
        pytest.param((), (REFUSES6, HERE6), [REFUSES6, HERE6], HERE6, id="the first of IPv6 refuses"),
        pytest.param((HERE,), (REFUSES6,), [REFUSES6, HERE], HERE, id="IPv6 refuses"),
        pytest.param((HERE,), (SILENT6,), [SILENT6, HERE], HERE, id="IPv6 is silent"),
        pytest.param((HERE,), (NO_ROUTE6,), [HERE], HERE, id="IPv6 has no route"),
        pytest.param((HERE,), ("fd92:0:2::1",), ["fd92:0:2::1", HERE], HERE, id="IPv6 is prohibited"),
        pytest.param((REFUSES,), (HERE6,), [HERE6], HERE6, id="IPv6 works"),
        pytest.param((HERE,), (SILENT6, REFUSES6), [SILENT6, HERE], HERE, id="the families take turns"),
    ],
)
def test_an_address_that_fails_is_followed_by_the_next(
    hosts: Network, dns: Dns, asking: Command, syns: Syns,
    a: tuple[str, ...], aaaa: tuple[str, ...], tried: list[str], winner: str,
) -> None:  # fmt: skip
    name = dns.add(fresh(), a, aaaa)
    with targets(hosts) as port:
        assert reaches(hosts, name, port, asking) == winner
        seen = syns.seen(port)
    assert seen == tried


@pytest.mark.parametrize("name", ["two.test", "twisted.test"])
def test_a_name_in_the_hosts_file_with_two_addresses_is_reached_by_the_one_that_works(
    hosts: Network, asking: Command, name: str
) -> None:
    for address in (HERE, REFUSES):
        with hosts.target.entering(target(host=address)) as (_, port):
            assert reaches(hosts, name, port, asking) == address


def test_a_name_in_the_hosts_file_with_both_families_falls_back_to_ipv4(
    hosts: Network, asking: Command, syns: Syns
) -> None:
    with hosts.target.entering(target(host="10.91.2.3")) as (_, port):
        assert reaches(hosts, "six.test", port, asking) == "10.91.2.3"
        assert syns.seen(port) == ["fd91:2::3", "10.91.2.3"]


def test_when_all_are_silent_each_was_tried_and_the_reply_is_6(
    hosts: Network, dns: Dns, asking: Command, syns: Syns
) -> None:
    addresses = ("10.92.3.11", "10.92.3.12", "10.92.3.13")
    name = dns.add(fresh(), addresses, ("fd92:0:3::11", "fd92:0:3::12"))
    assert fails(hosts, name, 4711) == EXPIRED
    assert sorted(syns.seen(4711)) == sorted([*addresses, "fd92:0:3::11", "fd92:0:3::12"])
    assert asking.record(target=f"{name}:4711")["why"] == "limit:connect"


@pytest.mark.parametrize(
    ("a", "aaaa", "reply"),
    [
        pytest.param((REFUSES, NO_ROUTE), (NO_ROUTE6,), REFUSED, id="a refusal says more than no route"),
        pytest.param((NO_ROUTE,), (NO_ROUTE6,), 3, id="no route to any"),
        pytest.param(("10.93.1.1",), (NO_ROUTE6,), HOST, id="an unreachable host says more than no route"),
    ],
)
def test_when_all_fail_the_reply_is_the_most_telling(
    hosts: Network, dns: Dns, asking: Command, a: tuple[str, ...], aaaa: tuple[str, ...], reply: int
) -> None:
    assert fails(hosts, dns.add(fresh(), a, aaaa)) == reply


@pytest.mark.parametrize(
    ("a", "aaaa"),
    [
        pytest.param((HERE,), (), id="no AAAA"),
        pytest.param((HERE,), Say.NXDOMAIN, id="NXDOMAIN for AAAA"),
        pytest.param((HERE,), Say.SERVFAIL, id="SERVFAIL for AAAA"),
        pytest.param((HERE,), Say.NOTHING, id="silence about AAAA"),
        pytest.param((), (HERE6,), id="no A"),
        pytest.param(Say.SERVFAIL, (HERE6,), id="SERVFAIL for A"),
        pytest.param(Say.NOTHING, (HERE6,), id="silence about A"),
    ],
)
def test_one_family_will_do_whatever_becomes_of_the_other(
    hosts: Network, dns: Dns, asking: Command, a: tuple[str, ...] | Say, aaaa: tuple[str, ...] | Say
) -> None:
    name = dns.add(fresh(), a, aaaa)
    with targets(hosts) as port:
        assert reaches(hosts, name, port, asking) == (HERE if isinstance(a, tuple) and a else HERE6)


def test_a_late_answer_is_used_when_the_early_ones_lead_nowhere(
    hosts: Network, dns: Dns, asking: Command, syns: Syns
) -> None:
    name = dns.add(fresh(), (SILENT,), Say.LATER)
    with targets(hosts) as port, hosts.client.call(greet5, ASKING) as sock:
        sock.sendall(request5(1, name.encode(), port))
        syns.wait(SILENT, port)
        dns.release(name, AAAA, (HERE6,))
        assert read_reply5(sock)[0] == 0
        sock.sendall(b"late")
        assert read_exactly(sock, 4) == b"late"
        assert syns.seen(port) == [SILENT, HERE6]


@pytest.mark.parametrize(
    ("what", "reply", "why"),
    [
        (Say.NXDOMAIN, HOST, "failed"),
        ((), HOST, "failed"),  # the name exists, without an address
        (Say.SERVFAIL, HOST, "failed"),
        (Say.REFUSED, HOST, "failed"),
        (Say.NOTHING, EXPIRED, "limit:connect"),
    ],
)
def test_the_reply_says_why_a_name_could_not_be_looked_up(
    hosts: Network, dns: Dns, asking: Command, what: tuple[str, ...] | Say, reply: int, why: str
) -> None:
    name = dns.add(fresh(), what, what)
    assert fails(hosts, name) == reply
    line = asking.record(target=f"{name}:9")
    assert (line["reply"], line["why"].replace("limit:resolve", "limit:connect")) == (reply, why)
    assert "to" not in line


def test_a_look_up_without_an_answer_ends_before_the_connect_limit(hosts: Network, dns: Dns, proxy: Command) -> None:
    name = dns.add(fresh(), Say.NOTHING, Say.NOTHING)
    sock, reply, _, _ = hosts.client.call(ask5, ("10.91.1.1", 1080), 1, name.encode(), 9)
    with sock:
        assert read_all(sock) == b""
    assert reply == EXPIRED
    assert proxy.record(target=f"{name}:9")["why"] == "limit:resolve"


def test_a_socks4a_client_reaches_a_name_that_has_ipv6_only(hosts: Network, dns: Dns, asking: Command) -> None:
    name = dns.add(fresh(), (), (HERE6,))
    with targets(hosts) as port, hosts.client.call(dial, ASKING, ("10.91.1.2", 0)) as sock:
        sock.sendall(request4(1, "0.0.0.1", port, b"", name.encode()))
        assert read_exactly(sock, 8) == b"\0\x5a" + port.to_bytes(2, "big") + b"\0\0\0\0"
        sock.sendall(b"six")
        assert read_exactly(sock, 3) == b"six"
