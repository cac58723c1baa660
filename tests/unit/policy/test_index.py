"""What the index of rules does beside its tables; tests/property/test_index.py compares it with the walk."""

from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from tabi.addr import Endpoint
from tabi.policy.criteria import Ports, Truth
from tabi.policy.rule import Rule
from tabi.policy.rules import RuleList
from tabi.policy.spans import Spans
from tabi.policy.verdict import Context, Request, Verdict
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version


@dataclass(frozen=True)
class Odd:
    """A criterion of a kind that the index does not know."""

    truth: Truth

    def test(self, _request: Request, _context: Context) -> Truth:
        return self.truth

    def why_not(self, _request: Request, _context: Context) -> str:
        return "odd"


def judge(*rules: Rule) -> Verdict:
    asked = Request(Command.CONNECT, Endpoint.parse("203.0.113.9:443"))
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
