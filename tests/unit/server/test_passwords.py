"""Hashing with argon2id, and what is verified by it."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.accounts import cheap_hash
from tabi.config.stored import Hash, parse_stored
from tabi.errors import ConfigError
from tabi.server.passwords import decoy, hash_password, matches

# argon2 reference implementation, test.c: hashtest(version, 2, 16, 1, "password", "somesalt", …, Argon2_id)
KNOWN = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"


def test_a_hash_of_the_reference_implementation_is_verified() -> None:
    stored = parse_stored(KNOWN)
    assert isinstance(stored, Hash)
    assert (stored.memory, stored.passes, stored.lanes) == (65536, 2, 1)
    assert matches(stored, b"password")
    assert not matches(stored, b"differentpassword")


def test_a_new_hash_verifies_its_password_only() -> None:
    text = hash_password("pässwörd".encode())
    assert text.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    stored = parse_stored(text)
    assert isinstance(stored, Hash)
    assert matches(stored, "pässwörd".encode())
    assert not matches(stored, b"password")
    assert hash_password("pässwörd".encode()) != text


@given(st.binary(min_size=1, max_size=255), st.binary(min_size=1, max_size=255))
def test_whole_byte_strings_are_compared(password: bytes, other: bytes) -> None:
    stored = parse_stored(cheap_hash(password))
    assert isinstance(stored, Hash)
    assert matches(stored, password)
    assert matches(stored, other) is (other == password)
    assert not matches(stored, password + b"\0")
    assert not matches(stored, password[:-1])


def test_a_decoy_costs_the_same_and_nothing_opens_it() -> None:
    for text in (KNOWN, cheap_hash(b"x", memory_cost=32, parallelism=2, hash_len=24)):
        stored = parse_stored(text)
        assert isinstance(stored, Hash)
        made = decoy(stored)
        assert (made.memory, made.passes, made.lanes) == (stored.memory, stored.passes, stored.lanes)
        assert len(made.encoded) == len(stored.encoded)
        assert parse_stored(made.encoded.decode()) == made
        assert not matches(made, b"x")
        assert decoy(stored) != made


def test_without_argon2_the_way_to_install_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="argon2-cffi is not installed") as caught:
        hash_password(b"secret")
    assert f"{sys.executable} -m pip install 'tabi[server]'" in str(caught.value)
