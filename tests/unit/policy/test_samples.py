"""Requests that are made up for a rule do match it."""

import pytest

from helpers.odd import Odd
from tabi.config.load import load_text
from tabi.policy.criteria import Ports
from tabi.policy.rule import Rule
from tabi.policy.samples import MOST, Members, samples
from tabi.policy.spans import Spans

HEAD = """
listen = ["127.0.0.1:1080", "0.0.0.0:1081"]
auth = "any"
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


@pytest.mark.parametrize(
    ("rule", "number"),
    [
        ("allow = true", 1), ("allow = true; port = ['80-90', 443]", 3), ("allow = true; user = '@staff'", 1),
        ("refuse = 'not-allowed'; user = '!alice'", 2), ("allow = true; userid = ['joe', '']", 2),
        ("allow = true; from = ['!10.0.0.0/8', '203.0.113.0/24', '2001:db8::1']", 3),
        ("allow = true; to = ['*.example', 'a*.test', '10.0.0.0/8', '!b.test']", 5),
        ("allow = true; time = 'Mon-Fri 08:00-18:00'", 10), ("allow = true; listener = '0.0.0.0:1081'", 1),
        ("allow = true; version = ['4', '4a']", 2), ("allow = true; method = 'password'; command = 'bind'", 1),
        ("allow = true; to = '!@private'", 1), ("allow = true; port = '!25'", 4),
        (f"allow = true; port = {list(range(1, 999, 2))}", MOST),
    ],
)  # fmt: skip
def test_samples_match_their_rule(rule: str, number: int) -> None:
    text = rule.replace("; ", "\n").replace("allow = true", "allow = true\nopen = true")
    loaded = load_text(f"{HEAD}[[rule]]\n{text}", "x").rules.rules[0]
    made = list(samples(loaded, Members(USERS)))
    assert len(made) == number
    assert all(loaded.test(request, context) is True for request, context in made)
    assert len(set(map(str, made))) == number


def test_criterion_of_an_unknown_kind_leaves_samples_to_the_others() -> None:
    rule = Rule(name="odd", allow=True, criteria=(Odd(truth=True), Ports(Spans([(80, 82)]), "80-81")))
    ports = [request.target.port for request, _ in samples(rule, Members(USERS)) if request.target is not None]
    assert ports == [80, 81]
