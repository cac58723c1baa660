"""How an association of the running server ends, and what bounds its tables, look-ups and errors."""

import socket

import pytest

from helpers.clocks import HeldClock
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import read_all, reset
from helpers.targets import closed_port
from helpers.udp import Association, address_of, datagrams, drops, looked_up, stranger
from helpers.waiting import until
from tabi.addr import Endpoint
from tabi.config.settings import TimeLimits
from tabi.machine.association import MAX_MAPPINGS, MAX_ROUTES, MAX_WAITING
from tabi.net.tasks import pending
from tabi.policy.verdict import Context, Request, Verdict

pytestmark = pytest.mark.usefixtures("nothing_left")

V4 = "127.0.0.1"
V6 = "::1"


# B10: the end


@pytest.mark.parametrize("by_reset", [False, True])
def test_the_relay_ends_with_its_control_connection(running: Running, there: socket.socket, by_reset: bool) -> None:
    client = Association(running.address).granted()
    egress = client.talk(there)
    if by_reset:
        reset(client.control)
    client.close()
    line = running.only_line()
    assert (line["by"], line["why"]) == ("client", "rst" if by_reset else "fin")
    for host, port in (client.relay, egress):  # both ports are free again
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind((host, port))


def test_bytes_on_the_control_connection_change_nothing(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        for _ in range(3):
            client.control.sendall(bytes(100_000))
            client.talk(there)
    assert running.only_line()["why"] == "fin"


def test_the_end_of_an_association_ends_its_look_ups(running: Running, there: socket.socket) -> None:
    names = NameService(slow=["slow.example"]).serve(running)
    with Association(running.address) as client:
        client.send(b"slow.example", 9, b"x")
        client.talk(there)
        until(lambda: names.asked, "the look-up")
    running.idle()
    looked_up(running)


def test_shutdown_ends_associations_and_their_look_ups(there: socket.socket) -> None:
    with serving() as server:
        names = NameService(slow=["slow.example"]).serve(server)
        client = Association(server.address).granted()
        client.send(b"slow.example", 9, b"x")
        client.talk(there)
        until(lambda: names.asked, "the look-up")
    client.close()
    assert [line["why"] for line in server.lines] == ["shutdown"]


def test_an_association_that_relays_nothing_ends_at_its_idle_limit(
    monkeypatch: pytest.MonkeyPatch, there: socket.socket
) -> None:
    clock = HeldClock(monkeypatch)
    with serving(time=TimeLimits(udp_idle=120)) as server:
        with Association(server.address) as client:
            clock.advance(server, 100)
            client.talk(there)  # moves the limit
            clock.advance(server, 100)
            client.send_raw(b"malformed")
            egress = client.talk(there)
            clock.advance(server, 100)
            client.send_raw(b"malformed")  # relays nothing, so it moves nothing
            stranger(egress, b"unasked")
            clock.advance(server, 21)
            assert read_all(client.control) == b""
        line = server.only_line()
        assert (line["by"], line["why"]) == ("tabi", "limit:udp_idle")


def test_datagrams_in_one_direction_keep_an_association_alive(
    monkeypatch: pytest.MonkeyPatch, there: socket.socket
) -> None:
    clock = HeldClock(monkeypatch)
    with serving(time=TimeLimits(udp_idle=120)) as server, Association(server.address) as client:
        egress = client.talk(there)
        for _ in range(2):
            clock.advance(server, 100)
            client.send(*address_of(there), b"up")
            assert there.recv(99) == b"up"
        for _ in range(3):
            clock.advance(server, 100)
            there.sendto(b"down", egress)
            assert client.receive()[2] == b"down"


# B11, B13: tables with bounds


def test_names_are_looked_up_and_answers_named_by_address(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        client.send(b"LOCALHOST.", address_of(there)[1], b"ping")
        data, egress = there.recvfrom(99)
        assert data == b"ping"
        there.sendto(b"pong", egress)
        assert client.receive() == (*address_of(there), b"pong")


def test_a_slow_look_up_delays_no_other_datagram(running: Running, there: socket.socket) -> None:
    names = NameService({"slow.example": [V4], "quick.example": [V4]}, slow=["slow.example"]).serve(running)
    port = address_of(there)[1]
    with Association(running.address) as client:
        client.send(b"slow.example", port, b"slow")
        client.send(b"quick.example", port, b"quick")
        assert there.recv(99) == b"quick"
        client.talk(there)
        names.answer(running)
        assert there.recv(99) == b"slow"


def test_an_unknown_name_harms_only_itself(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        client.send(b"nowhere.example", address_of(there)[1], b"x")
        client.talk(there)
        looked_up(running)
    assert drops(running) == "dropped: unknown-name 1"


def test_the_oldest_of_too_many_waiting_datagrams_go_first(running: Running, there: socket.socket) -> None:
    slow = [f"n{number}.example" for number in range(MAX_WAITING + 4)]
    names = NameService({name: [V4] for name in slow}, slow=slow).serve(running)
    with Association(running.address) as client:
        for name in slow:
            client.send(name.encode(), address_of(there)[1], name.encode())
        client.talk(there)  # all have been judged by then
        assert sum("look-up" in task.get_name() for task in running.call_sync(pending)) == MAX_WAITING
        names.answer(running)
        got = {there.recv(99).decode() for _ in range(MAX_WAITING)}
        client.talk(there)
    assert got == set(slow[4:])
    assert drops(running) == "dropped: waiting 4"


def test_many_datagrams_for_one_slow_name_are_bounded_too(running: Running, there: socket.socket) -> None:
    names = NameService({"slow.example": [V4]}, slow=["slow.example"]).serve(running)
    with Association(running.address) as client:
        for number in range(MAX_WAITING + 4):
            client.send(b"slow.example", address_of(there)[1], b"%d" % number)
        client.talk(there)
        until(lambda: len(names.asked) == 2, "both families")  # and one look-up, however many wait
        names.answer(running)
        got = [int(there.recv(99)) for _ in range(MAX_WAITING)]
        client.talk(there)
    assert got == list(range(4, MAX_WAITING + 4))
    assert names.asked == ["slow.example"] * 2


def test_the_target_asked_longest_ago_may_no_longer_answer(running: Running, there: socket.socket) -> None:
    port = closed_port()
    with Association(running.address) as client, datagrams() as pace:
        egress = client.talk(there)
        for number in range(MAX_MAPPINGS):
            client.send(f"127.1.{number // 250}.{number % 250 + 1}", port, b"x")
            if number % 64 == 0:
                client.talk(pace)  # so that no datagram is lost to a full socket
        client.talk(pace)
        there.sendto(b"late", egress)
        client.talk(there)
    assert drops(running) == "dropped: stranger 1"


def test_a_target_that_is_asked_again_is_no_longer_the_oldest(running: Running, there: socket.socket) -> None:
    port = closed_port()
    with Association(running.address) as client, datagrams() as pace:
        egress = client.talk(there)
        for number in range(MAX_MAPPINGS + 100):
            client.send(f"127.1.{number // 250}.{number % 250 + 1}", port, b"x")
            if number % 64 == 0:
                client.talk(pace)  # so that no datagram is lost to a full socket
            if number == MAX_MAPPINGS // 2:
                client.talk(there)
        client.talk(pace)
        there.sendto(b"late", egress)
        assert client.receive() == (*address_of(there), b"late")


def test_verdicts_are_remembered_for_1024_targets_and_30_seconds(
    monkeypatch: pytest.MonkeyPatch, there: socket.socket
) -> None:
    clock = HeldClock(monkeypatch)
    judged: list[str] = []

    def noting(request: Request, _context: Context) -> Verdict:
        judged.append(str(request.target))
        return Verdict(allow=True, rule="noting")

    me = str(Endpoint.parse(f"{V4}:{address_of(there)[1]}"))
    with serving(policy=noting) as server, Association(server.address) as client:
        for _ in range(3):
            client.talk(there)
        assert judged.count(me) == 1
        clock.advance(server, 31)
        client.talk(there)
        assert judged.count(me) == 2
        with datagrams() as pace:
            for number in range(MAX_ROUTES):
                client.send(f"127.1.{number // 250}.{number % 250 + 1}", 9, b"x")
                if number % 64 == 0:
                    client.talk(pace)
            client.talk(pace)
        client.talk(there)
        assert judged.count(me) == 3


# ICMP errors


def test_a_closed_port_harms_only_its_own_datagrams(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        for _ in range(5):
            client.send(V4, closed_port(), b"x")
            client.send(V6, closed_port(V6), b"x")
            client.talk(there)


def test_what_the_kernel_will_not_send_harms_only_itself(running: Running, there: socket.socket) -> None:
    with Association(running.address) as client:
        client.send("255.255.255.255", 9, b"x")  # a broadcast needs an option that is never set
        client.talk(there)
    assert drops(running) == "dropped: unsendable 1"


def test_a_client_that_closed_its_datagram_socket_and_opened_it_again_is_served(
    running: Running, there: socket.socket
) -> None:
    with Association(running.address) as client:
        egress = client.talk(there)
        where = address_of(client.sock)
        client.sock.close()

        def all_at_once() -> None:  # while the loop does this it reads none of them
            for _ in range(3):
                there.sendto(b"nobody there", egress)

        running.call_sync(all_at_once)
        for _ in range(3):
            running.call_sync(lambda: None)  # it has sent them all by then, and heard of the errors
        with datagrams(*where) as again:
            client.sock = again
            client.talk(there)
    assert drops(running) == "nothing"  # an error for one datagram is not the next one's
