"""UDP ASSOCIATE between hosts (RFC 1928 section 7): relays, routes, egress addresses, ICMP errors."""

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.namespaces import Namespace, Network
from helpers.serving import Command
from helpers.socks import greet5, read_reply5, request5
from helpers.udp import Association, address_of, datagrams, header, read_datagram
from helpers.waiting import until

PROXIES = ["10.91.1.1", "10.91.1.11", "fd91:1::1"]
CLIENT = {4: "10.91.1.2", 6: "fd91:1::2"}
HERE = {4: "10.91.2.3", 6: "fd91:2::3"}
EGRESS = {4: "10.91.2.1", 6: "fd91:2::1"}


@contextmanager
def associated(hosts: Network, proxy: str, **options: object) -> Iterator[Association]:
    """Make an association from the client host."""
    host = CLIENT[6 if ":" in proxy else 4]

    def make() -> Association:
        return Association((proxy, 1080), host, **options).granted()

    association = hosts.client.call(make)
    try:
        yield association
    finally:
        association.close()


@contextmanager
def remote(hosts: Network, host: str, port: int = 0) -> Iterator[socket.socket]:
    """Open a UDP socket on the target host."""
    with hosts.target.entering(datagrams(host, port)) as sock:
        yield sock


@pytest.mark.parametrize("address", PROXIES)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("declare", [False, True])
def test_the_relay_is_on_the_address_of_the_control_connection(
    hosts: Network, proxy: Command, address: str, version: int, declare: bool
) -> None:
    with associated(hosts, address, declare=declare) as client, remote(hosts, HERE[version]) as target:
        assert client.relay[0] == address
        assert client.talk(target)[0] == EGRESS[version]


def test_one_association_reaches_both_families_and_names(hosts: Network, proxy: Command) -> None:
    with associated(hosts, PROXIES[0]) as client:
        with remote(hosts, HERE[4]) as four, remote(hosts, HERE[6]) as six, remote(hosts, HERE[4]) as named:
            client.talk(four, b"four")
            client.talk(six, b"six")
            client.send(b"six.test", address_of(named)[1], b"by name")
            assert named.recv(99) == b"by name"


def test_a_relay_hears_nobody_but_its_client(hosts: Network, proxy: Command) -> None:
    with associated(hosts, PROXIES[0]) as client, remote(hosts, HERE[4]) as target:
        with hosts.client.entering(datagrams("10.91.1.20")) as stranger:
            stranger.sendto(b"\0\0\0\1" + socket.inet_aton(HERE[4]) + b"\0\x07stranger", client.relay)
            client.talk(target)
            stranger.sendto(b"\0\0\0\1" + socket.inet_aton(HERE[4]) + b"\0\x07stranger", client.relay)
            client.talk(target)


def test_icmp_errors_and_missing_routes_harm_only_their_own_datagrams(hosts: Network, proxy: Command) -> None:
    with associated(hosts, PROXIES[0]) as client, remote(hosts, HERE[4]) as four, remote(hosts, HERE[6]) as six:
        for address in (
            "10.93.1.1", "10.93.2.1", "10.93.3.1", "10.93.4.1", "10.92.1.1", "10.92.4.1", HERE[4],
            "fd93:0:1::1", "fd93:0:2::1", "fd93:0:3::1", "fd93:0:4::1", "fd92:0:1::1", "fd92:0:2::1", HERE[6],
        ):  # fmt: skip
            client.send(address, 9, b"lost")
            client.talk(four)
            client.talk(six)


def test_a_datagram_larger_than_the_link_is_relayed_whole(hosts: Network, proxy: Command) -> None:
    with associated(hosts, PROXIES[0]) as client, remote(hosts, HERE[4]) as four, remote(hosts, HERE[6]) as six:
        for target in (four, six):
            client.talk(target, b"u" * 20_000, b"d" * 30_000)


def test_a_relay_ends_with_its_control_connection(hosts: Network, proxy: Command) -> None:
    with associated(hosts, PROXIES[0]) as client, remote(hosts, HERE[4]) as target:
        client.talk(target)
        control = "{}:{}".format(*client.control.getsockname())
        client.control.close()
        line = proxy.record(client=control)
        assert (line["by"], line["why"]) == ("client", "fin")
        # Nobody is there any more: the relay host says so by ICMP.
        client.sock.connect(client.relay)
        with pytest.raises(ConnectionRefusedError):
            for _ in range(50):
                client.sock.send(b"\0\0\0\1" + socket.inet_aton(HERE[4]) + b"\0\x09gone")
                client.sock.settimeout(0.1)
                try:
                    client.sock.recv(1)
                except TimeoutError:
                    pass


def test_targets_see_the_egress_address_that_was_set(hosts: Network, proxies: object) -> None:
    udp = {"egress4": "10.91.2.11", "ports": [20_000, 20_010]}
    with proxies.open(listen=["10.91.1.11:1085"], udp=udp), remote(hosts, HERE[4]) as target:  # type: ignore[attr-defined]

        def make() -> Association:
            return Association(("10.91.1.11", 1085), CLIENT[4]).granted()

        client = hosts.client.call(make)
        try:
            assert client.relay[0] == "10.91.1.11"
            assert client.relay[1] in range(20_000, 20_011)
            assert client.talk(target)[0] == "10.91.2.11"
        finally:
            client.close()


def link_local(host: Namespace) -> str:
    """Give a host's own address on the link to its client or proxy, once the kernel is sure that it is the only one."""

    def find() -> str:
        (link,) = json.loads(host.ip("-json", "-6", "address", "show", "dev", "lan"))
        infos = [info for info in link["addr_info"] if info["scope"] == "link" and not info.get("tentative")]
        return str(infos[0]["local"]) if infos else ""

    return until(find, "the link-local address")


@pytest.mark.parametrize("ports", [None, [20_100, 20_110]])
def test_a_relay_towards_a_link_local_client_is_on_its_link(
    hosts: Network, proxies: object, ports: list[int] | None
) -> None:
    link_local(hosts.client)  # it can send now
    there = link_local(hosts.proxy)
    zone = hosts.client.call(socket.if_nametoindex, "lan")
    with (
        proxies.open(listen=["[::]:1086"], udp={"ports": ports} if ports else {}),  # type: ignore[attr-defined]
        remote(hosts, HERE[4]) as target,
        hosts.client.call(greet5, (f"{there}%lan", 1086)) as control,
        hosts.client.entering(datagrams("::")) as client,
    ):
        control.sendall(request5(3, "::", 0))
        reply, host, port = read_reply5(control)
        assert (reply, host) == (0, there)
        assert ports is None or ports[0] <= port <= ports[1]
        client.sendto(header(*address_of(target)) + b"ping", (host, port, 0, zone))
        data, egress = target.recvfrom(99)
        target.sendto(data + b" pong", egress)
        assert read_datagram(client.recv(99)) == (*address_of(target), b"ping pong")
