"""What tests of this directory need: a kernel and privileges for a house, two hosts as it has them, clients in C."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.gates import Lab, laboratory, why_no_hosts
from helpers.houses import why_no_house
from helpers.programs import need
from helpers.targets import banner, target
from wrap.client_styles import NOT_EVERYWHERE

CLIENTS = Path(__file__).parent / "clients"


@pytest.fixture(scope="session", autouse=True)
def _houses() -> None:
    """Skip where no house can be made, and say why."""
    if (reason := why_no_house()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Make the two hosts."""
    if (reason := why_no_hosts()) is not None:
        pytest.skip(reason)
    with laboratory() as made:
        yield made


@pytest.fixture(scope="session")
def connects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the client of many styles."""
    return build("connects", tmp_path_factory.mktemp("clients"))


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the client of many processes and threads."""
    return build("crowd", tmp_path_factory.mktemp("clients"))


def build(name: str, where: Path) -> Path:
    """Compile a client."""
    program = where / name
    command = [need("cc"), "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-o", program, CLIENTS / f"{name}.c"]
    subprocess.run(command, check=True, timeout=60)
    return program


@pytest.fixture(scope="session")
def missing(lab: Lab, connects: Path) -> dict[str, str]:
    """Find out, without any gate, which styles the program's host does not have, and why."""
    with lab.program.entering(target(banner(b"hello\n"))) as (host, port):
        command = lab.program.command(str(connects), host, str(port), *NOT_EVERYWHERE)
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["style"] for one in told} == set(NOT_EVERYWHERE)
    assert all(one.get("errno", 0) == 0 for one in told), told
    return {one["style"]: one["missing"] for one in told if "missing" in one}
