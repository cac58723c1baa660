"""What the index of rules does beside its tables; tests/property/test_index.py compares it with the walk."""

from ipaddress import ip_address, ip_network

import pytest

from helpers.odd import Odd
from tabi.addr import Endpoint
from tabi.policy import tables
from tabi.policy.criteria import Hosts, Ports, Target, Truth
from tabi.policy.names import NameSet
from tabi.policy.networks import NetworkSet
from tabi.policy.rule import Rule
from tabi.policy.rules import RuleList
from tabi.policy.spans import Spans
from tabi.policy.verdict import Context, Request, Verdict
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version


def judge(*rules: Rule, to: str = "203.0.113.9:443") -> Verdict:
    asked = Request(Command.CONNECT, Endpoint.parse(to))
    client = Endpoint(ip_address("198.51.100.1"), 4000)
    context = Context(client, Endpoint.parse("192.0.2.1:1080"), Version.SOCKS5, Method.NONE)
    verdict = RuleList(rules)(asked, context)
    assert verdict == RuleList(rules).explain(asked, context)[0]
    return verdict


@pytest.mark.parametrize(
    ("truth", "allow", "tentative"), [(True, True, False), (None, True, True), (False, False, False)]
)
def test_criterion_of_an_unknown_kind_is_asked_itself(truth: Truth, *, allow: bool, tentative: bool) -> None:
    verdict = judge(Rule(name="odd", allow=True, criteria=(Odd(truth),)))
    assert (verdict.allow, verdict.tentative) == (allow, tentative)


def test_undecided_rule_for_names_only_does_not_let_an_address_pass() -> None:
    assert not judge(Rule(name="odd", allow=True, criteria=(Odd(None),), literals=False)).allow


def test_each_of_two_criteria_of_a_kind_must_match() -> None:
    web, low = Ports(Spans([(443, 444)]), "443"), Ports(Spans([(1, 100)]), "1-99")
    assert not judge(Rule(name="both", allow=True, criteria=(web, low))).allow
    assert judge(Rule(name="both", allow=True, criteria=(web, web))).allow


@pytest.mark.parametrize(
    ("to", "number"),
    [("a.example:443", 1), ("b.example:443", 2), ("203.0.113.9:443", 2), ("203.0.114.9:443", 0)],
)
def test_large_set_has_the_same_members(monkeypatch: pytest.MonkeyPatch, to: str, number: int) -> None:
    monkeypatch.setattr(tables, "_MOST_FILED", 0)  # every set is too large to be taken apart
    names = Target(within=(Hosts(names=NameSet(["a.example"])),))
    networks = Target(within=(Hosts(networks=NetworkSet([ip_network("203.0.113.0/24")])),))
    rules = [Rule(name="of a set", allow=True, criteria=(one,), target=one) for one in (names, networks)]
    verdict = judge(*rules, to=to)
    assert (verdict.number, verdict.tentative) == (number, to == "b.example:443")  # it may lead into the network
