"""What is set in the program's namespace beside addresses and routes."""

from pathlib import Path

import pytest

from helpers.namespaces import Namespace, why_not
from tabi.wrap import wiring


@pytest.mark.parametrize(("before", "after"), [(1_000_000, 131_072), (87_380, 87_380)])
def test_sockets_begin_with_no_larger_buffers_than_usual(before: int, after: int) -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    with Namespace("program") as program:
        program.set("ipv4/tcp_rmem", f"4096 {before} 6291456")
        program.call(wiring.limit_first_buffers)
        now = program.call(Path("/proc/sys/net/ipv4/tcp_rmem").read_text)
    assert list(map(int, now.split())) == [4096, after, 6291456]
