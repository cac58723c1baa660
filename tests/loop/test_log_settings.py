"""What the log leaves out when it is told to, and what it says of a refusal."""

import pytest

from helpers.serving import serving
from helpers.socks import ask5, connect5, read_all
from helpers.targets import target
from tabi.config.load import load_text
from tabi.config.settings import LogSettings
from tabi.policy.verdict import Context, Grants, Request, Verdict


def test_a_rule_without_log_leaves_no_line_for_what_it_decides() -> None:
    def judge(request: Request, _context: Context) -> Verdict:
        assert request.target is not None
        quiet = request.target.port != loud_port
        return Verdict(allow=request.target.port != 9, rule="r", grants=Grants(log=not quiet))

    with target() as quiet_target, target() as loud_target:
        loud_port = loud_target[1]
        with serving(policy=judge) as server:
            connect5(server.address, *quiet_target).close()
            sock, reply, _, _ = ask5(server.address, 1, "127.0.0.1", 9)
            assert reply == 2
            assert read_all(sock) == b""
            sock.close()
            connect5(server.address, *loud_target).close()
            server.line(target=f"127.0.0.1:{loud_port}")
            server.idle()
            assert len(server.lines) == 1


def test_targets_can_be_left_out_of_the_log_with_the_errors_that_name_them() -> None:
    with target() as there, serving(log=LogSettings(targets=False)) as server:
        connect5(server.address, *there).close()
        ask5(server.address, 1, b"nowhere.invalid", 80)[0].close()
        server.idle()
        assert len(server.lines) == 2
        assert "nowhere" not in str(server.lines)
        assert str(there[1]) not in str(server.lines)


@pytest.mark.parametrize(
    ("rule", "note"),
    [
        ("", "policy: no rule matched"),
        ('refuse = "ttl-expired"', 'policy: refused by rule "r"'),
        (
            'allow = true\nauth = "password"',
            'policy: refused by rule "r": the rule is for clients that log in with a password, and this one has not',
        ),
        (
            "allow = true\nliterals = false",
            'policy: refused by rule "r": the rule takes names only, the target is an address',
        ),
    ],
)  # fmt: skip
def test_the_line_of_a_refusal_says_what_would_do(rule: str, note: str) -> None:
    rules = load_text(f'[[rule]]\nname = "r"\n{rule}\n' if rule else "", "tabi.toml").rules
    with serving(policy=rules) as server:
        sock, reply, _, _ = ask5(server.address, 1, "127.0.0.1", 9)
        sock.close()
        assert reply != 0
        assert server.line(why="policy")["note"] == note
