"""What a race tells its session, and what it teaches."""

import pytest

from tabi.config.settings import RaceSettings
from tabi.dial.ways import Way
from tabi.errors import (
    DeniedError,
    DialError,
    DialTimeoutError,
    HopName,
    ProxyAuthError,
    ProxyUnreachableError,
    Reply,
    Stage,
    TabiError,
)
from tabi.machine.url import parse_proxies
from tabi.server.races import Race, entrants

OFFICE, TOR = (Way(name, parse_proxies(f"http://{name}.example")) for name in ("office", "tor"))
DIRECT = Way("direct", ())


def test_ways_start_in_turn_and_dear_ones_later() -> None:
    dear = Way("dear", OFFICE.hops, handicap=2)
    found = entrants([DIRECT, dear, TOR], RaceSettings(head_start=0.5))
    assert [(one.way, one.wait) for one in found] == [(DIRECT, 0.5), (dear, 2.5), (TOR, 0.5)]


class Running:
    def __init__(self) -> None:
        self.heard: list[tuple[str, bool]] = []
        self.race = Race(lambda way, error: self.heard.append((way.name, error is None)))


@pytest.mark.parametrize(
    ("error", "told", "rests"),
    [
        (DialError("no", reply=Reply.CONNECTION_REFUSED, stage=Stage.REQUEST), "request: connection refused", False),
        (DialTimeoutError("no", stage=Stage.GREETING), "greeting: timed out", True),
        (ProxyUnreachableError("no", reply=Reply.HOST_UNREACHABLE), "connect: host unreachable", True),
        (ProxyAuthError("no"), "auth: not allowed", True),
        (DeniedError("no"), "policy: not allowed", False),
    ],
)
def test_why_a_way_has_lost_is_told_in_short(error: TabiError, told: str, rests: bool) -> None:
    running = Running()
    error.hop = HopName(1, 1, "http://office.example")
    if isinstance(error, DialTimeoutError):
        error.limit = "connect"
    running.race.failed(OFFICE, error)
    assert running.race.lost == f"office ({told})"
    assert running.heard == [("office", False)] * rests


def test_winner_serves_and_those_that_were_slower_are_told() -> None:
    running = Running()
    running.race.won(TOR)
    running.race.beaten(OFFICE)
    running.race.beaten(DIRECT)
    assert (running.race.winner, running.race.lost) == ("tor", "office (slower), direct (slower)")
    assert running.heard == [("tor", True)]


def test_direct_way_is_no_upstream_that_serves_or_rests() -> None:
    running = Running()
    running.race.won(DIRECT)
    running.race.failed(DIRECT, DialError("no", reply=Reply.CONNECTION_REFUSED))
    assert running.heard == []
