"""Names whose answers change (row D2): the real resolver against a name server of the test's, and time in its hand.

The rules' notion of outside and inside is a loopback address each; nothing leaves the host.
"""

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from helpers.clocks import HeldClock
from helpers.dns import A, Dns, serving_dns
from helpers.serving import LOOPBACK, Running, serving
from helpers.socks import ask5, read_all, read_exactly, read_reply5
from helpers.targets import same_port, target
from helpers.udp import Association, address_of, datagrams, drops, is_quiet, looked_up
from tabi.config.load import load_text
from tabi.machine.association import ROUTE_LIFETIME
from tabi.net.resolver import MIN_TTL, Resolver

pytest.importorskip("aiodns")

OUTSIDE, INSIDE = "127.0.0.8", "127.0.0.9"
NAME = "rebind.test"
RULES = f"""\
[[rule]]
name = "inside"
refuse = "not-allowed"
to = ["{INSIDE}", "::1"]
[[rule]]
name = "outside"
allow = true
to = "{OUTSIDE}"
"""


class Rebinding:
    """A server by the rules, the name server that it asks, and its clock."""

    def __init__(self, server: Running, dns: Dns, clock: HeldClock) -> None:
        self.server, self.dns, self._clock = server, dns, clock

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self._clock.advance(self.server, seconds)

    def answers(self, *answers: tuple[str, ...]) -> bytes:
        """Say what the name leads to, the first time and the next times; gives the name."""
        self.dns.asked.clear()
        return self.dns.add(NAME, list(answers)).encode()

    def asked(self) -> int:
        """Count how often its IPv4 addresses were asked for; that there are no others is remembered longer."""
        return self.dns.asked.count((NAME, A))


@pytest.fixture
def rebinding(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rebinding]:
    """Run both."""
    from tabi.net.backends import AresBackend

    clock = HeldClock(monkeypatch)
    configuration = load_text(RULES, "tabi.toml")
    with serving_dns("127.0.0.1", 0) as dns, serving(listen=LOOPBACK, policy=configuration.rules) as server:
        dns.ttl = 0

        async def ask_ours() -> None:
            await server.server.resolver.close()
            backend = AresBackend(nameservers=["{}:{}".format(*dns.address)])
            server.server.resolver = Resolver(backend=backend, clock=clock.monotonic)

        server.call(ask_ours())
        yield Rebinding(server, dns, clock)


@pytest.fixture
def both() -> Iterator[int]:
    """Run a target outside and one inside, on one port."""
    with same_port(OUTSIDE, INSIDE) as port:
        yield port


def reply_for(rebinding: Rebinding, name: bytes, port: int) -> int:
    """Ask for a name, and give the reply; what is granted must be outside."""
    sock, reply, _, _ = ask5(rebinding.server.address, 1, name, port)
    with sock:
        if reply == 0:
            sock.sendall(b"through")
            assert read_exactly(sock, 7) == b"through"
        else:
            assert read_all(sock) == b""
    rebinding.server.idle()
    line = rebinding.server.lines[-1]
    assert line.get("to", "") == (f"{OUTSIDE}:{port}" if reply == 0 else ""), line
    return reply


def test_each_connection_is_judged_by_the_answer_that_it_uses(rebinding: Rebinding, both: int) -> None:
    name = rebinding.answers((OUTSIDE,), (INSIDE,), (OUTSIDE,))
    replies = []
    for _ in range(3):
        replies.append(reply_for(rebinding, name, both))
        rebinding.later(MIN_TTL)
    assert replies == [0, 2, 0]
    assert rebinding.asked() == 3, "one look-up for each"


def test_an_answer_is_asked_for_once_however_short_it_holds(rebinding: Rebinding, both: int) -> None:
    name = rebinding.answers((OUTSIDE,), (INSIDE,))
    assert [reply_for(rebinding, name, both) for _ in range(3)] == [0, 0, 0]
    assert rebinding.asked() == 1


def test_a_refusal_holds_no_longer_than_its_answer(rebinding: Rebinding, both: int) -> None:
    name = rebinding.answers((INSIDE,), (OUTSIDE,))
    assert reply_for(rebinding, name, both) == 2
    rebinding.later(MIN_TTL)
    assert reply_for(rebinding, name, both) == 0


@pytest.mark.parametrize("answer", [(INSIDE, OUTSIDE), (OUTSIDE, INSIDE)])
def test_of_a_mixed_answer_the_forbidden_address_is_never_used(
    rebinding: Rebinding, both: int, answer: tuple[str, ...]
) -> None:
    name = rebinding.answers(answer)
    rebinding.dns.add(NAME, [answer], ("::1",))
    assert reply_for(rebinding, name, both) == 0


def test_another_address_is_no_way_around_a_failure(rebinding: Rebinding) -> None:
    with target(host=INSIDE) as (_, port):
        name = rebinding.answers((OUTSIDE, INSIDE), (INSIDE,))
        assert reply_for(rebinding, name, port) == 5
    assert rebinding.asked() == 1


def test_a_chain_of_aliases_holds_as_long_as_its_shortest_link(rebinding: Rebinding, both: int) -> None:
    rebinding.dns.aliases |= {NAME: "alias.test", "alias.test": "end.test"}
    rebinding.dns.add("end.test", [(OUTSIDE,), (INSIDE,)])
    assert reply_for(rebinding, NAME.encode(), both) == 0
    rebinding.later(MIN_TTL)
    assert reply_for(rebinding, NAME.encode(), both) == 2


def test_a_name_that_changes_within_an_association_is_judged_anew(rebinding: Rebinding) -> None:
    with ExitStack() as stack:
        outside = stack.enter_context(datagrams(OUTSIDE))
        port = address_of(outside)[1]
        inside = stack.enter_context(datagrams(INSIDE, port))
        name = rebinding.answers((OUTSIDE,), (INSIDE,), (OUTSIDE,))
        with Association(rebinding.server.address) as client:
            for data in (b"first", b"second"):
                client.send(name, port, data)
                assert outside.recv(99) == data
            assert rebinding.asked() == 1
            rebinding.later(ROUTE_LIFETIME)
            client.send(name, port, b"rebound")
            client.talk(outside)
            looked_up(rebinding.server)
            assert rebinding.asked() == 2
            client.send(name, port, b"refused for as long as an answer is kept")
            client.talk(outside)
            rebinding.later(ROUTE_LIFETIME)
            client.send(name, port, b"back")
            assert outside.recv(99) == b"back"
            assert is_quiet(inside)
        assert drops(rebinding.server) == "dropped: denied 2"


def test_who_was_allowed_to_answer_still_may_and_the_new_address_may_not(rebinding: Rebinding) -> None:
    with datagrams(OUTSIDE) as outside:
        port = address_of(outside)[1]
        name = rebinding.answers((OUTSIDE,), (INSIDE,))
        with Association(rebinding.server.address) as client, datagrams(INSIDE, port) as inside:
            client.send(name, port, b"ask")
            egress = outside.recvfrom(99)[1]
            rebinding.later(ROUTE_LIFETIME)
            client.send(name, port, b"ask again")
            looked_up(rebinding.server)
            inside.sendto(b"forged", egress)
            outside.sendto(b"late", egress)
            assert client.receive() == (OUTSIDE, port, b"late")
        assert drops(rebinding.server) == "dropped: denied 1, stranger 1"


def test_the_peer_of_a_bind_is_who_the_name_was_when_it_was_judged(rebinding: Rebinding) -> None:
    name = rebinding.answers((OUTSIDE,), (INSIDE,))
    sock, reply, host, port = ask5(rebinding.server.address, 2, name, 0)
    with sock:
        assert reply == 0
        rebinding.later(MIN_TTL)
        with pytest.raises(ConnectionResetError):
            with socket.create_connection((host, port), source_address=(INSIDE, 0)) as peer:
                peer.settimeout(20)
                peer.recv(1)
        assert read_reply5(sock)[0] == 2
    assert rebinding.asked() == 1
    sock, reply, _, _ = ask5(rebinding.server.address, 2, name, 0)
    with sock:
        assert reply == 2
