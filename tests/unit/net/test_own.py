"""This host's addresses, as the kernel knows them."""

import socket
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from tabi.net.own import own_addresses


def test_loopback_is_ours() -> None:
    assert ip_address("127.0.0.1") in own_addresses()


def test_ipv4_addresses_are_ones_that_can_be_bound() -> None:
    for address in own_addresses():
        if address.version == 4:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                sock.bind((str(address), 0))


def test_ipv6_addresses_are_those_of_proc() -> None:
    table = Path("/proc/net/if_inet6")
    listed = (
        {IPv6Address(int(line.split()[0], 16)) for line in table.read_text().splitlines()} if table.exists() else set()
    )
    assert {address for address in own_addresses() if address.version == 6} == listed
