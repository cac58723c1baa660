"""Passwords as they are stored: what is accepted, and that nothing of them shows."""

import base64
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.config.stored import Plain, check_secret, is_sound, parse_stored
from tabi.errors import ConfigError, UsageError

SALT, TAG = base64.b64encode(b"s" * 16).decode().rstrip("="), base64.b64encode(b"t" * 32).decode().rstrip("=")
KNOWN = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"


@given(
    st.text(
        st.characters(min_codepoint=0x20, exclude_characters="\x7f", exclude_categories=["Cs"]), min_size=1, max_size=60
    ),
    st.binary(),
)
def test_marked_plain_text_is_compared_as_its_bytes(password: str, other: bytes) -> None:
    stored = parse_stored("plain:" + password)
    assert isinstance(stored, Plain)
    assert stored.matches(password.encode())
    assert stored.matches(other) is (other == password.encode())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hunter2", "clear text without its mark"),
        ("", "clear text without its mark"),
        ("plain:", "empty"),
        ("plain:" + "x" * 256, "256 bytes"),
        ("plain:a\0b", "NUL"),
        ("plain:a\tb", "control byte"),
        ("PLAIN:x", "clear text without its mark"),
        ("$2b$12$abcdefghijklmnopqrstuv", "a hash that is not argon2id"),
        (f"$argon2i$v=19$m=64,t=1,p=1${SALT}${TAG}", "a hash that is not argon2id"),
        (f"$argon2d$v=19$m=64,t=1,p=1${SALT}${TAG}", "a hash that is not argon2id"),
        (f"$argon2id$m=64,t=1,p=1${SALT}${TAG}", "damaged"),
        (f"$argon2id$v=16$m=64,t=1,p=1${SALT}${TAG}", "damaged"),
        (f"$argon2id$v=19$m=6\u0664,t=1,p=1${SALT}${TAG}", "damaged"),  # a digit, but not for argon2
        (f"$argon2id$v=19$m=64,t=1,p=1${SALT}${TAG}\n", "damaged"),
        (f" $argon2id$v=19$m=64,t=1,p=1${SALT}${TAG}", "clear text without its mark"),
        (f"$argon2id$v=19$m=64,t=1,p=1${SALT}", "damaged"),
        (f"$argon2id$v=19$m=64,t=1,p=1${SALT}${TAG[:-1]}", "damaged"),
        (f"$argon2id$v=19$m=64,t=1,p=1${SALT[:-1]}R${TAG}", "damaged"),
        (f"$argon2id$v=19$m=64,t=1,p=1$AAAA${TAG}", "damaged"),
        (f"$argon2id$v=19$m=64,t=1,p=1${SALT}$AAAAAAAA", "damaged"),
        (f"$argon2id$v=19$m=64,t=1,p=9${SALT}${TAG}", "m=64,t=1,p=9"),
        (f"$argon2id$v=19$m=1048577,t=1,p=1${SALT}${TAG}", "m up to 1048576"),
        (f"$argon2id$v=19$m=65536,t=65,p=1${SALT}${TAG}", "m times t"),
    ],
)
def test_what_cannot_be_used_is_refused_without_showing_it(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_stored(text)
    assert says in str(caught.value)
    shown = "".join(traceback.format_exception(caught.value, limit=0))
    for part in (text, text.removeprefix("plain:"), SALT, TAG):
        assert len(part) < 3 or part not in shown


def test_no_stored_password_shows_in_a_repr() -> None:
    for text in (KNOWN, "plain:hunter2"):
        shown = repr(parse_stored(text))
        assert "hunter2" not in shown
        assert "CTFhFd" not in shown
        assert "c29tZX" not in shown


@pytest.mark.parametrize(
    ("secret", "says"),
    [
        (b"", "empty"),
        (b"x" * 256, "256 bytes"),
        (b"ab\0c", "NUL (byte 3)"),
        (b"secret\r", "control byte (byte 7)"),
        (b"\x7f", "control byte (byte 1)"),
    ],
)
def test_a_new_password_that_could_not_be_used_is_refused_in_clear_words(secret: bytes, says: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_secret(secret)
    assert says in str(caught.value)
    assert "secret\r" not in str(caught.value)


@pytest.mark.parametrize("secret", [b"x", b"x" * 255, b"with space", b"\xff\x80", "☃".encode()])
def test_all_other_passwords_are_taken(secret: bytes) -> None:
    check_secret(secret)
    assert is_sound(secret)


@pytest.mark.parametrize("word", [b"", b"x" * 256, b"a\0", b"\0a", b"a\nb", b"\x1b", b"\x7f"])
def test_words_that_no_password_or_name_can_be(word: bytes) -> None:
    assert not is_sound(word)
