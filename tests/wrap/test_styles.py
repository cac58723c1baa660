"""Every style of connecting: no success before the proxy's, the true error, the true peer."""

import errno
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers.gates import Lab, gating, waiting
from helpers.programs import run
from helpers.waiting import PATIENCE, until
from tabi.wrap.gate import GateOptions
from wrap.client_styles import NOT_EVERYWHERE, SEVEN

V4, V6 = "203.0.113.9", "2001:db8::9"

# REP of RFC 1928 section 6, and the errno that a program has to see; IPv4 knows no "prohibited" (tabi.wrap.answers).
ANSWERS = [
    pytest.param(0, 0, 0, id="granted"),
    pytest.param(1, errno.EHOSTUNREACH, errno.EHOSTUNREACH, id="general failure"),
    pytest.param(2, errno.EHOSTUNREACH, errno.EACCES, id="prohibited"),
    pytest.param(3, errno.ENETUNREACH, errno.ENETUNREACH, id="network unreachable"),
    pytest.param(4, errno.EHOSTUNREACH, errno.EHOSTUNREACH, id="host unreachable"),
    pytest.param(5, errno.ECONNREFUSED, errno.ECONNREFUSED, id="refused"),
    pytest.param(6, errno.EHOSTUNREACH, errno.EHOSTUNREACH, id="expired"),
]


@pytest.fixture
def styles(missing: dict[str, str]) -> tuple[str, ...]:
    """Name all styles that this host has."""
    return SEVEN + tuple(style for style in NOT_EVERYWHERE if style not in missing)


@pytest.mark.parametrize("style", NOT_EVERYWHERE)
def test_this_host_has_the_style(missing: dict[str, str], style: str) -> None:
    if style in missing:
        pytest.skip(f"{style} is not tested here: {missing[style]}")


def start(lab: Lab, connects: Path, address: str, port: int, styles: Sequence[str]) -> subprocess.Popen[str]:
    command = lab.program.command(str(connects), address, str(port), *styles)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for its end, and read what each style has seen."""
    with process:
        out, _ = process.communicate(timeout=3 * PATIENCE)
    assert process.returncode == 0, out
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("address", [V4, V6])
@pytest.mark.parametrize(("reply", "errno4", "errno6"), ANSWERS)
def test_a_program_knows_what_the_proxy_has_answered_and_not_before(
    lab: Lab, connects: Path, styles: Sequence[str], address: str, reply: int, errno4: int, errno6: int
) -> None:
    with gating(lab) as running:
        process = start(lab, connects, address, 8000, styles)
        until(lambda: len(running.proxy.asked) == len(styles), lambda: f"{len(running.proxy.asked)} have asked")
        until(lambda: waiting(lab.program, 8000) == len(styles), "all to wait")
        running.proxy.answer(reply)
        seen = told(process)
        assert {asked.host for asked in running.proxy.asked} == {address}
        until(lambda: len(running.decisions) == len(styles), "all to be over")
    assert {one["style"] for one in seen} == set(styles)
    expected = errno4 if address == V4 else errno6
    for one in seen:
        assert one["errno"] == expected, one
        assert one["known"] >= running.proxy.answered, one
        there = (address, 8000, f"{address} 8000") if reply == 0 else ("", 0, "")
        assert (one["peer"], one["port"], one["heard"]) == there, one
    assert len(running.proxy.asked) == len(styles), "nobody was dialled twice"


@pytest.mark.parametrize("address", [V4, V6])
def test_a_proxy_that_is_not_there_is_a_network_that_is_not_there(
    lab: Lab, connects: Path, styles: Sequence[str], address: str
) -> None:
    """Not a refusal: nothing is known of the target."""
    with gating(lab, proxies=["socks5h://127.0.0.1:1"]):
        seen = told(start(lab, connects, address, 8000, styles))
    assert {one["style"] for one in seen} == set(styles)
    for one in seen:
        assert one["errno"] == errno.ENETUNREACH, one


def test_where_there_is_no_tproxy_each_target_has_a_listener_of_its_own(
    lab: Lab, connects: Path, styles: Sequence[str]
) -> None:
    with gating(lab, tproxy=False) as running:
        processes = [start(lab, connects, address, 8000, styles) for address in (V4, V6)]
        until(lambda: len(running.proxy.asked) == 2 * len(styles), "all to ask")
        running.proxy.answer(0)
        for process, address in zip(processes, (V4, V6), strict=True):
            seen = told(process)
            assert {(one["errno"], one["peer"], one["heard"]) for one in seen} == {(0, address, f"{address} 8000")}
            assert all(one["known"] >= running.proxy.answered for one in seen)


def test_nobody_in_a_crowd_is_connected_to_another_target(lab: Lab, crowd: Path) -> None:
    # On a machine that is busy otherwise a program may be late for its own handshake.
    with gating(lab, options=GateOptions(patience=PATIENCE)) as running:
        running.proxy.answer(0)
        done = run(*lab.program.command(str(crowd), "4", "8", "5"))
    assert done.stdout == b"160 right, 0 failed, 0 other peers, 0 other voices\n", done.stderr
    assert len(running.proxy.asked) == 160
