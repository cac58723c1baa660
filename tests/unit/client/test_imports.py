"""What an import of the library brings along: what it costs is the modules, and these can be counted."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys
before = set(sys.modules)
import tabi.{}
print(*{{name.partition(".")[0] for name in sys.modules.keys() - before}})
print(*{{name.split(".")[1] for name in sys.modules if name.startswith("tabi.")}})
"""
# Of the standard library what takes longest; what socket, dataclasses and ipaddress are made of is not among it.
SLOW = {
    "argparse", "asyncio", "concurrent", "ctypes", "datetime", "decimal", "email", "hashlib", "http", "json", "logging",
    "multiprocessing", "pathlib", "pickle", "random", "secrets", "ssl", "subprocess", "tempfile", "tomllib",
    "traceback", "uuid",
}  # fmt: skip


@pytest.mark.parametrize("module", ["sync", "rcalls", "compat"])
def test_blocking_calls_import_nothing_that_takes_time(module: str) -> None:
    """Programs that are soon over pay for each import; asyncio alone would nearly double it."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.format(module)], capture_output=True, text=True, check=True)
    new, ours = (set(line.split()) for line in done.stdout.splitlines())
    assert new & SLOW == set()
    assert new - sys.stdlib_module_names == {"tabi"}
    assert ours == {module, "addr", "client", "dial", "errors", "machine", "net", "wire"}
