"""Names and addresses looked up by a proxy: `resolve` of both fronts, and the command."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from helpers.connect_proxy import connect_proxy
from helpers.fronts import Front
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import read_exactly
from helpers.targets import closed_port, target
from helpers.waiting import PATIENCE
from tabi.errors import DialError, ProxyUnreachableError, Reply, UsageError

NAMES = {"peer.example": ["192.0.2.7"], "six.example": ["2001:db8::7"], "nothing.example": ["0.0.0.0"]}


@pytest.fixture
def server() -> Iterator[Running]:
    """Run a server that speaks Tor's extension."""
    with serving(tor_resolve=True) as running:
        NameService(NAMES).serve(running)
        yield running


def url(server: Running, scheme: str = "socks5h") -> str:
    """Write its URL."""
    host, port = server.address
    return f"{scheme}://{host}:{port}"


@pytest.mark.parametrize("scheme", ["socks5h", "socks5", "socks4a", "socks4"])
def test_the_proxy_says_the_address_of_a_name(front: Front, server: Running, scheme: str) -> None:
    """Whatever the scheme says of other names: nobody would ask a proxy for what is looked up here."""
    assert front.resolve("peer.example", proxy=url(server, scheme)) == "192.0.2.7"
    assert server.only_line()["target"] == "peer.example:0"


def test_an_ipv6_address_is_an_answer_too(front: Front, server: Running) -> None:
    assert front.resolve("six.example", proxy=url(server)) == "2001:db8::7"


def test_the_proxy_says_the_name_of_an_address(front: Front) -> None:
    def tor(sock: socket.socket) -> None:
        assert read_exactly(sock, 3) == b"\x05\x01\x00"
        sock.sendall(b"\x05\x00")
        assert read_exactly(sock, 10) == b"\x05\xf1\x00\x01\xc0\x00\x02\x07\x00\x00"  # socks-extensions.txt section 2
        sock.sendall(b"\x05\x00\x00\x03\x0cpeer.example\x00\x00")

    with target(tor) as (host, port):
        assert front.resolve("192.0.2.7", proxy=f"socks5h://{host}:{port}") == "peer.example"


def test_an_answer_of_0_0_0_0_is_none_of_the_proxys_own_address(front: Front) -> None:
    def odd(sock: socket.socket) -> None:
        read_exactly(sock, 3)
        sock.sendall(b"\x05\x00")
        read_exactly(sock, 7 + len("peer.example"))
        sock.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")

    with target(odd) as (host, port):
        assert front.resolve("peer.example", proxy=f"socks5h://{host}:{port}") == "0.0.0.0"


def test_through_a_chain_the_last_one_looks_it_up(front: Front, server: Running) -> None:
    with serving() as first, connect_proxy() as (host, port):
        proxies = [url(first, "socks4"), f"http://{host}:{port}", url(server, "socks5")]
        assert front.resolve("peer.example", proxy=proxies) == "192.0.2.7"


def test_a_name_that_nobody_knows_is_told(front: Front, server: Running) -> None:
    with pytest.raises(DialError) as caught:
        front.resolve("unknown.example", proxy=url(server))
    assert caught.value.reply is Reply.HOST_UNREACHABLE
    assert caught.value.hop is not None


def test_a_proxy_that_does_not_know_the_command_is_told(front: Front) -> None:
    with serving() as plain, pytest.raises(DialError) as caught:
        front.resolve("peer.example", proxy=url(plain))
    assert caught.value.reply is Reply.COMMAND_NOT_SUPPORTED
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("host", "proxy"),
    [
        ("peer.example", None),
        ("peer.example", "http://127.0.0.1:1"),
        ("192.0.2.7", "socks4a://127.0.0.1:1"),
        ("a b", "socks5h://127.0.0.1:1"),
    ],
)
def test_what_cannot_be_asked_is_an_error_before_anything_is_sent(front: Front, host: str, proxy: str | None) -> None:
    with pytest.raises(UsageError):
        front.resolve(host, proxy=proxy)


def test_a_proxy_that_is_not_there_is_told(front: Front) -> None:
    with pytest.raises(ProxyUnreachableError):
        front.resolve("peer.example", proxy=f"socks5h://127.0.0.1:{closed_port()}")


def command(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run `tabi resolve` to its end."""
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    program = [sys.executable, "-m", "tabi", "resolve", *arguments]
    return subprocess.run(
        program, env=own | environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_the_command_prints_the_answer_alone(server: Running) -> None:
    done = command("-x", url(server), "peer.example")
    assert (done.returncode, done.stdout, done.stderr) == (0, "192.0.2.7\n", "")
    by_environment = command("peer.example", all_proxy=url(server))
    assert (by_environment.returncode, by_environment.stdout) == (0, "192.0.2.7\n")


def test_several_are_told_apart_and_one_that_fails_stops_none(server: Running) -> None:
    done = command("-x", url(server), "peer.example", "unknown.example", "six.example")
    assert (done.returncode, done.stdout) == (1, "peer.example 192.0.2.7\nsix.example 2001:db8::7\n")
    assert done.stderr.startswith("tabi: unknown.example: ")
    assert len(done.stderr.splitlines()) == 1
    typed = command("-x", url(server), "--json", "peer.example", "six.example")
    assert [json.loads(line) for line in typed.stdout.splitlines()] == [
        {"host": "peer.example", "answer": "192.0.2.7"},
        {"host": "six.example", "answer": "2001:db8::7"},
    ]


def test_a_proxy_without_the_extension_is_named_and_so_is_what_it_said() -> None:
    with serving() as plain:
        done = command("-x", url(plain), "peer.example")
    assert (done.returncode, done.stdout) == (1, "")
    assert "command not supported" in done.stderr
