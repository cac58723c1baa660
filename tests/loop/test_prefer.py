"""The family that a rule prefers, where a name has addresses of both and both would do."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.clocks import HeldClock
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import connect5, read_all
from helpers.targets import same_port, target
from tabi.config.load import load_text

TABLE = {"both.example": ["::1", "127.0.0.1"], "four.example": ["127.0.0.1"], "six.example": ["::1"]}


@pytest.fixture
def port() -> Iterator[int]:
    """Run a target on both loopback addresses, which tells the one that it was reached at, and give its port."""
    with same_port("127.0.0.1", "::1", handler=tell_where) as found:
        yield found


@pytest.fixture(autouse=True)
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no family be tried only because the other takes long."""
    HeldClock(monkeypatch)


def tell_where(sock: socket.socket) -> None:
    sock.sendall(sock.getsockname()[0].encode())


@contextmanager
def preferring(key: str) -> Iterator[Running]:
    """Run a server by one rule that has this key."""
    rules = load_text(f'[[rule]]\nname = "r"\nallow = true\nto = "@private"\n{key}\n', "tabi.toml").rules
    with serving(policy=rules) as running:
        NameService(TABLE).serve(running)
        yield running


@pytest.mark.parametrize(
    ("key", "expected"),
    [('prefer = "ipv4"', "127.0.0.1"), ('prefer = "ipv6"', "::1"), ("", "::1")],
    ids=["ipv4", "ipv6", "default"],
)
def test_the_preferred_family_is_taken(port: int, key: str, expected: str) -> None:
    with preferring(key) as running:
        for _ in range(3):  # asked again what is known already, by the express lane where that is on
            with connect5(running.address, b"both.example", port) as sock:
                assert read_all(sock).decode() == expected
        shown = f"[{expected}]:{port}" if ":" in expected else f"{expected}:{port}"
        assert running.line(target=f"both.example:{port}")["to"] == shown


@pytest.mark.parametrize(
    ("key", "name", "expected"),
    [('prefer = "ipv4"', b"six.example", b"::1"), ('prefer = "ipv6"', b"four.example", b"127.0.0.1")],
)
def test_a_name_without_the_preferred_family_is_reached_by_the_other(
    port: int, key: str, name: bytes, expected: bytes
) -> None:
    with preferring(key) as running, connect5(running.address, name, port) as sock:
        assert read_all(sock) == expected


@pytest.mark.parametrize(("key", "there"), [('prefer = "ipv4"', "::1"), ('prefer = "ipv6"', "127.0.0.1")])
def test_where_the_preferred_address_refuses_the_other_is_tried(key: str, there: str) -> None:
    with target(tell_where, host=there) as (_, port), preferring(key) as running:
        with connect5(running.address, b"both.example", port) as sock:
            assert read_all(sock).decode() == there
