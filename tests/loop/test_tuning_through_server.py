"""Knobs of rules and of the server reach both sockets of a tunnel: of CONNECT, with the lane and without, and BIND."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from helpers.serving import Running, serving
from helpers.socks import ask5, connect5, read_exactly, read_reply5
from helpers.targets import accept
from helpers.tcp_table import socket_between
from tabi.config.settings import LogSettings, TunnelSettings
from tabi.policy.verdict import Context, Grants, Knobs, Request, Verdict
from tabi.server.review import RELOADED

pytestmark = pytest.mark.usefixtures("nothing_left")


def granting(knobs: Knobs) -> Any:
    """Make a policy that allows everything with these knobs."""
    verdict = Verdict(allow=True, rule="all", grants=Grants(any_peer=True, knobs=knobs))

    def judge(_request: Request, _context: Context) -> Verdict:
        return verdict

    return judge


def silences(client: socket.socket, peer: socket.socket) -> list[int]:
    """Say how long both sockets of a tunnel are silent before the kernel asks; 0: it does not."""
    found = []
    for end in (client, peer):
        with socket_between(end.getpeername()[:2], end.getsockname()[:2]) as leg:
            is_on = leg.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            found.append(leg.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) if is_on else 0)
    return found


@contextmanager
def by_connect(server: Running) -> Iterator[list[int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        with connect5(server.address, *listener.getsockname()) as client, accept(listener) as peer:
            client.sendall(b"x")
            assert read_exactly(peer, 1) == b"x"
            yield silences(client, peer)


@contextmanager
def by_bind(server: Running) -> Iterator[list[int]]:
    client, reply, host, port = ask5(server.address, 2, "127.0.0.1", 0)
    with client, socket.create_connection((host, port), 20) as peer:
        assert reply == read_reply5(client)[0] == 0
        client.sendall(b"x")
        assert read_exactly(peer, 1) == b"x"
        yield silences(client, peer)


WAYS = {"connect": by_connect, "bind": by_bind}


@pytest.mark.parametrize("express", [False, True], ids=["lane-off", "lane-on"])
@pytest.mark.parametrize("way", sorted(WAYS))
def test_a_rule_goes_before_the_server_which_goes_before_what_is_always(way: str, express: bool) -> None:
    cases = [(Knobs(), TunnelSettings(), 60), (Knobs(), TunnelSettings(keepalive=50), 50)]
    cases.append((Knobs(keepalive=0), TunnelSettings(keepalive=50), 0))
    for knobs, tunnel, silence in cases:
        with serving(policy=granting(knobs), tunnel=tunnel, options={"lane": express}) as server:
            with WAYS[way](server) as found:
                assert found == [silence, silence]
            server.idle()


@pytest.mark.parametrize("express", [False, True], ids=["lane-off", "lane-on"])
def test_after_a_reload_new_tunnels_have_the_new_knobs_and_those_that_are_there_their_own(express: bool) -> None:
    with serving(
        policy=granting(Knobs(keepalive=50)), log=LogSettings(format="json"), options={"lane": express}
    ) as server:

        def reload() -> None:
            server.server.reconfigure(
                server.server.settings,
                policy=granting(Knobs(keepalive=40)),
                access=server.server.options_for,
                upstreams={},
                user_limits={},
                rule_limits={},
                since=RELOADED,
            )

        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(20)
            with connect5(server.address, *listener.getsockname()) as old, accept(listener) as old_peer:
                old.sendall(b"x")
                assert read_exactly(old_peer, 1) == b"x"
                server.call_sync(reload)
                with by_connect(server) as found:
                    assert found == [40, 40]
                assert silences(old, old_peer) == [50, 50]
        server.idle()
