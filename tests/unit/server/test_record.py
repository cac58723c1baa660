"""The facts of a session, packed for the engine to keep."""

import pytest

from tabi.relay.lane import Tail, pack_tail
from tabi.server import record
from tabi.server.record import Facts
from unit.server.test_line import FACTS


def test_packed_facts_come_back_as_they_were() -> None:
    assert Facts.unpack(FACTS.pack()) == FACTS


def test_what_sessions_have_in_common_is_kept_once_and_no_more_of_it_than_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record, "_commons", [])
    monkeypatch.setattr(record, "_numbers", {})
    monkeypatch.setattr(record, "_MOST_COMMON", 2)
    several = [FACTS._replace(session=number, rule=f"rule {number % 3}") for number in range(1, 10)]
    packed = [facts.pack() for facts in several]
    assert [Facts.unpack(one) for one in packed] == several
    assert len(record._commons) == 2
    with_number, whole = sorted({len(one) for one in packed})
    assert with_number < whole - 40


def test_what_a_record_has_of_a_permit_comes_without_what_the_lane_has_added() -> None:
    permit = FACTS._replace(session=0, accepted=0.0, client="127.0.0.1", handshake=-1.0, resolve=-1.0, connect=-1.0)
    packed = permit.pack() + pack_tail(*Tail(9, 1.5, 40_000, 0.25, 0.5, 0.75))
    assert Facts.of_permit(packed) == permit
    assert Facts.unpack(packed) == permit._replace(
        session=9, accepted=1.5, client="127.0.0.1:40000", handshake=0.25, resolve=0.5, connect=0.75
    )
    assert Facts.of_permit(FACTS.pack()) is None
