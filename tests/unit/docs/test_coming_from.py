"""docs/howto/coming-from.md: what it calls by name is there, what it calls can be called so, all is told."""

import ast
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import python_socks
import python_socks.async_.anyio
import python_socks.async_.asyncio
import python_socks.async_.trio
import python_socks.sync
import socks

from helpers.pages import ROOT, blocks
from tabi import compat
from tabi.cli.main import build_parser
from tabi.cli.outline import outline
from tabi.machine.hop import Scheme
from tabi.machine.url import parse_proxy

PAGE = ROOT / "docs" / "howto" / "coming-from.md"
TEXT = PAGE.read_text(encoding="utf-8")
PYTHON = [block for block in blocks(PAGE) if block.language == "python"]
QUOTED = re.findall(r"`([^`\n]+)`", TEXT)
OF_PROXYCHAINS = [  # every word of its file, as proxychains.conf of 4.16 explains them
    "strict_chain", "dynamic_chain", "random_chain", "round_robin_chain", "chain_len",
    "proxy_dns", "proxy_dns_old", "proxy_dns_daemon", "remote_dns_subnet", "tcp_read_time_out", "tcp_connect_time_out",
    "localnet", "dnat", "quiet_mode", "socks4", "socks5", "http", "raw",
]  # fmt: skip


@pytest.fixture(autouse=True)
def modules_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "socks", socks)  # to be restored


def found(dotted: str) -> Any:
    """Import what a dotted name says."""
    module, _, name = dotted.rpartition(".")
    return getattr(importlib.import_module(module), name)


def named(package: str) -> list[str]:
    return sorted({word for word in QUOTED if re.fullmatch(rf"{package}(\.\w+)+", word)})


@pytest.mark.parametrize("dotted", [*named("tabi"), *named("python_socks"), *named("socks")])
def test_what_the_page_names_is_there(dotted: str) -> None:
    if dotted in ("tabi.sync", "tabi.aio", "tabi.compat", "tabi.errors"):
        importlib.import_module(dotted)
    else:
        found(dotted)


def test_the_page_names_all_three() -> None:
    assert len(named("tabi")) > 20
    assert len(named("python_socks")) > 5
    assert len(named("socks")) > 8


def test_nothing_of_pysocks_is_missing_but_what_the_page_says() -> None:
    ours = {"set_self_blocking", "log"}
    public = {name for name, value in vars(socks).items() if getattr(value, "__module__", "") == "socks"}
    constants = {name for name in vars(socks) if re.match(r"(PROXY_TYPE|SOCKS|HTTP|PRINTABLE|DEFAULT)", name)}
    assert {name for name in public | constants if not name.startswith("_")} - set(compat.__all__) <= ours
    assert all(f"`{name}`" in TEXT and hasattr(socks, name) and not hasattr(compat, name) for name in ours)


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: f"line-{block.line}")
def test_calls_on_the_page_are_as_the_functions_want_them(block: Any) -> None:
    names: dict[str, Any] = {}
    exec(compile(block.text, str(PAGE), "exec"), names)
    calls = list(checkable(ast.parse(block.text), names))
    assert calls or "sys.modules" in block.text
    for function, call in calls:
        words = {word.arg: None for word in call.keywords if word.arg}
        inspect.signature(function).bind(*[None] * len(call.args), **words)


def checkable(tree: ast.AST, names: dict[str, Any]) -> Iterator[tuple[Callable[..., Any], ast.Call]]:
    """Give each call, with the function that it is of; of python-socks, whose class takes anything, the method."""
    for call in ast.walk(tree):
        if isinstance(call, ast.Call):
            *of, name = ast.unparse(call.func).split(".") if "(" not in ast.unparse(call.func) else ["connect"]
            if name == "connect":
                yield python_socks.sync.Proxy.from_url("socks5://127.0.0.1:1080").connect, call
            else:
                yield getattr(names[of[0]], name) if of else names[name], call


def test_pysocks_is_taken_the_place_of() -> None:
    exec(compile(PYTHON[0].text, str(PAGE), "exec"), {})
    assert sys.modules["socks"] is compat


@pytest.mark.parametrize("word", OF_PROXYCHAINS)
def test_every_line_of_proxychains_conf_is_translated(word: str) -> None:
    table = TEXT.partition("line by line:")[2].partition("What needs rules")[0]
    first = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert any(re.search(rf"`{word}[ `]", cell) for cell in first)


def test_options_of_run_on_the_page_are_there() -> None:
    (run,) = [command for command in outline(build_parser()) if command.name == "run"]
    known = {name for option in run.options for name in option.names}
    mentioned = {word.split()[0] for word in QUOTED if re.match(r"-(x|-\w)", word)}
    assert {"-x", "--inbound", "--trace", "--explain"} <= mentioned <= known


def test_proxies_of_the_translated_lines_can_be_read() -> None:
    urls = [word.removeprefix("-x ") for word in QUOTED if re.match(r"(-x )?\w+://.+", word)]
    hops = [parse_proxy(url) for url in urls]
    assert {hop.scheme for hop in hops} == {Scheme.SOCKS5H, Scheme.SOCKS4A, Scheme.HTTP}
    assert {bytes(hop.password) for hop in hops} == {b"", b"secret"}
