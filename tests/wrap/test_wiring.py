"""What is set in the program's namespace beside addresses and routes."""

from pathlib import Path

import pytest

from helpers.gates import why_no_hosts
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


def test_a_namespace_that_was_born_without_ipv6_gets_it() -> None:
    if (reason := why_no_hosts()) is not None:
        pytest.skip(reason)
    with Namespace("program") as program:
        for kind in ("all", "default"):
            program.set(f"ipv6/conf/{kind}/disable_ipv6", 1)
        assert not program.call(wiring.has_ipv6)
        program.call(wiring.enable_ipv6)
        assert program.call(wiring.has_ipv6)
        program.ip("link", "add", "e0", "type", "veth", "peer", "name", "e1")
        program.address("e0", "fd00:5ec::2/64")
