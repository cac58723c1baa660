"""Going over the tunnels after a reload: in slices, for others are served meanwhile."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from tabi.policy.verdict import Verdict
from tabi.relay.interface import Cause, Closer, End, Engine, FlowLimits, Live
from tabi.server.limits import Terms
from tabi.server.record import Facts
from tabi.server.review import Review
from tabi.server.server import Server
from tabi.server.tunnels import Tunnels

FACTS = Facts(
    session=1,
    accepted=0.0,
    client="127.0.0.1:5000",
    listener="127.0.0.1:1080",
    socks="5",
    method="none",
    command="connect",
    target="127.0.0.2:80",
    to="127.0.0.2:80",
    verdict="allow",
    rule="web",
)


class FakeEngine:
    """Has so many tunnels, and remembers what it is told of them."""

    def __init__(self, count: int) -> None:
        self.flows = range(1, count + 1)
        self.told: list[int] = []

    def snapshot(self) -> list[Live]:
        """All of them."""
        return [Live(flow, FACTS.pack(), 0, 0, 0.0, 0.0) for flow in self.flows]

    def kill(self, flows: dict[int, str], cause: Cause) -> None:
        """The flows are ended."""
        assert cause is Cause.POLICY
        self.told += flows

    def limit(self, flows: list[int], _limits: FlowLimits) -> None:
        """The flows go on."""
        self.told += flows


def over(flow: int) -> End:
    """A tunnel whose client has left."""
    return End(flow, FACTS.pack(), Closer.CLIENT, Cause.FIN, 0, 0, 0, 0.0, 1.0)


def review(engine: FakeEngine, tunnels: Tunnels, *, allow: bool) -> Review:
    """A review of a server that has these tunnels and nothing else."""
    terms = Terms(FlowLimits(), 0.0, "")
    server = SimpleNamespace(
        tunnels=tunnels,
        engine=engine,
        sessions=list,
        policy=lambda _request, _context: Verdict(allow=allow, rule="web"),
        options_for=lambda _listener, _client: SimpleNamespace(admits=lambda _version, _method: True),
        limits=SimpleNamespace(terms=lambda _user, _verdict: terms),
    )
    return Review(cast(Server, server), lambda _user: frozenset())


def run(count: int, *, allow: bool, leaving: tuple[int, ...] = ()) -> tuple[int, FakeEngine, int]:
    """Review so many; gives how many were ended, the engine, and how often others had their turn.

    Those who leave do so at the others' first turn.
    """
    engine = FakeEngine(count)
    tunnels = Tunnels(cast(Engine, engine))
    turns = 0

    async def body() -> int:
        loop = asyncio.get_running_loop()
        is_over = False

        def other() -> None:
            nonlocal turns
            turns += 1
            if turns == 1:
                for flow in leaving:
                    tunnels.take(over(flow))
            if not is_over:
                loop.call_soon(other)

        loop.call_soon(other)
        ended = await review(engine, tunnels, allow=allow).run()
        is_over = True
        return ended

    return asyncio.run(body()), engine, turns


def test_every_tunnel_is_told_once_and_others_are_served_meanwhile() -> None:
    for allow in (True, False):
        ended, engine, turns = run(1000, allow=allow)
        assert sorted(engine.told) == list(engine.flows)
        assert ended == (0 if allow else 1000)
        assert turns >= 1000 // 16


def test_a_tunnel_that_is_over_before_its_turn_is_not_told() -> None:
    _, everybody, _ = run(40, allow=False)
    last = everybody.told[-1]
    ended, engine, _ = run(40, allow=False, leaving=(last,))
    assert ended == 39
    assert last not in engine.told


def test_nothing_is_kept_of_a_tunnel_that_was_over_before_its_turn() -> None:
    engine: Any = FakeEngine(3)
    tunnels = Tunnels(engine)
    going = tunnels.review()
    first, _ = next(going)
    for flow in engine.flows:
        tunnels.take(over(flow))
    assert first in engine.flows
    assert list(going) == []
