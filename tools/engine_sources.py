#!/usr/bin/env python3
"""List the sources of what is compiled, one to a line, for meson."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sources = runpy.run_path(str(ROOT / "src/tabi/relay/_sources.py"))
for path in sources["files"]():
    print(path.relative_to(ROOT))
