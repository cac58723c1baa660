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
from tabi.relay.interface import Cause, Closer, End
from tabi.server.races import Race, Races

OFFICE, TOR = (Way(name, parse_proxies(f"http://{name}.example")) for name in ("office", "tor"))
DIRECT = Way("direct", ())
REFUSED = DialError("no", reply=Reply.CONNECTION_REFUSED)


DEAR = Way("dear", OFFICE.hops, handicap=2)
THERE = "there.example:443"


class Running:
    """One race after the other for one destination, and a clock."""

    def __init__(self, **settings: float) -> None:
        self.now = 100.0
        self.heard: list[tuple[str, bool]] = []
        self.races = Races(RaceSettings(**settings), clock=lambda: self.now)
        self.race = self.another()

    def another(self, destination: str = THERE) -> Race:
        return Race(self.races, destination, lambda way, error: self.heard.append((way.name, error is None)))

    def order(self, *ways: Way, destination: str = THERE) -> str:
        return " ".join(way.name for way in self.races.rank(destination, ways or (DIRECT, OFFICE, TOR)))

    def waits(self, *ways: Way) -> list[float]:
        return [round(one.wait, 3) for one in self.races.entrants(THERE, ways)]

    def wins(self, way: Way, after: float = 0.0) -> None:
        race = self.another()
        race.began(way)
        self.now += after
        race.won(way)

    def ends(
        self, way: Way, closer: Closer, cause: Cause, up: int, down: int, destination: str = THERE, seconds: float = 5.0
    ) -> None:
        self.races.hear_end(destination, way.name, End(1, b"", closer, cause, 0, up, down, 7.0, 7.0 + seconds))


def test_ways_start_in_turn_and_dear_ones_later() -> None:
    running = Running(head_start=0.5)
    assert running.waits(DIRECT, DEAR, TOR) == [0, 2.5, 0.5]
    assert running.order(DEAR, DIRECT, TOR) == "direct tor dear"


def test_winner_starts_first_and_is_alone_for_twice_what_it_took() -> None:
    running = Running(head_start=0.5)
    running.wins(TOR, after=0.75)
    assert running.order() == "tor direct office"
    assert running.order(destination="elsewhere.example:443") == "direct office tor"
    assert running.waits(TOR, DIRECT, OFFICE) == [0, 1.5, 0.5]
    running.wins(TOR, after=0.1)
    assert running.waits(TOR, DIRECT, OFFICE) == [0, 0.5, 0.5]
    running.wins(TOR, after=9)  # not for ever
    assert running.waits(TOR, DIRECT, OFFICE) == [0, 2, 0.5]
    running.now += 600
    assert running.order() == "direct office tor"


def test_way_that_failed_starts_last_until_that_is_forgotten() -> None:
    running = Running(memory=100)
    running.race.failed(DIRECT, REFUSED)
    assert running.order() == "office tor direct"
    running.now += 101
    assert running.order() == "direct office tor"


def test_what_our_own_policy_refuses_is_no_failure_of_the_way() -> None:
    running = Running()
    running.race.failed(DIRECT, DeniedError("no"))
    assert running.order() == "direct office tor"


def test_way_that_loses_against_a_dear_one_has_failed_and_a_dear_one_is_not_preferred() -> None:
    running = Running()
    running.race.won(DEAR)
    running.race.beaten(OFFICE)
    assert running.order(OFFICE, DEAR) == "dear office"
    running = Running()
    running.wins(DEAR)
    assert running.order(OFFICE, DEAR) == "office dear"
    running.race.won(TOR)
    running.race.beaten(OFFICE)
    assert running.order(OFFICE, TOR) == "tor office"
    running.now += 600  # and that it was slower is no failure
    assert running.order(OFFICE, TOR) == "office tor"


@pytest.mark.parametrize(
    ("closer", "cause", "up", "down", "has_failed"),
    [
        (Closer.TARGET, Cause.RST, 9, 0, True),
        (Closer.TARGET, Cause.RST, 9, 9, True),
        (Closer.TARGET, Cause.ERROR, 9, 9, True),
        (Closer.TARGET, Cause.FIN, 9, 0, True),
        (Closer.CLIENT, Cause.FIN, 9, 0, True),
        (Closer.CLIENT, Cause.RST, 9, 0, True),
        (Closer.TABI, Cause.IDLE, 9, 0, True),
        (Closer.CLIENT, Cause.RST, 9, 9, False),
        (Closer.TARGET, Cause.FIN, 9, 9, False),
        (Closer.CLIENT, Cause.FIN, 0, 0, False),  # it wanted nothing
        (Closer.TABI, Cause.KILL, 9, 0, False),
        (Closer.TABI, Cause.SHUTDOWN, 9, 0, False),
    ],
)
def test_way_that_brings_nothing_or_a_reset_has_failed(
    closer: Closer, cause: Cause, up: int, down: int, has_failed: bool
) -> None:
    running = Running()
    running.wins(DIRECT)
    running.ends(DIRECT, closer, cause, up, down)
    assert running.order() == ("office tor direct" if has_failed else "direct office tor")


@pytest.mark.parametrize("cause", [Cause.FIN, Cause.RST])
def test_client_that_leaves_at_once_says_nothing_of_its_way(cause: Cause) -> None:
    running = Running()
    running.wins(DIRECT)
    running.ends(DIRECT, Closer.CLIENT, cause, 1, 0, seconds=4.9)
    assert running.order() == "direct office tor"
    running.ends(DIRECT, Closer.TARGET, Cause.FIN, 1, 0, seconds=0.1)
    assert running.order() == "office tor direct"


def test_way_that_brings_data_is_forgiven_and_what_was_not_raced_for_is_not_remembered() -> None:
    running = Running()
    running.race.failed(DIRECT, REFUSED)
    running.ends(DIRECT, Closer.CLIENT, Cause.FIN, 0, 0)
    assert running.order() == "office tor direct"
    running.ends(DIRECT, Closer.CLIENT, Cause.FIN, 9, 9)
    assert running.order() == "direct office tor"
    running.ends(OFFICE, Closer.TARGET, Cause.RST, 9, 0, "elsewhere.example:443")
    assert "elsewhere.example:443" not in running.races.memory
    running.races.hear_end(THERE, "", End(1, b"", Closer.TARGET, Cause.RST, 0, 9, 0, 0.0, 1.0))
    assert running.order() == "direct office tor"


def test_budget_is_for_so_many_dials_a_second() -> None:
    running = Running(wasted=2)
    assert [running.race.may_waste() for _ in range(3)] == [True, True, False]
    running.now += 0.5
    assert [running.race.may_waste() for _ in range(2)] == [True, False]
    running.races.replace(RaceSettings(wasted=0))
    running.now += 100
    assert not running.race.may_waste()


def test_other_settings_leave_what_is_known() -> None:
    running = Running()
    running.wins(TOR)
    running.races.replace(RaceSettings(head_start=9))
    assert running.order() == "tor direct office"
    assert running.waits(TOR, OFFICE) == [0, 9]


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
    running.race.failed(DIRECT, REFUSED)
    assert running.heard == []
