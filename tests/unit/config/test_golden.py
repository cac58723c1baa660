"""Configurations and what becomes of them. To add a case, add NAME.toml to tests/golden/config, and beside it either
NAME.json (what is loaded, without what is as by default) or NAME.txt (the errors, as `tabi check` prints them)."""

import json
from pathlib import Path

import pytest

from helpers.plain import plain_configuration
from tabi.config.load import Configuration, load_text
from tabi.config.problems import ConfigurationError

GOLDEN = Path(__file__).parents[2] / "golden" / "config"
GOOD = sorted(path.stem for path in GOLDEN.glob("*.json"))
BAD = sorted(path.stem for path in GOLDEN.glob("*.txt"))


def load_case(case: str) -> Configuration:
    """Load it as a file that all users of the host can read, whatever this checkout's modes are."""
    return load_text((GOLDEN / f"{case}.toml").read_text(), f"{case}.toml", mode=0o644)


def test_every_case_says_what_is_expected() -> None:
    assert sorted(GOOD + BAD) == sorted(path.stem for path in GOLDEN.glob("*.toml"))
    assert len(GOOD) > 3
    assert len(BAD) > 3


@pytest.mark.parametrize("case", GOOD)
def test_configuration_is_loaded_as_written_down(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    assert plain_configuration(load_case(case)) == json.loads((GOLDEN / f"{case}.json").read_text())


@pytest.mark.parametrize("case", BAD)
def test_all_errors_are_told_as_written_down(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    with pytest.raises(ConfigurationError) as caught:
        load_case(case)
    assert str(caught.value) == (GOLDEN / f"{case}.txt").read_text().rstrip("\n")
