"""The command line as such."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tabi.cli.main import main


@pytest.mark.parametrize("words", [["--help"], *([one, "--help"] for one in ("check", "explain", "config", "doctor"))])
def test_help_imports_nothing_that_takes_time(words: list[str]) -> None:
    """The modules that are loaded are what makes help slow; asyncio alone takes longer than all of it may."""
    program = (
        "import sys\nfrom tabi.cli.main import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "slow = ('asyncio', 'socket', 'tomllib')\n"
        "print(*sorted(name for name in sys.modules if name.startswith('tabi.') or name in slow))"
    )
    done = subprocess.run([sys.executable, "-c", program, *words], check=True, capture_output=True, text=True)
    loaded = done.stdout.splitlines()[-1].split()
    assert [name for name in loaded if not name.startswith("tabi.cli")] == []


@pytest.mark.parametrize("command", ["serve", "check", "explain", "config", "passwd", "doctor"])
def test_every_command_is_in_the_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert f"\n    {command} " in capsys.readouterr().out


def test_a_name_that_the_locale_cannot_show_is_escaped(tmp_path: Path) -> None:
    file = tmp_path / "tabi.toml"
    file.write_text('[[rule]]\nname = "用户"\nallow = true\n', encoding="utf-8")
    words = ["explain", "--config", str(file), "--from", "127.0.0.1", "connect", "127.0.0.1:80"]
    env = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-m", "tabi", *words], check=True, capture_output=True, text=True, env=env)
    assert 'rule 1 "\\u7528\\u6237"' in done.stdout


@pytest.mark.parametrize("words", [["config"], ["config", "--reference"]])
def test_a_reader_who_has_seen_enough_is_no_error_of_ours(words: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        program = [sys.executable, "-m", "tabi", *words]
        done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([], 2),
        (["serve", "--nonsense"], 2),
        (["run", "--nonsense", "--", "true"], 125),
        (["run", "-x"], 125),
        (["shell", "--delay-unreachable", "soon"], 125),
        (["run", "--help"], 0),
    ],
)
def test_misuse_is_told_from_what_a_program_returns(words: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == code


@pytest.mark.parametrize("error", [PermissionError(13, "no"), ValueError("a bug")])
def test_whatever_hinders_a_run_is_125(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_arguments: object) -> int:
        raise error

    monkeypatch.setattr("tabi.cli.run._run", fail)
    assert main(["run", "--", "true"]) == 125
    assert str(error) in capsys.readouterr().err
