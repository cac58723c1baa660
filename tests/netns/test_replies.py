"""What a client is told when the network says no: one address, one cause, one reply (RFC 1928 section 6)."""

import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from helpers.namespaces import Network
from helpers.serving import Command
from helpers.socks import ask5, connect5, dial, greet5, read_all, read_exactly, request4, request5
from helpers.syns import Syns
from helpers.targets import target
from helpers.waiting import PATIENCE, until

PROXY = ("10.91.1.1", 1080)
IMPATIENT = ("10.91.1.1", 1081)
NETWORK, HOST, REFUSED, EXPIRED, RULES = 3, 4, 5, 6, 2

CAUSES = [
    pytest.param("10.93.4.1", NETWORK, id="v4 no route"),
    pytest.param("fd93:0:4::1", NETWORK, id="v6 no route"),
    pytest.param("10.93.1.1", HOST, id="v4 unreachable route"),
    pytest.param("fd93:0:1::1", HOST, id="v6 unreachable route"),
    pytest.param("10.93.2.1", RULES, id="v4 prohibit route"),
    pytest.param("fd93:0:2::1", RULES, id="v6 prohibit route"),
    pytest.param("10.93.3.1", NETWORK, id="v4 blackhole route"),
    pytest.param("fd93:0:3::1", NETWORK, id="v6 blackhole route"),
    pytest.param("10.92.4.1", NETWORK, id="v4 router has no route"),
    pytest.param("fd92:0:4::1", NETWORK, id="v6 router has no route"),
    pytest.param("10.92.1.1", HOST, id="v4 router: host unreachable"),
    # Linux' routers say "no route" for an IPv6 route that is unreachable (ip6_pkt_discard).
    pytest.param("fd92:0:1::1", NETWORK, id="v6 router: unreachable"),
    pytest.param("10.92.5.99", HOST, id="v4 router: nobody on the link"),
    pytest.param("fd92:0:5::99", HOST, id="v6 router: nobody on the link"),
    # ICMP "communication prohibited" is EHOSTUNREACH for IPv4 and EACCES for IPv6 (Linux' icmp_err_convert,
    # icmpv6_err_convert): only with IPv6 the client learns that a rule did it.
    pytest.param("10.92.2.1", HOST, id="v4 router: prohibited"),
    pytest.param("fd92:0:2::1", RULES, id="v6 router: prohibited"),
    pytest.param("10.91.2.99", HOST, id="v4 nobody on the link"),
    pytest.param("fd91:2::99", HOST, id="v6 nobody on the link"),
    pytest.param("10.91.2.2", REFUSED, id="v4 refused"),
    pytest.param("fd91:2::2", REFUSED, id="v6 refused"),
]


@pytest.mark.parametrize(("address", "reply"), CAUSES)
def test_the_reply_says_why_the_target_cannot_be_reached(
    hosts: Network, proxy: Command, address: str, reply: int
) -> None:
    sock, said, host, port = hosts.client.call(ask5, PROXY, 1, address, 9)
    with sock:
        assert (said, host, port) == (reply, "0.0.0.0", 0)
        assert read_all(sock) == b""


@pytest.mark.parametrize("address", ["10.93.4.1", "10.93.1.1", "10.93.2.1", "10.92.1.1", "10.91.2.2"])
def test_a_socks4_client_hears_91_whatever_the_cause(hosts: Network, proxy: Command, address: str) -> None:
    with hosts.client.call(dial, PROXY) as sock:
        sock.sendall(request4(1, address, 9))
        assert read_all(sock) == b"\0\x5b\0\0\0\0\0\0"


@pytest.mark.parametrize("address", ["10.92.3.1", "fd92:0:3::1"])
def test_silence_is_reply_6_when_the_connect_limit_is_over(
    hosts: Network, impatient: Command, syns: Syns, address: str
) -> None:
    sock, said, _, _ = hosts.client.call(ask5, IMPATIENT, 1, address, 9)
    with sock:
        assert said == EXPIRED
        assert read_all(sock) == b""
    assert syns.seen(9) == [address]
    assert impatient.record(target=shown(address, 9))["why"] == "limit:connect"


def shown(host: str, port: int) -> str:
    """Write an endpoint as the log does."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def test_a_client_from_another_host_is_refused_by_the_command_with_reply_2(hosts: Network, proxies: Any) -> None:
    with proxies.command("--listen", "[::]:1090") as server, hosts.target.entering(target(host="10.91.2.2")) as there:
        server.ports()
        for address in ("10.91.1.1", "fd91:1::1"):
            for command in (1, 2, 3):
                sock, reply, _, _ = hosts.client.call(ask5, (address, 1090), command, *there)
                with sock:
                    assert reply == RULES
                    assert read_all(sock) == b""
        with hosts.client.call(dial, ("10.91.1.1", 1090)) as sock:
            sock.sendall(request4(1, *there))
            assert read_all(sock)[:2] == b"\0\x5b"
        with hosts.proxy.call(connect5, ("127.0.0.1", 1090), *there) as sock:
            sock.sendall(b"from this host")
            assert read_exactly(sock, 14) == b"from this host"
        until(lambda: len(server.records) == 8, "a line for each")
        refused = [line for line in server.records if line.get("verdict") == "refuse"]
        assert len(refused) == 7
        assert {(line["why"], line["rule"]) for line in refused} == {("policy", "no client from another host")}
        assert server.stop() == 0


@pytest.mark.parametrize(
    ("listener", "client"), [("10.91.1.1", "10.91.1.2"), ("10.91.1.11", "10.91.1.2"), ("fd91:1::1", "fd91:1::2")]
)
def test_the_log_shows_an_ipv4_client_of_a_dual_stack_listener_as_ipv4(
    hosts: Network, proxy: Command, listener: str, client: str
) -> None:
    with hosts.target.entering(target(host="10.91.2.3")) as there:
        with hosts.client.call(connect5, (listener, 1080), *there) as sock:
            port = sock.getsockname()[1]
        line = proxy.record(client=shown(client, port))
    assert line["listener"] == shown(listener, 1080)


@pytest.mark.parametrize(("family", "there"), [(socket.AF_INET, "10.91.2.3"), (socket.AF_INET6, "fd91:2::3")])
def test_bnd_is_the_address_from_which_the_target_sees_the_connection(
    hosts: Network, proxy: Command, family: int, there: str
) -> None:
    with hosts.target.call(socket.create_server, (there, 0), family=family) as listener:
        listener.settimeout(PATIENCE)
        port = listener.getsockname()[1]
        sock, reply, *bound = hosts.client.call(ask5, PROXY, 1, there, port)
        with sock, listener.accept()[0] as seen:
            assert reply == 0
            assert bound == list(seen.getpeername()[:2])
            assert bound[0] in ("10.91.2.1", "fd91:2::1")


def test_a_socks4a_reply_carries_the_address_that_the_name_led_to(hosts: Network, proxy: Command) -> None:
    with hosts.target.entering(target(host="10.91.2.4")) as (address, port):
        with hosts.client.call(dial, PROXY) as sock:
            sock.sendall(request4(1, "0.0.0.1", port, b"me", b"two.test"))
            reply = read_exactly(sock, 8)
            assert reply == b"\0\x5a" + port.to_bytes(2, "big") + socket.inet_aton(address)


def test_a_client_that_vanishes_while_the_target_is_dialled_leaves_nothing(
    hosts: Network, impatient: Command, syns: Syns
) -> None:
    descriptors = Path(f"/proc/{impatient.process.pid}/fd")
    before = len(os.listdir(descriptors))
    with hosts.client.call(greet5, IMPATIENT) as sock:
        client = shown(*sock.getsockname())
        sock.sendall(request5(1, "10.92.3.7", 9))
        syns.wait("10.92.3.7", 9)
        hosts.client.ip("link", "set", "lan", "down")
        try:
            assert impatient.record(client=client)["why"] == "limit:connect"
            # The orderly close of the failure reply meets nobody; it has a limit of its own, and then all is gone.
            until(lambda: len(os.listdir(descriptors)) <= before, "the sockets to be let go")
        finally:
            hosts.client.ip("link", "set", "lan", "up")
            hosts.client.address("lan", "fd91:1::2/64")  # goes with the link, other than an IPv4 address


def sockets_of(server: Command) -> str:
    """List the TCP sockets that the server's process holds."""
    done = subprocess.run(["ss", "-Htnpo"], check=True, capture_output=True, text=True)
    return "\n".join(line for line in done.stdout.splitlines() if f"pid={server.process.pid}," in line)


def test_keepalive_runs_on_both_legs_of_an_idle_tunnel(hosts: Network, proxy: Command) -> None:
    with hosts.target.entering(target(host="10.91.2.3")) as there:
        with hosts.client.call(connect5, PROXY, *there) as sock:
            sock.sendall(b"x")
            assert read_exactly(sock, 1) == b"x"

            def timers() -> list[str]:
                legs = hosts.proxy.call(sockets_of, proxy).splitlines()
                return re.findall(r"timer:\(keepalive,([^,]+),", "\n".join(legs)) if len(legs) == 2 else []

            # Right after data the retransmission timer runs first.
            left = until(lambda: found if len(found := timers()) == 2 else [], "keepalive on both legs")
    assert all(re.fullmatch(r"1min|[1-5]?\dsec", one) for one in left), left
