"""The benchmark's generator counts what happened: held against tabi's own log, against Python's arithmetic, against
processes whose cost is known."""

import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.load import GeneratorError, Target, build, command, compiler, run
from helpers.serving import Command
from helpers.serving import command as serve
from helpers.socks import read_exactly
from helpers.waiting import until

LISTEN = ("--listen", "127.0.0.1:0", "--listen", "[::1]:0", "--log-format", "json")
BURN = "import time\nwhile time.process_time() < 0.2: pass\n"


@pytest.fixture(scope="session")
def program() -> Path:
    cc = compiler()
    if cc is None:
        pytest.skip("needs a C compiler")
    return build(cc, flags=("-Werror",))


@pytest.fixture
def target(program: Path) -> Iterator[Target]:
    with Target(program, targets=4, echo_ports=2, seconds=600) as target:
        yield target


@pytest.fixture
def tabi() -> Iterator[Command]:
    with serve(*LISTEN) as running:
        yield running


def through(program: Path, tabi: Command, target: Target, mode: str, **options: object) -> dict[str, Any]:
    """Run a mode through tabi, without warm-up, so that all that happens is counted."""
    given: dict[str, object] = {"port": target.port, "targets": 4, "echo_ports": 2, "seconds": 0.2, "warmup": 0}
    given["proxy"] = proxy(tabi)
    return run(command(program, mode, tree=[tabi.process.pid], **(given | options)))


def proxy(tabi: Command) -> str:
    """The proxy as the generator's option wants it."""
    host, port = tabi.address
    return f"{host}:{port}"


def lines_of(tabi: Command, count: float) -> list[dict[str, Any]]:
    """Wait until so many sessions are logged.

    An echo that cannot send does not read either: when the generator resets its end, what it had sent is on its way to
    that target until tabi gives it up, after 30 seconds without an acknowledged byte.
    """
    return until(lambda: tabi.records if len(tabi.records) >= count else [], f"{count} lines", patience=60.0)


@pytest.mark.parametrize(
    "options",
    [
        {"count": 8},
        {"count": 4, "rate": 200},
        {"count": 4, "optimistic": True},
        {"count": 4, "half_close": True},
        {"count": 4, "reset": True},
        {"count": 4, "name": "localhost"},
        {"count": 4, "family": 6},
        {"count": 4, "sources": 1_000_000},
    ],
    ids="-".join,
)
def test_each_connection_is_one_line_of_the_log(
    program: Path, tabi: Command, target: Target, options: dict[str, object]
) -> None:
    done = through(program, tabi, target, "connections", **options)
    assert done["failed"] == done["unfinished"] == 0, done
    lines = lines_of(tabi, done["succeeded"])
    assert len(lines) == done["succeeded"]
    assert {(one["up"], one["down"], one["reply"]) for one in lines} == {(1, 1, 0)}
    assert done["p50_us"] <= done["p99_us"] <= done["p999_us"] <= done["max_us"]


def test_addresses_of_clients_and_targets_take_turns(program: Path, tabi: Command, target: Target) -> None:
    done = through(program, tabi, target, "connections", count=1, rate=100, sources=1000)
    lines = lines_of(tabi, done["succeeded"])
    assert done["succeeded"] >= 16
    assert len({one["client"].rpartition(":")[0] for one in lines}) == len(lines)
    assert {one["target"] for one in lines} == {
        f"127.0.0.{address}:{port}" for address in range(1, 5) for port in (target.port, target.port + 4)
    }


def test_refused_connections_are_counted_and_explained(program: Path, tabi: Command) -> None:
    with pytest.raises(GeneratorError, match=r"not one connection succeeded: reply 5 .*connection refused") as caught:
        run(command(program, "connections", proxy=proxy(tabi), port=1, seconds=0.1, warmup=0))
    assert not caught.value.is_ours


def test_messages_are_as_many_as_the_schedule_says(program: Path, tabi: Command, target: Target) -> None:
    done = through(program, tabi, target, "messages", count=5, rate=500, size=100)
    assert done["unsent"] == done["unanswered"] == 0
    assert done["answered"] == done["sent"] >= 500 * 0.2
    lines = lines_of(tabi, 5)
    assert sum(one["up"] for one in lines) == sum(one["down"] for one in lines) == 100 * done["sent"]


@pytest.mark.parametrize("who", ["proxy", "generator"])
def test_messages_that_fall_into_a_stall_are_all_late(program: Path, tabi: Command, target: Target, who: str) -> None:
    """Who stops for half a second is late for all messages that were due then, not only for one."""
    options = {"proxy": proxy(tabi), "port": target.port, "count": 2, "rate": 100, "seconds": 3, "warmup": 0}
    with subprocess.Popen(command(program, "messages", **options), stdout=subprocess.PIPE, text=True) as process:
        until(lambda: bytes_at(target) > 640, "messages to be under way")
        stalled = tabi.process.pid if who == "proxy" else process.pid
        os.kill(stalled, signal.SIGSTOP)
        began = time.monotonic()
        until(lambda: time.monotonic() > began + 0.5, "the stall to last")
        os.kill(stalled, signal.SIGCONT)
        out, _ = process.communicate()
    done = json.loads(out)
    assert done["max_us"] > 400_000
    assert done["p99_us"] > 300_000  # 50 of 300 were due in it; a closed loop would have shown two


def bytes_at(target: Target) -> int:
    """What the target has received, by its own tally."""
    with socket.create_connection(("127.0.0.1", target.port + 3)) as sock:
        return int.from_bytes(read_exactly(sock, 8))


@pytest.mark.parametrize(("direction", "field"), [("up", "up"), ("down", "down"), ("both", "down")])
def test_bytes_are_no_more_than_went_through(
    program: Path, tabi: Command, target: Target, direction: str, field: str
) -> None:
    done = through(program, tabi, target, "bulk", count=2, direction=direction, tally=target.port + 3)
    lines = lines_of(tabi, 2)
    assert 0 < done["bytes"] <= sum(one[field] for one in lines)
    assert done["cpu_s_per_gb"] == pytest.approx(done["cpu_s"] / done["bytes"] * 1e9)


def test_idle_tunnels_are_counted_with_their_descriptors(program: Path, tabi: Command, target: Target) -> None:
    done = through(program, tabi, target, "idle", count=50)
    assert done["descriptors_per_tunnel"] == 2
    assert done["pss_kib"] >= done["pss0_kib"] > 1000
    assert done["processes"] == 1
    assert len(lines_of(tabi, 50)) == 50


def test_datagrams_come_back_as_they_were_sent(program: Path, tabi: Command, target: Target) -> None:
    done = through(program, tabi, target, "datagrams", count=2, size=1200, window=4)
    assert done["strange"] == 0
    lines = lines_of(tabi, 2)
    assert {one["command"] for one in lines} == {"udp_associate"}
    up, down = (sum(one[way] for one in lines) for way in ("up", "down"))
    assert 0 < 1200 * done["answered"] <= down <= up <= 1200 * done["sent"]


def test_processor_time_of_ended_threads_and_children_is_counted(program: Path) -> None:
    child = f"import subprocess, sys, threading, time\nsubprocess.run([sys.executable, '-c', {BURN!r}], check=True)\n"
    thread = (
        "def burn():\n    while time.thread_time() < 0.2: pass\n"
        "one = threading.Thread(target=burn)\none.start()\none.join()\nprint('done', flush=True)\ninput()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", child + thread], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        seen = run(command(program, "look", tree=[process.pid]))
        process.communicate(b"\n")
    assert seen["processes"] == seen["threads"] == 1
    assert seen["reaped_s"] >= 0.2 - 0.02  # the kernel knows it to its tick of 10 ms, for user and system apart
    assert seen["cpu_s"] - seen["reaped_s"] >= 0.2


def test_live_grandchildren_belong_to_the_tree(program: Path) -> None:
    inner = "print('ready', flush=True); input()"
    outer = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {inner!r}], check=True)\n"
    most = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {outer!r}], check=True)\n"
    with subprocess.Popen([sys.executable, "-c", most], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        seen = run(command(program, "look", tree=[process.pid]))
        process.communicate(b"\n")
    assert seen["processes"] == 3
    assert seen["pss_kib"] > 3000


def test_a_tree_that_has_gone_is_told(program: Path) -> None:
    with subprocess.Popen(["true"]) as process:
        pass
    with pytest.raises(GeneratorError, match=f"process {process.pid} has ended"):
        run(command(program, "look", tree=[process.pid]))


def test_quantiles_are_those_of_the_sorted_values(program: Path) -> None:
    chance = random.Random(5)
    values = sorted(int(chance.lognormvariate(11, 2)) for _ in range(20_000))
    done = subprocess.run(
        [program, "quantiles"], input="\n".join(map(str, values)), capture_output=True, text=True, check=True
    )
    said = json.loads(done.stdout)
    assert said["values"] == len(values)
    assert said["max_us"] == values[-1] / 1000
    for name, share in (("p50_us", 0.5), ("p99_us", 0.99), ("p999_us", 0.999)):
        exact = values[math.ceil(share * len(values)) - 1] / 1000
        assert said[name] == pytest.approx(exact, rel=1 / 256 + 1e-9), name


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 257, 1 << 40])
def test_a_single_value_is_its_own_quantile(program: Path, value: int) -> None:
    done = subprocess.run([program, "quantiles"], input=str(value), capture_output=True, text=True, check=True)
    said = json.loads(done.stdout)
    assert said["p50_us"] == pytest.approx(value / 1000, rel=1 / 256)
    assert said["max_us"] == value / 1000


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "a mode is wanted"),
        (["fly"], "fly: no such mode"),
        (["pingpong", "--count", "some"], "--count some: a number from 0 to 1e"),
        (["pingpong", "--family", "5"], "4 or 6 is wanted"),
        (["pingpong", "--proxy", "localhost"], "127.0.0.1:PORT, [::1]:PORT or direct is wanted"),
        (["connections", "--login", "alice"], "USER:PASSWORD is wanted"),
        (["bulk", "--direction", "sideways"], "up, down or both is wanted"),
        (["messages"], "need --count and --rate above 0"),
        (["look"], "look needs --tree"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_with_the_command_line_is_told(program: Path, arguments: list[str], complaint: str) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert complaint in done.stderr


def test_the_target_ends_with_its_input(program: Path) -> None:
    with Target(program, targets=1) as target:
        process = target._process
        assert process.poll() is None
    assert process.returncode == 0


def test_a_port_that_is_taken_is_told(program: Path, target: Target) -> None:
    with (
        pytest.raises(GeneratorError, match=f"cannot have .*port {target.port}: Address already in use"),
        Target(program, port=target.port),
    ):
        pass


def test_a_compiler_that_refuses_is_quoted(tmp_path: Path) -> None:
    cc = compiler()
    if cc is None:
        pytest.skip("needs a C compiler")
    with pytest.raises(GeneratorError, match="does not compile"):
        build(cc, flags=("--no-such-flag",), into=tmp_path)
    assert list(tmp_path.iterdir()) == []
