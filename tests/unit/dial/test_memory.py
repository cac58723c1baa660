"""What is remembered of races, by a clock that the test moves."""

import pytest

from tabi.dial.memory import LATELY, Memory

HERE, THERE = "here.example:443", "there.example:443"


def test_winner_is_remembered_for_its_destination_and_for_a_half_life() -> None:
    memory = Memory(100.0)
    memory.won(HERE, "office", 0.2, 50.0)
    assert memory.winner(HERE, 149.9) == ("office", 0.2)
    assert memory.winner(HERE, 150.0) is None
    assert memory.winner(THERE, 50.0) is None
    memory.won(HERE, "tor", 0.3, 100.0)
    assert memory.winner(HERE, 150.0) == ("tor", 0.3)


@pytest.mark.parametrize(("failures", "half_lives"), [(1, 1), (2, 2), (4, 3), (8, 4), (50, 4)])
def test_failures_add_up_and_are_forgotten_by_halves(failures: int, half_lives: int) -> None:
    memory = Memory(100.0)
    for _ in range(failures):
        memory.failed(HERE, "office", 0.0)
    assert memory.blame(HERE, "office", 0.0) == min(failures, 8)
    assert memory.blame(HERE, "office", half_lives * 100.0) == LATELY
    assert memory.blame(HERE, "office", half_lives * 100.0 + 1) == 0
    assert memory.blame(HERE, "tor", 0.0) == 0
    assert memory.blame(THERE, "office", 0.0) == 0


def test_failure_weighs_less_the_longer_ago_it_was() -> None:
    memory = Memory(100.0)
    memory.failed(HERE, "office", 0.0)
    memory.failed(HERE, "office", 100.0)
    assert memory.blame(HERE, "office", 100.0) == 1.5


def test_way_that_failed_is_no_winner_any_more_and_others_stay_so() -> None:
    memory = Memory(100.0)
    memory.won(HERE, "office", 0.2, 0.0)
    memory.failed(HERE, "tor", 1.0)
    assert memory.winner(HERE, 2.0) == ("office", 0.2)
    memory.failed(HERE, "office", 2.0)
    assert memory.winner(HERE, 2.0) is None
    memory.won(HERE, "office", 0.2, 3.0)  # it stands, which says little of what comes over it
    assert memory.blame(HERE, "office", 3.0) > 0.9


def test_way_over_which_data_came_is_forgiven() -> None:
    memory = Memory(100.0)
    memory.failed(HERE, "office", 0.0)
    memory.failed(HERE, "tor", 0.0)
    memory.served(HERE, "office")
    assert [memory.blame(HERE, way, 0.0) for way in ("office", "tor")] == [0, 1]
    memory.served(THERE, "office")
    assert THERE not in memory


def test_ways_that_are_there_no_more_are_forgotten() -> None:
    """A reload may bring any number of names."""
    memory = Memory(100.0)
    for number in range(50):
        memory.failed(HERE, f"way {number}", number * 30.0)
    assert [memory.blame(HERE, f"way {number}", 1470.0) > 0 for number in (44, 49)] == [False, True]
    assert len(memory._known[HERE].failures) < 6


def test_destinations_that_were_not_heard_of_longest_are_forgotten() -> None:
    memory = Memory(100.0, size=2)
    memory.won("a", "office", 0.1, 0.0)
    memory.failed("b", "office", 0.0)
    memory.won("a", "office", 0.1, 0.0)
    memory.failed("c", "office", 0.0)
    assert [name in memory for name in "abc"] == [True, False, True]
