"""What shows only in a process of its own: an ordinary user's limits, spent descriptors, SIGPIPE."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loop.engine_children import SCENARIOS

pytestmark = pytest.mark.usefixtures("nothing_left")

UNLIMITED = "the kernel sets no limit on a user's pipes here"


def run(scenario: str, build: str, *, descriptors: int | None = None) -> None:
    """Run a scenario in a child and fail with what it says."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({descriptors},) * 2); "
    program = (
        f"{limit if descriptors else ''}from loop.engine_children import SCENARIOS; SCENARIOS[{scenario!r}]({build!r})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
    assert done.stderr == ""


def test_a_hundred_bulk_streams_of_an_ordinary_user_arrive_whole(build: str) -> None:
    run("bulk_streams", build)


def test_a_pipe_that_cannot_grow_means_copying_until_it_can(build: str) -> None:
    if Path("/proc/sys/fs/pipe-user-pages-soft").read_text().strip() == "0":
        pytest.skip(UNLIMITED)
    run("spent_pages", build)


def test_without_a_descriptor_for_a_pipe_streams_are_copied(build: str) -> None:
    run("spent_descriptors", build, descriptors=64)


def test_a_splice_into_a_reset_socket_does_not_kill_a_program_that_wants_sigpipe(build: str) -> None:
    run("sigpipe", build)


def test_every_scenario_is_run() -> None:
    source = Path(__file__).read_text()
    assert all(f'run("{name}"' in source for name in SCENARIOS)
