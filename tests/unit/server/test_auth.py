"""Passwords compares whole byte strings and shows none."""

import asyncio

import pytest

from tabi.addr import Endpoint
from tabi.server import Passwords

CLIENT = Endpoint.parse("127.0.0.1:9")


@pytest.mark.parametrize(
    ("user", "password", "good"),
    [
        (b"alice", b"secret", True),
        (b"alice", b"secret\0", False),
        (b"alice", b"secre", False),
        (b"alice", b"no such user", False),
        (b"bob", b"no such user", False),
        (b"bob", b"secret", False),
        (b"alice\0", b"secret", False),
        (b"Alice", b"secret", False),
    ],
)
def test_only_the_exact_pair_is_good(user: bytes, password: bytes, good: bool) -> None:
    assert asyncio.run(Passwords({b"alice": b"secret"}).verify(user, password, CLIENT)) is good


def test_no_password_shows_in_a_repr() -> None:
    assert repr(Passwords({b"alice": b"secret"})) == "Passwords(1 users)"
