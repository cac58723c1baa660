"""Places are shared out fairly: nobody holds more than a share, nobody waits behind somebody else's queue."""

from hypothesis import given
from hypothesis import strategies as st

from tabi.net.pool import Place, Shares


class Desk:
    """Shares whose running claims are noted as (holder, number)."""

    def __init__(self, total: int, each: int, waiting: int = 100) -> None:
        self.shares = Shares(total, each, waiting)
        self.running: list[tuple[object, int]] = []
        self.places: dict[tuple[object, int], Place | None] = {}

    def enter(self, holder: object, number: int = 0) -> Place | None:
        place = self.shares.enter(holder, lambda _: self.running.append((holder, number)))
        self.places[holder, number] = place
        return place

    def leave(self, holder: object, number: int = 0) -> None:
        place = self.places[holder, number]
        assert place is not None
        if not place.is_waiting:
            self.running.remove((holder, number))
        self.shares.leave(place)


def test_a_holder_runs_no_more_than_its_share_and_the_rest_in_order() -> None:
    desk = Desk(8, each=2)
    for number in range(4):
        desk.enter("greedy", number)
    assert desk.running == [("greedy", 0), ("greedy", 1)]
    desk.leave("greedy", 0)
    assert desk.running == [("greedy", 1), ("greedy", 2)]


def test_others_are_not_delayed_by_a_holder_that_waits() -> None:
    desk = Desk(8, each=2)
    for number in range(50):
        desk.enter("greedy", number)
    desk.enter("modest")
    assert ("modest", 0) in desk.running


def test_a_free_place_goes_round_among_those_who_wait() -> None:
    desk = Desk(1, each=1)
    desk.enter("first")
    for number in range(3):
        desk.enter("greedy", number)
    desk.enter("modest")
    desk.leave("first")
    assert desk.running == [("greedy", 0)]
    desk.leave("greedy", 0)
    assert desk.running == [("modest", 0)]


def test_a_full_queue_refuses_its_holder_only() -> None:
    desk = Desk(2, each=1, waiting=2)
    assert [desk.enter("greedy", number) is not None for number in range(4)] == [True, True, True, False]
    assert desk.enter("modest") is not None
    assert ("modest", 0) in desk.running


def test_a_withdrawn_claim_never_runs_and_leaving_twice_frees_once() -> None:
    desk = Desk(1, each=1)
    for number in range(4):
        desk.enter("one", number)
    desk.leave("one", 1)
    desk.leave("one", 0)
    assert desk.running == [("one", 2)]
    desk.shares.leave(desk.places["one", 0])
    assert desk.running == [("one", 2)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=60))
def test_never_more_than_the_total_nor_the_share_and_no_place_idle_while_one_may_run(steps: list) -> None:
    desk = Desk(3, each=2)
    alive: list[tuple[object, int]] = []
    for number, (holder, enters) in enumerate(steps):
        if enters:
            desk.enter(holder, number)
            alive.append((holder, number))
        elif mine := [key for key in alive if key[0] == holder]:
            alive.remove(mine[0])
            desk.leave(*mine[0])
        held = {who: sum(1 for key in desk.running if key[0] == who) for who in "abc"}
        assert sum(held.values()) <= 3
        assert max(held.values()) <= 2
        waiting = {key[0] for key in alive if key not in desk.running}
        assert sum(held.values()) == 3 or all(held[who] == 2 for who in waiting)
