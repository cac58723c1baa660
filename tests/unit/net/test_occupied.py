"""Who listens on a port, and which addresses overlap."""

import os
import socket

import pytest

from tabi.addr import Endpoint
from tabi.net.occupied import Occupied, occupied, overlap


def at(text: str) -> Endpoint:
    return Endpoint.parse(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "0.0.0.0", "::1", "::", "::ffff:127.0.0.9"])
def test_a_listener_is_found_with_its_inode_and_its_address(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family, dualstack_ipv6=host == "::ffff:127.0.0.9") as sock:
        bound = Endpoint.from_sockaddr(sock.getsockname())
        assert occupied(bound.port) == [Occupied(os.fstat(sock.fileno()).st_ino, bound)]
    assert occupied(bound.port) == []


def test_connections_are_no_listeners() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            assert len(occupied(port)) == 1


@pytest.mark.parametrize(("one", "other", "does"), [
    ("127.0.0.1:1", "127.0.0.1:1", True),
    ("127.0.0.1:1", "127.0.0.1:2", False),
    ("127.0.0.1:1", "127.0.0.2:1", False),
    ("127.0.0.1:1", "0.0.0.0:1", True),
    ("127.0.0.1:1", "[::]:1", True),
    ("0.0.0.0:1", "[::]:1", True),
    ("[::1]:1", "[::]:1", True),
    ("[::1]:1", "0.0.0.0:1", False),
    ("[::1]:1", "127.0.0.1:1", False),
])  # fmt: skip
def test_addresses_overlap_where_a_connection_could_come_to_either(one: str, other: str, does: bool) -> None:
    assert overlap(at(one), at(other)) is does
    assert overlap(at(other), at(one)) is does
