"""Which engine is taken: the compiled one where it is there and not old, unless the pure one is wanted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tabi.relay import _choice, _sources
from tabi.relay._engine_py import PureEngine

_engine = pytest.importorskip("tabi.relay._engine", reason="the compiled engine is not built here")


def test_the_compiled_engine_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TABI_PURE", raising=False)
    assert _choice.choose() is _engine.CompiledEngine


@pytest.mark.parametrize(("value", "is_pure"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_tabi_pure_takes_the_pure_one(monkeypatch: pytest.MonkeyPatch, value: str, is_pure: bool) -> None:
    monkeypatch.setenv("TABI_PURE", value)
    assert (_choice.choose() is PureEngine) == is_pure


def test_one_that_was_not_built_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TABI_PURE", raising=False)
    monkeypatch.setitem(sys.modules, "tabi.relay._engine", None)
    monkeypatch.delattr("tabi.relay._engine")
    assert _choice.choose() is PureEngine


def test_one_that_is_older_than_its_source_is_left_aside_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TABI_PURE", raising=False)
    monkeypatch.setattr(_sources, "digest", lambda: "another")
    with pytest.warns(RuntimeWarning, match="older than its source.*make setup"):
        assert _choice.choose() is PureEngine


def test_the_digest_tells_every_change(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "_native").mkdir()
    (tmp_path / "_engine.pyx").write_text("a")
    (tmp_path / "_native" / "loop.pxd").write_text("b")
    monkeypatch.setattr(_sources, "_HERE", tmp_path)
    seen = {_sources.digest()}
    lane = "_native/lane.pxd"
    for path, text in (("_engine.pyx", "c"), ("_native/loop.pxd", "a"), (lane, ""), (lane, "a")):
        (tmp_path / path).write_text(text)
        seen.add(_sources.digest())
    assert len(seen) == 5


def test_where_there_is_no_source_there_is_no_digest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(_sources, "_HERE", tmp_path)
    assert _sources.digest() == ""


@pytest.mark.parametrize("pure", ["0", "1"])
def test_version_names_the_engine_that_runs(pure: str) -> None:
    command = [sys.executable, "-m", "tabi", "--version"]
    done = subprocess.run(command, env={**os.environ, "TABI_PURE": pure}, capture_output=True, text=True, check=True)
    assert f"(engine: {'pure' if pure == '1' else 'compiled'})" in done.stdout
