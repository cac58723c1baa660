"""The command line as such."""

import subprocess
import sys

import pytest

from tabi.cli.main import main


@pytest.mark.parametrize("words", [["--help"], ["check", "--help"], ["explain", "--help"], ["config", "--help"]])
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


@pytest.mark.parametrize("command", ["serve", "check", "explain", "config", "passwd"])
def test_every_command_is_in_the_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert f"\n    {command} " in capsys.readouterr().out
