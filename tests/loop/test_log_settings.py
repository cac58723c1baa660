"""What the log leaves out when it is told to, and what it says of a refusal."""

import pytest

from helpers.name_service import NameService
from helpers.serving import serving
from helpers.socks import ask5, connect5, read_all
from helpers.targets import target
from tabi.config.load import load_text
from tabi.config.settings import LogSettings
from tabi.policy.verdict import Context, Grants, LogLevel, Request, Verdict


def test_a_rule_with_log_none_leaves_no_line_for_what_it_decides() -> None:
    def judge(request: Request, _context: Context) -> Verdict:
        assert request.target is not None
        log: LogLevel = "info" if request.target.port == loud_port else "none"
        return Verdict(allow=request.target.port != 9, rule="r", grants=Grants(log=log))

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
        NameService().serve(server)
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


def test_lines_have_the_level_of_their_rule_and_those_below_that_of_the_log_are_left_out() -> None:
    levels: dict[int, LogLevel] = {}

    def judge(request: Request, _context: Context) -> Verdict:
        assert request.target is not None
        return Verdict(
            allow=request.target.port != 9, rule="r", grants=Grants(log=levels.get(request.target.port, "debug"))
        )

    with target() as plain, target() as odd, serving(policy=judge) as server:
        levels |= {plain[1]: "info", odd[1]: "warning"}
        ask5(server.address, 1, "127.0.0.1", 9)[0].close()
        for there in (plain, odd):
            connect5(server.address, *there).close()
        assert "level" not in server.line(target=f"127.0.0.1:{plain[1]}")
        assert server.line(target=f"127.0.0.1:{odd[1]}")["level"] == "warning"
        server.idle()
        assert len(server.lines) == 2


def test_a_log_of_level_debug_has_all_but_none() -> None:
    def judge(request: Request, _context: Context) -> Verdict:
        assert request.target is not None
        return Verdict(allow=False, rule="r", grants=Grants(log="debug" if request.target.port == 9 else "none"))

    with serving(policy=judge, log=LogSettings(level="debug")) as server:
        for port in (8, 9):
            ask5(server.address, 1, "127.0.0.1", port)[0].close()
        assert server.line(target="127.0.0.1:9")["level"] == "debug"
        server.idle()
        assert len(server.lines) == 1
