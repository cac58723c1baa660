"""Rule lists, from TOML to verdict, against a slow evaluator that follows the documentation word by word."""

import fnmatch
import json
from dataclasses import dataclass, replace
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from tabi.addr import Endpoint, Name
from tabi.config.load import Configuration, load_text
from tabi.config.openness import find_openings
from tabi.policy import covering
from tabi.policy.covering import covers, find_covered
from tabi.policy.rules import RuleList
from tabi.policy.samples import Members
from tabi.policy.verdict import Context, Request
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

# A small world, in which everything meets everything
NAMES = ["a.example", "b.example", "x.a.example", "host"]
PATTERNS = [*NAMES, "*.example", "*.a.example", "*", "?.example"]
ADDRESSES = ["1.2.3.4", "1.2.4.4", "8.8.8.8", "10.0.0.1", "10.1.0.1", "127.0.0.1"]
NETWORKS = ["1.2.3.0/24", "1.2.0.0/16", "10.0.0.0/16", "10.0.0.0/8", "0.0.0.0/0", "8.8.8.8", "@private"]
# The last two carry 198.51.100.1 and 10.0.0.9 (6to4), which they are not.
CLIENTS = [
    "198.51.100.1", "198.51.100.200", "203.0.113.1", "10.0.0.9", "127.0.0.1", "2002:c633:6401::1", "2002:a00:9::1",
]  # fmt: skip
STRANGERS = [("0.0.0.0:1080", "203.0.113.1"), ("[2001:db8::1]:1080", "2002:a00:9::1"), ("[::]:1080", "2002:a00:9::1")]
CLIENT_NETWORKS = ["198.51.100.0/25", "198.51.100.0/24", "10.0.0.0/8", "127.0.0.0/8", "0.0.0.0/0", "@private"]
USERS = {"alice": ["staff"], "bob": ["staff", "night"], "carol": []}
PRIVATE = [IPv4Network(one) for one in ("10.0.0.0/8", "127.0.0.0/8")]
HEAD = 'listen = ["0.0.0.0:1080"]\n' + "".join(
    f'[[user]]\nname = "{name}"\npassword = "x"\nplain = true\ngroups = {json.dumps(groups)}\n'
    for name, groups in USERS.items()
)


def entries(words: list[str]) -> st.SearchStrategy[list[str]]:
    one = st.tuples(st.sampled_from(["", "", "", "!"]), st.sampled_from(words)).map("".join)
    return st.lists(one, min_size=1, max_size=3)


ALLOW_ONLY = ("auth", "literals", "open")
RULES = st.lists(
    st.fixed_dictionaries(
        {"action": st.sampled_from(["allow", "allow", "not-allowed", "ttl-expired"])},
        optional={
            "to": entries(PATTERNS + NETWORKS),
            "port": entries(["80", "443", "0-100", "90-65535"]),
            "from": entries(CLIENT_NETWORKS),
            "user": entries(["alice", "bob", "@staff", "@night"]),
            "command": entries(["connect", "bind", "associate"]),
            "version": entries(["4", "4a", "5"]),
            "method": entries(["none", "password"]),
            "auth": st.sampled_from([["password"], ["none"], ["none", "password"]]),
            "literals": st.booleans(),
            "open": st.booleans(),
        },
    ).map(lambda rule: {key: rule[key] for key in rule if rule["action"] == "allow" or key not in ALLOW_ONLY}),
    max_size=5,
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A request in the small world; `host` is a name or an address, `address` what a name led to."""

    host: str
    address: str | None
    port: int
    client: str
    user: str | None
    command: str
    version: str

    def request(self) -> Request:
        command = {"connect": Command.CONNECT, "bind": Command.BIND, "associate": Command.UDP_ASSOCIATE}[self.command]
        host = Name(self.host) if self.host in NAMES else ip_address(self.host)
        return Request(command, Endpoint(host, self.port), ip_address(self.address) if self.address else None)

    def context(self) -> Context:
        return Context(
            client=Endpoint(ip_address(self.client), 4000),
            listener=Endpoint.parse("192.0.2.77:1080"),
            version=Version(self.version),
            method=Method.NONE if self.user is None else Method.USERPASS,
            user=None if self.user is None else self.user.encode(),
            groups=frozenset(USERS.get(self.user or "", ())),
        )


@st.composite
def requests(draw: st.DrawFn) -> Asked:
    host = draw(st.sampled_from(NAMES + ADDRESSES))
    user = draw(st.sampled_from([None, "alice", "bob", "carol"]))
    return Asked(
        host=host,
        address=draw(st.sampled_from(ADDRESSES)) if host in NAMES else None,
        port=draw(st.sampled_from([0, 80, 90, 443, 65535])),
        client=draw(st.sampled_from(CLIENTS)),
        user=user,
        command=draw(st.sampled_from(["connect", "bind", "associate"] if user is not None else ["connect", "bind"])),
        version="5" if user is not None else draw(st.sampled_from(["4", "4a", "5"])),
    )


def load(rules: list[dict[str, Any]]) -> Configuration:
    text = HEAD
    for number, rule in enumerate(rules):
        text += f'[[rule]]\nname = "{number}"\n'
        text += "allow = true\n" if rule["action"] == "allow" else f'refuse = "{rule["action"]}"\n'
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in rule.items() if key != "action")
    return load_text(text, "tabi.toml")


# the slow evaluator


def matches(rule: dict[str, Any], asked: Asked) -> bool:
    return all(criterion(rule, asked) for criterion in (by_to, by_port, by_from, by_user, by_words))


def one_of(rule: dict[str, Any], key: str, test: Any) -> bool:
    """One of the entries has to match, if there is one without an exclamation mark, and none of those with."""
    meant = [entry for entry in rule.get(key, ()) if not entry.startswith("!")]
    left_out = [entry[1:] for entry in rule.get(key, ()) if entry.startswith("!")]
    return (not meant or any(map(test, meant))) and not any(map(test, left_out))


def in_network(text: str, network: str) -> bool:
    if network == "@private":
        return any(ip_address(text) in one for one in PRIVATE)
    return ip_address(text) in ip_network(network)


def by_to(rule: dict[str, Any], asked: Asked) -> bool:
    def test(entry: str) -> bool:
        if entry in NETWORKS:
            return in_network(asked.address or asked.host, entry)
        return asked.host in NAMES and fnmatch.fnmatchcase(asked.host, entry)

    return one_of(rule, "to", test)


def by_port(rule: dict[str, Any], asked: Asked) -> bool:
    def test(entry: str) -> bool:
        first, _, last = entry.partition("-")
        return int(first) <= asked.port <= int(last or first)

    return one_of(rule, "port", test)


def by_from(rule: dict[str, Any], asked: Asked) -> bool:
    return one_of(rule, "from", lambda entry: in_network(asked.client, entry))


def by_user(rule: dict[str, Any], asked: Asked) -> bool:
    if "user" not in rule:
        return True
    if asked.user is None:
        return rule["action"] != "allow" and all(entry.startswith("!") for entry in rule["user"])
    groups = USERS[asked.user]
    return one_of(rule, "user", lambda entry: entry[1:] in groups if entry.startswith("@") else entry == asked.user)


def by_words(rule: dict[str, Any], asked: Asked) -> bool:
    actual = {
        "command": asked.command,
        "version": asked.version,
        "method": "none" if asked.user is None else "password",
    }
    return all(one_of(rule, key, lambda entry, value=value: entry == value) for key, value in actual.items())


def opens_private(rule: dict[str, Any], asked: Asked) -> bool:
    address = asked.address or asked.host
    meant = [entry for entry in rule.get("to", ()) if not entry.startswith("!")]
    networks = [entry for entry in meant if entry in NETWORKS]
    if asked.client == "127.0.0.1" and (not meant or any(in_network(address, one) for one in networks)):
        return True
    inside = [one for one in networks if one == "@private" or any(ip_network(one).subnet_of(net) for net in PRIVATE)]
    return any(in_network(address, one) for one in inside)


def decide(rules: list[dict[str, Any]], asked: Asked) -> tuple[str, int]:
    """Say what becomes of a request whose address is known: the action, and the number of the rule."""
    for number, rule in enumerate(rules, 1):
        if not matches(rule, asked):
            continue
        if rule["action"] != "allow":
            return rule["action"], number
        if in_network(asked.address or asked.host, "@private") and not opens_private(rule, asked):
            continue
        method = "none" if asked.user is None else "password"
        if method not in rule.get("auth", [method]) or (rule.get("literals") is False and asked.host not in NAMES):
            return "not-allowed", number
        return "allow", number
    return "not-allowed", 0


@given(RULES, requests())
@settings(max_examples=300)
def test_verdict_is_that_of_the_slow_evaluator(rules: list[dict[str, Any]], asked: Asked) -> None:
    judge = load(rules).rules
    verdict = judge(asked.request(), asked.context())
    action = "allow" if verdict.allow else verdict.reply.name.lower().replace("_", "-")
    assert (action, verdict.number) == decide(rules, asked)
    assert judge.explain(asked.request(), asked.context())[0] == verdict


@given(RULES, requests())
@settings(max_examples=300)
def test_look_up_is_spared_only_where_every_address_would_be_refused(rules: list[dict[str, Any]], asked: Asked) -> None:
    before = load(rules).rules(replace(asked, address=None).request(), asked.context())
    after = [decide(rules, replace(asked, address=address))[0] for address in ADDRESSES]
    if asked.host in NAMES and not before.allow:
        assert "allow" not in after
    if asked.host in NAMES and before.allow and not before.tentative:
        public = [
            action for address, action in zip(ADDRESSES, after, strict=True) if not in_network(address, "@private")
        ]
        assert set(public) == {"allow"}


@given(RULES, requests())
@settings(max_examples=300)
def test_rule_that_is_said_never_to_match_can_be_taken_out(rules: list[dict[str, Any]], asked: Asked) -> None:
    loaded = load(rules)
    users = {name.encode(): frozenset(groups) for name, groups in USERS.items()}
    for number, _ in find_covered(loaded.rules, users).pairs:
        kept = [rule for place, rule in enumerate(loaded.rules.rules) if place != number]
        with_it = loaded.rules(asked.request(), asked.context())
        without = RuleList(kept)(asked.request(), asked.context())
        assert (with_it.allow, with_it.reply, with_it.rule) == (without.allow, without.reply, without.rule)


@given(RULES, st.sampled_from([0, 4]))
@settings(max_examples=300)
def test_no_rule_that_never_matches_is_passed_over(rules: list[dict[str, Any]], few: int) -> None:
    loaded = load(rules).rules
    users = {name.encode(): frozenset(groups) for name, groups in USERS.items()}
    with patch.object(covering, "_FEW", few):  # 0: samples alone say what is compared
        found = dict(find_covered(loaded, users).pairs)
    for place, rule in enumerate(loaded.rules):
        one_by_one = (
            one for one in range(place) if one not in found and covers(loaded.rules[one], rule, Members(users))
        )
        assert found.get(place) == next(one_by_one, None)


@given(RULES, requests(), st.sampled_from(STRANGERS))
@settings(max_examples=300)
def test_rules_found_closed_serve_no_stranger(
    rules: list[dict[str, Any]], asked: Asked, coming: tuple[str, str]
) -> None:
    where, client = coming
    loaded = load(rules)
    access = replace(loaded.access, listeners={}, methods=frozenset({Method.NONE, Method.USERPASS}), socks4=True)
    listener = Endpoint.parse(where)
    blamed = {opening.number for opening in find_openings(access, loaded.rules, [listener])}
    stranger = replace(asked, user=None, client=client)
    verdict = loaded.rules(stranger.request(), stranger.context())
    if verdict.allow and not loaded.rules.rules[verdict.number - 1].open:
        assert verdict.number - 1 in blamed


@given(RULES)
@settings(max_examples=200)
def test_blamed_rule_does_serve_a_stranger(rules: list[dict[str, Any]]) -> None:
    """Of all requests of this world at least one of the stranger that is named gets through by the rule."""
    simple = [
        {key: value for key, value in rule.items() if key in ("action", "from", "user", "method")} for rule in rules
    ]
    loaded = load(simple)
    access = replace(loaded.access, listeners={}, methods=frozenset({Method.NONE}), socks4=False)
    for opening in find_openings(access, loaded.rules, [Endpoint.parse("0.0.0.0:1080")]):
        asked = Asked("8.8.8.8", None, 80, str(opening.client), None, "connect", "5")
        assert loaded.rules(asked.request(), asked.context()).number == opening.number + 1
