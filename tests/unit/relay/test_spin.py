"""When to look again before going to sleep: where that pays, and hardly ever where it does not."""

import random

import pytest

from tabi.relay._spin import LENGTH, Spin

QUICK, SLOW = LENGTH / 3, 0.01


def spins(spin: Spin, waits: list[float], *, waking: float = LENGTH) -> list[bool]:
    """Live through waits of so many seconds, a sleep by the time of waking up longer. Say which were spun over."""
    spun = []
    for wait in waits:
        spun.append(spin.is_worth_it(-1))
        if spun[-1]:
            spin.note_spin(was_vain=wait > LENGTH)
        else:
            spin.note_wait(wait + waking)
    return spun


def vain(spun: list[bool], waits: list[float]) -> int:
    return sum(did and wait > LENGTH for did, wait in zip(spun, waits, strict=True))


def test_it_begins_by_sleeping() -> None:
    assert not Spin().is_worth_it(-1)


def test_quick_answers_are_soon_spun_for_and_all_of_them() -> None:
    spun = spins(Spin(), [QUICK] * 200)
    assert not any(spun[:32])
    assert all(spun[32:])


@pytest.mark.parametrize("wait", [SLOW, 10 * LENGTH])
def test_slow_answers_are_never_spun_for(wait: float) -> None:
    assert not any(spins(Spin(), [wait] * 1000))


@pytest.mark.parametrize("quick", [1, 2, 3, 4, 5])
def test_where_most_waits_are_long_there_is_not_even_a_trial(quick: int) -> None:
    """However many of them are short in all: of eleven, at most five in a row."""
    assert not any(spins(Spin(), ([QUICK] * quick + [SLOW] * (11 - quick)) * 1000))


@pytest.mark.parametrize("seed", range(8))
def test_there_is_no_spin_while_more_than_a_fifth_of_the_last_were_in_vain_but_a_trial(seed: int) -> None:
    """A trial is one spin, earned by 32 more sleeps that ended soon than others; one that is not in vain earns one."""
    chance = random.Random(seed)
    slow = (2 * LENGTH, SLOW)  # to spin over either is in vain; sleep over the first ends soon
    waits = [QUICK if chance.random() < chance.choice([0.1, 0.5, 0.9]) else chance.choice(slow) for _ in range(5000)]
    spun = spins(Spin(), waits)
    were_vain = [True] * 32
    earned = trials = 0
    for did, wait in zip(spun, waits, strict=True):
        if did:
            is_trial = sum(were_vain[-32:]) > 32 / 5
            assert not is_trial or earned >= 32
            trials += is_trial
            were_vain.append(wait > LENGTH)
            earned = 0 if wait > LENGTH else 32
        else:
            earned = max(0, earned - 1) if wait == SLOW else earned + 1
    assert trials


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_the_compiled_engine_spins_over_the_same_waits(share: float) -> None:
    engine = pytest.importorskip("tabi.relay._engine", reason="the compiled engine is not built here")
    chance = random.Random(7)
    waits = [chance.randrange(1000, 40_000) if chance.random() < share else 1_000_000 for _ in range(5000)]
    spun = spins(Spin(), [wait / 1e9 for wait in waits], waking=60_000 / 1e9)
    assert engine.spun_over(waits, 60_000) == spun
    assert any(spun) is (share > 0.5)


def test_when_answers_become_slow_a_few_spins_are_in_vain_and_then_none() -> None:
    spin = Spin()
    spins(spin, [QUICK] * 100)
    spun = spins(spin, [SLOW] * 1000)
    assert 0 < sum(spun) <= 8
    assert not any(spun[8:])


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4, 0.5, 0.6, 0.7])
def test_spins_in_vain_are_rare_whatever_the_mixture(share: float) -> None:
    """Never on more than a fifth of the waits; where most are slow, on a few of a hundred."""
    chance = random.Random(7)
    waits = [QUICK if chance.random() < share else 3 * LENGTH for _ in range(20_000)]
    wasted = vain(spins(Spin(), waits), waits) / len(waits)
    assert wasted <= (0.05 if share <= 0.5 else 0.2)


def test_a_mixture_with_few_slow_ones_is_spun_for() -> None:
    chance = random.Random(7)
    waits = [QUICK if chance.random() < 0.95 else SLOW for _ in range(5000)]
    spun = spins(Spin(), waits)
    assert sum(spun) > 0.9 * len(waits)


def test_a_timer_that_is_due_sooner_is_not_spun_for() -> None:
    spin = Spin()
    spins(spin, [QUICK] * 100)
    assert spin.is_worth_it(1.0)
    assert not spin.is_worth_it(LENGTH / 2)
