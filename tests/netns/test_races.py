"""Races in which all ways but one are dead, each in its own manner, in orders by chance."""

import random
from collections.abc import Iterator

import pytest

from helpers.configured import JSON, Configured, configured
from helpers.namespaces import Network
from helpers.serving import SERVE
from helpers.socks import ask5, connect5, echoes
from helpers.targets import target

PORT = 1099
HERE = ("127.0.0.1", PORT)
DEAD = {
    "dropped": "10.91.2.5",
    "black hole": "10.92.3.1",
    "no route": "10.93.4.1",
    "unreachable": "10.92.1.1",
    "refusing": "10.91.2.2",
}
SILENT = {"dropped", "black hole"}
TARGETS = ("10.91.2.3", "10.91.2.4", "10.91.2.6")  # one for each seed
NOWHERE = "10.91.2.5"


def order(seed: int) -> list[str]:
    """Give the ways in an order by chance, which is always the same for a seed."""
    ways = [*DEAD, "direct"]
    random.Random(seed).shuffle(ways)
    return ways


def rules() -> str:
    found = f'listen = ["{HERE[0]}:{PORT}"]\n{JSON}[race]\nhead_start = "50 ms"\nwasted = "1000/s"\n'
    for name, address in DEAD.items():
        found += f'[[upstream]]\nname = "{name}"\nurl = "socks5://{address}:1080"\ncool_down = 0\n'
    for seed, address in enumerate(TARGETS):
        found += f'[[rule]]\nallow = true\nto = "{address}"\nvia = {order(seed)}\npick = "race"\n'
    return found + f'[[rule]]\nallow = true\nto = "{NOWHERE}"\nvia = {order(0)}\npick = "race"\nconnect = 1\n'


@pytest.fixture(scope="module")
def server(hosts: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Configured]:
    """Run one server on the proxy host."""
    program = hosts.proxy.command(*SERVE)
    with configured(tmp_path_factory.mktemp("races"), rules(), workers=1, program=program) as running:
        running.workers(1)
        yield running
        assert running.stop() == 0, running.errors


@pytest.mark.parametrize("seed", range(len(TARGETS)))
def test_the_way_that_lives_wins_wherever_it_stands(hosts: Network, server: Configured, seed: int) -> None:
    before = order(seed)[: order(seed).index("direct")]
    with hosts.target.entering(target(host=TARGETS[seed])) as there:
        with hosts.proxy.call(connect5, HERE, *there) as sock:
            assert echoes(sock)
        line = server.record(target=f"{there[0]}:{there[1]}")
    lost = dict(one.rstrip(")").split(" (") for one in line.get("lost", "").split(", ") if one)
    assert line["via"] == "direct"
    assert set(before) <= lost.keys() <= DEAD.keys()
    for name in SILENT & lost.keys():
        assert lost[name] == "slower"
    if "no route" in before:  # told by this host's own table
        assert lost["no route"] == "connect: network unreachable"


def test_where_all_are_dead_the_limit_holds_and_those_that_ran_are_told(hosts: Network, server: Configured) -> None:
    sock, reply, _, _ = hosts.proxy.call(ask5, HERE, 1, NOWHERE, 9)
    sock.close()
    line = server.record(target=f"{NOWHERE}:9")
    assert line["verdict"] == "allow"
    assert reply == line["reply"] != 0
    assert "not done within 1 s" in line["note"]
    assert f'upstream "{order(0)[0]}": ' in line["note"]  # how many more had started by then is the machine's affair
