"""A configuration that would serve anybody on the Internet is refused, whatever its rules look like; others are not."""

from ipaddress import ip_address

import pytest

from tabi.config.load import load_text
from tabi.config.problems import ConfigurationError

USER = '[[user]]\nname = "alice"\npassword = "x"\nplain = true\n'


def blamed(text: str, *own: str) -> list[int]:
    """Give the lines of rules that are blamed for openness, on a host that has these addresses."""
    try:
        load_text(text, "tabi.toml", own=map(ip_address, own))
    except ConfigurationError as error:
        found = [problem for problem in error.problems if not problem.warning]
    else:
        found = []
    assert [str(problem) for problem in found if "without authentication" not in problem.complaint] == []
    return [problem.line for problem in found]


def config(listen: str, *rules: str, more: str = "", top: str = "") -> str:
    return f"listen = {listen}\n{top}\n" + "".join(f"[[rule]]\n{rule}\n" for rule in rules) + more


EVERYWHERE, ALLOW = '["0.0.0.0:1080"]', "allow = true"
RULE = 3  # line of the first rule


@pytest.mark.parametrize(
    "text",
    [
        config(EVERYWHERE, ALLOW),
        config('["[::]:1080"]', ALLOW),
        config('["192.0.2.1:1080"]', ALLOW),
        config('["127.0.0.1:1080", "10.0.0.1:1080"]', ALLOW),
        config(EVERYWHERE, f"{ALLOW}\nport = 443\nto = 'a.example'\ntime = 'Mon 08:00-08:01'"),
        config(EVERYWHERE, f"{ALLOW}\nfrom = '203.0.113.7'"),
        config(EVERYWHERE, f"{ALLOW}\nfrom = '0.0.0.0/1'"),
        config(EVERYWHERE, f"{ALLOW}\nfrom = '!203.0.113.0/24'"),
        config(EVERYWHERE, f"{ALLOW}\nversion = '4'"),
        config(EVERYWHERE, f"{ALLOW}\nuserid = 'secret'"),
        config(EVERYWHERE, f"{ALLOW}\nauth = 'none'"),
        config(EVERYWHERE, f"{ALLOW}\nmethod = 'none'", more=USER, top='auth = "any"'),
        config('[{address = "0.0.0.0:1080", auth = "none"}]', ALLOW, more=USER),
        config(EVERYWHERE, ALLOW, more=USER + '[[client]]\nfrom = "203.0.113.0/24"\nauth = "any"\n'),
        config(EVERYWHERE, ALLOW, more=USER + '[[client]]\nfrom = "0.0.0.0/0"\nsocks4 = true\n'),
        config(EVERYWHERE, f"{ALLOW}\nlistener = '0.0.0.0:1080'"),
        config(EVERYWHERE, f"{ALLOW}\nopen = false"),
    ],
)
def test_open_proxy_is_refused(text: str) -> None:
    assert blamed(text) == [RULE]


@pytest.mark.parametrize(
    "text",
    [
        config('["127.0.0.1:1080", "[::1]:1080"]', ALLOW),
        config(EVERYWHERE, f"{ALLOW}\nopen = true"),
        config(EVERYWHERE, f"{ALLOW}\nfrom = ['10.0.0.0/8', 'fd00::/8', '192.168.0.0/16']"),
        config(EVERYWHERE, f"{ALLOW}\nfrom = '@private'"),
        config(EVERYWHERE, f"{ALLOW}\nfrom = ['203.0.113.0/24', '!203.0.113.0/24']"),
        config(EVERYWHERE, f"{ALLOW}\nversion = '5'\nuserid = 'secret'"),
        config(EVERYWHERE, "refuse = 'not-allowed'"),
        config(EVERYWHERE),
        config(EVERYWHERE, ALLOW, more=USER),
        config(EVERYWHERE, f"{ALLOW}\nauth = 'password'", more=USER, top='auth = "any"'),
        config(EVERYWHERE, f"{ALLOW}\nmethod = 'password'", more=USER, top='auth = "any"'),
        config(EVERYWHERE, f"{ALLOW}\nuser = 'alice'", more=USER, top='auth = "any"'),
        config(EVERYWHERE, f"{ALLOW}\nuser = '!alice'", more=USER, top='auth = "any"'),
        config(EVERYWHERE, ALLOW, more=USER + '[[client]]\nfrom = "10.0.0.0/8"\nauth = "none"\nsocks4 = true\n'),
        config(
            EVERYWHERE,
            ALLOW,
            more=USER + '[[client]]\nfrom = "0.0.0.0/0"\n[[client]]\nfrom = "1.1.1.1"\nauth = "any"\n',
        ),
        config('["127.0.0.1:1080", "0.0.0.0:1081"]', f"{ALLOW}\nlistener = '127.0.0.1:1080'"),
        # rules before it take every stranger out
        config(EVERYWHERE, "refuse = 'not-allowed'\nfrom = '!@private'", ALLOW),
        config(EVERYWHERE, "refuse = 'not-allowed'\nfrom = ['0.0.0.0/1', '128.0.0.0/1']", ALLOW),
        config(EVERYWHERE, f"{ALLOW}\nauth = 'password'", ALLOW, more=USER, top='auth = "any"'),
        config(EVERYWHERE, "refuse = 'not-allowed'\nuser = '!alice'", ALLOW, more=USER, top='auth = "any"'),
        config(EVERYWHERE, f"{ALLOW}\nopen = true", ALLOW),
    ],
)
def test_what_serves_no_stranger_is_taken(text: str) -> None:
    assert blamed(text) == []


@pytest.mark.parametrize(
    "text",
    [
        config(EVERYWHERE, "refuse = 'not-allowed'\nport = 25", ALLOW),
        config(EVERYWHERE, "refuse = 'not-allowed'\nfrom = '203.0.113.0/24'", ALLOW),
        config(EVERYWHERE, "refuse = 'not-allowed'\ncommand = 'bind'", ALLOW),
        config(EVERYWHERE, f"{ALLOW}\nopen = true\nport = 80", ALLOW),
        config(EVERYWHERE, "refuse = 'not-allowed'\nuser = 'alice'", ALLOW, more=USER, top='auth = "any"'),
    ],
)
def test_rule_before_it_that_lets_some_pass_does_not_help(text: str) -> None:
    [line] = blamed(text)
    assert line > RULE


def test_ipv4_strangers_come_in_by_the_ipv6_wildcard() -> None:
    assert blamed(config('["[::]:1080"]', f"{ALLOW}\nfrom = '0.0.0.0/0'")) == [RULE]
    only6 = config('["[2001:db8::1]:1080"]', f"{ALLOW}\nfrom = '0.0.0.0/0'")
    assert blamed(only6) == []


def test_every_open_rule_is_told() -> None:
    assert len(blamed(config(EVERYWHERE, f"{ALLOW}\nport = 80", f"{ALLOW}\nport = 443"))) == 2


def test_the_servers_own_addresses_are_not_the_public() -> None:
    inside = config('["0.0.0.0:1080", "[::]:1080"]', f"{ALLOW}\nfrom = '@private'")
    assert blamed(inside, "203.0.113.5", "2001:db8::5") == []
    by_network = config(EVERYWHERE, ALLOW, more=USER + '[[client]]\nfrom = "@private"\nauth = "none"\n')
    assert blamed(by_network, "203.0.113.5") == []
    assert blamed(config(EVERYWHERE, f"{ALLOW}\nfrom = '203.0.113.0/24'"), "203.0.113.5") == [RULE]
    assert blamed(config(EVERYWHERE, ALLOW), "203.0.113.5") == [RULE]
