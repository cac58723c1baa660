"""Rules that can never match are found, and no others."""

import pytest

from helpers.odd import Odd
from tabi.config.load import load_text
from tabi.policy import covering
from tabi.policy.covering import Covered, find_covered
from tabi.policy.rule import Rule
from tabi.policy.rules import RuleList

HEAD = """
listen = ["127.0.0.1:1080"]
[[user]]
name = "alice"
password = "x"
plain = true
groups = ["staff"]
[[user]]
name = "bob"
password = "x"
plain = true
"""
USERS = {b"alice": frozenset({"staff"}), b"bob": frozenset[str]()}


def covered(*rules: str) -> list[tuple[int, int]]:
    found = find(*rules)
    assert found.compared == len(rules)
    return list(found.pairs)


def find(*rules: str) -> Covered:
    text = HEAD + "".join(f"[[rule]]\nname = 'rule {number}'\n{rule}\n" for number, rule in enumerate(rules))
    return find_covered(load_text(text.replace(";", "\n"), "x").rules, USERS)


ALLOW, REFUSE = "allow = true", "refuse = 'not-allowed'"


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (ALLOW, ALLOW),
        (REFUSE, REFUSE),
        (REFUSE, f"{ALLOW}; to = '10.0.0.0/8'"),
        (f"{REFUSE}; to = '*.example'", f"{ALLOW}; to = ['a.example', '*.b.example']"),
        (f"{REFUSE}; to = ['a.example', 'b.example']", f"{ALLOW}; to = 'b.example'; port = 80"),
        (f"{REFUSE}; to = '*'", f"{ALLOW}; to = 'm*.example'"),
        (f"{REFUSE}; to = '8.0.0.0/8'", f"{REFUSE}; to = ['8.8.0.0/16', '8.9.9.9']"),
        (f"{REFUSE}; to = '@private'", f"{ALLOW}; to = '10.1.0.0/16'"),
        (f"{REFUSE}; to = '@private'", f"{ALLOW}; to = '@private'; port = 80"),
        (f"{REFUSE}; port = '1-1023'", f"{ALLOW}; port = [80, '443-444']"),
        (f"{REFUSE}; from = ['10.0.0.0/9', '10.128.0.0/9']", f"{ALLOW}; from = '10.0.0.0/8'"),
        (f"{REFUSE}; user = '@staff'", f"{ALLOW}; user = 'alice'"),
        (f"{REFUSE}; user = '!bob'", f"{ALLOW}; user = 'alice'"),
        (f"{REFUSE}; version = '!5'", f"{ALLOW}; version = '4'"),
        (f"{REFUSE}; command = ['connect', 'bind']", f"{ALLOW}; command = 'bind'"),
        (f"{REFUSE}; time = 'Mon-Fri'", f"{ALLOW}; time = 'Tue 08:00-09:00'"),
        (f"{REFUSE}; userid = ['a', 'b']", f"{ALLOW}; userid = 'b'"),
        (f"{REFUSE}; userid = '!a'", f"{ALLOW}; userid = ['b', '!a', '!c']"),
        (f"{REFUSE}; listener = '127.0.0.1:1080'", f"{ALLOW}; listener = '127.0.0.1:1080'; to = '*.example'"),
        (f"{REFUSE}; to = ['*.example', '!a.example']", f"{ALLOW}; to = ['b.example', '!a.example']"),
        (f"{REFUSE}; to = '!a.example'", f"{ALLOW}; to = ['b.example', '!a.example']"),
        (f"{ALLOW}; to = '0.0.0.0/0'", f"{ALLOW}; to = '8.8.8.8'"),
        (f"{ALLOW}; to = '0.0.0.0/0'", f"{REFUSE}; to = '8.8.8.8'"),
        (f"{ALLOW}; to = '*.example'", f"{ALLOW}; to = 'a.example'"),
        (f"{ALLOW}; to = '10.0.0.0/8'", f"{ALLOW}; to = '10.1.0.0/16'"),
        (f"{ALLOW}; to = '@private'", f"{ALLOW}; to = '@private'; port = 80"),
    ],
)
def test_rule_within_an_earlier_one_is_found(earlier: str, later: str) -> None:
    assert covered("refuse = 'ttl-expired'; port = 7; to = 'unrelated.test'", earlier, later) == [(2, 1)]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (f"{REFUSE}; to = 'a.example'", ALLOW),
        (f"{REFUSE}; to = '*.example'", f"{ALLOW}; to = ['a.example', 'other.test']"),
        (f"{REFUSE}; to = '*.example'", f"{ALLOW}; to = 'example'"),
        (f"{REFUSE}; to = ['*.example', '!a.example']", f"{ALLOW}; to = 'a.example'"),
        (f"{REFUSE}; to = '8.8.0.0/16'", f"{ALLOW}; to = '8.0.0.0/8'"),
        (f"{REFUSE}; to = '0.0.0.0/0'", f"{ALLOW}; to = 'a.example'"),
        (f"{REFUSE}; port = [80, 443]", f"{ALLOW}; port = '80-443'"),
        (f"{REFUSE}; port = 80; user = 'alice'", f"{ALLOW}; port = 80"),
        (f"{REFUSE}; user = '@staff'", f"{ALLOW}; user = ['alice', 'bob']"),
        (f"{ALLOW}; user = '!bob'", f"{REFUSE}; user = '!bob'"),
        (f"{REFUSE}; user = ['alice', 'bob']", f"{REFUSE}; user = '!bob'"),
        (f"{REFUSE}; userid = 'b'", f"{ALLOW}; userid = 'b*'"),
        (f"{REFUSE}; userid = '!a'", f"{ALLOW}; userid = '!b'"),
        (f"{REFUSE}; version = '4'", f"{ALLOW}; command = 'bind'"),
        # an earlier rule that allows is passed over for private addresses that it does not open
        (ALLOW, REFUSE),
        (ALLOW, f"{REFUSE}; to = 'a.example'"),
        (ALLOW, f"{REFUSE}; to = '10.0.0.0/8'"),
        (ALLOW, f"{REFUSE}; to = '0.0.0.0/0'"),
        (ALLOW, f"{REFUSE}; to = '64:ff9b::/96'"),
        (ALLOW, f"{ALLOW}; to = '10.0.0.0/8'"),
        (f"{ALLOW}; to = '0.0.0.0/0'", f"{ALLOW}; to = '10.0.0.0/8'"),
        (f"{ALLOW}; to = '*.example'", f"{REFUSE}; to = 'a.example'"),
    ],
)
def test_rule_that_matters_is_not_blamed(earlier: str, later: str) -> None:
    assert covered(earlier, later) == []


def test_rule_with_a_criterion_of_an_unknown_kind_covers_none() -> None:
    """Nobody can say which of two such criteria is the wider one, were they equal."""
    rules = [Rule(name=name, allow=False, criteria=(Odd(truth=True),)) for name in ("earlier", "later")]
    assert find_covered(RuleList(rules), USERS).pairs == ()


def test_sample_that_a_rule_leaves_out_itself_says_nothing_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covering, "_FEW", 0)  # samples alone say what is compared
    earlier = f"{REFUSE}; to = ['*.example', '!a.example']"
    assert covered(earlier, f"{ALLOW}; to = ['a.example', 'b.example', '!a.example']") == [(1, 0)]


def test_ten_thousand_rules_are_compared_in_no_time() -> None:
    """Each is looked up by what it names; comparing all pairs would be fifty million comparisons."""
    rules = [f"{REFUSE}; to = 'host{number}.example'; port = {number % 65536}" for number in range(10_000)]
    assert covered(*rules, f"{REFUSE}; to = 'host77.example'; port = 77") == [(10_000, 77)]


def test_rules_that_overlap_only_in_part_are_compared_as_well() -> None:
    common = ", ".join(f"'common{number}.example'" for number in range(10))
    rules = [f"{REFUSE}; to = [{common}, 'host{number}.example']" for number in range(500)]
    assert covered(*rules, f"{REFUSE}; to = ['common3.example', 'host77.example']") == [(500, 77)]


def test_too_many_alike_are_not_compared_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """That one of them leaves something out is seen only by comparing it with each of the others."""
    monkeypatch.setattr(covering, "_STEPS", 1000)
    rules = [f"{REFUSE}; to = '!host{number}.example'" for number in range(100)]
    found = find(*rules, f"{REFUSE}; to = '!host1.example'")
    assert found.pairs == ()
    assert 20 < found.compared < 100
