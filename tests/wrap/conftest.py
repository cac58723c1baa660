"""What tests of this directory need: a kernel and privileges that allow a house."""

import pytest

from helpers.houses import why_no_house


@pytest.fixture(scope="session", autouse=True)
def _houses() -> None:
    """Skip where no house can be made, and say why."""
    if (reason := why_no_house()) is not None:
        pytest.skip(reason)
