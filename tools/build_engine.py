"""Build the compiled engine and the ferry for this interpreter and put them into src/, for running from the checkout.

usage: build_engine.py [--into DIRECTORY] [MESON OPTION…]

They are built in build/, incrementally; nothing is done when nothing has changed. With --into they are put into a copy
of src/ there, for a build that is not for every day (assertions, a sanitizer). Needs meson, ninja and Cython in the
environment of the interpreter that runs this.
"""

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACE = Path("tabi/relay")
MODULES = ("_engine", "_ferry")


def build(directory: Path, options: list[str]) -> list[Path]:
    """Run meson and ninja; return the modules."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    environment = {**os.environ, "PATH": path}
    meson = [sys.executable, "-m", "mesonbuild.mesonmain"]
    ready = ["--reconfigure"] if (directory / "build.ninja").exists() else []
    if not ready or options:
        setup = [*meson, "setup", *ready, "-Dengine=enabled", *options, str(directory), str(ROOT)]
        subprocess.run(setup, env=environment, check=True, stdout=sys.stderr)
    subprocess.run([*meson, "compile", "-C", str(directory)], env=environment, check=True, stdout=sys.stderr)
    return [directory / f"{module}{sysconfig.get_config_var('EXT_SUFFIX')}" for module in MODULES]


def put(modules: list[Path], place: Path) -> None:
    """Copy them so that a process that starts now finds the old one of each or the new one, whole."""
    for module in modules:
        unfinished = place / f"{module.name}.{os.getpid()}"
        shutil.copy2(module, unfinished)
        unfinished.rename(place / module.name)


def main() -> None:
    """Build, and put the modules in their place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, metavar="DIRECTORY")
    arguments, options = parser.parse_known_args()
    tag = sys.implementation.cache_tag
    if arguments.into is None:
        put(build(ROOT / "build" / f"engine-{tag}", options), ROOT / "src" / PLACE)
        return
    copy = arguments.into / "src"
    shutil.copytree(ROOT / "src", copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    put(build(arguments.into / f"engine-{tag}", options), copy / PLACE)


main()
