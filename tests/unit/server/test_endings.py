"""What the engine gives back is counted out, once each, and logged as it should be."""

from typing import Any, cast

import pytest

from tabi.addr import Address, socket_address
from tabi.config.settings import Caps, LogSettings, RaceSettings, TimeLimits
from tabi.relay.interface import Cause, Closer, End, Engine
from tabi.relay.lane import Tail, pack_tail
from tabi.server import endings
from tabi.server.admission import Admission, client_key
from tabi.server.counts import LocalCounts
from tabi.server.endings import Endings
from tabi.server.journal import Journal
from tabi.server.limits import SessionLimits
from tabi.server.outcome import relayed
from tabi.server.races import Races
from tabi.server.record import Facts
from tabi.server.tunnels import Tunnels
from unit.server.test_line import FACTS, format_line

PERMIT = FACTS._replace(session=0, accepted=0.0, client="127.0.0.1", handshake=-1.0, resolve=-1.0, connect=-1.0)
TAIL = Tail(8, 1_700_000_000.25, 40_001, 0.5, 0.25, 2.0)
CLIENT = client_key(cast(Address, socket_address("127.0.0.1")))


class Stage:
    """Endings of an engine that the test plays."""

    def __init__(self, **settings: Any) -> None:
        self.counts = LocalCounts()
        self.waiting: list[End] = []
        self.written: list[str] = []
        self.journal = Journal(self.written.append, LogSettings(**settings), settings.get("format", "text"))
        self.tunnels = Tunnels(cast(Engine, self))
        self.races = Races(RaceSettings())
        self.endings = Endings(
            cast(Engine, self),
            self.tunnels,
            Admission(Caps(), self.counts),
            SessionLimits({}, self.counts, TimeLimits()),
            self.journal,
            self.races,
        )

    def ends(self) -> list[End]:
        """As the engine's."""
        ends, self.waiting = self.waiting, []
        return ends

    def kill(self, _flows: object, _cause: Cause) -> None:
        """As the engine's."""

    def count_in(self, times: int, facts: Facts = FACTS) -> None:
        """Count sessions in as admission and limits do."""
        keys = [b"all", b"client " + CLIENT, b"rule " + facts.rule.encode()]
        for key in [*keys, *([] if facts.user is None else [b"user " + facts.user])]:
            for _ in range(times):
                self.counts.acquire(key)

    def take(self, *records: bytes) -> list[str]:
        """Have flows end that have these records; give the lines."""
        self.waiting = [end_of(record, flow) for flow, record in enumerate(records, 1)]
        self.written.clear()
        self.endings.take()
        return "\n".join(self.written).splitlines()


def end_of(record: bytes, flow: int = 1) -> End:
    """An end of a flow that lived for a second and a half."""
    return End(flow, record, Closer.CLIENT, Cause.FIN, 0, 10, 20, 100.0, 101.5)


def of_lane(permit: Facts = PERMIT, **tail: Any) -> bytes:
    """A record as the express lane makes it."""
    return permit.pack() + pack_tail(*TAIL._replace(**tail))


def line_of(record: bytes, style: Any = "text") -> str:
    """The line of one, by itself."""
    facts = Facts.unpack(record)
    return format_line(facts, relayed(end_of(record), facts.before_relay, facts.lifetime, ""), style)


@pytest.mark.parametrize("style", ["text", "json"])
def test_each_has_its_own_line_and_all_are_counted_out(style: str) -> None:
    stage = Stage(format=style)
    other = PERMIT._replace(user=None, rule="another", client="127.0.0.1")
    records = [FACTS.pack(), of_lane(), of_lane(session=9, port=1), of_lane(other, session=10), FACTS.pack()]
    stage.count_in(4)
    stage.count_in(1, other)
    assert stage.take(*records) == [line_of(record, style) for record in records]
    assert stage.counts.counted() == []


def test_what_a_reload_changed_about_one_session_is_said_of_that_one_only() -> None:
    stage = Stage()
    stage.count_in(1)
    stage.count_in(1, FACTS._replace(rule="since the reload"))
    stage.tunnels.amend(2, Facts.unpack(of_lane())._replace(rule="since the reload"))
    stage.tunnels.end({2: "as told"}, Cause.POLICY)
    first, second = stage.take(of_lane(session=1), of_lane(session=2))
    assert 'rule="staff to the web"' in first
    assert "note" not in first
    assert 'rule="since the reload"' in second
    assert second.endswith('note="as told"')
    assert stage.counts.counted() == []


def test_sessions_that_the_log_does_not_hear_are_counted_out_all_the_same() -> None:
    stage = Stage(level="warning")
    stage.count_in(3)
    assert stage.take(FACTS.pack(), of_lane(), of_lane()) == []
    assert stage.counts.counted() == []


def test_other_settings_of_the_log_hold_for_permits_that_are_known() -> None:
    stage = Stage()
    stage.count_in(2)
    (whole,) = stage.take(of_lane())
    assert "example.org" in whole
    stage.journal.replace(LogSettings(targets=False))
    stage.endings.forget()
    (without,) = stage.take(of_lane())
    assert without == whole.replace(" target=example.org:80 to=192.0.2.1:80", "")


def test_a_note_names_no_target_where_the_log_must_not() -> None:
    stage = Stage(targets=False)
    stage.count_in(2)
    stage.tunnels.end({1: "refused example.org", 2: "refused example.org"}, Cause.POLICY)
    assert not any("example.org" in line for line in stage.take(of_lane(), FACTS.pack()))


def test_a_line_that_might_be_too_long_is_bounded() -> None:
    stage = Stage()
    long = PERMIT._replace(target="t" * 5000)
    stage.count_in(1)
    assert stage.take(of_lane(long)) == [line_of(of_lane(long))]


def test_so_many_permits_are_remembered_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endings, "_MOST_PERMITS", 3)
    stage = Stage()
    records = [of_lane(PERMIT._replace(target=f"host{number % 7}:80")) for number in range(70)]
    stage.count_in(70)
    assert stage.take(*records) == [line_of(record) for record in records]
    assert len(stage.endings._permits) <= 3
