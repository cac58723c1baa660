"""What the server makes of the lane: which requests it serves, what is taken back, and the line of a session."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from typing import Any

import pytest

from helpers.accounts import cheap_hash
from helpers.serving import Running, allow_all, serving
from helpers.socks import connect5, dial, echoes, greet5, read_exactly, read_reply5, request4, request5
from helpers.targets import target
from tabi.config.settings import LogSettings
from tabi.config.stored import parse_stored
from tabi.policy.verdict import Context, Grants, Limits, Request, Verdict
from tabi.relay.lane import Handover
from tabi.server import Server, manage
from tabi.server.accounts import Account, Accounts, Table
from tabi.server.admission import client_key
from tabi.server.review import RELOADED
from tabi.server.sharedtable import SharedTable

pytestmark = pytest.mark.usefixtures("nothing_left")

LOGIN = b"\x05\x01\x02\x01\x05alice\x06secret"


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[Handover]:
    """Collect what the lane hands over."""
    seen: list[Handover] = []
    receive = Server.receive

    def note(server: Server, arrived: Handover) -> None:
        seen.append(arrived)
        receive(server, arrived)

    monkeypatch.setattr(Server, "receive", note)
    return seen


@contextmanager
def with_lane(**options: Any) -> Iterator[Running]:
    """Run a server with the lane on."""
    with serving(options={"lane": True}, **options) as server:
        yield server


def granting(grants: Grants) -> Any:
    """Make a policy that allows everything on these terms."""

    def judge(_request: Request, _context: Context) -> Verdict:
        return Verdict(allow=True, rule="all", grants=grants)

    return judge


VARY = {"time", "session", "client", "listener", "handshake_ms", "resolve_ms", "connect_ms", "total_ms"}


@pytest.mark.parametrize("version", ["5", "4", "4a"])
def test_a_session_of_the_lane_has_the_line_that_it_has_without(version: str, handed_over: list[Handover]) -> None:
    lines = []
    with target() as there:
        requests = {
            "5": request5(1, *there),
            "4": request4(1, *there, b"me"),
            "4a": request4(1, "0.0.0.1", there[1], b"me", b"127.0.0.1"),
        }
        for lane in (False, True):
            with serving(policy=allow_all, options={"lane": lane}) as server:
                with greet5(server.address) if version == "5" else dial(server.address) as sock:
                    sock.sendall(requests[version])
                    read_exactly(sock, 10 if version == "5" else 8)
                    assert echoes(sock)
                    port = sock.getsockname()[1]
                line = server.only_line()
                assert line["client"] == f"127.0.0.1:{port}"
                assert line["listener"] == "{}:{}".format(*server.address)
                assert line.keys() >= VARY
                lines.append({key: value for key, value in line.items() if key not in VARY})
    assert not handed_over
    assert lines[0] == lines[1]


@pytest.mark.parametrize(
    "grants",
    [
        pytest.param(Grants(egress=IPv4Address("127.0.0.9")), id="egress"),
        pytest.param(Grants(limits=Limits(rate=100.0)), id="rate"),
    ],
)
def test_what_is_not_plain_is_served_without_the_lane(grants: Grants, handed_over: list[Handover]) -> None:
    with target() as there, with_lane(policy=granting(grants)) as server:
        for _ in range(2):
            with connect5(server.address, *there) as sock:
                assert echoes(sock)
        server.idle()
        assert [one.sent for one in handed_over] == [2, 2]


def test_a_name_is_looked_up_once_and_then_known_to_the_lane(handed_over: list[Handover]) -> None:
    with target() as there, with_lane(policy=allow_all) as server:
        for _ in range(3):
            with connect5(server.address, b"localhost", there[1]) as sock:
                assert echoes(sock)
        server.idle()
        ways = len(handed_over)
        assert server.lines[-1]["to"] == "{}:{}".format(*there)
    # ::1 comes first and refuses: what does not work at once is the control plane's each time
    assert ways in (1, 3)


def test_new_rules_are_asked_at_once(handed_over: list[Handover]) -> None:
    with target() as there, with_lane(policy=allow_all, log=LogSettings(format="json")) as server:
        with connect5(server.address, *there) as sock:
            assert echoes(sock)
        assert not handed_over

        def refuse_all() -> None:
            server.server.reconfigure(
                server.server.settings,
                policy=lambda _request, _context: Verdict(allow=False, rule="none"),
                access=server.server.options_for,
                upstreams={},
                user_limits={},
                rule_limits={},
                since=RELOADED,
            )

        server.call_sync(refuse_all)
        with greet5(server.address) as sock:
            sock.sendall(request5(1, *there))
            assert read_reply5(sock)[0] == 2


def fail_here(server: Running, _table: SharedTable) -> None:
    with dial(server.address) as sock:
        sock.sendall(LOGIN[:-1] + b"X")
        assert read_exactly(sock, 4) == b"\x05\x02\x01\x01"


def fail_elsewhere(_server: Running, table: SharedTable) -> None:
    """Count what another worker does."""
    other = SharedTable(os.dup(table.fileno()), 1)
    other.rows.add(other.failures(client_key(IPv4Address("127.0.0.1"))), 1)
    table.clear(1)  # it is dead, which takes nothing back
    other.close()


@pytest.mark.parametrize("fail", [fail_here, fail_elsewhere])
def test_a_failed_login_takes_its_clients_passes_away(
    fail: Callable[[Running, SharedTable], None], handed_over: list[Handover]
) -> None:
    table = SharedTable.create(2)
    accounts = Accounts(Table([Account(b"alice", parse_stored(cheap_hash(b"secret")))]))
    options = {"lane": True, "counts": table}
    try:
        with target() as there, serving(policy=allow_all, authenticator=accounts, options=options) as server:
            for sent in (2, None):  # verified by the control plane, then known to the lane
                with dial(server.address) as sock:
                    sock.sendall(LOGIN)
                    assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
                    sock.sendall(request5(1, *there))
                    assert read_reply5(sock)[0] == 0
                    assert echoes(sock)
                assert [one.sent for one in handed_over] == ([] if sent is None else [sent])
                handed_over.clear()
            fail(server, table)
            handed_over.clear()
            with dial(server.address) as sock:
                sock.sendall(LOGIN)
                assert read_exactly(sock, 4) == b"\x05\x02\x01\x00"
            assert [one.sent for one in handed_over] == [2]
    finally:
        accounts.close()
        table.close()


def test_who_is_in_the_lane_is_listed_and_can_be_ended() -> None:
    with with_lane(policy=allow_all) as server, greet5(server.address) as sock:
        (row,) = server.call_sync(lambda: manage.sessions(server.server, {}))
        assert (row["stage"], row["client"]) == ("handshake", f"127.0.0.1:{sock.getsockname()[1]}")
        assert len(server.call_sync(lambda: manage.kill(server.server, {"client": "127.0.0.1"}))) == 1
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
        assert server.only_line()["why"] == "kill"
