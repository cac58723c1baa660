"""Where connections come from, when a rule says so."""

import socket
from ipaddress import IPv4Address

import pytest

from helpers.serving import serving
from helpers.socks import ask5, connect5, read_all
from helpers.targets import target
from tabi.addr import Address
from tabi.policy.verdict import Context, Grants, Policy, Request, Verdict


def out_of(egress: Address | str) -> Policy:
    def judge(_request: Request, _context: Context) -> Verdict:
        return Verdict(allow=True, rule="r", grants=Grants(egress=egress))

    return judge


def tell_whence(sock: socket.socket) -> None:
    sock.sendall(sock.getpeername()[0].encode())


@pytest.mark.parametrize(
    ("egress", "seen"), [(IPv4Address("127.0.0.77"), b"127.0.0.77"), ("lo", b"127.0.0.1")], ids=["address", "interface"]
)
def test_target_sees_the_egress_of_the_rule(egress: Address | str, seen: bytes) -> None:
    with (
        target(tell_whence) as there,
        serving(policy=out_of(egress)) as server,
        connect5(server.address, *there) as sock,
    ):
        assert read_all(sock) == seen


@pytest.mark.parametrize("egress", [IPv4Address("192.0.2.77"), "nowhere0"], ids=["address", "interface"])
def test_an_egress_that_is_not_there_is_never_gone_around(egress: Address | str) -> None:
    with target(tell_whence) as there, serving(policy=out_of(egress)) as server:
        sock, reply, _, _ = ask5(server.address, 1, *there)
        sock.close()
        assert reply != 0
        assert server.line(reply=reply)["why"] == "failed"
