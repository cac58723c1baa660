"""What a decision of the rule list costs: CPU time of one call, as a session makes it before and after the look-up.

    .venv/bin/python tests/bench/decisions.py [--rules N] [--names N] [--calls N] [--json FILE]

Each list is read from TOML, as the server reads it. Of the requests half are meant for a rule somewhere in the list,
half for none. In the lists called "undecided" each rule waits for the address, so that none of them can settle a
request before the look-up. "patterns" have wildcards, "bare patterns" never two characters in a row without one: each
request matches hundreds of those.
"""

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from tabi.addr import Address, Endpoint, Host, Name
from tabi.config.load import Configuration, load_text
from tabi.policy.index import RuleIndex
from tabi.policy.rules import RuleList
from tabi.policy.verdict import Context, Request
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

RULES = 10_000
NAMES = 100_000
CALLS = 1000
CLIENT = Endpoint(IPv4Address("198.51.100.9"), 4000)
LISTENER = Endpoint(IPv4Address("203.0.113.1"), 1080)
T = TypeVar("T")
COLUMNS = (
    ("list", 42, "s"), ("phase", 9, "s"), ("median_us", 10, ".1f"), ("p99_us", 8, ".1f"), ("max_us", 8, ".1f"),
    ("load_s", 7, ".2f"), ("index_s", 8, ".3f"), ("index_mb", 9, ".1f"),
)  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A kind of list.

    Args:
        name: for the table.
        rule: makes the lines of rule n of all.
        host: makes the target of a request that is meant for rule n.
        port: the same for its port.
    """

    name: str
    rule: Callable[[int], str]
    host: Callable[[int], Host] = lambda number: Name(f"host{number}.example.org")
    port: Callable[[int], int] = lambda _number: 443


def address(number: int) -> IPv4Address:
    """Give an address in the /24 of rule `number`; all are public."""
    return IPv4Address((20 << 24) + (number << 8) + 7)


def network(number: int) -> str:
    return f'to = "{IPv4Address(int(address(number)) & ~0xFF)}/24"'


def letters(number: int) -> str:
    """Give three letters for a number below 17,576."""
    return "".join(chr(ord("a") + number // power % 26) for power in (676, 26, 1))


SHAPES = (
    Shape("exact names", lambda number: f'allow = true\nto = "host{number}.example.org"'),
    Shape(
        "name suffixes",
        lambda number: f'allow = true\nto = "*.zone{number}.example.org"',
        lambda number: Name(f"www.zone{number}.example.org"),
    ),
    Shape("target networks", lambda number: f"allow = true\n{network(number)}", address),
    Shape(
        "ports and ranges",
        lambda number: f'allow = true\nto = ["*.example.org", "0.0.0.0/0"]\nport = "{number}-{number + number % 7}"',
        port=lambda number: number,
    ),
    Shape(
        "users, ports and networks",
        lambda number: f'allow = true\nuser = "u{number % 20}"\nport = {number % 25}\n{network(number % 100)}',
        lambda number: address(number % 100),
        lambda number: number % 25,
    ),
    Shape("clients", lambda number: f'allow = true\nfrom = "{address(number)}"'),
    Shape("all undecided, refusing", lambda number: f'refuse = "not-allowed"\n{network(number)}'),
    Shape("all undecided, auth unmet", lambda number: f'allow = true\nauth = "password"\n{network(number)}'),
    Shape("all undecided, not some", lambda number: f'allow = true\nto = ["!{address(number)}", "!x{number}.test"]'),
    Shape("no match", lambda number: f'allow = true\nto = "*.other{number}.test"\nport = 80'),
    Shape("patterns", lambda number: f'allow = true\nto = "*st{number}.*.org"'),
    Shape("bare patterns", lambda number: f"allow = true\nto = '*{'*'.join(letters(number))}*'"),
)  # fmt: skip


def measure(rules: int = RULES, names: int = NAMES, calls: int = CALLS) -> list[dict[str, object]]:
    """Measure all lists.

    Args:
        rules: in each list.
        names: in the set of names.
        calls: decisions for each number.

    Returns:
        a row for each list and phase. Times are CPU times: of decisions in microseconds, of what is made once in
        seconds; megabytes of the index are 2**20 bytes.
    """
    rows = []
    for shape in SHAPES:
        users = "".join(f'[[user]]\nname = "u{n}"\npassword = "x"\nplain = true\n' for n in range(20))
        listed = "".join(f'[[rule]]\nname = "{n}"\n{shape.rule(n)}\n' for n in range(rules))
        rows += _rows(f"{rules:,} rules: {shape.name}", shape, f'auth = "any"\n{users}{listed}', rules, calls)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "names.txt")
        file.write_text("".join(f"host{n}.example.org\n" for n in range(names)))
        text = f'[[set]]\nname = "names"\nfile = "{file}"\n[[rule]]\nname = "r"\nallow = true\nto = "@names"\n'
        rows += _rows(f"set of {names:,} names", Shape("", str), text, names, calls)
    return rows


def _rows(name: str, shape: Shape, text: str, size: int, calls: int) -> Iterator[dict[str, object]]:
    load_s, configuration = _timed(lambda: load_text(text, "tabi.toml"))
    judge = configuration.rules
    index_s, _ = _timed(lambda: RuleIndex(judge.rules))
    made = {"list": name, "load_s": load_s, "index_s": index_s, "index_mb": _index_mb(configuration)}
    chosen = random.Random(size)
    numbers = [chosen.randrange(size) if number % 2 else size + number for number in range(calls)]
    hosts = [shape.host(number) for number in numbers]
    for phase in ("name", "address"):
        if phase == "name" and not isinstance(hosts[0], Name):
            hosts = [Name(f"host{number}.example.org") for number in numbers]
        requests = [
            Request(Command.CONNECT, Endpoint(host, shape.port(number) & 0xFFFF), _led_to(host, number, phase))
            for host, number in zip(hosts, numbers, strict=True)
        ]
        found = {**made, "phase": phase, **_spread(_costs(judge, requests))}
        yield {key: found[key] for key, _, _ in COLUMNS}


def _led_to(host: Host, number: int, phase: str) -> Address | None:
    return address(number) if phase == "address" and isinstance(host, Name) else None


def _costs(judge: RuleList, requests: list[Request]) -> list[float]:
    context = Context(CLIENT, LISTENER, Version.SOCKS5, Method.NONE)
    for request in requests[: len(requests) // 10]:  # warms the caches
        judge(request, context)
    gc.collect()
    gc.disable()  # what a collection costs is not the decision's
    try:
        return [_cost(judge, request, context) for request in requests]
    finally:
        gc.enable()


def _cost(judge: RuleList, request: Request, context: Context) -> float:
    begin = time.thread_time_ns()
    judge(request, context)
    return (time.thread_time_ns() - begin) / 1000


def _spread(costs: list[float]) -> dict[str, object]:
    costs = sorted(costs)
    return {"median_us": statistics.median(costs), "p99_us": costs[len(costs) * 99 // 100], "max_us": costs[-1]}


def _timed(make: Callable[[], T]) -> tuple[float, T]:
    gc.collect()
    begin = time.process_time()
    made = make()
    return time.process_time() - begin, made


def _index_mb(configuration: Configuration) -> float:
    gc.collect()
    tracemalloc.start()
    try:
        index = RuleIndex(configuration.rules.rules)
        size, _ = tracemalloc.get_traced_memory()
        del index
        return size / (1 << 20)
    finally:
        tracemalloc.stop()


def show(rows: list[dict[str, object]]) -> str:
    """Make a table of rows."""
    lines = ["".join(f"{name:{_side(kind)}{width}}" for name, width, kind in COLUMNS)]
    lines += ["".join(f"{row[name]:{_side(kind)}{width}{kind}}" for name, width, kind in COLUMNS) for row in rows]
    return "\n".join(lines)


def _side(kind: str) -> str:
    return "<" if kind == "s" else ">"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=RULES, help=f"in each list (default: {RULES})")
    parser.add_argument("--names", type=int, default=NAMES, help=f"in the set of names (default: {NAMES})")
    parser.add_argument("--calls", type=int, default=CALLS, help=f"measured for each row (default: {CALLS})")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON as well")
    options = parser.parse_args(arguments)
    rows = measure(options.rules, options.names, options.calls)
    print(show(rows))
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
