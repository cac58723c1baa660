"""/etc/hosts: what is written for a name, and nothing else."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from tabi.addr import Name
from tabi.net.hostsfile import HostsFile

TEXT = """\
127.0.0.1 localhost  Alias.Example  # a comment
127.0.0.1\tmyhost
192.0.2.7 myhost
::1 localhost ip6-localhost
fe80::1%eth0 scoped
not-an-address name
192.0.2.9
# 192.0.2.8 commented
192.0.2.10 bad!name good
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hosts"
    path.write_text(TEXT)
    return path


def test_a_name_has_the_addresses_of_its_lines_in_their_order_and_no_others(file: Path) -> None:
    hosts = HostsFile(file)
    assert hosts.addresses(Name("localhost")) == (ip_address("127.0.0.1"), ip_address("::1"))
    assert hosts.addresses(Name("myhost")) == (ip_address("127.0.0.1"), ip_address("192.0.2.7"))
    assert hosts.addresses(Name("alias.example")) == (ip_address("127.0.0.1"),)
    assert hosts.addresses(Name("scoped")) == (ip_address("fe80::1"),)
    assert hosts.addresses(Name("good")) == (ip_address("192.0.2.10"),)


@pytest.mark.parametrize("name", ["name", "commented", "elsewhere.example"])
def test_what_is_not_written_is_not_known(file: Path, name: str) -> None:
    assert HostsFile(file).addresses(Name(name)) is None


def test_an_address_has_its_first_name(file: Path) -> None:
    hosts = HostsFile(file)
    assert hosts.name(ip_address("127.0.0.1")) == Name("localhost")
    assert hosts.name(ip_address("192.0.2.99")) is None


def test_a_file_that_changes_is_read_again_and_one_that_is_gone_is_empty(file: Path) -> None:
    now = [100.0]
    hosts = HostsFile(file, clock=lambda: now[0])
    assert hosts.addresses(Name("new")) is None
    file.write_text("192.0.2.1 new\n")
    assert hosts.addresses(Name("new")) is None  # it was looked at just now
    now[0] += 1
    assert hosts.addresses(Name("new")) == (ip_address("192.0.2.1"),)
    os.unlink(file)
    now[0] += 1
    assert hosts.addresses(Name("new")) is None
