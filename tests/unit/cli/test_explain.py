"""`tabi explain`: the words that an administrator reads, and the same for programs."""

import json
import socket
from pathlib import Path

import pytest

from tabi.cli.main import main

STAFF = str(Path(__file__).parents[2] / "golden" / "config" / "staff.toml")
MORE = """
listen = ["10.0.0.1:1080", "10.0.0.1:1081"]
auth = "any"
[[user]]
name = "alice"
password = "x"
plain = true
sessions = 10
bandwidth = "1 MB/s"
[[client]]
from = "10.0.0.0/8"
socks4 = true
[[rule]]
name = "work hours"
allow = true
from = "10.0.0.0/8"
time = "Mon-Fri 08:00-18:00"
egress = "eth1"
prefer = "ipv4"
sessions = 100
rate = "30/min"
lifetime = "8 h"
[[rule]]
name = "with a password"
allow = true
auth = "password"
from = "10.0.0.0/8"
any_peer = true
"""


@pytest.fixture
def more(tmp_path: Path) -> str:
    path = tmp_path / "more.toml"
    path.write_text(MORE)
    return str(path)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Stand in for this host's resolver."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        if host not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def explain(capsys: pytest.CaptureFixture[str], config: str, words: str) -> str:
    assert main(["explain", "--config", config, "--from", "10.1.2.3", *words.split(" ")]) == 0
    return capsys.readouterr().out


def test_refusal_tells_why_no_rule_matched(capsys: pytest.CaptureFixture[str], names: dict[str, list[str]]) -> None:
    names["db.example.org"] = ["203.0.113.9"]
    assert (
        explain(capsys, STAFF, "--user alice connect db.example.org:5432")
        == """\
refused (reply 2, not allowed by ruleset): no rule matched
  1 "not into our own networks"   no: 203.0.113.9 (db.example.org) is not in @private
  2 "staff to the web"            no: port 5432 is not in 80, 443, 8000-8999
db.example.org is 203.0.113.9 (by this host's resolver), but the server would not look it up, \
for no address of it would be allowed
"""
    )


def test_permission_tells_limits_and_egress(capsys: pytest.CaptureFixture[str], names: dict[str, list[str]]) -> None:
    names["www.example.org"] = ["203.0.113.9"]
    assert (
        explain(capsys, STAFF, "--user alice connect www.example.org:443")
        == """\
allowed: rule 2 "staff to the web"
  1 "not into our own networks"   no: 203.0.113.9 (www.example.org) is not in @private
  2 "staff to the web"            yes
www.example.org is 203.0.113.9 (by this host's resolver)
limits of the rule: none
limits of alice: none
egress: the address that the kernel chooses; IPv6 addresses are tried first
"""
    )


def test_permission_tells_the_knobs_that_the_rule_sets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "knobs.toml"
    head, words = 'listen = ["10.0.0.1:1080"]', "connect 203.0.113.9:443"
    for lines, expected in (
        ('congestion = "system"\nkeepalive = false\nsend_buffer = "64 KiB"\nreceive_buffer = 0\nsplice = false\n',
         "congestion control system, no keepalive, send buffer 64 KiB, receive buffer as the kernel finds right, "
         "no splice"),
        ('keepalive = "2 min"\nsplice = true\n', "keepalive after 2 min, splice"),
    ):  # fmt: skip
        path.write_text(f'{head}\n[[rule]]\nallow = true\nfrom = "10.0.0.0/8"\n{lines}')
        assert f"\nsockets of the tunnel: {expected}\n" in explain(capsys, str(path), words)
    path.write_text(f'{head}\n[tunnel]\nsplice = false\n[[rule]]\nallow = true\nfrom = "10.0.0.0/8"\n')
    assert "sockets of the tunnel" not in explain(capsys, str(path), words)


def test_each_address_is_judged(capsys: pytest.CaptureFixture[str], names: dict[str, list[str]]) -> None:
    given = "--resolve www.example.org=10.0.0.1 --resolve www.example.org=203.0.113.9 --resolve x=1.1.1.1"
    out = explain(capsys, STAFF, f"--user alice {given} connect www.example.org:443")
    assert out.startswith("""\
allowed: rule 2 "staff to the web"
10.0.0.1: refused (reply 2, not allowed by ruleset)
  1 "not into our own networks"   yes
203.0.113.9: allowed
""")
    assert "www.example.org is 10.0.0.1, 203.0.113.9 (by --resolve)\n" in out


def test_name_that_cannot_be_found_matters_only_where_addresses_do(
    capsys: pytest.CaptureFixture[str], names: dict[str, list[str]]
) -> None:
    out = explain(capsys, STAFF, "--user alice connect db.example.org:5432")
    assert '1 "not into our own networks"   undecided: db.example.org is not looked up yet' in out
    assert "db.example.org: the server would not look it up, for no address" in out
    assert (
        main(["explain", "--config", STAFF, "--from", "10.1.2.3", "--user", "alice", "connect", "x.example.org:80"])
        == 1
    )
    assert "x.example.org: this host's resolver finds no address" in capsys.readouterr().err


def test_rule_0_comes_with_its_advice(capsys: pytest.CaptureFixture[str], more: str) -> None:
    out = explain(capsys, more, "--at 2026-11-20T12:00 connect 192.168.1.1:80")
    assert out.startswith('refused (reply 2, not allowed by ruleset): rule 0 "private networks"\n')
    assert '1 "work hours"         no: 192.168.1.1 is in @private, which this rule does not open\n' in out
    assert 'a client from another host reaches it only by a rule whose "to" names @private' in out


def test_limits_are_shown_with_their_units(capsys: pytest.CaptureFixture[str], more: str) -> None:
    out = explain(capsys, more, "--user alice --at 2026-11-20T12:00 connect 8.8.8.8:80")
    assert (
        out
        == """\
allowed: rule 1 "work hours"
  1 "work hours"   yes
limits of the rule: 100 sessions at once, 0.5 new sessions per second, 8 h per session
limits of alice: 10 sessions at once, 1 MB per second
egress: eth1
"""
    )


def test_time_is_taken_as_given(capsys: pytest.CaptureFixture[str], more: str) -> None:
    for when in (["Fri 19:30"], ["2026-11-20 19:30"]):
        assert main(["explain", "--config", more, "--from", "10.1.2.3", "--at", *when, "connect", "8.8.8.8:80"]) == 0
        out = capsys.readouterr().out
        assert (
            out
            == """\
refused (reply 2, not allowed by ruleset): rule 2 "with a password"; \
the rule is for clients that log in with a password, and this one has not
  1 "work hours"        no: Fri 19:30 is not in Mon-Fri 08:00-18:00
  2 "with a password"   yes: the rule is for clients that log in with a password, and this one has not
"""
        )


def test_who_does_not_get_past_the_greeting_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, STAFF, "connect 8.8.8.8:80") == (
        "refused (no acceptable method): listener 0.0.0.0:1080 asks 10.1.2.3 for a password; add --user NAME\n"
    )
    assert explain(capsys, STAFF, "--user alcie connect 8.8.8.8:80") == (
        'refused (login failed): there is no user "alcie"; did you mean "alice"?\n'
    )
    assert explain(capsys, STAFF, "--version 4 connect 8.8.8.8:80") == (
        "refused (reply 91, request rejected): listener 0.0.0.0:1080 takes no SOCKS4 from 10.1.2.3, for it carries no "
        "password; a [[client]] table with its network and socks4 = true would take it\n"
    )


def test_socks4_hears_91(capsys: pytest.CaptureFixture[str], more: str) -> None:
    out = explain(capsys, more, "--version 4a --at 2026-11-22T12:00 connect 8.8.8.8:80")
    assert out.startswith('refused (reply 91, request rejected): rule 2 "with a password"')


def test_bind_for_any_peer_wants_any_peer(capsys: pytest.CaptureFixture[str], more: str) -> None:
    out = explain(capsys, more, "--user alice --at 2026-11-20T12:00 bind 0.0.0.0:0")
    assert "it names no peer, and the rule does not say any_peer = true" in out
    assert explain(capsys, more, "--user alice --at 2026-11-22T12:00 bind 0.0.0.0:0").startswith("allowed: rule 2")
    out = explain(capsys, more, "--user alice --at 2026-11-22T12:00 connect 0.0.0.0:80")
    assert out.startswith("refused")


def test_datagram_is_judged_by_its_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, STAFF, "--user alice associate 203.0.113.9:443").startswith('allowed: rule 2 "staff')
    assert explain(capsys, STAFF, "--user alice associate 203.0.113.9:53").startswith("refused (reply 2")


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str], names: dict[str, list[str]]) -> None:
    names["www.example.org"] = ["203.0.113.9"]
    answer = json.loads(explain(capsys, STAFF, "--json --user alice connect www.example.org:443"))
    assert answer["allow"] is True
    assert (answer["decided"]["number"], answer["decided"]["rule"]) == (2, "staff to the web")
    assert answer["addresses_by"] == "this host's resolver"
    assert [trial["outcome"] for trial in answer["judgements"][0]["trials"]] == ["no", "yes"]
    refused = json.loads(explain(capsys, STAFF, "--json connect 8.8.8.8:80"))
    assert (refused["allow"], refused["decided"]) == (False, None)
    assert "for a password" in refused["at_greeting"]
    assert refused["heard"] == "no acceptable method"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("--from host connect a:80", "host is a name; write the address of a client"),
        ("--from 1.2.3.4 connect a", 'a" has no port'),
        ("--from 1.2.3.4 --at noon connect a:80", 'write "Fri 17:05"'),
        ("--from 1.2.3.4 --resolve a connect a:80", "write NAME=ADDR"),
        ("--from 1.2.3.4 --resolve a=b connect a:80", "b is no address"),
        ("--from 1.2.3.4 --version 4 --user alice connect a:80", "SOCKS4 carries no user"),
        ("--from 1.2.3.4 --method password connect a:80", "add --user NAME"),
        ("--from 1.2.3.4 --method none --user alice connect a:80", "leave one of them out"),
        ("--from 1.2.3.400 connect a:80", '--from: "1.2.3.400" is no domain name and no address'),
        ("--from 1.2.3.4 connect a:99999", 'the target: "99999" is no port'),
        ("--from 1.2.3.4 --listener 192.0.2.1:1 connect a:80", "does not listen on 192.0.2.1:1, but on 0.0.0.0:1080"),
    ],
)
def test_question_that_makes_no_sense_is_answered_by_what_would(
    capsys: pytest.CaptureFixture[str], words: str, complaint: str
) -> None:
    assert main(["explain", "--config", STAFF, *words.split(" ")]) == 1
    assert complaint in capsys.readouterr().err


def test_faulty_configuration_is_told_as_by_check(capsys: pytest.CaptureFixture[str]) -> None:
    faulty = str(Path(STAFF).with_name("third-rule.toml"))
    assert main(["explain", "--config", faulty, "--from", "1.2.3.4", "connect", "a:80"]) == 1
    assert 'rule "staff to the web", port: "80-" is a range without an end' in capsys.readouterr().err


VIA = """
[[upstream]]
name = "office"
url = "socks5h://alice:sesame@192.0.2.7"
[[upstream]]
name = "spare"
url = "http://192.0.2.8"
[[rule]]
name = "not inside"
refuse = "not-allowed"
to = "@private"
[[rule]]
name = "onions"
allow = true
from = "10.0.0.0/8"
to = "*.onion"
via = "office"
resolve = "upstream"
[[rule]]
name = "rest"
allow = true
from = ["10.0.0.0/8", "127.0.0.1"]
via = ["office", "spare"]
"""


@pytest.fixture
def via(tmp_path: Path) -> str:
    path = tmp_path / "via.toml"
    path.write_text(VIA)
    path.chmod(0o600)
    return str(path)


def test_upstreams_are_told_and_what_they_are_asked_for(
    capsys: pytest.CaptureFixture[str], via: str, names: dict[str, list[str]]
) -> None:
    names["db.example.org"] = ["203.0.113.9"]
    told = explain(capsys, via, "connect db.example.org:5432")
    assert "via: office, then spare; it is asked for the address of db.example.org\n" in told
    assert "db.example.org is 203.0.113.9 (by this host's resolver)" in told
    assert "via: office, then spare\n" in explain(capsys, via, "connect 203.0.113.9:5432")
    assert "sesame" not in told


def test_name_that_the_upstream_looks_up_is_not_looked_up_here(
    capsys: pytest.CaptureFixture[str], via: str, names: dict[str, list[str]]
) -> None:
    assert (
        explain(capsys, via, "connect x.onion:80")
        == """\
allowed: rule 2 "onions"
  1 "not inside"   undecided: x.onion is not looked up yet
  2 "onions"       yes
limits of the rule: none
egress: the address that the kernel chooses
via: office; it looks x.onion up, and no rule about addresses is asked
"""
    )
    answer = json.loads(explain(capsys, via, "--json connect x.onion:80"))
    assert (answer["by_name"], answer["looked_up"]) == (True, False)
    assert answer["decided"]["grants"]["via"] == ["office"]


def test_name_of_which_no_address_could_be_refused_is_not_looked_up_either(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, names: dict[str, list[str]]
) -> None:
    path = tmp_path / "local.toml"
    upstream = '[[upstream]]\nname = "u"\nurl = "http://h"\n'
    path.write_text(f'{upstream}[[rule]]\nallow = true\nfrom = "127.0.0.1"\nvia = "u"\n')
    assert main(["explain", "--config", str(path), "--from", "127.0.0.1", "connect", "db.example.org:5432"]) == 0
    told = capsys.readouterr().out
    assert "via: u; it looks db.example.org up, for no rule could refuse any address\n" in told


def test_upstreams_that_are_picked_by_weight_are_told_with_their_shares(
    capsys: pytest.CaptureFixture[str], via: str
) -> None:
    text = Path(via).read_text().replace('name = "office"\nurl', 'name = "office"\nweight = 3\nurl', 1)
    Path(via).write_text(text.replace('via = ["office", "spare"]', 'via = ["office", "spare"]\npick = "weight"'))
    told = explain(capsys, via, "connect 203.0.113.9:5432")
    assert "via: office (3 in 4) or spare (1 in 4), by chance, and where it has failed the others\n" in told


def test_ways_that_race_are_told_and_what_the_direct_one_is_held_to(
    capsys: pytest.CaptureFixture[str], via: str, names: dict[str, list[str]]
) -> None:
    names["db.example.org"] = ["203.0.113.9"]
    text = Path(via).read_text().replace('via = ["office", "spare"]', 'via = ["direct", "office"]\npick = "race"')
    Path(via).write_text(text.replace('via = "office"', 'via = ["office", "direct"]\npick = "race"'))
    told = explain(capsys, via, "connect db.example.org:5432")
    assert "via: the first that is connected of direct, office; it is asked for the address of db.ex" in told
    told = explain(capsys, via, "connect x.onion:80")
    assert "via: the first that is connected of office, direct; it looks x.onion up, and no rule about " in told
    assert "is asked; for the direct way it is looked up here, and its addresses are judged\n" in told
    assert "via:" not in explain(capsys, via, "associate 203.0.113.9:53")


def test_upstreams_behind_the_direct_way_are_nothing_to_what_does_not_race(
    capsys: pytest.CaptureFixture[str], via: str
) -> None:
    text = Path(via).read_text().replace('name = "office"\nurl', 'name = "office"\ntrust = "encrypted"\nurl', 1)
    Path(via).write_text(text.replace('via = ["office", "spare"]', 'via = ["direct", "office"]\npick = "race"'))
    assert "not trusted with port 5432: office\n" in explain(capsys, via, "connect 203.0.113.9:5432")
    told = explain(capsys, via, "bind 203.0.113.9:443")
    assert told.startswith("allowed")
    assert "not trusted" not in told


def test_datagrams_go_the_way_of_their_association_where_both_are_direct(
    capsys: pytest.CaptureFixture[str], via: str
) -> None:
    dns = '[[rule]]\nname = "dns"\nallow = true\nport = 53\n[[rule]]\nname = "rest"'
    text = Path(via).read_text().replace('[[rule]]\nname = "rest"', dns)
    Path(via).write_text(text.replace('via = ["office", "spare"]', 'via = ["direct", "office"]\npick = "race"'))
    assert explain(capsys, via, "associate 203.0.113.9:53").startswith('allowed: rule 3 "dns"')


def test_upstreams_that_are_not_trusted_with_the_port_are_told(capsys: pytest.CaptureFixture[str], via: str) -> None:
    text = Path(via).read_text().replace('name = "office"\nurl', 'name = "office"\ntrust = "encrypted"\nurl', 1)
    Path(via).write_text(text)
    assert "not trusted with port 5432: office\n" in explain(capsys, via, "connect 203.0.113.9:5432")
    assert "not trusted with every port: office\n" in explain(capsys, via, "bind 203.0.113.9:443")
    assert "not trusted" not in explain(capsys, via, "connect 203.0.113.9:443")


def test_datagrams_keep_to_the_way_of_their_association(
    capsys: pytest.CaptureFixture[str], via: str, names: dict[str, list[str]]
) -> None:
    names["db.example.org"] = ["203.0.113.9"]
    assert "via: office, then spare\n" in explain(capsys, via, "associate 203.0.113.9:53")
    told = explain(capsys, via, "associate db.example.org:53")
    assert "via: office, then spare; it is asked for the address of db.example.org\n" in told
    told = explain(capsys, via, "associate x.onion:53")
    assert told.startswith('refused (reply 2, not allowed by ruleset): rule 2 "onions"; it goes another way than the ')
    assert 'which goes through office, spare by rule "rest"\n' in told


def test_datagrams_to_names_are_refused_where_the_upstream_is_to_look_them_up(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "local.toml"
    rule = '[[rule]]\nallow = true\nfrom = "127.0.0.1"\nvia = "u"\nresolve = "upstream"\n'
    path.write_text(f'[[upstream]]\nname = "u"\nurl = "http://h"\n{rule}')
    assert main(["explain", "--config", str(path), "--from", "127.0.0.1", "associate", "x.onion:53"]) == 0
    assert "it leaves look-ups to the upstream, and datagrams go to addresses only" in capsys.readouterr().out
