"""Hostile peers and clients of BIND, over SOCKS4, 4a and 5, against the running server.

Comments such as C1 are rows of the project's catalogue of adversarial inputs.
"""

import socket
from ipaddress import IPv4Address, ip_address

import pytest

from helpers.clocks import HeldClock
from helpers.name_service import NameService
from helpers.serving import Running, allow_all, serving
from helpers.socks import (
    LINGER_ZERO,
    ask5,
    dial,
    greet5,
    read_all,
    read_exactly,
    read_reply5,
    request4,
    request5,
    reset,
)
from helpers.targets import target
from helpers.waiting import PATIENCE, until
from tabi.addr import Endpoint
from tabi.config.settings import BindSettings
from tabi.policy.verdict import Context, Grants, Request, Verdict

pytestmark = pytest.mark.usefixtures("nothing_left")

ME = "127.0.0.1"
OTHER = "127.0.0.2"
BIND = 2
REJECTED4 = b"\x00\x5b" + bytes(6)  # SOCKS4.protocol


def listening(running: Running, host: str | bytes = ME, port: int = 0) -> tuple[socket.socket, tuple[str, int]]:
    """Ask for BIND with SOCKS5; gives the control connection and where the peer is to connect."""
    sock, reply, bound, bound_port = ask5(running.address, BIND, host, port)
    assert reply == 0, reply
    return sock, (bound, bound_port)


def listening4(running: Running, says: bytes) -> tuple[socket.socket, tuple[str, int]]:
    """Do the same with SOCKS4."""
    sock = dial(running.address)
    sock.sendall(says)
    answer = read_exactly(sock, 8)
    assert answer[:2] == b"\x00\x5a", answer
    return sock, (str(ip_address(answer[4:])), int.from_bytes(answer[2:4], "big"))


def peer(bound: tuple[str, int], host: str = ME) -> socket.socket:
    """Connect as the peer from an address."""
    return socket.create_connection(bound, PATIENCE, source_address=(host, 0))


def wrong_peer(bound: tuple[str, int], sends: bytes = b"") -> bytes:
    """Connect from another address, and give what comes; the server may be quick to reset."""
    try:
        with peer(bound, OTHER) as wrong:
            wrong.sendall(sends)
            return wrong.recv(1)
    except ConnectionError:
        return b""


def is_refused(bound: tuple[str, int]) -> bool:
    """Say whether nobody listens there."""
    with socket.socket(socket.AF_INET6 if ":" in bound[0] else socket.AF_INET) as sock:
        try:
            sock.connect(bound)
        except ConnectionRefusedError:
            return True
    return False


def relays(client: socket.socket, there: socket.socket) -> None:
    """Check that bytes go both ways and both ends travel."""
    client.sendall(b"from the client")
    assert read_exactly(there, 15) == b"from the client"
    there.sendall(b"from the peer")
    assert read_exactly(client, 13) == b"from the peer"
    there.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    client.sendall(b"after your end")
    client.shutdown(socket.SHUT_WR)
    assert read_all(there) == b"after your end"


# what a good peer gets


@pytest.mark.parametrize("host", [ME, b"127.0.0.1", "::ffff:127.0.0.1", b"peer.example"])
def test_the_port_that_is_told_can_be_reached_and_both_replies_are_true(running: Running, host: str | bytes) -> None:
    client, bound = listening(running, host)
    with client, peer(bound) as there:
        assert read_reply5(client) == (0, *there.getsockname())
        relays(client, there)
    line = running.only_line()
    assert line["to"] == f"{ME}:{there_port(line)}"
    assert (line["command"], line["reply"], line["up"], line["down"]) == ("bind", 0, 29, 13)


def there_port(line: dict[str, object]) -> str:
    """Give the port of the peer as the log has it."""
    return str(line["to"]).rpartition(":")[2]


def test_the_port_told_is_not_the_servers_own(running: Running) -> None:  # C4
    client, bound = listening(running)
    with client:
        assert bound[1] not in {endpoint.port for endpoint in running.addresses}
        with peer(bound) as there:
            there.sendall(b"\x05\x01\x00")
            assert read_reply5(client)[0] == 0
            assert read_exactly(client, 3) == b"\x05\x01\x00"


def test_the_peers_port_is_never_compared(running: Running) -> None:
    client, bound = listening(running, ME, 20)  # active FTP names the control connection's port
    with client, peer(bound) as there:
        assert read_reply5(client) == (0, *there.getsockname())


def test_bind_over_ipv6(running: Running) -> None:
    client, bound = listening(running, "::1")
    with client:
        assert bound[0] == "::1"
        with peer(bound, "::1") as there:
            assert read_reply5(client) == (0, *there.getsockname()[:2])
            relays(client, there)


@pytest.mark.parametrize(
    "says", [request4(BIND, ME, 0, b"me"), request4(BIND, "0.0.0.1", 0, b"me", b"peer.example")], ids=["4", "4a"]
)
def test_bind_over_socks4(running: Running, says: bytes) -> None:
    client, bound = listening4(running, says)
    with client, peer(bound) as there:
        second = read_exactly(client, 8)
        assert second == b"\x00\x5a" + there.getsockname()[1].to_bytes(2, "big") + ip_address(ME).packed
        relays(client, there)
    assert running.only_line()["userid"] == "me"


def test_early_data_of_the_client_reaches_the_peer_once_and_in_order(running: Running) -> None:
    data = bytes(range(256)) * 400
    with greet5(running.address) as client:
        client.sendall(request5(BIND, ME, 0) + data[:50_000])
        reply, *bound = read_reply5(client)
        assert reply == 0
        client.sendall(data[50_000:])
        with peer((str(bound[0]), int(bound[1]))) as there:
            assert read_reply5(client)[0] == 0
            assert read_exactly(there, len(data)) == data
            relays(client, there)


def test_what_the_peer_sends_at_once_comes_behind_the_second_reply(running: Running) -> None:
    client, bound = listening(running)
    with client:
        with peer(bound) as there:
            there.sendall(b"hello")
        assert read_reply5(client)[0] == 0
        assert read_all(client) == b"hello"


# C1: the wrong peer


@pytest.mark.parametrize("host", [ME, b"peer.example"])
def test_the_wrong_peer_gets_nothing_and_the_client_reply_2(running: Running, host: str | bytes) -> None:
    client, bound = listening(running, host)
    with client:
        client.sendall(b"secret of the client")
        assert wrong_peer(bound) == b""
        assert read_reply5(client) == (2, "0.0.0.0", 0)
        assert read_all(client) == b""
        assert is_refused(bound)
    line = running.only_line()
    assert (line["why"], line["reply"], line["up"], line["down"]) == ("policy", 2, 0, 0)
    assert line["to"].startswith(f"{OTHER}:")


def test_what_the_wrong_peer_sends_is_never_relayed(running: Running) -> None:
    client, bound = listening(running)
    with client:
        assert wrong_peer(bound, b"\x05\x00\x00\x01" + bytes(6) + b"forged") == b""
        assert read_all(client) == b"\x05\x02\x00\x01" + bytes(6)


@pytest.mark.parametrize(
    "says", [request4(BIND, ME, 0, b"me"), request4(BIND, "0.0.0.1", 0, b"me", b"peer.example")], ids=["4", "4a"]
)
def test_the_wrong_peer_of_socks4_is_reply_91(running: Running, says: bytes) -> None:
    client, bound = listening4(running, says)
    with client:
        assert wrong_peer(bound) == b""
        assert read_all(client) == REJECTED4


def test_a_wrong_peer_that_resets_at_once_is_a_wrong_peer(running: Running) -> None:
    client, bound = listening(running)
    with client:
        running.call_sync(lambda: reset(peer(bound, OTHER)))
        assert read_reply5(client)[0] == 2
        assert read_all(client) == b""


# C1: any peer


@pytest.mark.parametrize("host", ["0.0.0.0", "::", b"0.0.0.0", "::ffff:0.0.0.0"])
def test_any_peer_is_refused_unless_policy_says_so(running: Running, host: str | bytes) -> None:
    sock, reply, bound, port = ask5(running.address, BIND, host, 0)
    with sock:
        assert (reply, bound, port) == (2, "0.0.0.0", 0)
        assert read_all(sock) == b""
    assert running.only_line()["why"] == "policy"


def test_any_peer_is_refused_in_socks4_too(running: Running) -> None:
    with dial(running.address) as sock:
        sock.sendall(request4(BIND, "0.0.0.0", 0))
        assert read_all(sock) == REJECTED4


@pytest.mark.parametrize("who", [ME, OTHER])
def test_any_peer_is_taken_where_policy_says_so(who: str) -> None:
    with serving(policy=allow_all) as server:
        client, bound = listening(server, "0.0.0.0")
        with client:
            assert bound[0] == ME  # where the client reached us
            with peer(bound, who) as there:
                assert read_reply5(client) == (0, *there.getsockname())
                relays(client, there)


def test_a_name_does_not_stand_for_any_peer() -> None:
    with serving(policy=allow_all) as server:
        NameService({"zero.example": ["0.0.0.0", "::"]}).serve(server)
        sock, reply, _, _ = ask5(server.address, BIND, b"zero.example", 0)
        with sock:
            assert reply == 4  # a name that leads nowhere


def test_policy_judges_the_peer_as_named_and_by_address() -> None:
    def judge(request: Request, _context: Context) -> Verdict:
        return Verdict(allow=request.ip != IPv4Address(OTHER), rule="not there", grants=Grants(any_peer=True))

    with serving(policy=judge) as server:
        NameService({"other.example": [OTHER], "mixed.example": [OTHER, ME]}).serve(server)
        for host in (OTHER, b"other.example"):
            sock, reply, _, _ = ask5(server.address, BIND, host, 0)
            sock.close()
            assert reply == 2
        client, bound = listening(server, b"mixed.example")
        with client:
            wrong_peer(bound)  # an address of the name, but struck out
            assert read_reply5(client)[0] == 2
        client, bound = listening(server, b"mixed.example")
        with client, peer(bound) as there:
            assert read_reply5(client) == (0, *there.getsockname())


def test_an_unknown_name_is_reply_4(running: Running) -> None:
    sock, reply, _, _ = ask5(running.address, BIND, b"nowhere.example", 0)
    sock.close()
    assert reply == 4


# C2: one peer and no more


def test_a_second_peer_is_refused(running: Running) -> None:
    client, bound = listening(running)
    with client, peer(bound) as there:
        assert read_reply5(client)[0] == 0
        assert is_refused(bound)
        relays(client, there)


def test_peers_that_queued_behind_the_first_are_cut(running: Running) -> None:
    client, bound = listening(running)

    def both() -> list[socket.socket]:  # while the loop does this it accepts none of them
        return [peer(bound), peer(bound)]

    with client:
        first, second = running.call_sync(both)
        with first, second:
            assert read_reply5(client) == (0, *first.getsockname())
            with pytest.raises(ConnectionResetError):
                second.recv(1)
            relays(client, first)


def test_a_peer_that_connects_and_resets_at_once_ends_the_session_by_its_reset(running: Running) -> None:
    client, bound = listening(running)

    def connect_and_reset() -> None:
        reset(peer(bound))

    with client:
        running.call_sync(connect_and_reset)
        assert read_reply5(client)[:2] == (0, ME)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    line = running.only_line()
    assert (line["by"], line["why"]) == ("target", "rst")


def test_a_peer_that_connects_and_leaves_at_once_ends_the_session_in_order(running: Running) -> None:
    client, bound = listening(running)
    with client:
        running.call_sync(lambda: peer(bound).close())
        assert read_reply5(client)[:2] == (0, ME)
        assert read_all(client) == b""
    assert running.only_line()["why"] == "fin"


def test_many_ports_can_wait_at_once_and_are_not_mixed_up(running: Running) -> None:
    waiting = [listening(running) for _ in range(20)]
    assert len({bound for _, bound in waiting}) == 20
    for number, (client, bound) in reversed(list(enumerate(waiting))):
        with client, peer(bound) as there:
            there.sendall(bytes((number,)))
            assert read_reply5(client) == (0, *there.getsockname())
            assert client.recv(1) == bytes((number,))


# C3, limits


@pytest.mark.parametrize("version", [4, 5])
def test_the_wait_for_the_peer_ends_after_two_minutes(monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    clock = HeldClock(monkeypatch)
    with serving() as server:
        client, bound = listening(server) if version == 5 else listening4(server, request4(BIND, ME, 0))
        with client:
            clock.advance(server, 119.9)
            assert len(server.server) == 1
            clock.advance(server, 0.2)
            assert read_all(client) == (b"\x05\x06\x00\x01" + bytes(6) if version == 5 else REJECTED4)
            assert is_refused(bound)
        line = server.only_line()
        assert (line["by"], line["why"], line["reply"]) == ("tabi", "limit:bind", 6)


@pytest.mark.parametrize("by_reset", [False, True])
@pytest.mark.parametrize("early", [b"", b"early data"])
def test_the_port_is_closed_as_soon_as_the_client_leaves(running: Running, by_reset: bool, early: bytes) -> None:
    client, bound = listening(running)
    client.sendall(early)
    if by_reset:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_ZERO)
    client.close()
    line = running.only_line()
    assert (line["by"], line["why"]) == ("client", "rst" if by_reset else "fin")
    assert is_refused(bound)


@pytest.mark.parametrize("by_reset", [False, True])
def test_a_client_that_leaves_during_the_look_up_is_let_go_at_once(running: Running, by_reset: bool) -> None:
    names = NameService(slow=["slow.example"]).serve(running)
    with greet5(running.address) as client:
        client.sendall(request5(BIND, b"slow.example", 0))
        until(lambda: names.asked, "the look-up")
        if by_reset:
            reset(client)
    assert running.only_line()["why"] == ("rst" if by_reset else "fin")


def test_a_client_that_left_before_the_answer_leaves_no_port(running: Running) -> None:
    for end in (reset, socket.socket.close):
        sock = greet5(running.address)
        sock.sendall(request5(BIND, ME, 0))
        end(sock)
    until(lambda: len(running.raw) == 2, "a line of each")
    running.idle()
    assert {line["by"] for line in running.lines} == {"client"}


def test_shutdown_closes_ports_that_wait() -> None:
    with serving() as server:
        client, bound = listening(server)
    with client:
        assert is_refused(bound)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert [line["why"] for line in server.lines] == ["shutdown"]


# where it listens


def test_the_port_comes_from_the_range_and_is_free_again_afterwards() -> None:
    with socket.create_server((ME, 0)) as taken:
        first = taken.getsockname()[1]
    with serving(bind=BindSettings(ports=(first, first))) as server:
        client, bound = listening(server)
        assert bound == (ME, first)
        sock, reply, _, _ = ask5(server.address, BIND, ME, 0)
        sock.close()
        assert reply == 1
        line = server.line(reply=1)
        assert (line["by"], line["why"]) == ("tabi", "failed")
        assert str(first) in line["note"]
        client.close()
        server.idle()
        client, bound = listening(server)
        client.close()
        assert bound == (ME, first)


def test_the_advertised_address_is_told_with_the_true_port() -> None:
    with serving(bind=BindSettings(advertise=IPv4Address("192.0.2.7"))) as server:
        client, bound = listening(server)
        with client:
            assert bound[0] == "192.0.2.7"
            with peer((ME, bound[1])) as there:
                assert read_reply5(client) == (0, *there.getsockname())
                relays(client, there)


def test_the_port_is_opened_on_one_address_only(running: Running) -> None:
    client, (host, port) = listening(running)
    with client:
        assert host == ME
        assert is_refused((OTHER, port))
        with peer((ME, port)) as there:
            assert read_reply5(client) == (0, *there.getsockname())


def test_it_listens_where_the_route_to_the_peer_begins(running: Running) -> None:
    client, bound = listening(running, OTHER)  # the kernel reaches 127.0.0.2 from 127.0.0.1
    with client:
        assert bound[0] == ME
        with peer(bound, OTHER) as there:
            assert read_reply5(client) == (0, *there.getsockname())


def test_nobody_else_can_listen_on_the_same_port(running: Running) -> None:  # C6
    client, bound = listening(running)
    with client, socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError):
            thief.bind(bound)
            thief.listen()


def test_an_ipv4_client_of_a_dual_stack_listener_gets_ipv4_replies() -> None:
    with serving(listen=(Endpoint.parse("[::]:0"),)) as server:
        sock = greet5((ME, server.address[1]))
        with sock:
            sock.sendall(request5(BIND, ME, 0))
            reply, host, port = read_reply5(sock)
            assert (reply, host) == (0, ME)
            with peer((host, port)) as there:
                assert read_reply5(sock) == (0, *there.getsockname())


def test_active_ftp_works_as_it_was_meant(running: Running) -> None:
    """The client binds for the host of its control connection, tells it the port, and the host connects back."""

    def server(sock: socket.socket) -> None:
        port = int.from_bytes(read_exactly(sock, 2), "big")
        with peer((ME, port)) as data:
            data.sendall(b"the file")

    with target(server) as there, dial(there) as control:
        client, bound = listening(running, ME, there[1])
        with client:
            control.sendall(bound[1].to_bytes(2, "big"))
            assert read_reply5(client)[0] == 0
            assert read_all(client) == b"the file"
