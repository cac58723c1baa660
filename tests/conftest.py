"""What every test shares: Hypothesis' profile, markers by directory, the account of skipped interop tests."""

import gc
from collections import Counter
from pathlib import Path

import hypothesis
import pytest

from helpers.programs import NOT_INSTALLED

TESTS = Path(__file__).parent
MARKED_DIRECTORIES = ("interop", "netns", "wrap")

# No deadline: a machine that is busy with something else must not fail a test.
hypothesis.settings.register_profile("tabi", deadline=None, print_blob=True)
hypothesis.settings.load_profile("tabi")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of these directories by their names, so that none is forgotten."""
    for item in items:
        for name in MARKED_DIRECTORIES:
            if item.path.is_relative_to(TESTS / name):
                item.add_marker(name)


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over all that is there before the first test.

    Thousands of tests collect garbage twice to see that they leave nothing, and each time it went through all tests
    that there are: for a sixth of a second, ten times what most of them take (21 Nov 2026).
    """
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which interop tests were skipped and why, how many, and what to do about it."""
    reasons = skipped_interop_reasons(terminalreporter.stats.get("skipped", []))
    if not reasons:
        return
    terminalreporter.section("skipped interop tests")
    for reason, count in sorted(reasons.items()):
        terminalreporter.line(f"{count:4}  {reason}")
    total = sum(reasons.values())
    advice = "; run `make peers`" if any(reason.startswith(NOT_INSTALLED) for reason in reasons) else ""
    terminalreporter.line(f"{total:4}  skipped in all{advice}")


def skipped_interop_reasons(reports: list[pytest.TestReport | pytest.CollectReport]) -> Counter[str]:
    """Count the skipped interop tests by their reason; a module that is skipped as a whole counts as one."""
    reasons: Counter[str] = Counter()
    for report in reports:
        # The report of a module has no keywords, only a place.
        keywords = report.keywords if isinstance(report, pytest.TestReport) else ()
        is_interop = "interop" in keywords or report.nodeid.startswith("tests/interop/")
        if is_interop and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
            reasons[str(report.longrepr[2]).removeprefix("Skipped: ")] += 1
    return reasons
