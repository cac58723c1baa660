"""Where benchmarks run: programs get the core, the user and the limits that were asked for."""

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bench.places import Place, PlaceError, free_ports, place
from helpers.namespaces import Namespace, why_not

NO_NAMESPACE = why_not()
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
CORE = min(os.sched_getaffinity(0))
HERE = Place(proxy_core=CORE, load_core=CORE, user=None, is_apart=False)


def run(prefix: list[str], *command: str) -> str:
    return subprocess.run([*prefix, *command], capture_output=True, text=True, check=True).stdout


def test_a_program_has_its_core_only() -> None:
    status = run(HERE.proxy_prefix(), "cat", "/proc/self/status")
    assert f"Cpus_allowed_list:\t{CORE}\n" in status


def test_a_proxy_may_have_all_cores() -> None:
    assert HERE.proxy_prefix(everywhere=True) == []


def test_the_prefix_replaces_itself_by_the_program() -> None:
    with subprocess.Popen([*HERE.load_prefix(), "sh", "-c", "echo $$"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert int(process.stdout.read()) == process.pid


@NEEDS_ROOT
def test_a_program_is_an_ordinary_user_with_nothing_more() -> None:
    status = run(replace(HERE, user="nobody").proxy_prefix(), "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert set(fields["Uid"].split()) == {"65534"}
    assert fields["Groups"].split() == []
    assert {int(fields[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}


@NEEDS_ROOT
def test_to_read_all_files_is_the_one_thing_that_may_be_added() -> None:
    status = run(replace(HERE, user="nobody", reads_all=True).proxy_prefix(), "cat", "/proc/self/status")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 1 << 2  # CAP_DAC_READ_SEARCH, linux/capability.h


@NEEDS_ROOT
def test_root_measures_as_nobody_unless_told_otherwise() -> None:
    assert place().user == "nobody"
    assert place(user="root").user is None
    with pytest.raises(PlaceError, match="there is no user 'nobody-at-all'"):
        place(user="nobody-at-all")


def test_a_core_that_is_not_ours_is_refused() -> None:
    with pytest.raises(PlaceError, match="core 4095 is not ours"):
        place(cores=(4095, CORE), user="root" if os.geteuid() == 0 else None)


def test_proxy_and_load_have_different_cores_where_there_are_two() -> None:
    here = place(user="root" if os.geteuid() == 0 else None)
    if len(os.sched_getaffinity(0)) == 1:
        assert here.proxy_core is here.load_core is None
    else:
        assert {here.proxy_core, here.load_core} <= os.sched_getaffinity(0)
        assert here.proxy_core != here.load_core


def test_another_congestion_control_is_not_taken_from_the_machine() -> None:
    current = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    assert HERE.set_congestion_control(None) == HERE.set_congestion_control(current) == current
    with pytest.raises(PlaceError, match="needs a network namespace"):
        HERE.set_congestion_control("no-such-control")


@pytest.mark.netns
@pytest.mark.skipif(NO_NAMESPACE is not None, reason=str(NO_NAMESPACE))
def test_the_first_congestion_control_comes_back() -> None:
    with Namespace("congestion") as host:
        set_control = host.call(place, user="root", is_apart=True).set_congestion_control
        first = HERE.congestion
        assert host.call(set_control, "reno") == "reno"
        assert host.call(Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text) == "reno\n"
        assert host.call(set_control, None) == first
        assert host.call(Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text) == f"{first}\n"


def test_free_ports_are_free_and_side_by_side() -> None:
    first = free_ports(3)
    for port in range(first, first + 3):
        with socket.create_server(("127.0.0.1", port)):
            pass
