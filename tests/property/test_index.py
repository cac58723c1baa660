"""What a rule list answers by its index, against the same list walked rule by rule."""

import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.odd import Odd
from tabi.addr import Endpoint, parse_host
from tabi.policy import masks, tables
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
)
from tabi.policy.names import NameSet, glob
from tabi.policy.networks import PRIVATE, NetworkSet, PrivateNetworks
from tabi.policy.rule import Rule
from tabi.policy.rules import RuleList
from tabi.policy.spans import Spans
from tabi.policy.verdict import NO_GRANTS, Context, Grants, Request
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

# Few of each, so that criteria meet; some sets are shared by rules, as set files are
NAMES = ["a.test", "b.test", "x.a.test", "host"]
PATTERNS = [*NAMES, "*.test", "*.a.test", "*", "?.test", "?*.a.test", "h*"]
ADDRESSES = ["1.2.3.4", "1.2.4.4", "10.0.0.1", "127.0.0.1", "0.0.0.0", "2001:db8::1", "::1", "64:ff9b::a00:1"]
NETWORKS = ["1.2.3.0/24", "1.2.0.0/16", "10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "::/0", "2001:db8::/32", "127.0.0.0/8"]
CLIENTS = ["198.51.100.1", "198.51.100.200", "10.0.0.9", "127.0.0.1", "2001:db8::9"]
CLIENT_NETWORKS = ["198.51.100.0/25", "198.51.100.0/24", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/64"]
LISTENERS = tuple(map(Endpoint.parse, ("0.0.0.0:1080", "203.0.113.1:1080", "203.0.113.1:1081")))
VIA = Grants(via=("u",))
OWN = PrivateNetworks(own=[ip_address("1.2.4.4")])


def some(words: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(words), max_size=3, unique=True)


def hosts(names: list[str], networks: list[str]) -> Hosts:
    known = [ip_network(one) for one in networks]
    inside = NetworkSet(one for one in known if PRIVATE.covers(one))
    return Hosts(names=NameSet(names), networks=NetworkSet(known), inside=inside)


WRITTEN = st.builds(hosts, some(PATTERNS), some(NETWORKS))
SHARED = [
    hosts(["a.test", "*.test"], []), hosts([], ["1.2.3.0/24", "10.0.0.0/8"]), hosts(["h*"], ["::/0"]), hosts([], []),
    Hosts(networks=PRIVATE, inside=PRIVATE), Hosts(networks=OWN, inside=OWN),
]  # fmt: skip
HOSTS = st.lists(st.one_of(WRITTEN, st.sampled_from(SHARED)), max_size=2).map(tuple)
TARGETS = st.builds(Target, within=HOSTS, but=st.one_of(st.just(()), HOSTS))

OF_CLIENTS = st.one_of(
    some(CLIENT_NETWORKS).map(lambda texts: NetworkSet(map(ip_network, texts))),
    st.sampled_from([one.networks for one in SHARED]),
)
CLAIMS = st.lists(
    st.sampled_from([re.compile(glob(one).encode(), re.DOTALL) for one in ("", "joe", "j*", "j.e", "*")]), max_size=2
).map(tuple)
SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 13)), max_size=3).map(Spans)
WORDS = {
    "method": ["none", "password"], "version": ["4", "4a", "5"], "command": ["connect", "bind", "associate"],
}  # fmt: skip


def sets(words: list[str] | list[bytes] | list[Endpoint]) -> st.SearchStrategy[frozenset[object]]:
    return st.frozensets(st.sampled_from(words), max_size=2)


CRITERIA: list[st.SearchStrategy[Criterion]] = [
    TARGETS,
    st.builds(Ports, SPANS, st.just("")),
    st.builds(Times, SPANS, st.just("")),
    st.builds(
        Clients,
        within=st.lists(OF_CLIENTS, max_size=2).map(tuple),
        but=st.lists(OF_CLIENTS, max_size=1).map(tuple),
    ),
    st.builds(
        Users,
        names=sets([b"alice", b"bob"]), groups=sets(["staff", "night"]), not_names=sets([b"alice", b"bob"]),
        not_groups=sets(["night"]), nobody=st.booleans(),
    ),
    st.builds(Userids, patterns=CLAIMS, but=CLAIMS),
    st.builds(
        Listeners,
        known=st.sampled_from([LISTENERS, LISTENERS[:1], ()]), within=sets([*LISTENERS]), but=sets([*LISTENERS]),
    ),
    *(st.builds(Choice, st.just(what), sets(words), st.just("")) for what, words in WORDS.items()),
]  # fmt: skip


# a target in most rules: there undecided criteria, private addresses and literals come together
KINDS = st.lists(st.sampled_from([0, 0, 0, *range(len(CRITERIA))]), max_size=3, unique=True)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    criteria = [draw(CRITERIA[kind]) for kind in draw(KINDS)]
    if draw(st.integers(0, 9)) == 0:
        criteria.append(draw(st.one_of(st.builds(Odd, st.sampled_from([True, False, None])), CRITERIA[1])))
    return Rule(
        name="r",
        allow=draw(st.booleans()),
        criteria=tuple(criteria),
        target=next((one for one in criteria if isinstance(one, Target)), None),
        auth=draw(st.sampled_from([frozenset(), frozenset(), frozenset({Method.NONE}), frozenset({Method.USERPASS})])),
        literals=draw(st.sampled_from([True, True, False])),
        grants=draw(st.sampled_from([NO_GRANTS, VIA, VIA, Grants(via=("u",), resolve="upstream")])),
    )


HOSTS_ASKED = st.sampled_from(NAMES + ADDRESSES).map(parse_host)
LED_TO = st.one_of(st.none(), st.sampled_from(ADDRESSES).map(ip_address))
TARGETS_ASKED = st.builds(Endpoint, HOSTS_ASKED, st.integers(0, 13))
REQUESTS = st.one_of(
    st.builds(Request, st.sampled_from([Command.CONNECT, Command.CONNECT, Command.BIND]), TARGETS_ASKED, LED_TO),
    st.just(Request(Command.UDP_ASSOCIATE, None)),
)


@st.composite
def contexts(draw: st.DrawFn) -> Context:
    user = draw(st.sampled_from([None, b"alice", b"bob", b"carol"]))
    return Context(
        client=Endpoint(ip_address(draw(st.sampled_from(CLIENTS))), 4000),
        listener=draw(st.sampled_from([*map(Endpoint.parse, ("203.0.113.1:1080", "10.0.0.1:1080")), LISTENERS[2]])),
        version=draw(st.sampled_from(Version)),
        method=Method.NONE if user is None else draw(st.sampled_from([Method.NONE, Method.USERPASS])),
        user=user,
        userid=draw(st.sampled_from([b"", b"joe", b"jan"])),
        groups=draw(st.sampled_from([frozenset(), frozenset({"staff"}), frozenset({"staff", "night"})])),
        minute_of_week=draw(st.integers(0, 13)),
    )


@given(
    st.lists(rules(), min_size=1, max_size=8),
    st.lists(st.tuples(REQUESTS, contexts()), min_size=10, max_size=10),
    st.sampled_from([PRIVATE, OWN]),
    # sizes at which keys and sets are kept in another way; no list of this test would come to them by itself
    st.sampled_from([0, 2, 8]),
    st.sampled_from([0, 3, 4096]),
)
@settings(max_examples=500)
def test_index_says_what_the_walk_says(
    listed: list[Rule], asked: list[tuple[Request, Context]], private: PrivateNetworks, few: int, most_filed: int
) -> None:
    with patch.object(masks, "_FEW", few), patch.object(tables, "_MOST_FILED", most_filed):
        judge = RuleList(listed, private)
    for request, context in asked:
        assert judge(request, context) == judge.explain(request, context)[0]


@given(st.lists(rules(), min_size=1, max_size=4), st.sampled_from(NAMES), st.lists(contexts(), min_size=5, max_size=5))
@settings(max_examples=300)
def test_no_address_of_a_name_that_goes_to_an_upstream_unasked_could_be_refused(
    listed: list[Rule], name: str, asked: list[Context]
) -> None:
    judge = RuleList([replace(rule, grants=VIA) for rule in listed])
    target = Endpoint(parse_host(name), 7)
    for context in asked:
        verdict = judge(Request(Command.CONNECT, target), context)
        if verdict.by_name:
            about = [judge(Request(Command.CONNECT, target, ip_address(one)), context) for one in ADDRESSES]
            assert {(one.allow, one.number) for one in about} == {(True, verdict.number)}
