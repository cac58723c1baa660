"""What clients from other hosts must not reach (rows D1 to D3, D7), by a configuration, with workers.

The proxy host stands before a world that answers at every address there is. So what would have been dialled would have
been reached: the traps hear of it.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count, pairwise
from typing import NamedTuple

import pytest

from helpers.configured import JSON, Configured, configured
from helpers.dns import AAAA, A, Dns
from helpers.namespaces import Network
from helpers.serving import SERVE
from helpers.socks import ask5, dial, greet5, read_all, read_exactly, read_reply5, request4, request5
from helpers.syns import Syns, watching
from helpers.targets import target
from helpers.udp import Association, address_of, datagrams, is_quiet
from helpers.waiting import until

HERE, HERE6 = "203.0.113.2", "2001:db8:2::2"
CLIENT, CLIENT6 = "198.51.100.2", "2001:db8:1::2"
PROXY, PROXY6 = "198.51.100.1", "2001:db8:1::1"
EVERYTHING, PRIVATE, NAMES, NAMES_AND_TEN, NO_LITERALS, OWN = range(1080, 1086)
NOT_ALLOWED, NO_NAME, REFUSED = 2, 4, 5

RULES = f"""\
listen = [{", ".join(f'"{host}:{port}"' for host in ("0.0.0.0", "[::]") for port in range(1080, 1086))}]
tor_resolve = true
[[rule]]
name = "private"
listener = ["0.0.0.0:{PRIVATE}", "[::]:{PRIVATE}"]
allow = true
open = true
to = "@private"
[[rule]]
name = "names"
listener = "0.0.0.0:{NAMES}"
allow = true
open = true
to = "*.test"
[[rule]]
name = "names and ten"
listener = "0.0.0.0:{NAMES_AND_TEN}"
allow = true
open = true
to = ["*.test", "10.0.0.0/8"]
[[rule]]
name = "no bad names"
listener = "0.0.0.0:{NO_LITERALS}"
refuse = "not-allowed"
to = "*.bad.test"
[[rule]]
name = "no literals"
listener = "0.0.0.0:{NO_LITERALS}"
allow = true
open = true
literals = false
[[rule]]
name = "everything"
listener = ["0.0.0.0:{EVERYTHING}", "[::]:{EVERYTHING}", "0.0.0.0:{OWN}"]
allow = true
open = true
any_peer = true
{JSON}"""

FORBIDDEN4 = [
    "0.0.0.1", "0.255.255.255", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254",
    "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.88.99.1", "192.168.1.1", "198.18.0.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255", "198.51.100.1", "203.0.113.1",
]  # fmt: skip
FORBIDDEN6 = [
    "::1", "::2", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:198.51.100.1",
    "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::198.51.100.1",
    "64:ff9b:1::8.8.8.8", "2002:7f00:1::1", "2002:a9fe:a9fe::1", "2002:c633:6401::1",
    "2001:0:cb00:7102:8000:63bf:80ff:fffe", "fc00::1", "fd00::1", "fe80::1", "fec0::1", "ff02::1", "100::1",
    "5f00::1", "2001:2::1", "2001:db8:1::1", "2001:db8:2::1", "2001:db8:9::1",
]  # fmt: skip
FORBIDDEN = FORBIDDEN4 + FORBIDDEN6
OTHER_TEXT = {
    "a dot behind": b"127.0.0.1.",
    "brackets": b"[::1]",
    "mapped in brackets": b"[::ffff:7f00:1]",
    "all of it": b"0:0:0:0:0:0:0:1",
    "capitals": b"::FFFF:7F00:0001",
    "wide digits": "１２７.0.0.１".encode(),
    "digits in circles": "①②⑦.⓪.⓪.①".encode(),
    "wide dots": "127。0。0。1".encode(),
    "localhost": b"localhost",
    "LOCALHOST.": b"LOCALHOST.",
    "localhost in circles": "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ".encode(),
    "a name in the hosts file": b"here.test",
}
NUMBERS = [
    b"2130706433", b"0x7f000001", b"0x7f.1", b"0177.0.0.1", b"017700000001", b"127.1", b"127.0.1", b"1.", b"0", b"0.",
    b"2852039166", b"0xa9fea9fe", b"169.16689662", b"127.0.0.01", b"0x7f.0.0.1", "０x7f.1".encode(), b"127.0.0.1\0",
    b"127.0.0.1\0.example.org", b"fe80::1%lo", b"::1%1", b"[::1", b"::ffff:127.1",
]  # fmt: skip

_names = count(1)


class Traps(NamedTuple):
    """One port on which the world listens at all its addresses, and the proxy host at its own."""

    port: int
    sightings: tuple[Syns, Syns]

    def seen(self) -> list[str]:
        """Give the addresses that were asked on the port."""
        return [address for one in self.sightings for address in one.seen(self.port)]


@pytest.fixture(scope="module")
def server(
    world: Network, world_dns: Dns, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Configured]:
    """Run a server before the world."""
    program = world.proxy.command(*SERVE)
    with configured(tmp_path_factory.mktemp("targets"), RULES, program=program) as running:
        running.workers(2)
        yield running
        assert running.stop() == 0, running.errors


@pytest.fixture(scope="module")
def laid(world: Network) -> Iterator[Traps]:
    """Lay the traps."""
    with ExitStack() as stack:
        port: int = stack.enter_context(world.target.entering(target(host="0.0.0.0")))[1]
        stack.enter_context(world.target.entering(target(host="::", port=port)))
        stack.enter_context(world.proxy.entering(target(host="0.0.0.0", port=port)))
        stack.enter_context(world.proxy.entering(target(host="::", port=port)))
        yield Traps(port, tuple(stack.enter_context(host.entering(watching())) for host in (world.target, world.proxy)))


@pytest.fixture
def traps(laid: Traps, server: Configured) -> Traps:
    """Give the traps, in which nobody is."""
    for one in laid.sightings:
        one.forget()
    return laid


def ask(world: Network, host: str | bytes, port: int, listener: int = EVERYTHING, command: int = 1) -> int:
    """Ask, and give the reply; what is granted must work, what is refused is closed."""
    sock, reply, _, _ = world.client.call(ask5, (PROXY, listener), command, host, port)
    with sock:
        if reply == 0 and command == 1:
            sock.sendall(b"through")
            assert read_exactly(sock, 7) == b"through"
        elif reply:
            assert read_all(sock) == b""
    return reply


def ask4(world: Network, address: str, port: int, domain: bytes | None = None, command: int = 1) -> int:
    """Ask by SOCKS4 or 4a, and give CD."""
    with world.client.call(dial, (PROXY, EVERYTHING)) as sock:
        sock.sendall(request4(command, address, port, b"me", domain))
        return read_exactly(sock, 8)[1]


def fresh(dns: Dns, *addresses: str) -> bytes:
    """Give a name that leads there and that nobody has asked for."""
    four = tuple(address for address in addresses if ":" not in address)
    return dns.add(f"n{next(_names)}.test", four, tuple(set(addresses) - set(four))).encode()


# the traps work


@pytest.mark.parametrize("address", ["169.254.169.254", "10.0.0.1", "127.0.0.1", "203.0.113.1", "64:ff9b::127.0.0.1"])
def test_a_rule_that_names_private_networks_leads_there(world: Network, traps: Traps, address: str) -> None:
    assert ask(world, address, traps.port, PRIVATE) == 0
    assert traps.seen() == [str(socket.inet_ntop(10, socket.inet_pton(10, address))) if ":" in address else address]


@pytest.mark.parametrize("address", [HERE, HERE6, "::ffff:203.0.113.2", "64:ff9b::203.0.113.2", "2002:cb00:7102::1"])
def test_what_is_public_is_reached_in_every_form(world: Network, traps: Traps, world_dns: Dns, address: str) -> None:
    for host in (address, address.encode(), fresh(world_dns, address)):
        assert ask(world, host, traps.port) == 0
    assert traps.seen()


# D1: literals, by ATYP and as text


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_address_of_a_private_network_is_reached(world: Network, traps: Traps, address: str) -> None:
    assert ask(world, address, traps.port) == NOT_ALLOWED
    assert ask(world, address.encode(), traps.port) == NOT_ALLOWED
    assert ask4(world, "0.0.0.1", traps.port, address.encode()) == 91
    if ":" not in address and not address.startswith("0.0.0."):  # which would be the mark of SOCKS4a
        assert ask4(world, address, traps.port) == 91
    assert traps.seen() == []


@pytest.mark.parametrize("text", OTHER_TEXT.values(), ids=OTHER_TEXT)
def test_no_way_to_write_an_address_leads_around_the_rules(world: Network, traps: Traps, text: bytes) -> None:
    assert ask(world, text, traps.port) == NOT_ALLOWED
    assert ask4(world, "0.0.0.1", traps.port, text) == 91
    assert traps.seen() == []


@pytest.mark.parametrize("text", NUMBERS)
def test_what_only_a_c_library_reads_as_an_address_is_no_name(
    world: Network, traps: Traps, world_dns: Dns, text: bytes
) -> None:
    world_dns.asked.clear()
    assert ask(world, text, traps.port) == NO_NAME
    if b"\0" not in text:
        assert ask4(world, "0.0.0.1", traps.port, text) == 91
    assert (traps.seen(), world_dns.asked) == ([], [])


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "::ffff:0.0.0.0"])
def test_the_unspecified_address_is_nobody(world: Network, traps: Traps, world_dns: Dns, address: str) -> None:
    assert ask(world, address, traps.port) == 1
    assert ask(world, address.encode(), traps.port) == 1
    assert ask(world, address, traps.port, PRIVATE) == 1
    assert ask(world, fresh(world_dns, address), traps.port) in (NOT_ALLOWED, NO_NAME)
    assert ask(world, fresh(world_dns, address), traps.port, PRIVATE) in (NOT_ALLOWED, NO_NAME)
    assert traps.seen() == []


# D2, D3: names


@pytest.mark.parametrize("address", FORBIDDEN)
@pytest.mark.parametrize("listener", [EVERYTHING, NAMES])
def test_no_name_leads_into_a_private_network(
    world: Network, traps: Traps, world_dns: Dns, address: str, listener: int
) -> None:
    assert ask(world, fresh(world_dns, address), traps.port, listener) == NOT_ALLOWED
    assert traps.seen() == []


@pytest.mark.parametrize("forbidden", ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "64:ff9b::10.0.0.1"])
def test_of_mixed_answers_only_the_public_one_is_tried(
    world: Network, traps: Traps, world_dns: Dns, forbidden: str
) -> None:
    for _ in range(3):
        assert ask(world, fresh(world_dns, forbidden, HERE), traps.port) == 0
        assert ask(world, fresh(world_dns, HERE6, forbidden), traps.port, NAMES) == 0
    assert set(traps.seen()) == {HERE, HERE6}


def test_when_the_public_address_fails_the_private_ones_are_still_not_tried(
    world: Network, traps: Traps, world_dns: Dns
) -> None:
    with ExitStack() as stack:
        port = stack.enter_context(world.proxy.entering(target(host="127.0.0.1")))[1]
        stack.enter_context(world.proxy.entering(target(host="::1", port=port)))
        assert ask(world, fresh(world_dns, HERE, "127.0.0.1", "::1", "10.0.0.1"), port) == REFUSED
        assert traps._replace(port=port).seen() == [HERE]


@pytest.mark.parametrize("links", [1, 3])
def test_an_alias_is_judged_by_where_it_ends(world: Network, traps: Traps, world_dns: Dns, links: int) -> None:
    for address, reply in (("127.0.0.1", NOT_ALLOWED), (HERE, 0)):
        names = [fresh(world_dns, address).decode() for _ in range(links + 1)]
        world_dns.aliases |= dict(pairwise(names))
        assert ask(world, names[0].encode(), traps.port) == reply
    assert traps.seen() == [HERE]


def test_a_rule_that_names_a_network_opens_that_one_to_names_too(
    world: Network, traps: Traps, world_dns: Dns
) -> None:
    assert ask(world, fresh(world_dns, "10.0.0.1"), traps.port, NAMES_AND_TEN) == 0
    assert ask(world, "10.0.0.1", traps.port, NAMES_AND_TEN) == 0
    assert ask(world, fresh(world_dns, "192.168.0.1"), traps.port, NAMES_AND_TEN) == NOT_ALLOWED
    assert ask(world, "192.168.0.1", traps.port, NAMES_AND_TEN) == NOT_ALLOWED
    assert set(traps.seen()) == {"10.0.0.1"}


def test_literals_do_not_lead_around_names_where_they_are_refused(
    world: Network, traps: Traps, world_dns: Dns
) -> None:
    bad = world_dns.add("host.bad.test", (HERE,)).encode()
    assert ask(world, fresh(world_dns, HERE), traps.port, NO_LITERALS) == 0
    for host in (bad, b"HOST.BAD.test.", HERE, HERE.encode(), b"203.0.113.2.", b"[::ffff:203.0.113.2]", HERE6):
        assert ask(world, host, traps.port, NO_LITERALS) == NOT_ALLOWED
    assert traps.seen() == [HERE]


@pytest.mark.parametrize("forbidden", ["127.0.0.1", "10.0.0.1", "::1"])
def test_a_name_whose_answer_changes_is_judged_by_the_new_one(
    world: Network, traps: Traps, world_dns: Dns, forbidden: str
) -> None:
    """Answers hold for no time; ours for a second at least. Each connection has one answer, judged and used."""
    kind = "aaaa" if ":" in forbidden else "a"
    name = world_dns.add(f"n{next(_names)}.test", **{kind: [(HERE6 if ":" in forbidden else HERE,), (forbidden,)]})
    replies = [ask(world, name.encode(), traps.port)]
    while replies[-1] == 0:
        replies.append(ask(world, name.encode(), traps.port))
    assert (replies[0], replies[-1]) == (0, NOT_ALLOWED)
    assert forbidden not in traps.seen()


def test_a_refused_look_up_tells_no_address(world: Network, server: Configured, world_dns: Dns) -> None:
    name = fresh(world_dns, "10.0.0.1")
    sock, reply, host, port = world.client.call(ask5, (PROXY, EVERYTHING), 0xF0, name, 0)
    with sock:
        assert (reply, host, port) == (NOT_ALLOWED, "0.0.0.0", 0)
    assert ask(world, fresh(world_dns, HERE), 0, command=0xF0) == 0


# D7: the server itself


@pytest.mark.parametrize("own", [PROXY, "203.0.113.1", "127.0.0.1", PROXY6, "2001:db8:2::1", "::1"])
def test_it_connects_to_none_of_its_own_listeners(world: Network, server: Configured, world_dns: Dns, own: str) -> None:
    with world.proxy.entering(watching()) as seen:
        for listener in (EVERYTHING, NAMES, OWN):
            for host in (own, own.encode(), fresh(world_dns, own)):
                if listener != NAMES or isinstance(host, bytes):
                    assert ask(world, host, OWN, listener) == NOT_ALLOWED
        asked = seen.seen(OWN)
    assert set(asked) <= {PROXY}, "the client itself came there"


def test_a_server_that_may_connect_to_itself_does_not_run_in_circles(world: Network, server: Configured) -> None:
    """Each round takes a whole handshake of the client's."""
    rounds = 20
    with world.client.call(greet5, (PROXY, PRIVATE)) as sock:
        for _ in range(rounds):
            sock.sendall(request5(1, "127.0.0.1", PRIVATE))
            assert read_reply5(sock)[0] == 0
            sock.sendall(b"\x05\x01\x00")
            assert read_exactly(sock, 2) == b"\x05\x00"
        # The last has its answer before the server counts it as a tunnel.
        until(lambda: len(server.rows("sessions", target=f"127.0.0.1:{PRIVATE}")) == rounds, "a session of each round")
    until(lambda: not server.rows("sessions", target=f"127.0.0.1:{PRIVATE}"), "all to end")


# BIND


@pytest.mark.parametrize("address", FORBIDDEN)
def test_no_port_is_opened_for_a_peer_that_is_forbidden(world: Network, world_dns: Dns, address: str) -> None:
    for host in (address, address.encode(), fresh(world_dns, address)):
        assert ask(world, host, 0, command=2) == NOT_ALLOWED
    if ":" not in address and not address.startswith("0.0.0."):
        assert ask4(world, address, 9, command=2) == 91


@pytest.mark.parametrize(("peer", "reply"), [(HERE, 0), ("10.0.0.1", 2), ("127.0.0.1", 2), ("192.0.2.9", 2)])
def test_only_an_allowed_address_of_a_name_may_be_the_peer(
    world: Network, server: Configured, world_dns: Dns, peer: str, reply: int
) -> None:
    name = fresh(world_dns, HERE, "10.0.0.1", "127.0.0.1")
    sock, first, host, port = world.client.call(ask5, (PROXY, EVERYTHING), 2, name, 0)
    with sock, peer_at(world, peer) as other:
        assert (first, host) == (0, "203.0.113.1")
        if reply:
            with pytest.raises(ConnectionResetError):  # perhaps before it knows that it is connected
                other.connect((host, port))
                other.recv(1)
            assert read_reply5(sock)[0] == reply
            assert read_all(sock) == b""
        else:
            other.connect((host, port))
            assert read_reply5(sock)[0] == reply
            other.sendall(b"through")
            assert read_exactly(sock, 7) == b"through"


@contextmanager
def peer_at(world: Network, address: str) -> Iterator[socket.socket]:
    """Open a socket that comes from any address."""
    host = world.proxy if address.startswith("127.") else world.target
    sock = host.call(socket.socket)
    with sock:
        sock.settimeout(20)
        sock.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND: the address is ours by the routing table only
        sock.bind((address, 0))
        yield sock


# UDP: every datagram


@contextmanager
def associated(world: Network, listener: int = EVERYTHING) -> Iterator[Association]:
    """Make an association from the client host."""
    association = world.client.call(lambda: Association((PROXY, listener), CLIENT).granted())
    try:
        yield association
    finally:
        association.close()


def test_no_datagram_goes_to_an_address_that_is_forbidden(world: Network, server: Configured, world_dns: Dns) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(associated(world))
        public = stack.enter_context(world.target.entering(datagrams(HERE)))
        port = address_of(public)[1]
        trap = [
            stack.enter_context(host.entering(datagrams("::", port + 1)))  # of both families
            for host in (world.target, world.proxy)
        ]
        control = "{}:{}".format(*client.control.getsockname())
        sent = 0
        for address in FORBIDDEN:
            client.send(address, port + 1, b"forbidden")
            client.send(address.encode(), port + 1, b"forbidden")
            name = fresh(world_dns, address)
            client.send(name, port + 1, b"forbidden")
            until(lambda name=name: {(name.decode(), A), (name.decode(), AAAA)} <= {*world_dns.asked}, "both answers")
            client.talk(public)  # so hardly a name waits when the next one comes
            sent += 3
        for text in OTHER_TEXT.values():
            client.send(text, port + 1, b"forbidden")
            client.talk(public)
            sent += 1
        mixed = fresh(world_dns, "127.0.0.1", HERE)
        client.send(mixed, port, b"allowed")
        assert public.recv(99) == b"allowed"
        assert all(map(is_quiet, trap))
        client.control.close()
        line = server.record(client=control)
        assert line["note"] == f"dropped: denied {sent}"
