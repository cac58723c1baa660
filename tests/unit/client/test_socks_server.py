"""Which proxy the variables of the classic libraries mean."""

import os
import pwd

import pytest

from tabi.addr import Endpoint
from tabi.client.socks_server import socks_server
from tabi.errors import ConfigError
from tabi.machine.hop import Hop

TARGET = Endpoint.parse("target.example:80")
USER = pwd.getpwuid(os.geteuid()).pw_name.encode()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"SOCKS5_SERVER": "one.example"}, "socks5h://one.example:1080"),
        ({"SOCKS5_SERVER": "[::1]:1081", "SOCKS_SERVER": "two.example"}, "socks5h://[::1]:1081"),
        ({"SOCKS4_SERVER": "one.example:1081", "SOCKS_SERVER": "two.example"}, "socks4a://one.example:1081"),
        ({"SOCKS_SERVER": "one.example"}, "socks5h://one.example:1080"),
        ({"SOCKS_SERVER": "one.example", "SOCKS_VERSION": "4"}, "socks4a://one.example:1080"),
        ({"SOCKS_SERVER": "socks4://one.example", "SOCKS_VERSION": "5"}, "socks4://one.example:1080"),
        ({"SOCKS_SERVER": "one.example", "all_proxy": "socks5h://two.example"}, "socks5h://one.example:1080"),
        ({"all_proxy": "socks5://two.example"}, "socks5://two.example:1080"),
        ({"ALL_PROXY": "socks5://two.example"}, "socks5://two.example:1080"),
        ({"SOCKS5_SERVER": "", "SOCKS_SERVER": "one.example"}, None),
        ({"SOCKS_SERVER": "one.example", "no_proxy": "target.example"}, None),
        ({"all_proxy": "socks5h://one.example", "NO_PROXY": ".example"}, None),
    ],
)
def test_variables_are_asked_in_their_order(environ: dict[str, str], expected: str | None) -> None:
    hop = socks_server(TARGET, environ)
    assert (hop and str(hop)) == expected


def found(**environ: str) -> Hop:
    hop = socks_server(TARGET, environ)
    assert hop is not None
    return hop


def test_logins_are_those_of_their_version() -> None:
    login = {"SOCKS5_USER": "alice", "SOCKS5_PASSWD": "s@same"}
    five, four = found(SOCKS_SERVER="one.example", **login), found(SOCKS4_SERVER="one.example", **login)
    url = found(SOCKS_SERVER="socks5h://one.example", **login)
    assert (five.username, five.password) == (b"alice", b"s@same")
    assert (four.username, four.password) == (USER, b"")
    assert url.is_anonymous


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"SOCKS5_SERVER": "one.example:port"}, "SOCKS5_SERVER: .*port"),
        ({"SOCKS_SERVER": "one.example", "SOCKS_VERSION": "6"}, "SOCKS_VERSION is neither 4 nor 5"),
        ({"SOCKS5_SERVER": "one.example", "SOCKS5_USER": "u" * 256, "SOCKS5_PASSWD": "p"}, "SOCKS5_SERVER: .*256"),
        ({"SOCKS_SERVER": "gopher://one.example"}, "SOCKS_SERVER: .*gopher"),
    ],
)
def test_what_cannot_be_read_is_named(environ: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        socks_server(TARGET, environ)
