"""The source of the compiled engine and of the ferry, where it lies beside them: in a checkout, not in a wheel.

By its digest, which is compiled in, an engine that is older than its source is told. This module is run by the build as
well, alone and by its path.
"""

import hashlib
from pathlib import Path

__all__ = ["digest", "files"]

_HERE = Path(__file__).parent


def files() -> list[Path]:
    """List what the compiled engine is made of; nothing where there is no source."""
    return sorted([*_HERE.glob("*.pyx"), *(_HERE / "_native").glob("*.px[di]")])


def digest() -> str:
    """Give one value for all of it, empty where there is no source."""
    reckoned = hashlib.sha256()
    sources = files()
    for path in sources:
        reckoned.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return reckoned.hexdigest() if sources else ""
