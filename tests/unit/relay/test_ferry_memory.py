"""Where there is no memory for a batch of datagrams there is no ferry, and the control plane carries them."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("tabi.relay._ferry", reason="nothing is compiled here")

MAKE_ONE = """
import resource
import sys
from pathlib import Path
from tabi.relay import make_ferry

pages = int(Path("/proc/self/statm").read_text().split()[0])
most = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (most, most))
print(type(make_ferry(-1, "127.0.0.1", 1)).__name__)
"""


@pytest.mark.parametrize(("room", "made"), [(2 << 20, "NoneType"), (64 << 20, "CompiledFerry")])
def test_a_ferry_is_made_where_there_is_memory_for_a_batch(room: int, made: str) -> None:
    """A batch has 4 MiB; the rest of a ferry is small."""
    environment = {name: value for name, value in os.environ.items() if name != "TABI_PURE"}
    done = subprocess.run(
        [sys.executable, "-c", MAKE_ONE, str(room)], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{made}\n", "")
