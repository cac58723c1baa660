"""The rule list: first match, two judgements, what is private, and the words of `tabi explain`."""

import pickle
from collections.abc import Sequence
from ipaddress import ip_address, ip_network

import pytest

from tabi.addr import Address, Endpoint, parse_host
from tabi.errors import Reply
from tabi.policy.criteria import (
    Choice,
    Clients,
    Criterion,
    Hosts,
    Listeners,
    Ports,
    Target,
    Times,
    Userids,
    Users,
    client_of,
    listener_of,
)
from tabi.policy.names import NameSet
from tabi.policy.networks import PRIVATE, NetworkSet, PrivateNetworks
from tabi.policy.rule import Rule
from tabi.policy.rules import NOTHING_MATCHED, RULE_0, RuleList
from tabi.policy.spans import Spans
from tabi.policy.verdict import ALL_PORTS, Context, Grants, Request, Verdict, is_trusted
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

REMOTE, LOCAL = "198.51.100.20", "127.0.0.1"


def target(*entries: str) -> Target:
    """Make a `to` of names, networks and @private, with ! for what is left out."""

    def hosts(texts: Sequence[str]) -> tuple[Hosts, ...]:
        networks = [ip_network(text) for text in texts if text[0].isdigit() or ":" in text]
        names = NameSet(text for text in texts if not text[0].isdigit() and ":" not in text and text[0] != "@")
        written = Hosts(
            names=names,
            networks=NetworkSet(networks),
            inside=NetworkSet(one for one in networks if PRIVATE.covers(one)),
        )
        return (written, *(Hosts(networks=PRIVATE, inside=PRIVATE) for text in texts if text == "@private"))

    meant = [entry for entry in entries if not entry.startswith("!")]
    left_out = [entry[1:] for entry in entries if entry.startswith("!")]
    return Target(
        within=hosts(meant) if meant else (),
        but=hosts(left_out) if left_out else (),
        shown=", ".join(meant),
        shown_but=", ".join(left_out),
    )


def rule(name: str = "r", *to: str, allow: bool = True, criteria: Sequence[Criterion] = (), **more: object) -> Rule:
    where = target(*to) if to else None
    every = (*criteria, *([where] if where else []))
    return Rule(name=name, allow=allow, criteria=every, target=where, **more)  # type: ignore[arg-type]


def context(client: str = REMOTE, **more: object) -> Context:
    given = {"version": Version.SOCKS5, "method": Method.NONE, **more}
    listener = given.pop("listener", Endpoint.parse("203.0.113.1:1080"))
    return Context(Endpoint.parse(f"{client}:4000"), listener, **given)  # type: ignore[arg-type]


def request(host: str, address: str | None = None, port: int = 443, command: Command = Command.CONNECT) -> Request:
    known: Address | None = ip_address(address) if address else None
    return Request(command, Endpoint(parse_host(host), port), known)


def judge(rules: Sequence[Rule], asked: Request, client: str = REMOTE, **more: object) -> Verdict:
    verdict = RuleList(rules)(asked, context(client, **more))
    explained, _ = RuleList(rules).explain(asked, context(client, **more))
    assert explained == verdict
    return verdict


# first match


def test_first_rule_that_matches_decides() -> None:
    rules = [rule("a", "a.example", allow=False), rule("b", "*.example"), rule("c", "*.example", allow=False)]
    assert not judge(rules, request("a.example")).allow
    assert judge(rules, request("b.example")).rule == "b"


def test_nothing_matches_is_refused() -> None:
    verdict = judge([rule("a", "a.example")], request("b.example"))
    assert (verdict.allow, verdict.rule, verdict.reply, verdict.number) == (
        False,
        NOTHING_MATCHED,
        Reply.NOT_ALLOWED,
        0,
    )
    assert not judge([], request("b.example")).allow


def test_refusing_rule_says_its_reply_and_how_it_is_logged() -> None:
    rules = [rule("a", allow=False, reply=Reply.TTL_EXPIRED, grants=Grants(log="warning"))]
    verdict = judge(rules, request("a.example"))
    assert verdict.reply is Reply.TTL_EXPIRED
    assert verdict.grants.log == "warning"


def test_unmet_auth_refuses_and_is_not_passed_on() -> None:
    rules = [rule("a", auth=frozenset({Method.USERPASS})), rule("b")]
    verdict = judge(rules, request("a.example"))
    assert (verdict.allow, verdict.rule, verdict.reply) == (False, "a", Reply.NOT_ALLOWED)
    assert verdict.note == "the rule is for clients that log in with a password, and this one has not"
    assert judge(rules, request("a.example"), method=Method.USERPASS, user=b"alice").allow


def test_rule_can_be_for_clients_that_do_not_log_in() -> None:
    rules = [rule("guests", auth=frozenset({Method.NONE})), rule("b")]
    assert judge(rules, request("a.example")).allow
    verdict = judge(rules, request("a.example"), method=Method.USERPASS, user=b"alice")
    assert (verdict.allow, verdict.rule) == (False, "guests")
    assert verdict.note == "the rule is for clients that do not log in, and this one has"


def test_literals_can_be_refused() -> None:
    rules = [rule("a", "1.2.3.4", "a.example", literals=False), rule("b")]
    assert judge(rules, request("a.example")).allow
    verdict = judge(rules, request("1.2.3.4"))
    assert (verdict.allow, verdict.rule) == (False, "a")
    assert "names only" in verdict.note


def test_refusal_says_what_refused_since_when_and_why() -> None:
    named = Verdict(allow=False, rule="web", number=2, note="the target is an address")
    assert named.refusal() == 'refused by rule "web": the target is an address'
    assert named.refusal("after a reload") == 'refused by rule "web" after a reload: the target is an address'
    assert Verdict(allow=False, rule=NOTHING_MATCHED).refusal() == "no rule matched"


# names and addresses


def test_literal_never_matches_a_name() -> None:
    assert not judge([rule("a", "*")], request("1.2.3.4")).allow


def test_name_matches_a_network_by_its_address() -> None:
    rules = [rule("a", "1.2.3.0/24")]
    assert judge(rules, request("a.example")).tentative
    assert judge(rules, request("a.example", "1.2.3.4")).allow
    assert not judge(rules, request("a.example", "1.2.4.4")).allow


def test_dns_is_not_asked_where_no_rule_could_allow() -> None:
    rules = [rule("a", "1.2.3.0/24", criteria=[Ports(Spans([(80, 81)]), "80")]), rule("b", "b.example")]
    assert not judge(rules, request("a.example", port=443)).allow
    assert judge(rules, request("a.example", port=80)).allow


def test_refusal_by_name_comes_before_the_look_up() -> None:
    rules = [rule("a", "*.example", allow=False), rule("b")]
    assert not judge(rules, request("a.example")).allow


def test_undecided_allow_before_a_sure_refusal_is_looked_up() -> None:
    rules = [rule("a", "1.2.3.0/24"), rule("b", allow=False)]
    assert judge(rules, request("a.example")).allow
    assert judge(rules, request("a.example", "1.2.3.4")).rule == "a"
    assert judge(rules, request("a.example", "5.6.7.8")).rule == "b"


def test_undecided_allow_before_an_unmet_one_is_looked_up() -> None:
    rules = [rule("a", "1.2.3.0/24"), rule("b", auth=frozenset({Method.USERPASS}))]
    assert judge(rules, request("a.example")).rule == "a"
    assert judge(rules, request("a.example", "1.2.3.4")).allow


def test_rule_that_would_be_unmet_is_no_reason_to_look_up() -> None:
    rules = [rule("a", "1.2.3.0/24", auth=frozenset({Method.USERPASS}))]
    assert not judge(rules, request("a.example")).allow


def test_refusal_behind_a_rule_that_would_be_unmet_is_the_one_that_is_told() -> None:
    rules = [
        rule("a", "1.2.3.0/24", auth=frozenset({Method.USERPASS})),
        rule("b", allow=False, reply=Reply.TTL_EXPIRED),
    ]
    verdict = judge(rules, request("a.example"))
    assert (verdict.rule, verdict.reply) == ("b", Reply.TTL_EXPIRED)


def test_allow_behind_an_undecided_refusal_is_tentative() -> None:
    rules = [rule("a", "1.2.3.0/24", allow=False), rule("b")]
    assert judge(rules, request("a.example")).tentative
    assert not judge([rule("b")], request("a.example")).tentative


VIA = Grants(via=("office",))
LEFT = Grants(via=("tor",), resolve="upstream")


def test_what_does_not_race_goes_through_upstreams_unless_the_direct_way_is_the_first() -> None:
    assert Grants(via=("a", "direct", "b"), pick="race").upstreams == ("a", "b")
    assert Grants(via=("direct", "a"), pick="race").upstreams == ()
    assert Grants().upstreams == ()


def test_upstream_is_trusted_with_its_ports_and_with_whatever_comes_only_if_with_all() -> None:
    some = ((22, 22), (8000, 8999))
    assert [port for port in (21, 22, 23, 7999, 8000, 8999, 9000) if is_trusted(some, port)] == [22, 8000, 8999]
    assert not is_trusted(some, None)
    assert is_trusted((*some, *ALL_PORTS), None)
    assert is_trusted(ALL_PORTS, 0)


def test_name_goes_to_an_upstream_only_where_no_address_of_it_could_be_refused() -> None:
    anything = rule("r", grants=VIA)
    assert judge([anything], request("db.example"), LOCAL).by_name
    assert not judge([anything], request("db.example"), REMOTE).by_name  # rule 0 has to see the addresses
    assert not judge([rule("r", "db.example", grants=VIA)], request("db.example"), LOCAL).by_name  # as before
    assert not judge([rule("no", "@private", allow=False), anything], request("db.example"), LOCAL).by_name
    assert not judge([anything], request("db.example", "192.0.2.1"), LOCAL).by_name
    assert not judge([anything], request("192.0.2.1"), LOCAL).by_name
    assert not judge([rule("r")], request("db.example"), LOCAL).by_name


def test_rule_that_leaves_look_ups_to_the_upstream_has_only_names_judged() -> None:
    rules = [rule("no", "@private", "ads.example", allow=False), rule("near", "10.0.0.0/8"), rule("tor", grants=LEFT)]
    verdict = judge(rules, request("db.example"))
    assert (verdict.rule, verdict.by_name, verdict.tentative) == ("tor", True, False)
    assert not judge(rules, request("ads.example")).allow
    assert not judge(rules, request("10.0.0.1")).by_name
    assert judge(rules, request("10.0.0.1"), REMOTE).rule == "no"


def test_upstream_looks_up_only_what_its_rule_allows_by_the_name_alone() -> None:
    verdict = judge([rule("tor", "*.onion", "198.51.100.0/24", grants=LEFT)], request("db.example"))
    assert (verdict.allow, verdict.by_name, verdict.tentative) == (True, False, True)
    assert judge([rule("tor", "*.onion", "198.51.100.0/24", grants=LEFT)], request("x.onion")).by_name
    lacking = judge([rule("tor", grants=LEFT, auth=frozenset({Method.USERPASS}))], request("x.onion"))
    assert (lacking.allow, lacking.by_name) == (False, False)


def test_negation_takes_out() -> None:
    rules = [rule("a", "*.example", "!bad.example", "!1.2.3.0/24")]
    assert judge(rules, request("a.example")).tentative
    assert judge(rules, request("a.example", "5.6.7.8")).allow
    assert not judge(rules, request("a.example", "1.2.3.4")).allow
    assert not judge(rules, request("bad.example")).allow


def test_address_in_a_carried_form_is_in_the_network_too() -> None:
    rules = [rule("a", "203.0.113.0/24", allow=False), rule("b")]
    for form in ("64:ff9b::203.0.113.9", "2002:cb00:7109::1", "::ffff:203.0.113.9"):
        assert judge(rules, request(form)).rule == "a", form


# private networks


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::1", "64:ff9b::10.0.0.1", "203.0.113.1"])
def test_remote_client_needs_a_rule_that_names_the_network(address: str) -> None:
    """203.0.113.1 is the address that the client came in by."""
    for asked in (request(address), request("a.example", address)):
        verdict = judge([rule("all")], asked)
        assert (verdict.allow, verdict.rule, verdict.number) == (False, RULE_0, 0)
        assert '"to" names @private' in verdict.note
        assert not judge([rule("wide", "0.0.0.0/0", "::/0", "*")], asked).allow


def test_rule_that_names_the_network_opens_it() -> None:
    assert judge([rule("all"), rule("lan", "10.0.0.0/16")], request("10.0.0.1")).rule == "lan"
    assert judge([rule("private", "@private")], request("10.0.0.1")).allow
    assert not judge([rule("lan", "10.0.0.0/16")], request("10.1.0.1")).allow


def test_rule_with_only_names_opens_nothing_private_to_anybody() -> None:
    for client in (REMOTE, LOCAL):
        rules = [rule("names", "rebind.example")]
        assert judge(rules, request("rebind.example"), client).allow
        assert not judge(rules, request("rebind.example", "127.0.0.1"), client).allow
        assert judge(rules, request("rebind.example", "8.8.8.8"), client).allow


def test_client_on_this_host_reaches_private_networks_by_any_rule_about_networks() -> None:
    assert judge([rule("all")], request("10.0.0.1"), LOCAL).allow
    assert judge([rule("all but", "!10.1.0.0/16")], request("10.0.0.1"), LOCAL).allow
    assert judge([rule("wide", "0.0.0.0/0")], request("10.0.0.1"), LOCAL).allow
    assert judge([rule("all")], request("a.example", "::1"), "::1".join(["[", "]"])).allow


def test_refusing_rule_sees_private_addresses_as_any_other() -> None:
    rules = [rule("all"), rule("no", "10.0.0.0/8", allow=False, reply=Reply.TTL_EXPIRED)]
    assert judge(rules, request("10.0.0.1")).reply is Reply.TTL_EXPIRED


def test_own_addresses_are_private() -> None:
    own = PrivateNetworks([ip_address("198.51.100.7")])
    rules = RuleList([rule("all")], own)
    assert rules(request("198.51.100.7"), context()).rule == RULE_0
    assert rules(request("198.51.100.8"), context()).allow


def test_any_peer_of_bind_is_no_private_address() -> None:
    verdict = judge([rule("all", grants=Grants(any_peer=True))], request("0.0.0.0", command=Command.BIND))
    assert verdict.allow
    assert not judge([rule("all")], request("0.0.0.0")).allow


# a UDP association as such


def test_association_waits_for_its_datagrams() -> None:
    association = Request(Command.UDP_ASSOCIATE, None)
    rules = [rule("a", "1.2.3.0/24", criteria=[Ports(Spans([(53, 54)]), "53")], grants=Grants(full_cone=True))]
    verdict = judge(rules, association)
    assert (verdict.allow, verdict.tentative, verdict.grants.full_cone) == (True, True, True)
    assert not judge([rule("a", "1.2.3.0/24", allow=False)], association).allow
    assert not judge([], association).allow
    assert judge([rule("a", literals=False)], association).allow


# other criteria


def test_clients_are_chosen_by_their_networks() -> None:
    office = Clients(
        within=tuple(NetworkSet([ip_network(text)]) for text in ("198.51.100.0/24", "2001:db8::/32")),
        but=(NetworkSet([ip_network("198.51.100.128/25")]),),
    )
    for client, expected in ((REMOTE, True), ("[2001:db8::9]", True), ("198.51.100.200", False), ("192.0.2.1", False)):
        assert judge([rule("a", criteria=[office])], request("a.example"), client).allow == expected, client


def test_client_that_has_a_name_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError, match="has an address"):
        client_of(context("client.example"))


def test_users_are_those_who_logged_in() -> None:
    alice = Users(names=frozenset({b"alice"}), groups=frozenset({"staff"}), not_names=frozenset({b"bob"}))
    rules = [rule("a", criteria=[alice])]
    assert judge(rules, request("a.example"), user=b"alice").allow
    assert judge(rules, request("a.example"), user=b"carol", groups=frozenset({"staff"})).allow
    assert not judge(rules, request("a.example"), user=b"bob", groups=frozenset({"staff"})).allow
    assert not judge(rules, request("a.example"), user=b"carol").allow
    assert not judge(rules, request("a.example")).allow
    assert not judge(rules, request("a.example"), userid=b"alice").allow


@pytest.mark.parametrize(("nobody", "allowed"), [(True, False), (False, True)])
def test_refusing_all_but_alice_can_mean_who_did_not_log_in(nobody: bool, allowed: bool) -> None:
    others = Users(not_names=frozenset({b"alice"}), nobody=nobody)
    rules = [rule("a", allow=False, criteria=[others]), rule("b")]
    assert judge(rules, request("a.example")).allow == allowed
    assert judge(rules, request("a.example"), user=b"alice").allow
    assert not judge(rules, request("a.example"), user=b"bob").allow


def test_userid_is_matched_as_claimed() -> None:
    import re

    builders = Userids(patterns=(re.compile(b"build.*"), re.compile(b"")), but=(re.compile(b"build-x"),))
    for claimed, expected in ((b"build1", True), (b"", True), (b"build-x", False), (b"other", False)):
        assert judge([rule("a", criteria=[builders])], request("a.example"), userid=claimed).allow == expected


@pytest.mark.parametrize(
    ("choice", "more", "expected"),
    [
        (Choice("version", frozenset({"4a"}), ""), {"version": Version.SOCKS4A}, True),
        (Choice("version", frozenset({"4a"}), ""), {}, False),
        (Choice("method", frozenset({"password"}), ""), {"method": Method.USERPASS}, True),
        (Choice("method", frozenset({"password"}), ""), {}, False),
        (Choice("command", frozenset({"connect"}), ""), {}, True),
        (Choice("command", frozenset({"associate"}), ""), {}, False),
    ],
)
def test_words_choose(choice: Choice, more: dict[str, object], expected: bool) -> None:
    assert judge([rule("a", criteria=[choice])], request("a.example"), **more).allow == expected


def test_time_of_the_week_chooses() -> None:
    rules = [rule("a", criteria=[Times(Spans([(480, 1080)]), "Mon 08:00-18:00")])]
    for minute, expected in ((479, False), (480, True), (1079, True), (1080, False)):
        assert judge(rules, request("a.example"), minute_of_week=minute).allow == expected


KNOWN = tuple(map(Endpoint.parse, ("0.0.0.0:1080", "192.0.2.1:1080", "[::]:1080", "[::]:1081", "127.0.0.1:1082")))


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        ("192.0.2.1:1080", "192.0.2.1:1080"), ("192.0.2.2:1080", "0.0.0.0:1080"), ("[2001:db8::1]:1080", "[::]:1080"),
        ("192.0.2.1:1081", "[::]:1081"), ("127.0.0.1:1082", "127.0.0.1:1082"), ("192.0.2.1:1082", None),
    ],
)  # fmt: skip
def test_connection_came_in_by_the_listener_that_the_kernel_prefers(actual: str, expected: str | None) -> None:
    found = listener_of(KNOWN, Endpoint.parse(actual))
    assert found == (None if expected is None else Endpoint.parse(expected))


def test_listener_chooses() -> None:
    one = Listeners(known=KNOWN, within=frozenset({KNOWN[0]}), but=frozenset({KNOWN[1]}))
    for actual, expected in (("192.0.2.2:1080", True), ("192.0.2.1:1080", False), ("[2001:db8::1]:1080", False)):
        asked = judge([rule("a", criteria=[one])], request("a.example"), listener=Endpoint.parse(actual))
        assert asked.allow == expected, actual


@pytest.mark.parametrize(("within", "allowed"), [([], True), ([KNOWN[0]], False)])
def test_connection_by_an_unknown_listener_came_in_by_none_that_is_named(
    within: list[Endpoint], *, allowed: bool
) -> None:
    one = Listeners(known=KNOWN, within=frozenset(within), but=frozenset({KNOWN[1]}))
    asked = judge([rule("a", criteria=[one])], request("a.example"), listener=Endpoint.parse("192.0.2.1:1083"))
    assert asked.allow == allowed


# explaining


def test_explanation_says_why_each_rule_did_not_match() -> None:
    rules = RuleList([
        rule("own", "@private", allow=False),
        rule("web", "*.example", "!bad.example", criteria=[Ports(Spans([(80, 81), (443, 444)]), "80, 443")]),
        rule("lan", criteria=[Users(groups=frozenset({"staff"}), shown="@staff")]),
        rule("office", criteria=[Clients(within=(NetworkSet([ip_network("10.0.0.0/8")]),), shown="10.0.0.0/8")]),
    ])  # fmt: skip
    _, trials = rules.explain(request("db.example", "203.0.113.9", 5432), context())
    assert [(trial.number, trial.outcome, trial.why) for trial in trials] == [
        (1, "no", "203.0.113.9 (db.example) is not in @private"),
        (2, "no", "port 5432 is not in 80, 443"),
        (3, "no", "the client has not logged in, and user is to be in @staff"),
        (4, "no", "client 198.51.100.20 is not in 10.0.0.0/8"),
    ]
    _, trials = rules.explain(request("bad.example", "203.0.113.9"), context(user=b"bob"))
    assert trials[1].why == "203.0.113.9 (bad.example) is in bad.example, which is left out"
    assert trials[2].why == "user bob is not in @staff"


def test_explanation_has_rule_0_with_its_advice() -> None:
    verdict, trials = RuleList([rule("all")]).explain(request("10.0.0.1"), context())
    assert not verdict.allow
    assert (trials[-1].number, trials[-1].rule) == (0, RULE_0)
    assert "names @private or a network inside it" in trials[-1].why
    assert trials[0].why == "10.0.0.1 is in @private, which this rule does not open"


def test_list_that_was_pickled_judges_as_before() -> None:
    rules = RuleList([rule("a", "*.example"), rule("b", "10.0.0.0/8")])
    copy = pickle.loads(pickle.dumps(rules))
    for asked in (request("x.example"), request("10.1.1.1"), request("192.0.2.1")):
        assert copy(asked, context()) == rules(asked, context())


def test_association_as_such_is_shown_in_words() -> None:
    assert Request(Command.UDP_ASSOCIATE, None).shown == "the association"
