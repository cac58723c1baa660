"""`tabi check`."""

import json
from pathlib import Path

import pytest

from tabi.cli.main import main

GOLDEN = Path(__file__).parents[2] / "golden" / "config"


def test_good_file_is_ok_with_its_counts(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "tabi.toml"
    path.write_text('[[rule]]\nallow = true\n[[rule]]\nname = "x"\nrefuse = "not-allowed"\nto = "10.0.0.0/8"\n')
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok, 2 rules, 0 users\n"


def test_warnings_are_told_and_do_not_fail(capsys: pytest.CaptureFixture[str]) -> None:
    path = GOLDEN / "warnings.toml"
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert f'{path}:13: warning: rule "narrow": can never match' in "\n".join(out)
    assert out[-1] == f"{path}: ok, 3 rules, 1 user, {len(out) - 1} warnings"


def test_all_warnings_are_told_however_many(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "tabi.toml"
    path.write_text('[[rule]]\nname = "all"\nallow = true\n' + "[[rule]]\nallow = true\n" * 30)
    assert main(["check", str(path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert len([line for line in out if 'can never match: rule "all" in line 1' in line]) == 30
    assert out[-1] == f"{path}: ok, 31 rules, 0 users, 30 warnings"


def test_all_errors_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    assert main(["check", "many-errors.toml"]) == 1
    assert capsys.readouterr().out == Path("many-errors.txt").read_text()


def test_json_has_every_problem_in_parts(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN)
    assert main(["check", "--json", "third-rule.toml"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "file": "third-rule.toml",
        "ok": False,
        "rules": 0,
        "users": 0,
        "problems": [
            {
                "file": "third-rule.toml",
                "line": 15,
                "where": 'rule "staff to the web"',
                "key": "port",
                "found": '"80-"',
                "complaint": "is a range without an end",
                "accepted": 'write "80" or "80-443"',
                "warning": False,
                "text": 'rule "staff to the web", port: "80-" is a range without an end; write "80" or "80-443"',
            }
        ],
    }


def test_fresh_file_passes_the_check(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["config"]) == 0
    path = tmp_path / "tabi.toml"
    path.write_text(capsys.readouterr().out)
    assert main(["check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: ok, 1 rule, 0 users\n"


def test_reference_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--reference"]) == 0
    assert (
        capsys.readouterr().out == (Path(__file__).parents[3] / "docs" / "reference" / "configuration.md").read_text()
    )
