"""Limits of users and rules through the whole server: what the client hears, what the log says, what is left over."""

import os
import socket

import pytest

from helpers.clocks import HeldClock
from helpers.name_service import NameService
from helpers.serving import Running, serving
from helpers.socks import ask5, connect5, dial, echoes, read_all, read_exactly, read_reply5, request5
from helpers.targets import same_port, target
from helpers.udp import Association, address_of, datagrams, drops, header, is_quiet, refused
from helpers.waiting import until
from tabi.addr import Name
from tabi.policy.verdict import Context, Grants, Limits, Policy, Request, Verdict
from tabi.server import Passwords
from tabi.server.counts import LocalCounts
from tabi.server.sharedtable import SharedTable

pytestmark = pytest.mark.usefixtures("nothing_left")

ALICE = b"\x05\x01\x02", b"\x01\x05alice\x06secret"


def rule(name: str = "rule", **limits: float | int) -> Policy:
    """Allow everything by one rule with these limits."""
    verdict = Verdict(allow=True, rule=name, grants=Grants(any_peer=True, full_cone=True, limits=Limits(**limits)))
    return lambda _request, _context: verdict


def login(proxy: tuple[str, int]) -> socket.socket:
    """Log in as alice."""
    sock = dial(proxy)
    sock.sendall(b"".join(ALICE))
    assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
    return sock


def asked_as_alice(proxy: tuple[str, int], command: int, host: str, port: int) -> tuple[socket.socket, int]:
    sock = login(proxy)
    sock.sendall(request5(command, host, port))
    return sock, read_reply5(sock)[0]


def counted(running: Running) -> list[bytes]:
    """Say what is counted still."""
    return list(running.call_sync(running.server.admission._counts.counted))


def alice(**limits: float | int) -> dict[str, dict[bytes, Limits]]:
    return {"user_limits": {b"alice": Limits(**limits)}}


PASSWORDS = Passwords({b"alice": b"secret"})


def test_a_rule_has_no_room_for_another_session_until_one_ends(echo: tuple[str, int]) -> None:
    with serving(policy=rule("few", sessions=2)) as running:
        first, second = connect5(running.address, *echo), connect5(running.address, *echo)
        sock, reply, _, _ = ask5(running.address, 1, *echo)
        assert reply == 2
        assert read_all(sock) == b""
        line = running.line(why="limit:rule-sessions")
        assert (line["by"], line["reply"], line["rule"]) == ("tabi", 2, "few")
        assert line["note"].endswith('rule "few" has 2 sessions, as many as it may have')
        first.close()
        running.line(why="fin")
        third = connect5(running.address, *echo)
        for one in (sock, second, third):
            one.close()
        running.idle()
        assert counted(running) == []


def test_a_user_has_no_room_for_another_session_of_any_kind(echo: tuple[str, int]) -> None:
    with serving(policy=rule(), authenticator=PASSWORDS, options=alice(sessions=1)) as running:
        tunnel, reply = asked_as_alice(running.address, 1, *echo)
        assert reply == 0
        for command, host, port in ((1, *echo), (2, "127.0.0.1", 0), (3, "0.0.0.0", 0)):
            sock, reply = asked_as_alice(running.address, command, host, port)
            assert reply == 2
            assert read_all(sock) == b""
            sock.close()
        until(lambda: len(running.lines) == 3, "three refusals")
        assert {line["why"] for line in running.lines} == {"limit:user-sessions"}
        tunnel.close()
        running.idle()
        for command, host, port in ((2, "127.0.0.1", 0), (3, "0.0.0.0", 0), (1, *echo)):
            sock, reply = asked_as_alice(running.address, command, host, port)
            assert reply == 0
            sock.close()
            running.idle()
        assert counted(running) == []


def test_new_sessions_come_too_fast(echo: tuple[str, int]) -> None:
    with serving(policy=rule("slow", rate=0.001)) as running:
        connect5(running.address, *echo).close()
        running.idle()
        sock, reply, _, _ = ask5(running.address, 1, *echo)
        sock.close()
        assert reply == 2
        assert running.line(why="limit:rule-rate")["reply"] == 2
        assert refused(running.address) == 2
    assert [line["why"] for line in running.lines] == ["fin", "limit:rule-rate", "limit:rule-rate"]


def test_refused_and_failed_sessions_are_not_counted_on(echo: tuple[str, int]) -> None:
    with serving(policy=rule(sessions=1, bandwidth=1000)) as running:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        for _ in range(5):
            sock, reply, _, _ = ask5(running.address, 1, "127.0.0.1", port)
            assert reply == 5
            sock.close()
            running.idle()
        dial(running.address).close()
        connect5(running.address, *echo).close()
        running.idle()
        assert counted(running) == []


def by_address(**sessions: int) -> Policy:
    """Judge names tentatively, and each address by a rule of its own."""

    def judge(request: Request, _context: Context) -> Verdict:
        if request.target is not None and isinstance(request.target.host, Name) and request.address is None:
            return Verdict(allow=True, rule="v4", grants=grants("v4"), tentative=True)
        family = f"v{request.ip.version}" if request.ip else "v4"
        return Verdict(allow=True, rule=family, grants=grants(family))

    def grants(family: str) -> Grants:
        return Grants(limits=Limits(sessions=sessions.get(family)))

    return judge


def test_the_rule_of_the_address_that_is_connected_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    HeldClock(monkeypatch)
    names = NameService({"both.test": ("::1", "127.0.0.1")})
    with same_port("127.0.0.1", "::1") as port, serving(policy=by_address(v6=1)) as running:
        names.serve(running)
        first = connect5(running.address, b"both.test", port)
        assert counted(running).count(b"rule v6") == 1
        assert b"rule v4" not in counted(running)
        second = connect5(running.address, b"both.test", port)  # v6 has no room, v4 has
        assert b"rule v4" in counted(running)
        first.close()
        second.close()
        assert {running.line(rule="v4")["to"], running.line(rule="v6")["to"]} == {f"127.0.0.1:{port}", f"[::1]:{port}"}
        running.idle()
        assert counted(running) == []


def test_a_rule_whose_address_did_not_answer_is_let_go() -> None:
    names = NameService({"both.test": ("::1", "127.0.0.1")})
    with target() as (_, port), serving(policy=by_address()) as running:
        names.serve(running)
        with connect5(running.address, b"both.test", port):
            assert b"rule v4" in counted(running)
            assert b"rule v6" not in counted(running)
        assert running.only_line()["rule"] == "v4"
        assert counted(running) == []


def test_an_association_belongs_to_the_first_rule_that_may_allow_its_datagrams() -> None:
    verdict = Verdict(allow=True, rule="one", grants=Grants(limits=Limits(sessions=1)), tentative=True)
    with serving(policy=lambda _request, _context: verdict) as running, Association(running.address):
        assert refused(running.address) == 2
        assert running.line(why="limit:rule-sessions")["rule"] == "one"


def test_a_name_all_of_whose_addresses_have_no_room_is_refused_by_that_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    HeldClock(monkeypatch)
    names = NameService({"both.test": ("::1", "127.0.0.1")})
    with same_port("127.0.0.1", "::1") as port, serving(policy=by_address(v4=1, v6=1)) as running:
        names.serve(running)
        held = [connect5(running.address, b"both.test", port) for _ in range(2)]
        for command in (1, 2):
            sock, reply, _, _ = ask5(running.address, command, b"both.test", port)
            assert reply == 2
            sock.close()
        until(lambda: len(running.lines) == 2, "two refusals")
        assert {line["why"] for line in running.lines} == {"limit:rule-sessions"}
        for one in held:
            one.close()


@pytest.mark.parametrize("whose", ["user", "rule"])
def test_a_tunnel_ends_with_its_lifetime(monkeypatch: pytest.MonkeyPatch, echo: tuple[str, int], whose: str) -> None:
    clock = HeldClock(monkeypatch)
    limits = {"lifetime": 100.0}
    policy = rule(**limits) if whose == "rule" else rule(lifetime=1e6)
    options = alice(**limits) if whose == "user" else alice(lifetime=1e6)
    with serving(policy=policy, authenticator=PASSWORDS, options=options) as running:
        sock, reply = asked_as_alice(running.address, 1, *echo)
        assert reply == 0
        clock.advance(running, 99)
        assert echoes(sock)
        clock.advance(running, 1.1)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        line = running.line(why=f"limit:{whose}-lifetime")
        assert (line["by"], line["reply"]) == ("tabi", 0)
        sock.close()
        running.idle()
        assert counted(running) == []


def test_an_association_and_a_bind_that_nobody_comes_to_end_with_their_lifetime(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = HeldClock(monkeypatch)
    with serving(policy=rule(lifetime=50.0)) as running:
        with Association(running.address) as association:
            clock.advance(running, 50.1)
            assert association.control.recv(1) == b""
        running.line(why="limit:rule-lifetime", command="udp_associate")
        sock, reply, _, _ = ask5(running.address, 2, "127.0.0.1", 0)
        assert reply == 0
        clock.advance(running, 50.1)
        assert read_reply5(sock)[0] == 6
        running.line(why="limit:rule-lifetime", command="bind")
        sock.close()
        running.idle()
        assert counted(running) == []


def test_bytes_come_at_the_rate_of_the_rule_and_none_is_lost(echo: tuple[str, int]) -> None:
    data = os.urandom(300_000)
    with serving(policy=rule(bandwidth=2_000_000)) as running:
        sock = connect5(running.address, *echo)
        engine = running.server.engine
        assert engine.spend((1,), 400_000)  # the tunnel's bucket: its debt holds the tunnel back
        sock.sendall(data)
        assert read_exactly(sock, len(data)) == data
        sock.close()
        line = running.only_line()
        assert (line["up"], line["down"]) == (len(data), len(data))


def test_datagrams_over_the_rate_are_dropped_and_counted() -> None:
    with serving(policy=rule(bandwidth=1)) as running, datagrams() as far, Association(running.address) as association:
        association.talk(far)
        association.send(*address_of(far), bytes(5000))  # no more than the burst is there at once
        association.send(*address_of(far), b"last")
        assert far.recv(1 << 16) == b"last"
        association.control.shutdown(socket.SHUT_WR)
        assert drops(running) == "dropped: over-rate 1"


def test_answers_over_the_rate_are_dropped_and_counted() -> None:
    with serving(policy=rule(bandwidth=1)) as running, datagrams() as far, Association(running.address) as association:
        egress = association.talk(far)
        far.sendto(bytes(5000), egress)
        far.sendto(b"last", egress)
        assert association.receive()[2] == b"last"
        association.control.shutdown(socket.SHUT_WR)
        assert drops(running) == "dropped: over-rate 1"


def test_tunnels_and_datagrams_of_a_user_share_a_bucket(echo: tuple[str, int]) -> None:
    options = alice(bandwidth=1)
    with serving(policy=rule(), authenticator=PASSWORDS, options=options) as running:
        tunnel, reply = asked_as_alice(running.address, 1, *echo)
        assert reply == 0
        tunnel.sendall(bytes(8000))
        snapshot = running.server.engine.snapshot
        until(lambda: sum(live.up + live.down for live in snapshot()) == 4096, "the burst to pass")
        control = login(running.address)
        control.sendall(request5(3, "0.0.0.0", 0))
        reply, host, port = read_reply5(control)
        assert reply == 0
        with datagrams() as near, datagrams() as far:
            near.sendto(header(*address_of(far)) + b"too much", (host, port))
            sessions = running.server._sessions
            until(lambda: "over-rate 1" in str([one.tally() for one in sessions.values() if one.tally]), "the drop")
            assert is_quiet(far)
        control.close()
        assert running.line(command="udp_associate")["note"] == "dropped: over-rate 1"
        tunnel.close()


def test_caps_and_limits_hold_over_all_servers_that_share_a_table(echo: tuple[str, int]) -> None:
    table = SharedTable.create(2, rows=1 << 10)
    views = [table, SharedTable(os.dup(table.fileno()), 1)]
    policy = rule("few", sessions=2)
    with serving(policy=policy, options={"counts": views[0]}) as one:
        with serving(policy=policy, options={"counts": views[1]}) as two:
            held = [connect5(running.address, *echo) for running in (one, two)]
            for running in (one, two):
                sock, reply, _, _ = ask5(running.address, 1, *echo)
                assert reply == 2
                sock.close()
                running.line(why="limit:rule-sessions")
            held[0].close()
            one.line(why="fin")
            held.append(connect5(two.address, *echo))
            for sock in held:
                sock.close()
            two.idle()
            one.idle()
            assert [view.total(key) for view in views for key in (b"all", b"rule few", b"client \x7f\0\0\1")] == [0] * 6
    for view in views:
        view.close()


def test_a_server_counts_for_itself_by_default() -> None:
    with serving(options={"lane": False}) as running:
        assert isinstance(running.server.admission._counts, LocalCounts)
