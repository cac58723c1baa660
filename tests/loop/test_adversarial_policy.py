"""Passwords in clear, and patterns that are meant to take for ever (rows E6, F6), with a configuration of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.configured import JSON, LISTEN, Configured, configured, tabi, user
from helpers.socks import connect5, dial, echoes, read_all, read_exactly, read_reply5, request4, request5

WARNING = "takes passwords in clear from other hosts; whoever is on the way can read them"

# E6: in clear to other hosts


@pytest.mark.parametrize(
    ("listen", "warned"),
    [
        (['"0.0.0.0:0"'], ["0.0.0.0:0"]), (['"[::]:0"'], ["[::]:0"]), (['"127.0.0.1:0"', '"[::1]:0"'], []),
        (['"127.0.0.1:0"', '"0.0.0.0:0"'], ["0.0.0.0:0"]),
    ],
)  # fmt: skip
def test_passwords_in_clear_beyond_this_host_are_warned_of(
    tmp_path: Path, listen: list[str], warned: list[str]
) -> None:
    with configured(tmp_path, f"listen = [{', '.join(listen)}]\n{JSON}{user('alice')}", workers=1) as server:
        server.line("^tabi: control socket ")  # behind the warnings
        checked = tabi("check", str(server.file)).stdout.splitlines()
        for said in (server.errors, checked):
            lines = [line for line in said if WARNING in line]
            assert [where for where in warned for line in lines if f"listen: {where} " in line] == warned
            assert len(lines) == len(warned)


def test_nobody_is_warned_where_there_are_no_passwords(tmp_path: Path) -> None:
    (tmp_path / "tabi.toml").write_text('listen = ["0.0.0.0:0"]\n')
    assert WARNING not in tabi("check", str(tmp_path / "tabi.toml")).stdout


# F6: what a pattern costs

TRAPS = ("*a" * 12 + "*b", "*a?" * 10 + "*b", "?*" * 20 + "b", "*" * 30 + "b", "a*" * 20 + "b", "*aa" * 10 + "*ab")


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """Run one worker by rules whose patterns would be tried in all ways that there are, were they tried again."""
    rules = "".join(
        f'[[rule]]\nname = "{key} {number}"\nrefuse = "not-allowed"\n{key} = "{pattern}"\n'
        for key in ("to", "userid")
        for number, pattern in enumerate(TRAPS)
    )
    last = (
        '[[rule]]\nname = "no other name"\nrefuse = "ttl-expired"\nto = "*"\n'  # so that none is looked up
        '[[rule]]\nname = "all"\nallow = true\nto = "@private"\n'
    )
    with configured(tmp_path_factory.mktemp("traps"), LISTEN + JSON + rules + last, workers=1) as server:
        yield server


@pytest.mark.parametrize("name", [b"a" * 63, b".".join([b"a" * 63] * 3 + [b"a" * 61]), b"a." * 126 + b"a"])
def test_no_name_keeps_patterns_busy(trapped: Configured, echo: tuple[str, int], name: bytes) -> None:
    """Those that are tried again for each star take longer than the universe lasts: the reply would never come."""
    with dial(trapped.address) as sock:
        sock.sendall(b"\x05\x01\x00" + request5(1, name, 80))
        assert read_exactly(sock, 2) == b"\x05\x00"
        assert read_reply5(sock)[0] == 6  # none of the patterns means it
    with connect5(trapped.address, *echo) as sock:
        assert echoes(sock)


@pytest.mark.parametrize("size", [1, 64, 255])
def test_no_userid_keeps_patterns_busy(trapped: Configured, echo: tuple[str, int], size: int) -> None:
    with dial(trapped.address) as sock:
        sock.sendall(request4(1, *echo, b"a" * size) + b"ping")
        assert read_exactly(sock, 12)[:2] == b"\x00\x5a"


@pytest.mark.parametrize("name", [b"a" * 40 + b"b", b"a" * 62 + b"." + b"a" * 62 + b"b"])
def test_what_such_a_pattern_means_it_still_means(trapped: Configured, name: bytes) -> None:
    with dial(trapped.address) as sock:
        sock.sendall(b"\x05\x01\x00" + request5(1, name, 80))
        assert read_all(sock)[:4] == b"\x05\x00\x05\x02"
    assert trapped.record(target=f"{name.decode()}:80")["rule"].startswith("to ")
