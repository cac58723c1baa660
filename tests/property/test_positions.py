"""The map of lines has the same key paths as what tomllib makes of the text, and each on the right line."""

import tomllib
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from tabi.config.positions import key_lines
from tabi.config.problems import KeyPath

BARE = st.text("abcXYZ019_-", min_size=1, max_size=4)
QUOTED = st.text(st.sampled_from("ab.# =[]{}é\"'\\,\t"), max_size=5)


def paths(value: object, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Give every key path of a parsed document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in items:
        yield (*path, key)
        yield from paths(one, (*path, key))


def basic(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\t", "\\t") + '"'


@st.composite
def keys(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return draw(BARE)
    text = draw(QUOTED)
    return f"'{text}'" if "'" not in text and draw(st.booleans()) else basic(text)


@st.composite
def dotted(draw: st.DrawFn) -> str:
    dot = draw(st.sampled_from([".", " . ", "\t."]))
    return dot.join(draw(st.lists(keys(), min_size=1, max_size=3)))


STRINGS = st.one_of(
    QUOTED.map(basic),
    st.text('ab#]},=.["', max_size=6).map(lambda text: f"'{text}'"),
    st.text("ab#]}'\n\",", max_size=9)
    .filter(lambda text: '"""' not in text and not text.endswith('"'))
    .map(lambda text: f'"""{text}"""'),
    st.text("ab#]}\"\n',", max_size=9)
    .filter(lambda text: "'''" not in text and not text.endswith("'"))
    .map(lambda text: f"'''{text}'''"),
    st.sampled_from(['""""a"""', '"""a"""""', '"""a\\"""""""', "''''a''''", '"""\\\n  a"""', '""', "''"]),
)
SCALARS = st.one_of(
    STRINGS,
    st.sampled_from(["1", "-0.5", "true", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00", "0xff", "inf", "1e5"]),
)
SPACE = st.sampled_from(["", " ", "\n", "\n  # a ] comment = [\n", "\t\r\n"])


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def build(items: list[str], space: str, comma: bool) -> str:
        return f"[{space}" + f"{space},{space}".join(items) + (f"{space}," if comma and items else "") + f"{space}]"

    return st.builds(build, st.lists(inner, max_size=3), SPACE, st.booleans())


def inline_tables(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.lists(st.tuples(dotted(), inner), max_size=3)
    return pairs.map(lambda found: "{ " + ", ".join(f"{key} = {value}" for key, value in found) + " }")


VALUES = st.recursive(SCALARS, lambda inner: st.one_of(arrays(inner), inline_tables(inner)), max_leaves=6)
LINES = st.one_of(
    st.tuples(dotted(), VALUES, st.sampled_from(["", " # note = [x]"])).map(
        lambda line: f"{line[0]} = {line[1]}{line[2]}"
    ),
    dotted().map(lambda key: f"[{key}]"),
    st.sampled_from(["[[a]]", "[[ b . c ]]", "[a.b]", "[a.x]", "[b.c.d]", "[[a.b]]", "[[a.y]]"]),
    st.sampled_from(["", "# comment", "   ", "\t# [x]"]),
)


def is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Build line by line, leaving out what would make the text invalid (a key that is there already)."""
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = ""
    for line in draw(st.lists(LINES, max_size=12)):
        if is_toml(text + line + end):
            text += line + end
    return text


@given(documents())
def test_key_paths_are_those_of_tomllib(text: str) -> None:
    assert set(key_lines(text)) == set(paths(tomllib.loads(text)))


@given(documents(), st.integers(1, 5))
def test_lines_move_with_the_text(text: str, more: int) -> None:
    moved = key_lines("# one more line\n" * more + text)
    assert moved == {path: line + more for path, line in key_lines(text).items()}


@given(st.lists(st.tuples(BARE, VALUES), max_size=8, unique_by=lambda pair: pair[0]))
def test_each_key_is_on_its_line(pairs: list[tuple[str, str]]) -> None:
    text, expected = "", {}
    for key, value in pairs:
        expected[(key,)] = text.count("\n") + 1
        text += f"{key} = {value}\n"
    found = key_lines(text)
    assert {path: line for path, line in found.items() if len(path) == 1} == expected


def test_third_rule_has_its_own_line() -> None:
    text = "x = 1\n[[rule]]\nport = 1\n\n[[rule]]\n[rule.more]\na = 1\n[[rule]]\nname = 'c'\nport = [\n 80,\n 81,\n]\n"
    lines = key_lines(text)
    assert lines["rule", 0] == 2
    assert lines["rule", 1] == 5
    assert lines["rule", 1, "more", "a"] == 7
    assert lines["rule", 2] == 8
    assert lines["rule", 2, "port"] == 10
    assert lines["rule", 2, "port", 1] == 12
