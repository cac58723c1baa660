"""Set files."""

import tracemalloc
from ipaddress import ip_address
from pathlib import Path

import pytest

from tabi.addr import Name
from tabi.config.sets import MAX_PROBLEMS, read_set
from tabi.policy.networks import PRIVATE


def test_names_networks_and_comments_are_read(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_text("# all\r\na.example # one\r\n\r\n  *.b.example\n203.0.113.0/24\n10.0.0.0/8\n2001:db8::1\n")
    hosts, problems = read_set(path, PRIVATE)
    assert problems == []
    assert set(hosts.names) == {"a.example", "*.b.example"}
    assert sorted(map(str, hosts.networks)) == ["10.0.0.0/8", "2001:db8::1/128", "203.0.113.0/24"]
    assert list(map(str, hosts.inside)) == ["10.0.0.0/8"]


def test_errors_have_the_line_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "set.txt"
    path.write_bytes(b"good.example\nbad example\n\xff\xfe.example\n@private\nlast.example\n")
    hosts, problems = read_set(path, PRIVATE)
    assert [(problem.file, problem.line) for problem in problems] == [(str(path), 2), (str(path), 3), (str(path), 4)]
    assert set(hosts.names) == {"good.example", "last.example"}
    for problem in problems:
        str(problem).encode()


def test_errors_of_a_file_that_is_no_list_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89 PNG\n" * 5000)
    _, problems = read_set(path, PRIVATE)
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1].complaint == "more errors follow"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "large.txt"
    path.write_text("".join(f"host{number}.tracker{number % 977}.example\n" for number in range(100_000)))
    return path


def test_hundred_thousand_names_take_little_memory(large: Path) -> None:
    """About the text of each name and its place in a set; no list of lines or entries stays, or is ever held."""
    tracemalloc.start()
    try:
        hosts, problems = read_set(large, PRIVATE)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (len(hosts.names), problems) == (100_000, [])
    assert kept < 16 << 20
    assert peak < kept + (4 << 20)
    assert Name("host4242.tracker334.example") in hosts.names
    assert Name("other.example") not in hosts.names


def test_set_is_shared_by_the_rules_that_name_it(large: Path) -> None:
    from tabi.config.load import load_text

    rule = '[[rule]]\nname = "{}"\nrefuse = "not-allowed"\nto = "@large"\nport = {}\n'
    text = f'[[set]]\nname = "large"\nfile = "{large}"\n' + rule.format("a", 1) + rule.format("b", 2)
    one, two = (rule.target for rule in load_text(text, "x").rules.rules)
    assert one is not None
    assert two is not None
    assert one.within[0] is two.within[0]
    assert ip_address("8.8.8.8") not in one.within[0].networks
