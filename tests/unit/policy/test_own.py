"""Rules on a host that has other addresses now: as if they had been built there."""

import pickle
from ipaddress import ip_address
from pathlib import Path

import pytest

from tabi.addr import Endpoint
from tabi.config.load import Configuration, load_text
from tabi.policy.verdict import Context, Request
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

HERE, ELSEWHERE = ip_address("203.0.113.7"), ip_address("203.0.113.8")
OUTSIDE = "198.51.100.1"
RULE = '[[rule]]\nname = "r"\nallow = true\nopen = true\n'
RULES = {
    "any": RULE,
    "private": RULE + 'to = "@private"\n',
    "not private": RULE + 'to = ["0.0.0.0/0", "!@private"]\n',
    "the address": RULE + 'to = "203.0.113.7"\n',
    "a name": RULE + 'to = "www.example.org"\n',
    "its network": RULE + 'to = "203.0.113.0/24"\n',
    "a set": '[[set]]\nname = "s"\nfile = "s.txt"\n' + RULE + 'to = "@s"\n',
    "from private": RULE + 'to = "@private"\nfrom = ["@private", "10.0.0.0/8"]\n',
    "not from private": RULE + 'to = "@private"\nfrom = "!@private"\n',
}


def built(text: str, directory: Path, *own: str) -> Configuration:
    """Load a text on a host that has these addresses."""
    (directory / "s.txt").write_text("203.0.113.7\nwww.example.org\n10.0.0.0/8\n")
    return load_text(f'listen = ["0.0.0.0:1080"]\n{text}', str(directory / "tabi.toml"), own=map(ip_address, own))


def judged(configuration: Configuration, client: str, target: str) -> object:
    """Judge as the rules do at once and one by one, and give what they say."""
    context = Context(Endpoint.parse(f"{client}:9"), Endpoint.parse("192.0.2.1:1080"), Version.SOCKS5, Method.NONE)
    request = Request(Command.CONNECT, Endpoint(ip_address(target), 80))
    verdict = configuration.rules(request, context)
    assert configuration.rules.explain(request, context)[0] == verdict
    return verdict


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
@pytest.mark.parametrize(("before", "after"), [((), ("203.0.113.7",)), (("203.0.113.7",), ()), (("203.0.113.8",), ())])
def test_rules_on_another_host_judge_as_if_they_were_built_there(
    tmp_path: Path, rules: str, before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    moved = pickle.loads(pickle.dumps(built(rules, tmp_path, *before))).on_host(frozenset(map(ip_address, after)))
    anew = built(rules, tmp_path, *after)
    for client in (OUTSIDE, "203.0.113.7", "10.0.0.9"):
        for target in ("203.0.113.7", "203.0.113.8", "::ffff:203.0.113.7", "64:ff9b::203.0.113.7", "10.1.1.1"):
            assert judged(moved, client, target) == judged(anew, client, target), (client, target)


def test_what_it_is_offered_is_another_for_a_client_that_is_this_host_now(tmp_path: Path) -> None:
    user = '[[user]]\nname = "a"\npassword = "b"\nplain = true\n'
    text = f'auth = "any"\n{user}[[client]]\nfrom = "@private"\nauth = "none"\n'
    before = built(text, tmp_path)
    listener = Endpoint.parse("192.0.2.1:1080")
    assert before.terms(listener, HERE).methods != {Method.NONE}
    assert before.on_host(frozenset({HERE})).terms(listener, HERE).methods == {Method.NONE}
    assert before.on_host(frozenset({HERE})).on_host(frozenset()).terms(listener, HERE).methods != {Method.NONE}


def test_rules_that_share_a_set_still_do(tmp_path: Path) -> None:
    text = RULES["a set"] + '[[rule]]\nname = "again"\nrefuse = "not-allowed"\nto = "@s"\n'
    one, other = (rule.target for rule in built(text, tmp_path).on_host(frozenset({HERE})).rules.rules)
    assert one is not None
    assert other is not None
    assert one.within[0] is other.within[0]


def test_the_same_addresses_make_no_other_configuration(tmp_path: Path) -> None:
    configuration = built(RULES["private"], tmp_path, "203.0.113.7", "127.0.0.1", "10.0.0.1")
    assert configuration.on_host(frozenset({HERE})) is configuration
    assert configuration.on_host(frozenset({ELSEWHERE})) is not configuration
