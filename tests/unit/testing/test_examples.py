"""The examples in the docstrings are run, and the package gives what it names."""

import doctest
import importlib

import pytest

import tabi.testing


@pytest.mark.parametrize("module", ["dribble", "evil", "pair", "parts", "script"])
def test_examples_are_true(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"tabi.testing.{module}"))
    assert result.attempted > 0
    assert result.failed == 0


def test_everything_exported_exists() -> None:
    for name in tabi.testing.__all__:
        assert getattr(tabi.testing, name)
