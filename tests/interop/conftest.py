"""The server with accounts that the clients of this directory log in to."""

from collections.abc import Iterator

import pytest

from helpers.configured import Configured
from helpers.members import Members, serving_members


@pytest.fixture(scope="session")
def with_accounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """Run it once for all: what takes long is its start."""
    with serving_members(tmp_path_factory.mktemp("members")) as server:
        yield server


@pytest.fixture
def members(with_accounts: Configured) -> Iterator[Members]:
    """Give it as if it had begun with this test."""
    one = Members(with_accounts)
    yield one
    one.done()
