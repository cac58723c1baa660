"""Proxy URLs of a command line: a password that was typed, and files that stand for one."""

from pathlib import Path

import pytest

from tabi.client.argument import read_argument
from tabi.errors import ConfigError
from tabi.machine.url import parse_proxy

SECRET = "sesame"


def test_a_password_that_was_typed_is_told_of() -> None:
    assert read_argument("socks5h://alice:sesame@h.example").shows_password
    assert not read_argument("socks5h://h.example").shows_password
    assert not read_argument("socks4://alice@h.example").shows_password


def test_a_file_stands_for_the_url_in_it(tmp_path: Path) -> None:
    path = tmp_path / "proxy"
    path.write_text("  socks5h://alice:sesame@h.example\n")
    argument = read_argument(f"@{path}")
    assert argument.hop == parse_proxy("socks5h://alice:sesame@h.example")
    assert not argument.shows_password


@pytest.mark.parametrize("content", [b"", b"\n", b"socks5h://alice:sesame@a\nsocks5h://alice:sesame@b\n", b"\xff"])
def test_a_file_without_one_url_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "proxy"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_argument(f"@{path}")
    assert str(path) in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        read_argument(f"@{tmp_path}/none")
