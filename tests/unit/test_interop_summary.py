"""The end of a run tells which interop tests were skipped, and what to do about it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TWO_MISSING_ONE_REFUSED = """
import pytest
from helpers.programs import need

@pytest.mark.parametrize("port", [1, 2])
def test_two(port): need("no-such-program")

def test_refused(): pytest.skip("needs root")

def test_passes(): pass
"""


def run_suite(directory: Path, path: str, source: str) -> str:
    """Run pytest on a suite of one file that has our conftest, and return what it prints."""
    shutil.copy(TESTS.parent / "pyproject.toml", directory)
    shutil.copytree(TESTS / "helpers", directory / "tests" / "helpers")
    shutil.copy(TESTS / "conftest.py", directory / "tests")
    file = directory / "tests" / path
    file.parent.mkdir()
    file.write_text(source)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
    is_calm = done.returncode in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
    assert is_calm, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def lines(tmp_path: Path) -> list[str]:
    return run_suite(tmp_path, "interop/test_x.py", TWO_MISSING_ONE_REFUSED).splitlines()


def test_reasons_are_listed_with_their_counts(lines: list[str]) -> None:
    assert "   2  not installed: no-such-program" in lines
    assert "   1  needs root" in lines


def test_total_comes_with_the_command_that_installs(lines: list[str]) -> None:
    assert "   3  skipped in all; run `make peers`" in lines


def test_pytest_has_the_last_word(lines: list[str]) -> None:
    assert "1 passed, 3 skipped" in lines[-1]


def test_module_skipped_as_a_whole_is_counted(tmp_path: Path) -> None:
    source = "import pytest\npytest.importorskip('no_such_module', reason='not installed: no_such_module')\n"
    printed = run_suite(tmp_path, "interop/test_x.py", source + "def test_a(): pass\ndef test_b(): pass\n")
    assert "   1  skipped in all; run `make peers`" in printed.splitlines()


def test_command_is_not_advised_where_it_would_not_help(tmp_path: Path) -> None:
    source = "import pytest\ndef test_a(): pytest.skip('needs root')\n"
    assert "make peers" not in run_suite(tmp_path, "interop/test_x.py", source)


def test_other_skipped_tests_are_not_counted(tmp_path: Path) -> None:
    source = "import pytest\ndef test_a(): pytest.skip('not installed: x')\n"
    assert "skipped interop tests" not in run_suite(tmp_path, "unit/test_x.py", source)
