"""What a reload changes for the sessions that are there: their limits, and who is ended for what reason."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.accounts import cheap_hash
from helpers.configured import ALLOW, JSON, LISTEN, Configured, configured, logged_in, tunnel_as, user
from helpers.socks import connect5, dial, echoes, greet5, read_exactly, read_reply5, request4, request5
from helpers.udp import Association, datagrams
from helpers.waiting import until
from loop.engine_helpers import is_reset

OPEN = LISTEN + JSON + ALLOW
LAN = '[[rule]]\nname = "lan"\nallow = true\nto = "@private"\n'
TOTAL = 300_000
SLOW = 'bandwidth = "1 KB/s"'  # all of it would take five minutes


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Configured]:
    with configured(tmp_path, OPEN) as running:
        running.ports()
        yield running


def moved(server: Configured) -> int:
    (row,) = server.rows("sessions")
    return int(row["up"]) + int(row["down"])


def assert_slow(server: Configured, sock: socket.socket) -> None:
    """Check that a burst passes and hardly more."""
    before = moved(server)
    sock.sendall(bytes(TOTAL))
    until(lambda: moved(server) - before >= 4096, "the burst to pass")
    assert moved(server) - before < TOTAL / 2


# limits


def test_a_bandwidth_of_the_rule_that_comes_slows_a_tunnel_that_had_none_and_goes_again(
    server: Configured, echo: tuple[str, int]
) -> None:
    with connect5(server.address, *echo) as sock:
        assert echoes(sock, bytes(TOTAL))
        server.reload(OPEN + SLOW + "\n")
        assert_slow(server, sock)
        server.reload(OPEN)
        assert len(read_exactly(sock, TOTAL)) == TOTAL


def test_a_bandwidth_of_the_user_that_comes_slows_a_tunnel_that_had_none(
    tmp_path: Path, echo: tuple[str, int]
) -> None:
    with configured(tmp_path, OPEN + user("alice") + user("bob")) as server:
        with tunnel_as(server.address, b"alice", echo) as sock:
            assert echoes(sock, bytes(TOTAL))
            server.reload(OPEN + user("alice", b"secret", SLOW) + user("bob"))
            assert_slow(server, sock)
            with tunnel_as(server.address, b"bob", echo) as other:
                assert echoes(other, bytes(TOTAL))


def test_a_tunnel_goes_by_the_limits_of_the_rule_that_allows_it_now(server: Configured, echo: tuple[str, int]) -> None:
    with connect5(server.address, *echo) as sock:
        assert echoes(sock)
        server.reload(LISTEN + JSON + LAN + SLOW + "\nsessions = 1\n" + ALLOW)
        assert [row["rule"] for row in server.rows("sessions")] == ["lan"]
        assert_slow(server, sock)
        with dial(server.address) as other:
            other.sendall(b"\x05\x01\x00" + request5(1, *echo))
            assert read_exactly(other, 2) == b"\x05\x00"
            assert read_reply5(other)[0] == 2  # the one session of rule "lan" is taken
        assert server.record(why="limit:rule-sessions")
        assert server.rows("kill", rule="lan")
        assert server.record(why="kill", rule="lan")
    until(lambda: not server.rows("sessions"), "the session to be counted out")
    with connect5(server.address, *echo) as sock:
        assert echoes(sock)


@pytest.mark.parametrize("where", ["time", "rule"])
def test_an_idle_limit_that_comes_ends_a_silent_tunnel(server: Configured, echo: tuple[str, int], where: str) -> None:
    with connect5(server.address, *echo) as sock:
        assert echoes(sock)
        server.reload(OPEN + ("[time]\nidle = 1\n" if where == "time" else "idle = 1\n"))
        assert is_reset(sock)
    assert server.record(why="limit:idle", by="tabi")


def test_a_half_open_limit_that_comes_ends_a_tunnel_that_is_half_open(
    server: Configured, echo: tuple[str, int]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with connect5(server.address, *listener.getsockname()) as sock, listener.accept()[0] as there:
            sock.shutdown(socket.SHUT_WR)
            assert there.recv(1) == b""
            server.reload(OPEN + "half_open = 1\n")
            assert is_reset(sock)
    assert server.record(why="limit:half_open", by="tabi")


def test_a_lifetime_that_comes_counts_from_the_begin_and_is_told_by_its_name(
    tmp_path: Path, echo: tuple[str, int]
) -> None:
    with configured(tmp_path, OPEN + user("alice")) as server:
        with tunnel_as(server.address, b"alice", echo) as sock:
            until(lambda: server.rows("sessions")[0]["age"] >= 1.1, "the session to be older than the limit")
            server.reload(OPEN + user("alice", b"secret", "lifetime = 1"))
            assert is_reset(sock)
        assert server.record(why="limit:user-lifetime", by="tabi")


def test_a_lifetime_that_goes_lets_the_tunnel_live(server: Configured, echo: tuple[str, int]) -> None:
    server.reload(OPEN + "lifetime = 3\n")
    with connect5(server.address, *echo) as sock:
        server.reload(OPEN)
        until(lambda: server.rows("sessions")[0]["age"] >= 3.2, "the session to be older than the limit was")
        assert echoes(sock)


def test_a_connection_that_is_being_made_gets_the_new_limits(server: Configured) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):  # the queue is full: who connects now has to wait
            sock = greet5(server.address)
            sock.sendall(request5(1, b"localhost", port))
            until(lambda: server.rows("sessions", target="localhost:*", stage="serving"), "the request to be served")
            server.reload(LISTEN + JSON + LAN + "lifetime = 1\n" + ALLOW)
            assert server.rows("sessions", stage="serving")
            listener.accept()[0].close()
            listener.accept()[0].close()
            assert read_reply5(sock)[0] == 0
            sock.close()
    assert server.record(target=f"localhost:{port}", rule="lan")


def test_an_association_gets_the_new_limits(server: Configured) -> None:
    with Association(server.address) as association, datagrams() as there:
        association.talk(there)
        server.reload(OPEN + SLOW + "\n")
        for _ in range(20):
            association.send("127.0.0.1", there.getsockname()[1], bytes(1000))
        assert len(there.recv(2000)) == 1000
        server.reload(OPEN + "lifetime = 1\n")
        assert association.control.recv(1) == b""
    assert "over-rate" in server.record(command="udp_associate", why="limit:rule-lifetime")["note"]


# who is ended, and why


def test_the_line_of_each_tunnel_that_is_ended_says_what_refuses_it(server: Configured, echo: tuple[str, int]) -> None:
    with connect5(server.address, *echo) as sock:
        rule = f'[[rule]]\nname = "no more"\nrefuse = "not-allowed"\nport = "{echo[1]}"\n'
        server.reload(LISTEN + JSON + rule + ALLOW)
        assert is_reset(sock)
    assert server.record(why="policy", rule="all")["note"] == 'refused by rule "no more" since the reload'


def test_a_rule_that_wants_a_login_now_ends_who_came_in_without(tmp_path: Path, echo: tuple[str, int]) -> None:
    lax = 'auth = "any"\n' + OPEN + user("alice")
    with configured(tmp_path, lax) as server:
        with connect5(server.address, *echo) as nobody, tunnel_as(server.address, b"alice", echo) as alice:
            server.reload(lax.replace(ALLOW, ALLOW + 'auth = "password"\n'))
            assert is_reset(nobody)
            assert echoes(alice)
        note = server.record(why="policy")["note"]
        assert "the rule is for clients that log in with a password, and this one has not" in note


def test_a_listener_that_asks_for_a_password_now_ends_who_came_in_without(
    tmp_path: Path, echo: tuple[str, int]
) -> None:
    lax = 'auth = "any"\n' + OPEN + user("alice")
    strict = OPEN + user("alice")
    with configured(tmp_path, lax) as server:
        with (
            connect5(server.address, *echo) as nobody,
            tunnel_as(server.address, b"alice", echo) as alice,
            greet5(server.address) as greeted,
            logged_in(server.address, b"alice") as halfway,
            dial(server.address) as silent,
            Association(server.address) as association,
        ):
            until(lambda: len(server.rows("sessions")) == 6, "all to be there")
            server.reload(strict)
            assert all(map(is_reset, (nobody, greeted, association.control)))
            assert echoes(alice)
            halfway.sendall(request5(1, *echo))
            assert read_reply5(halfway)[0] == 0
            silent.sendall(b"\x05\x01\x00")
            assert read_exactly(silent, 2) == b"\x05\xff"  # by what holds when it says what it offers
        until(lambda: sum(record["why"] == "policy" for record in server.records) == 3, "the lines of three")
        notes = {record["note"] for record in server.records if record["why"] == "policy"}
        assert {note.partition("; ")[0] for note in notes} == {
            "who comes in like this is asked for a password since the reload"
        }


def test_a_listener_that_asks_for_none_any_more_keeps_who_has_logged_in(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN + user("alice")) as server:
        with tunnel_as(server.address, b"alice", echo) as alice:
            server.reload('auth = "none"\n' + OPEN + user("alice"))
            assert echoes(alice)


def test_the_first_user_ends_who_came_by_socks4_unless_the_network_may(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN) as server:

        def tunnel4() -> socket.socket:
            sock = dial(server.address)
            sock.sendall(request4(1, *echo))
            assert read_exactly(sock, 8)[1] == 90
            return sock

        may = '[[client]]\nfrom = "127.0.0.0/8"\nsocks4 = true\n'
        with tunnel4() as kept, tunnel4() as other:
            server.reload(OPEN + user("alice") + may)
            assert echoes(kept)
            assert echoes(other)
            server.reload(OPEN + user("alice"))
            assert is_reset(kept)
            assert is_reset(other)


def test_another_password_ends_the_sessions_of_its_user(tmp_path: Path, echo: tuple[str, int]) -> None:
    with configured(tmp_path, OPEN + user("alice") + user("bob")) as server:
        with (
            tunnel_as(server.address, b"alice", echo) as alice,
            tunnel_as(server.address, b"bob", echo) as bob,
            logged_in(server.address, b"alice") as halfway,
        ):
            server.reload(OPEN + user("alice", b"changed") + user("bob", b"secret", "sessions = 9"))
            assert is_reset(alice)
            assert is_reset(halfway)
            assert echoes(bob)
            assert server.record(user="alice", command="connect")["note"] == (
                "the user has another password since the reload"
            )


def test_a_login_of_a_user_who_stays_is_not_ended_by_a_password_that_is_stored_as_before(
    tmp_path: Path, echo: tuple[str, int]
) -> None:
    assert user("alice") == f'[[user]]\nname = "alice"\npassword = "{cheap_hash(b"secret")}"\n'
    with configured(tmp_path, OPEN + user("alice")) as server:
        with tunnel_as(server.address, b"alice", echo) as alice:
            server.reload(OPEN + user("bob") + user("alice"))
            assert echoes(alice)
