"""The build backend: meson-python, but an editable install is a plain path entry to src/.

meson-python's own editable mode runs ninja in the build directory at the first import of every process. That is a wrong
price: it needs ninja and the build directory for as long as the install lives; it fails with PermissionError for all
users but the one who installed, as it opens its log for writing (the tests run servers as an ordinary user); processes
that start side by side share that log; and each pays for one more process before `tabi --help` prints a line. A path
entry has none of this, and mypy, import-linter and editors can follow it.

The compiled engine is not part of an editable install: tools/setup.sh has it built into src/ whenever its source has
changed, and `tabi.relay` leaves one aside that is older than its source.
"""

import base64
import hashlib
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from mesonpy import build_sdist, build_wheel, get_requires_for_build_sdist, get_requires_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
]

get_requires_for_build_editable = get_requires_for_build_wheel
SOURCES = Path(__file__).resolve().parent.parent / "src"


def build_editable(
    wheel_directory: str,
    config_settings: Mapping[str, object] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel as ever, and put a path entry in the place of the package's files (PEP 660)."""
    settings = {**(config_settings or {}), "setup-args": "-Dengine=disabled"}
    with tempfile.TemporaryDirectory() as scratch:
        name: str = build_wheel(scratch, settings, metadata_directory)
        with zipfile.ZipFile(Path(scratch, name)) as wheel:
            metadata = {path: wheel.read(path) for path in wheel.namelist() if ".dist-info/" in path}
    record = next(path for path in metadata if path.endswith(".dist-info/RECORD"))
    del metadata[record]
    files = {"tabi-editable.pth": f"{SOURCES}\n".encode(), **metadata}
    lines = [f"{path},sha256={_digest(content)},{len(content)}" for path, content in files.items()]
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
        wheel.writestr(record, "\n".join([*lines, f"{record},,", ""]))
    return name


def _digest(content: bytes) -> str:
    """Return the SHA-256 in the spelling of a wheel's RECORD: URL-safe base64 without padding (PEP 427)."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
