"""Hostile datagrams against the running server's UDP relay, over IPv4 and IPv6 on loopback.

A datagram that must not arrive is followed by one that must, on the same way, where the order holds: what arrives first
tells. Comments such as B5 are rows of the project's catalogue of adversarial inputs.
"""

import socket
from ipaddress import IPv4Address

import pytest

from helpers.name_service import NameService
from helpers.serving import Running, allow_all, serving
from helpers.targets import closed_port
from helpers.udp import (
    Association,
    address_of,
    datagrams,
    drops,
    header,
    is_quiet,
    listener_for,
    looked_up,
    refused,
    stranger,
)
from tabi.addr import Endpoint
from tabi.config.settings import UdpSettings
from tabi.policy.verdict import Context, Request, Verdict

pytestmark = pytest.mark.usefixtures("nothing_left")

V4 = "127.0.0.1"
OTHER = "127.0.0.2"
V6 = "::1"


# B1 to B3: who is the client


def test_another_address_cannot_use_or_take_the_relay(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        stranger(client.relay, header(*address_of(there)) + b"first")
        stranger(client.relay, b"")
        client.talk(there)
        stranger(client.relay, header(*address_of(there)) + b"later")
        client.talk(there)
    assert drops(running) == "dropped: stranger 2"  # after that the kernel keeps strangers out


def test_another_port_of_the_client_is_a_stranger_once_one_has_sent(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client, datagrams() as second:
        client.talk(there)
        second.sendto(header(*address_of(there)) + b"second", client.relay)
        client.talk(there)
        assert is_quiet(second)


def test_the_port_is_never_fixed_anew(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client, datagrams() as second:
        client.talk(there)
        for _ in range(3):
            second.sendto(header(*address_of(there)) + b"second", client.relay)
        there.sendto(b"for the client", client.talk(there))
        assert client.receive() == (*address_of(there), b"for the client")


def test_strangers_that_were_quicker_than_the_kernels_filter_are_dropped_as_well(
    running: Running, there: socket.socket
) -> None:
    with Association(running.address) as client, datagrams() as second:

        def all_at_once() -> None:  # while the loop does this it reads none of them
            client.send(*address_of(there), b"client")
            second.sendto(header(*address_of(there)) + b"second", client.relay)
            stranger(client.relay, header(*address_of(there)) + b"third")
            client.send(*address_of(there), b"client again")

        running.call_sync(all_at_once)
        assert [there.recv(99), there.recv(99)] == [b"client", b"client again"]
    assert drops(running) == "dropped: stranger 2"


def test_a_malformed_datagram_does_not_fix_the_port(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client, datagrams() as second:
        for bad in (b"", b"\0", header(V4, 9, rsv=1), b"\0\0\0\x09", header(V4, 0) + b"x"):
            second.sendto(bad, client.relay)
        client.talk(there)
    assert drops(running) == "dropped: malformed 5"


def test_a_declared_port_is_the_only_one_from_the_start(running: Running, there: socket.socket) -> None:
    with Association(running.address, declare=True) as client, datagrams() as second:
        second.sendto(header(*address_of(there)) + b"second", client.relay)
        client.talk(there)
        assert is_quiet(second)


@pytest.mark.parametrize("host", ["0.0.0.0", OTHER, "::", "192.0.2.1"])
def test_a_port_declared_with_another_address_binds_nothing(running: Running, there: socket.socket, host: str) -> None:
    with Association(running.address, declare=(host, closed_port())) as client:
        client.talk(there)


def test_a_declared_address_of_somebody_else_lets_nobody_else_in(running: Running, there: socket.socket) -> None:
    with datagrams(OTHER) as victim, Association(running.address, declare=address_of(victim)) as client:
        victim.sendto(header(*address_of(there)) + b"victim", client.relay)
        client.talk(there)
        assert is_quiet(victim)
    assert drops(running) == "dropped: stranger 1"


# B4: malformed datagrams harm only themselves

MALFORMED = {
    "empty": b"",
    "one byte": b"\0",
    "three bytes": b"\0\0\0",
    "no address": b"\0\0\0\x01",
    "a cut IPv4 address": header(V4, 9)[:-3],
    "no port": header(V4, 9)[:-2],
    "a cut port": header(V4, 9)[:-1],
    "a cut IPv6 address": header(V6, 9)[:-1],
    "RSV 1": header(V4, 9, rsv=1) + b"x",
    "RSV high byte": header(V4, 9, rsv=0x0100) + b"x",
    "ATYP 0": b"\0\0\0\x00" + bytes(6),
    "ATYP 2": b"\0\0\0\x02" + bytes(6),
    "ATYP 9": b"\0\0\0\x09" + bytes(6),
    "a domain that overruns": b"\0\0\0\x03\xff" + b"a" * 100,
    "a domain that just overruns": b"\0\0\0\x03\x09localhost\x00",
    "a domain length alone": b"\0\0\0\x03\x09",
    "an empty domain": b"\0\0\0\x03\0\0\x09x",
    "NUL in a domain": header(b"127.0.0.1\0bad", 9) + b"x",
    "a number for a name": header(b"2130706433", 9) + b"x",
    "a short address": header(b"127.1", 9) + b"x",
    "no UTF-8": header(b"\xff\xfe", 9) + b"x",
    "port 0": header(V4, 0) + b"x",
    "port 0 of a name": header(b"localhost", 0) + b"x",
    "0.0.0.0": header("0.0.0.0", 9) + b"x",
    "::": header("::", 9) + b"x",
    "::ffff:0.0.0.0": header("::ffff:0.0.0.0", 9) + b"x",
    "0.0.0.0 as text": header(b"0.0.0.0", 9) + b"x",
}


@pytest.mark.parametrize("datagram", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_datagram_harms_only_itself(running: Running, there: socket.socket, datagram: bytes) -> None:
    with Association(running.address) as client:
        client.send_raw(datagram)
        client.talk(there)
        client.send_raw(datagram)
        client.talk(there)
    assert drops(running) == "dropped: malformed 2"


@pytest.mark.parametrize("declare", [False, True])
def test_a_storm_of_malformed_datagrams_harms_only_itself(
    running: Running, there: socket.socket, declare: bool
) -> None:
    with Association(running.address, declare=declare) as client:
        for _ in range(20):
            for datagram in MALFORMED.values():
                client.send_raw(datagram)
            client.talk(there)
    assert "malformed" in drops(running)


# B8: who may answer


def test_who_was_not_asked_cannot_answer(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client, datagrams() as other_port, datagrams(OTHER) as other_host:
        egress = client.talk(there)
        other_port.sendto(b"unasked", egress)
        other_host.sendto(b"unasked", egress)
        with datagrams(OTHER, address_of(there)[1]) as same_port:
            same_port.sendto(b"unasked", egress)
        client.talk(there)
        client.talk(other_host)  # asked now
    assert drops(running) == "dropped: stranger 3"


def test_full_cone_by_policy_lets_anybody_answer(there: socket.socket) -> None:
    with serving(policy=allow_all) as server:
        with Association(server.address) as client, datagrams() as unasked:
            egress = client.talk(there)
            unasked.sendto(b"hello", egress)
            assert client.receive() == (*address_of(unasked), b"hello")
        assert drops(server) == "nothing"


# B9: policy judges each datagram


def judge(request: Request, _context: Context) -> Verdict:
    """Allow all but 127.0.0.2, however it is named, and names that say so."""
    refused_name = request.target is not None and str(request.target.host) == "refused.example"
    return Verdict(allow=not refused_name and request.ip != IPv4Address(OTHER), rule="not there")


def test_each_datagram_is_judged_by_name_and_by_address(there: socket.socket) -> None:
    port = address_of(there)[1]
    with datagrams(OTHER, port) as forbidden, serving(policy=judge) as server:
        names = NameService({"other.example": [OTHER], "mixed.example": [OTHER, V4], "refused.example": [V4]})
        names.serve(server)
        with Association(server.address) as client:
            for host in (OTHER, OTHER.encode(), f"::ffff:{OTHER}", b"::ffff:7f00:2", b"other.example"):
                client.send(host, port, b"forbidden")
            client.send(b"refused.example", port, b"forbidden")
            client.send(b"mixed.example", port, b"allowed")
            assert there.recv(99) == b"allowed"
            client.talk(there)
            looked_up(server)
            assert is_quiet(forbidden)
        assert "refused.example" not in names.asked  # judged before any look-up
        assert drops(server) == "dropped: denied 6"


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_a_name_that_leads_to_the_unspecified_address_leads_nowhere(address: str) -> None:
    with datagrams("::" if ":" in address else "0.0.0.0") as anywhere, serving() as server:
        NameService({"zero.example": [address]}).serve(server)
        with Association(server.address) as client:
            client.send(b"zero.example", address_of(anywhere)[1], b"x")
            with datagrams() as there:
                client.talk(there)
            looked_up(server)
            assert is_quiet(anywhere)
        assert drops(server) == "dropped: unknown-name 1"


def test_an_association_that_policy_refuses_is_answered_by_2() -> None:
    with serving(policy=lambda _request, _context: Verdict(allow=False, rule="no udp")) as server:
        assert refused(server.address) == 2
        line = server.only_line()
        assert (line["why"], line["verdict"], line["rule"]) == ("policy", "refuse", "no udp")


# where the relay is


def test_an_ipv6_client_reaches_both_families(running: Running, there: socket.socket) -> None:
    with datagrams(V6) as there6, Association(listener_for(running, V6), V6) as client:
        assert client.relay[0] == V6
        client.talk(there)
        client.talk(there6)
        client.talk(there)


def test_an_ipv4_client_reaches_both_families(running: Running, there: socket.socket) -> None:
    with datagrams(V6) as there6, Association(running.address) as client:
        client.talk(there6)
        client.talk(there)
        client.talk(there6)


def test_an_ipv4_client_of_a_dual_stack_listener_gets_an_ipv4_relay(there: socket.socket) -> None:
    with serving(listen=(Endpoint.parse("[::]:0"),)) as server:
        with Association((V4, server.address[1]), declare=True) as client:
            assert client.relay[0] == V4
            client.talk(there)
        assert server.only_line()["client"].startswith("127.0.0.1:")


def test_the_relay_is_where_the_control_connection_is(there: socket.socket) -> None:
    with serving(listen=(Endpoint.parse("0.0.0.0:0"),)) as server:
        with Association((OTHER, server.address[1])) as client:
            assert client.relay[0] == OTHER
            client.talk(there)


def test_the_advertised_address_is_told_with_the_true_port(there: socket.socket) -> None:
    with serving(udp=UdpSettings(advertise=IPv4Address("192.0.2.7"))) as server:
        with Association(server.address) as client:
            assert client.relay[0] == "192.0.2.7"
            client.relay = (V4, client.relay[1])
            client.talk(there)


def test_a_range_of_ports_that_is_taken_is_answered_by_1(there: socket.socket) -> None:
    with datagrams() as taken:
        first = address_of(taken)[1]
    with serving(udp=UdpSettings(ports=(first, first))) as server:
        with Association(server.address) as client:
            assert client.relay == (V4, first)
            assert refused(server.address) == 1
            line = server.line(reply=1)
            assert (line["by"], line["why"]) == ("tabi", "failed")
            assert str(first) in line["note"]
            client.talk(there)
        server.idle()
        with Association(server.address) as client:  # free again
            client.talk(there)


def test_the_egress_address_is_what_targets_see(there: socket.socket) -> None:
    with serving(udp=UdpSettings(egress4=IPv4Address("127.0.0.9"))) as server:
        with Association(server.address) as client:
            assert client.talk(there)[0] == "127.0.0.9"
