"""What is shipped is what is in the tree."""

import configparser
import email
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

import tabi

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src"


COMPILED = {f"tabi/relay/{module}{sysconfig.get_config_var('EXT_SUFFIX')}" for module in ("_engine", "_ferry")}
BUILDS = {"pure": "disabled", "compiled": "enabled"}


def sources() -> set[str]:
    """Return the files of the package as a wheel would name them: all but the source of what is compiled."""
    files = {path.relative_to(SRC) for path in (SRC / "tabi").rglob("*") if path.is_file()}
    shipped = [path for path in files if not {"_native", "__pycache__"}.intersection(path.parts)]
    return {path.as_posix() for path in shipped if path.suffix not in {".pyx", ".so"}}


def can_compile() -> bool:
    """Say whether this machine can build the compiled engine."""
    has_headers = Path(sysconfig.get_path("include"), "Python.h").exists()
    return has_headers and shutil.which("cc") is not None


@pytest.fixture(scope="module", params=sorted(BUILDS))
def build(request: pytest.FixtureRequest) -> str:
    """Name what a wheel is made with."""
    if request.param == "compiled" and not can_compile():
        pytest.skip("no C compiler, or no Python.h")
    return str(request.param)


@pytest.fixture(scope="module")
def wheel(build: str, tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """Build the wheel from this tree, without the network, and open it."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-index", "--no-deps"]
    options = ["--no-build-isolation", f"--config-settings=setup-args=-Dengine={BUILDS[build]}"]
    command = [*pip, *options, "--wheel-dir", str(directory), str(ROOT)]
    # meson and ninja are looked for in PATH, and nobody has to activate the environment to run the tests.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = directory.glob("*.whl")
    tag = sys.implementation.cache_tag.replace("cpython-", "cp")
    expected = "py3-none-any" if build == "pure" else f"{tag}-{tag}-linux"
    assert path.name.startswith(f"tabi-{tabi.__version__}-{expected}")
    return zipfile.Path(path)


def names(wheel: zipfile.Path) -> set[str]:
    return {name for name in wheel.root.namelist() if not name.endswith("/")}


def test_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: zipfile.Path, build: str) -> None:
    shipped = {name for name in names(wheel) if ".dist-info/" not in name}
    assert shipped == sources() | (COMPILED if build == "compiled" else set())


def test_wheel_runs_the_engine_that_it_was_made_with(wheel: zipfile.Path, build: str, tmp_path: Path) -> None:
    wheel.root.extractall(tmp_path)
    program = "import tabi.relay; print(tabi.relay.ENGINE_NAME, tabi.relay.__file__)"
    environment = {**os.environ, "TABI_PURE": "0", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == [build, str(tmp_path / "tabi" / "relay" / "__init__.py")]


def test_wheel_says_that_it_is_typed_and_under_which_licence(wheel: zipfile.Path) -> None:
    assert "tabi/py.typed" in names(wheel)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names(wheel))


def test_wheel_requires_nothing_but_for_extras(wheel: zipfile.Path) -> None:
    [metadata] = [name for name in names(wheel) if name.endswith(".dist-info/METADATA")]
    required = email.message_from_string(wheel.joinpath(metadata).read_text()).get_all("Requires-Dist", [])
    assert [line for line in required if "extra ==" not in line] == []


def test_every_module_but_adapters_is_content_with_python_alone(wheel: zipfile.Path, tmp_path: Path) -> None:
    wheel.root.extractall(tmp_path)
    program = (
        "import importlib, pkgutil, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import tabi\n"
        "for module in pkgutil.walk_packages(tabi.__path__, 'tabi.'):\n"
        "    if not module.name.startswith(('tabi.adapters.', 'tabi.__main__')):\n"
        "        importlib.import_module(module.name)\n"
        "        print(module.name)\n"
    )
    command = [sys.executable, "-I", "-S", "-c", program, str(tmp_path)]  # -S: without site-packages
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {"tabi.sync", "tabi.aio", "tabi.compat", "tabi.server.server"} <= set(done.stdout.split())


def test_wheel_brings_the_command(wheel: zipfile.Path) -> None:
    [entry_points] = [name for name in names(wheel) if name.endswith(".dist-info/entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(wheel.joinpath(entry_points).read_text())
    assert dict(parser["console_scripts"]) == {"tabi": "tabi.cli.main:main"}


def test_every_package_has_an_init_file() -> None:
    packages = {path.parent for path in (SRC / "tabi").rglob("*.py")}
    assert {package.name for package in packages if not (package / "__init__.py").exists()} == set()


def test_version_is_the_same_everywhere() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert tabi.__version__ == declared
    assert importlib.metadata.version("tabi") == declared


def test_core_requires_nothing_at_run_time() -> None:
    required = importlib.metadata.requires("tabi") or []
    assert [line for line in required if "extra ==" not in line] == []


def test_editable_install_runs_this_tree() -> None:
    """Otherwise the suite would judge some other copy."""
    assert Path(tabi.__file__) == SRC / "tabi" / "__init__.py"
