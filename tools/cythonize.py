"""Write the C source of a compiled module: what Cython makes of it, with the digest of what all of them are made from.

usage: cythonize.py CYTHON MODULE OUTPUT
"""

import runpy
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIRECTIVES = ("boundscheck=False", "wraparound=False", "cdivision=True")


def main(cython: str, module: str, output: str) -> None:
    """Take the digest first: a source that changes meanwhile makes an engine that is told to be old."""
    sources = runpy.run_path(str(ROOT / "src/tabi/relay/_sources.py"))
    digest = sources["digest"]()
    options = [part for directive in DIRECTIVES for part in ("-X", directive)]
    face = ROOT / f"src/tabi/relay/{module}.pyx"
    made = Path(output)
    made.unlink(missing_ok=True)  # Cython does not overwrite what does not look like its own
    subprocess.run([cython, "-3", *options, "-I", ROOT / "src", face, "-o", output], check=True)
    made.write_text(f'#define TABI_DIGEST "{digest}"\n{made.read_text()}')


main(*sys.argv[1:])
