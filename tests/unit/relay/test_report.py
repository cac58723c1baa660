"""When the control plane is woken: at once for calls, now and then for ends, and always in the end."""

import select
from collections.abc import Iterator

import pytest

from tabi.relay import _report
from tabi.relay._report import PAUSE, Report


class Watched:
    """A report, and the clock that it reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(_report, "monotonic", lambda: self.now)
        self.report = Report()
        self.report.pause = PAUSE

    def is_told(self) -> bool:
        """Say whether something was told, and take it."""
        told = bool(select.select([self.report.fd], [], [], 0)[0])
        self.report.quiet()
        return told


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    made = Watched(monkeypatch)
    yield made
    made.report.close()


def test_the_first_end_is_told_at_once_and_those_that_follow_together(watched: Watched) -> None:
    report = watched.report
    report.note_ends()
    assert watched.is_told()
    assert report.wait() == -1
    report.note_ends()
    report.note_ends()
    assert not watched.is_told()
    assert report.wait() == pytest.approx(PAUSE)
    watched.now += PAUSE * 0.75
    report.pay()
    assert not watched.is_told()
    assert report.wait() == pytest.approx(PAUSE / 4)
    watched.now += PAUSE * 0.3
    assert report.wait() == 0
    report.pay()
    assert watched.is_told()
    report.pay()
    assert not watched.is_told()
    assert report.wait() == -1


def test_each_end_is_told_at_once_unless_they_may_be_told_together(watched: Watched) -> None:
    watched.report.pause = 0.0
    for _ in range(3):
        watched.report.note_ends()
        assert watched.is_told()


def test_a_call_is_told_at_once_and_the_ends_with_it(watched: Watched) -> None:
    report = watched.report
    report.note_ends()
    assert watched.is_told()
    report.note_ends()
    report.tell()
    assert watched.is_told()
    assert report.wait() == -1


def test_what_is_owed_at_the_end_is_told_then(watched: Watched) -> None:
    report = watched.report
    report.note_ends()
    report.note_ends()
    assert watched.is_told()
    report.pay(at_once=True)
    assert watched.is_told()
    report.pay(at_once=True)
    assert not watched.is_told()
