"""What the table of keys makes: the reference page, a fresh file; and that it says of defaults what is true."""

import re
import tomllib
from pathlib import Path

import pytest

from helpers.plain import plain_configuration
from tabi.config.keys import TABLES, Key
from tabi.config.load import load_text
from tabi.config.reference import fresh_file, reference

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"
KEYS = [(table, key) for table in TABLES.values() for key in table.keys]
NAMES = [table.path(key) for table, key in KEYS]


def test_reference_page_is_current() -> None:
    """If it is not: tabi config --reference > docs/reference/configuration.md"""
    assert PAGE.read_text() == reference()


@pytest.mark.parametrize(("table", "key"), KEYS, ids=NAMES)
def test_every_key_is_in_the_reference_with_what_is_accepted(table: object, key: object) -> None:
    assert getattr(key, "help") in reference()  # noqa: B009
    assert key.kind.accepted in reference()  # type: ignore[attr-defined]


@pytest.mark.parametrize(("table", "key"), KEYS, ids=NAMES)
def test_every_key_is_shown_by_an_example_that_can_be_read(table: object, key: Key) -> None:
    """Where the reference takes the default for one, that is TOML as well."""
    value = tomllib.loads(f"x = {key.example or key.default}")["x"]
    for one in value if key.many and isinstance(value, list) else [value]:
        key.kind.read(one)


def test_fresh_file_loads_without_a_word() -> None:
    loaded = load_text(fresh_file(), "tabi.toml", mode=0o644)
    assert loaded.warnings == ()
    assert [rule.name for rule in loaded.rules.rules] == ["programs on this host"]


def test_fresh_file_without_its_rule_is_as_no_file() -> None:
    head = fresh_file().partition("[[rule]]\nname")[0]
    assert plain_configuration(load_text(head, "x")) == plain_configuration(load_text("", "x"))


def uncommented(name: str) -> str:
    """Take the "#" away from every key of one table, and from its header."""
    lines = []
    here = ""
    for line in fresh_file().partition("# Rules:")[0].splitlines():
        header = re.fullmatch(r"#?\[+(\w+)\]+", line)
        here = header[1] if header else here
        lines.append(line[1:] if here == name and re.match(r"#(\w+ =|\[)", line) else line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", [name for name in TABLES if name != "listen"])
def test_every_example_of_the_fresh_file_can_be_used(name: str, tmp_path: Path) -> None:
    """Where two exclude each other, one of them is taken out again."""
    (tmp_path / "ads.txt").write_text("ads.example\n")
    text = uncommented(name)
    for excluded in ("refuse = ", "shared_port = ", "literals = false"):
        text = text.replace(f"\n{excluded}", f"\n#{excluded}")
    if name == "rule":
        user = '[[user]]\nname = "alice"\npassword = "x"\nplain = true\ngroups = ["staff"]\n'
        text = text.replace('listener = ["0.0.0.0:1080"]', 'listener = ["127.0.0.1:1080"]') + user
        text += "".join(f'[[upstream]]\nname = "{one}"\nurl = "http://192.0.2.7"\n' for one in ("office", "spare"))
    if name == "client":
        text = text.replace('auth = "any"', 'auth = "none"')
    load_text(text, str(tmp_path / "tabi.toml"))


def test_every_key_is_in_the_fresh_file() -> None:
    listed = [line.partition(" =")[0].lstrip("#") for line in fresh_file().splitlines() if re.match(r"#?\w+ = ", line)]
    for table, key in KEYS:
        if table.name != "listen":
            assert key.name in listed, table.path(key)


@pytest.mark.parametrize("name", ["time", "cap", "bind", "udp", "tunnel", "log"])
def test_defaults_of_the_table_are_those_of_the_settings(name: str) -> None:
    table = TABLES[name]
    lines = [f"{key.name} = {key.default}" for key in table.keys if re.match(r'["\d]|true|false', key.default)]
    written = load_text(f"[{name}]\n" + "\n".join(lines), "x").settings
    assert getattr(written, name) == getattr(load_text("", "x").settings, name)
