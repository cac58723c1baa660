"""Every error that a configuration can have is in a golden case, and so is every key."""

import ast
import sys
import tomllib
from pathlib import Path
from types import FrameType

import pytest

from tabi.config import problems
from tabi.config.keys import TABLES
from tabi.config.load import load_text
from tabi.config.problems import ConfigurationError, Report, WrongError

GOLDEN = Path(__file__).parents[2] / "golden" / "config"
SOURCES = Path(problems.__file__).parent

ELSEWHERE = (
    "error((), str(error))",  # what the table of keys lets pass and the settings refuse: nothing that is known
    "too many alike",  # tests/unit/config/test_load.py
    "run chmod o-r {self._directory",  # there, too: the modes of a checkout are not ours to say
    "is more than the kernel of this host gives",  # tests/unit/config/test_knobs.py: neither is its kernel
    "is not granted to ordinary users of this host",
    "is not loaded in the kernel of this host",
    "is no congestion control",
)

Place = tuple[str, int]


def complaints() -> dict[Place, str]:
    """Find all places that complain: each by its file and line."""
    found = {}
    for source in SOURCES.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and called(node) in ("WrongError", "report.error", "report.warn"):
                found[source.name, node.lineno] = ast.unparse(node)
    return found


def called(node: ast.Call) -> str:
    name = ast.unparse(node.func)
    return name.removeprefix("self.").removeprefix("_")


def place_of(frame: FrameType | None) -> Place:
    assert frame is not None
    return Path(frame.f_code.co_filename).name, frame.f_lineno


def test_every_complaint_is_in_a_case(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: set[Place] = set()
    wrong, note = WrongError.__init__, Report._note

    def make(self: WrongError, *what: str) -> None:
        heard.add(place_of(sys._getframe(1)))
        wrong(self, *what)

    def take(self: Report, *what: object, **more: object) -> None:
        heard.add(place_of(sys._getframe(2)))  # behind `error` or `warn`
        note(self, *what, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(WrongError, "__init__", make)
    monkeypatch.setattr(Report, "_note", take)
    monkeypatch.chdir(GOLDEN)
    for case in GOLDEN.glob("*.toml"):
        try:
            load_text(case.read_text(), case.name, mode=0o644)
        except ConfigurationError:
            continue
    missing = {
        call for place, call in complaints().items() if place not in heard and not any(one in call for one in ELSEWHERE)
    }
    assert missing == set()
    assert len(heard) > 60


def test_every_key_is_in_a_case_that_loads() -> None:
    given: set[tuple[str, str]] = set()
    for case in GOLDEN.glob("*.json"):
        document = tomllib.loads(case.with_suffix(".toml").read_text())
        for name, table in TABLES.items():
            parts = [document] if not name else document.get(name, [])
            for part in parts if isinstance(parts, list) else [parts]:
                given |= {(name, key.name) for key in table.keys if isinstance(part, dict) and key.name in part}
    known = {(name, key.name) for name, table in TABLES.items() for key in table.keys}
    assert known - given == set()
