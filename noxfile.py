"""The suite on every Python that we serve; `make test`, `make lint` and `make types` are the everyday way.

nox -s tests-3.12      one of them; an interpreter that this machine lacks is skipped
"""

from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
PYTHONS = ["3.11", "3.12", "3.13"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run pytest; arguments behind `--` go to it."""
    session.install("--editable", ".")
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "test"))
    session.run("python", "tools/build_engine.py", success_codes=[0, 1])  # 1: no compiler, or no headers of this Python
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session
def sanitized(session: nox.Session) -> None:
    """Run the tests of the engine and of the ferry on a compiled build with assertions, AddressSanitizer and UBSan."""
    session.install("--editable", ".")
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "test"))
    options = ["-Dbuildtype=debug", "-Db_ndebug=false", "-Db_sanitize=address,undefined", "-Db_lundef=false"]
    session.run("python", "tools/build_engine.py", "--into", "build/sanitized", *options)
    libraries = [
        str(session.run("cc", f"-print-file-name={name}.so", external=True, silent=True)).strip()
        for name in ("libasan", "libubsan")
    ]
    environment = {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0",  # of CPython's there are many; the tests count our own blocks
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": "build/sanitized/src",
    }
    loop = Path("tests/loop")
    files = sorted(str(path) for path in (*loop.glob("test_engine_*.py"), *loop.glob("test_lane*.py")))
    pytest = ["python", "-m", "pytest", "-p", "no:cacheprovider"]
    session.run(*pytest, "-k", "compiled", *files, *session.posargs, env=environment)
    session.run(*pytest, "tests/unit/relay/test_ferry.py", *session.posargs, env=environment)


@nox.session
def lint(session: nox.Session) -> None:
    """Run ruff, and check the walls between the layers."""
    session.install("--editable", ".")
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint"))
    session.run("ruff", "check")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Run mypy --strict."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "lint"))
    session.run("mypy")


@nox.session
def typed(session: nox.Session) -> None:
    """Have pyright look for what is public and whose type is not said; it runs on Node.js, which comes with it."""
    session.install("--config-settings=setup-args=-Dengine=disabled", ".")  # not editable: what it asks is an install
    session.install(*nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "test"), "pyright[nodejs]")
    session.run("pyright", "--verifytypes", "tabi", "--ignoreexternal")
