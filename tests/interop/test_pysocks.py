"""PySocks, which requests and urllib3 stand on: CONNECT, datagrams, errors by their codes."""

import json
import socket
from typing import Any

import pytest
import socks

from helpers.members import Members
from helpers.names import ONLY_HERE, teach
from helpers.serving import Running, command, serving
from helpers.socks import read_all
from helpers.targets import closed_port, datagram_echo, echo, target
from helpers.waiting import PATIENCE
from helpers.web import noise
from tabi.policy.verdict import Context, Request, Verdict

KINDS = {"4": socks.SOCKS4, "5": socks.SOCKS5}
SIZE = 1_000_000


def proxied(kind: int, proxy: tuple[str, int], transport: int = socket.SOCK_STREAM, **options: Any) -> socks.socksocket:
    sock = socks.socksocket(socket.AF_INET, transport)
    sock.set_proxy(kind, *proxy, **options)
    sock.settimeout(PATIENCE)
    return sock


def collect_then_answer(sock: socket.socket) -> None:
    sock.sendall(read_all(sock))


def refuse(_request: Request, _context: Context) -> Verdict:
    return Verdict(allow=False, rule="nobody")


@pytest.mark.parametrize("version", KINDS)
def test_address(version: str) -> None:
    with target(collect_then_answer) as place, serving() as server, proxied(KINDS[version], server.address) as sock:
        sock.connect(place)
        assert sock.get_proxy_peername() == place
        sock.sendall(noise(SIZE))
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == noise(SIZE)
        server.line(socks=version, up=SIZE, down=SIZE, to=f"127.0.0.1:{place[1]}")


def test_bound_address_is_the_one_that_the_target_sees() -> None:
    def tell_peer(sock: socket.socket) -> None:
        sock.sendall(json.dumps(sock.getpeername()).encode())

    with target(tell_peer) as place, serving() as server, proxied(socks.SOCKS5, server.address) as sock:
        sock.connect(place)
        assert list(sock.get_proxy_sockname()) == json.loads(read_all(sock))


@pytest.mark.parametrize(("version", "logged"), [("4", "4a"), ("5", "5")])
def test_name_is_looked_up_by_the_proxy(version: str, logged: str) -> None:
    with target(echo) as (host, port), serving() as server, proxied(KINDS[version], server.address, rdns=True) as sock:
        teach(server, host)
        sock.connect((ONLY_HERE, port))
        sock.close()
        server.line(socks=logged, target=f"{ONLY_HERE}:{port}", to=f"{host}:{port}")


def test_target_on_ipv6() -> None:
    with target(echo, "::1") as place, serving() as server, proxied(socks.SOCKS5, server.address) as sock:
        sock.connect(place)
        sock.close()
        server.line(to=f"[::1]:{place[1]}")


@pytest.mark.parametrize(("version", "code"), [("4", "0x5b"), ("5", "0x05")])
def test_refused_target_is_told(version: str, code: str) -> None:
    with serving() as server, proxied(KINDS[version], server.address) as sock:
        with pytest.raises(socks.ProxyError, match=f"(?i){code}"):
            sock.connect(("127.0.0.1", closed_port()))


@pytest.mark.parametrize(("version", "code"), [("4", "0x5b"), ("5", "0x04")])
def test_unknown_name_is_told(version: str, code: str) -> None:
    with serving() as server, proxied(KINDS[version], server.address, rdns=True) as sock:
        teach(server, "127.0.0.1")
        with pytest.raises(socks.ProxyError, match=f"(?i){code}"):
            sock.connect(("nobody.invalid", 80))


@pytest.mark.parametrize(("version", "code"), [("4", "0x5b"), ("5", "0x02")])
def test_ruleset_is_told(version: str, code: str) -> None:
    with target(echo) as place, serving(policy=refuse) as server, proxied(KINDS[version], server.address) as sock:
        with pytest.raises(socks.ProxyError, match=f"(?i){code}"):
            sock.connect(place)
        server.line(why="policy", rule="nobody")


@pytest.mark.parametrize("login", [("anna", "guess"), (None, None)])
def test_wrong_or_no_password_is_an_error_of_its_own(login: tuple[str | None, str | None], members: Members) -> None:
    options = {"username": login[0], "password": login[1]}
    with target(echo) as place:
        with proxied(socks.SOCKS5, members.address, **options) as sock, pytest.raises(socks.ProxyError) as caught:
            sock.connect(place)
        assert isinstance(caught.value.socket_err, socks.SOCKS5AuthError)
        members.line(why="auth")


def test_right_password_opens(members: Members) -> None:
    login = {"username": "anna", "password": "secret"}
    with target(echo) as place:
        with proxied(socks.SOCKS5, members.address, **login) as sock:
            sock.connect(place)
        members.line(method="password", user="anna", by="client")


def exchange(sock: socks.socksocket, server: Running | Members, place: tuple[str, int], name: str = "") -> None:
    """Send datagrams of several sizes and have them back from where they went."""
    sizes = (0, 1, 1400, 8000)
    with sock:
        for size in sizes:
            sock.sendto(noise(size), (name or place[0], place[1]))
            data, source = sock.recvfrom(65535)
            assert (data, source) == (noise(size), place)
    server.line(command="udp_associate", up=sum(sizes), down=sum(sizes), by="client", why="fin")


def test_datagrams_go_and_come() -> None:
    with datagram_echo() as place, serving() as server:
        exchange(proxied(socks.SOCKS5, server.address, socket.SOCK_DGRAM, rdns=False), server, place)


def test_datagrams_by_name() -> None:
    # PySocks, as it is set up by default, asks for an association with the domain name "0".
    with datagram_echo() as place, serving() as server:
        teach(server, place[0])
        exchange(proxied(socks.SOCKS5, server.address, socket.SOCK_DGRAM), server, place, ONLY_HERE)


def test_datagrams_to_two_places_and_families_in_one_association() -> None:
    with datagram_echo() as first, datagram_echo("::1") as second, serving() as server:
        with proxied(socks.SOCKS5, server.address, socket.SOCK_DGRAM, rdns=False) as sock:
            for place in (first, second, first):
                sock.sendto(b"to " + place[0].encode(), place)
                assert sock.recvfrom(99) == (b"to " + place[0].encode(), place)
        server.idle()
        assert len(server.lines) == 1


def test_the_command_relays_datagrams_and_logs() -> None:
    with datagram_echo() as place, command("--log-format", "json") as tabi:
        with proxied(socks.SOCKS5, ("127.0.0.1", tabi.ports(2)[0]), socket.SOCK_DGRAM, rdns=False) as sock:
            sock.sendto(b"ping", place)
            assert sock.recvfrom(99) == (b"ping", place)
        line = tabi.record(reply=0)
        assert (line["socks"], line["command"], line["reply"]) == ("5", "udp_associate", 0)
        assert (line["up"], line["down"], line["by"], line["why"]) == (4, 4, "client", "fin")
        assert tabi.stop() == 0
