"""Sets of names against a slow reading of their patterns."""

import fnmatch
import pickle
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.addr import Name
from tabi.policy.names import Chains, Globs, NameSet, glob

LABELS = st.text("abx-", min_size=1, max_size=3).filter(lambda label: not label.startswith("-"))
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
WILD = st.lists(st.text("ab*?", min_size=1, max_size=3), min_size=1, max_size=3).map(".".join)
PATTERNS = st.one_of(NAMES, NAMES.map(lambda name: f"*.{name}"), WILD, st.just("*"))


def means(pattern: str, name: str) -> bool:
    """Read a pattern as the documents explain it; shell globs do the same, for names have no brackets."""
    return fnmatch.fnmatchcase(name, pattern)


@given(st.lists(PATTERNS, max_size=6), NAMES)
def test_name_is_in_the_set_if_a_pattern_means_it(patterns: list[str], name: str) -> None:
    assert (Name(name) in NameSet(patterns)) == any(means(pattern, name) for pattern in patterns)


@given(st.lists(PATTERNS, max_size=4), PATTERNS, NAMES)
def test_covered_pattern_means_nothing_else(patterns: list[str], asked: str, name: str) -> None:
    known = NameSet(patterns)
    if known.covers(asked) and means(asked, name):
        assert Name(name) in known


@pytest.mark.parametrize(
    ("patterns", "asked"),
    [
        (["a.example"], "a.example"), (["*.example"], "a.example"), (["*.example"], "*.a.example"),
        (["*.example"], "*.example"), (["*"], "*.example"), (["m*.example"], "m*.example"), (["m*"], "mail.example"),
    ],
)  # fmt: skip
def test_plainly_covered_patterns_are_covered(patterns: list[str], asked: str) -> None:
    assert NameSet(patterns).covers(asked)


def test_pattern_with_other_wildcards_is_not_said_to_be_covered() -> None:
    assert not NameSet(["m*.example"]).covers("mail-?.example")
    assert not NameSet(["mail-?.example"]).covers("m*.example")


def test_name_with_all_that_a_pattern_has_but_in_another_order_is_not_meant() -> None:
    names = NameSet(["mail*.example"])
    assert Name("mail2.example") in names
    assert Name("x.example.mail") not in names


def test_suffix_does_not_mean_the_name_itself() -> None:
    names = NameSet(["*.example.org"])
    assert Name("a.b.example.org") in names
    assert Name("example.org") not in names
    assert Name("badexample.org") not in names


@given(st.lists(PATTERNS, max_size=6))
def test_set_gives_back_what_was_put_in(patterns: list[str]) -> None:
    assert set(NameSet(patterns)) == set(patterns)
    assert len(NameSet(patterns)) == len(set(patterns))


@given(st.text("ab*?.[]^$\\", max_size=8), st.text("ab.[]^$\\", max_size=8))
def test_glob_means_what_a_slow_matcher_says(pattern: str, text: str) -> None:
    assert bool(re.fullmatch(glob(pattern), text, re.DOTALL)) == slow_match(pattern, text)


def slow_match(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(slow_match(pattern[1:], text[cut:]) for cut in range(len(text) + 1))
    return bool(text) and pattern[0] in ("?", text[0]) and slow_match(pattern[1:], text[1:])


def test_glob_has_no_backtracking_trap() -> None:
    """With a greedy star for each of these, matching would take longer than the universe has lasted."""
    pattern = re.compile(glob("*a" * 60 + "b"))
    assert pattern.fullmatch("a" * 250) is None
    assert pattern.fullmatch("a" * 250 + "b") is not None


# patterns that have hardly a character besides stars


@given(st.lists(st.text("ab.*", min_size=1, max_size=9), max_size=8), st.text("ab.", min_size=1, max_size=12))
def test_chains_find_what_each_pattern_means(patterns: list[str], name: str) -> None:
    patterns = [pattern for pattern in patterns if "*" in pattern]
    expected = sorted({pattern for pattern in patterns if means(pattern, name)})
    assert sorted(Chains(set(patterns)).matching(name)) == expected
    assert sorted(Globs({one: re.compile(glob(one)) for one in patterns}).matching(name)) == expected


class Counting(str):
    """A name that counts how often something is sought in it."""

    searches = 0

    def find(self, *arguments: Any) -> int:  # Any: those of str.find
        """See `str.find`."""
        self.searches += 1
        return super().find(*arguments)


def test_a_name_costs_one_search_for_each_text_at_most() -> None:
    """Row F6: were it tried at each place, it would be as many as there are ways to choose twelve places of 252."""
    name = Counting("a" * 252)
    assert list(Chains(["*a" * 12 + "*b"]).matching(name)) == []
    assert name.searches == 12


def test_what_patterns_begin_with_is_sought_once() -> None:
    name = Counting("x.a.b.c.y")
    patterns = [f"*a*b*{letter}*" for letter in "cdefgh"]
    assert list(Chains(patterns).matching(name)) == ["*a*b*c*"]
    assert name.searches == 2 + len(patterns)


def test_set_of_the_longest_patterns_can_be_sent_to_another_process() -> None:
    patterns = ["*" + "*".join("a" * 126), "*" + "*".join("b" * 126)]
    again = pickle.loads(pickle.dumps(NameSet(patterns)))
    assert Name(".".join("a" * 126)) in again
    assert Name(".".join("a" * 125)) not in again
