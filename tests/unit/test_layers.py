"""The walls stand where pyproject.toml says: imports go down only, and the core is blind."""

import ast
import re
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tabi.relay import _sources

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sysconfig.get_path("scripts"), "lint-imports")
CONTRACTS = {
    contract["id"]: contract
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
# What reaches outside without an import. `globals` and the like are for ruff and for the reader.
EFFECTS = {"open", "print", "input", "breakpoint", "__import__", "exec", "eval"}


def lint_imports(config: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [LINT_IMPORTS, "--config", config, "--no-cache"]
    return subprocess.run(command, cwd=cwd, check=False, capture_output=True, text=True)


def blind_files() -> Iterator[Path]:
    for module in CONTRACTS["blind"]["source_modules"]:
        path = ROOT / "src" / Path(*module.split("."))
        yield from path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]


def test_contracts_are_kept() -> None:
    done = lint_imports(ROOT / "pyproject.toml", ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("wire/__init__.py", "from tabi import net"),
        ("addr.py", "import tabi.wire"),
        ("machine/__init__.py", "import tabi.policy"),
        ("dial/__init__.py", "from socket import AF_INET"),
        ("policy/__init__.py", "import time"),
        ("unheard_of.py", "x = 1"),
    ],
)
def test_contracts_notice(tmp_path: Path, module: str, line: str) -> None:
    """Break a wall in a small model of the package: each kind of breach is reported."""
    layers = " | ".join(CONTRACTS["layers"]["layers"]).split(" | ")
    for name in (layer.strip("()") for layer in layers):
        package = tmp_path / "tabi" / name
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    (tmp_path / "tabi" / "__init__.py").touch()
    for flat in ("addr", "errors"):
        (tmp_path / "tabi" / flat / "__init__.py").unlink()
        (tmp_path / "tabi" / flat).rmdir()
        (tmp_path / "tabi" / f"{flat}.py").touch()
    config = tmp_path / "pyproject.toml"
    config.write_text((ROOT / "pyproject.toml").read_text())
    sound = lint_imports(config, tmp_path)
    assert sound.returncode == 0, sound.stdout + sound.stderr

    (tmp_path / "tabi" / module).write_text(line + "\n")

    assert lint_imports(config, tmp_path).returncode == 1


def test_blind_modules_call_nothing_that_reaches_outside() -> None:
    """The builtins that do so need no import, so the contract cannot see them."""
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.func.id}"
        for path in blind_files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in EFFECTS
    ]
    assert calls == []


# Cython's sources, which import-linter does not read: the relay's, and what they may know.
COMPILED = sorted(path for path in (ROOT / "src" / "tabi").rglob("*.p*") if path.suffix in {".pyx", ".pxd", ".pxi"})
KNOWN_TO_COMPILED = ("libc.", "cpython.", "tabi.relay.")
IMPORT = re.compile(r"(?:from ([\w.]+) +c?import|c?import ([\w.]+))")


def compiled_imports(text: str) -> list[str]:
    found = [IMPORT.match(line) for line in text.splitlines()]
    return [match[1] or match[2] for match in found if match]


def test_compiled_modules_import_what_the_relay_may() -> None:
    assert {path.parent.name for path in COMPILED} == {"relay", "_native"}
    for path in COMPILED:
        for module in compiled_imports(path.read_text()):
            is_known = f"{module}.".startswith(KNOWN_TO_COMPILED) or module in {"cython", "os", "socket", "threading"}
            assert is_known, f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("line", ["from tabi.net cimport x", "cimport tabi.server.x", "import asyncio"])
def test_compiled_modules_that_import_more_are_noticed(line: str) -> None:
    (module,) = compiled_imports(f'"""Doc."""\n{line}\n')
    assert not f"{module}.".startswith(KNOWN_TO_COMPILED)


def test_compiled_modules_are_laid_out_as_the_others_are() -> None:
    """Ruff does not read them."""
    for path in COMPILED:
        lines = path.read_text().splitlines()
        assert len(lines) <= 400, path
        assert [number for number, line in enumerate(lines, 1) if len(line) > 120 or line != line.rstrip()] == [], path


def test_compiled_modules_are_in_the_engines_list_of_sources() -> None:
    assert {path for path in COMPILED if path.stat().st_size} <= set(_sources.files())
