"""The measurement of decisions runs, and what it measures is what it says."""

import json
from pathlib import Path

import pytest

from bench.decisions import SHAPES, main


def test_all_lists_are_measured_in_both_phases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.json"
    assert main(["--rules", "12", "--names", "30", "--calls", "20", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [row["phase"] for row in rows] == ["name", "address"] * (len(SHAPES) + 1)
    assert {row["list"] for row in rows} >= {"12 rules: exact names", "set of 30 names"}
    assert all(0 < row["median_us"] <= row["p99_us"] <= row["max_us"] for row in rows)
    assert all(row["load_s"] > 0 and row["index_mb"] > 0 for row in rows)
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)
