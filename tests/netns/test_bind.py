"""BIND on a host with several addresses: the listener is where the peer can reach it (RFC 1928 section 4)."""

import socket

import pytest

from helpers.namespaces import Network
from helpers.serving import Command
from helpers.socks import ask5, dial, read_all, read_exactly, read_reply5, request4

HERE = {4: "10.91.2.3", 6: "fd91:2::3"}
EGRESS = {4: "10.91.2.1", 6: "fd91:2::1"}
CLIENT = {4: "10.91.1.2", 6: "fd91:1::2"}
PROXIES = [("10.91.1.1", 1080), ("10.91.1.11", 1080), ("fd91:1::1", 1080)]


def arrive(hosts: Network, source: str, there: tuple[str, int]) -> socket.socket:
    """Connect from an address of the target host."""
    sock: socket.socket = hosts.target.call(socket.create_connection, there, 20, (source, 0))
    return sock


@pytest.mark.parametrize("address", PROXIES)
@pytest.mark.parametrize("version", [4, 6])
def test_bind_listens_on_the_source_address_of_the_route_to_the_peer(
    hosts: Network, proxy: Command, address: tuple[str, int], version: int
) -> None:
    sock, reply, host, port = hosts.client.call(ask5, address, 2, HERE[version], 0)
    with sock:
        assert (reply, host) == (0, EGRESS[version])
        with arrive(hosts, HERE[version], (host, port)) as peer:
            assert read_reply5(sock) == (0, *peer.getsockname()[:2])
            peer.sendall(b"220 data")
            assert read_exactly(sock, 8) == b"220 data"
            sock.sendall(b"up")
            sock.shutdown(socket.SHUT_WR)
            assert read_all(peer) == b"up"


def test_bind_towards_the_clients_own_network_listens_there(hosts: Network, proxy: Command) -> None:
    sock, reply, host, _ = hosts.client.call(ask5, PROXIES[0], 2, CLIENT[4], 0)
    with sock:
        assert (reply, host) == (0, "10.91.1.1")


def test_bind_for_socks4_says_the_same(hosts: Network, proxy: Command) -> None:
    with hosts.client.call(dial, PROXIES[0]) as sock:
        sock.sendall(request4(2, HERE[4], 21))
        first = read_exactly(sock, 8)
        assert first[:2] == b"\0\x5a"
        assert socket.inet_ntoa(first[4:]) == EGRESS[4]
        with arrive(hosts, HERE[4], (EGRESS[4], int.from_bytes(first[2:4], "big"))) as peer:
            second = read_exactly(sock, 8)
            assert second == b"\0\x5a" + peer.getsockname()[1].to_bytes(2, "big") + socket.inet_aton(HERE[4])


def test_a_peer_from_another_address_is_reset_and_the_client_hears_2(hosts: Network, proxy: Command) -> None:
    sock, _, host, port = hosts.client.call(ask5, PROXIES[0], 2, HERE[4], 0)

    def arrive_and_read() -> None:
        with arrive(hosts, "10.91.2.4", (host, port)) as peer:  # the reset may come before connect() has returned
            peer.recv(1)

    with sock:
        with pytest.raises(ConnectionResetError):
            arrive_and_read()
        assert read_reply5(sock)[0] == 2
        assert read_all(sock) == b""


@pytest.mark.parametrize(("address", "reply"), [("10.93.4.1", 3), ("10.93.1.1", 4), ("fd93:0:4::1", 3)])
def test_without_a_route_to_the_peer_the_reply_says_so(
    hosts: Network, proxy: Command, address: str, reply: int
) -> None:
    sock, said, _, _ = hosts.client.call(ask5, PROXIES[0], 2, address, 0)
    with sock:
        assert said == reply
        assert read_all(sock) == b""


def test_after_the_peer_the_port_is_closed(hosts: Network, proxy: Command) -> None:
    sock, _, host, port = hosts.client.call(ask5, PROXIES[0], 2, HERE[4], 0)
    with sock, arrive(hosts, HERE[4], (host, port)):
        assert read_reply5(sock)[0] == 0
        with pytest.raises(ConnectionRefusedError):
            arrive(hosts, HERE[4], (host, port))
