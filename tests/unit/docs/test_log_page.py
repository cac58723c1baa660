"""docs/reference/log.md names all that a line of the log can hold, and nothing else."""

import ast
import json
import re

from helpers.pages import ROOT
from tabi.config.keys import TABLES
from tabi.config.settings import Caps, TimeLimits
from tabi.errors import AuthError, DeniedError, DialError, HopName, ProtocolError, TabiError
from tabi.relay.interface import Cause, Closer, End
from tabi.server.line import format_line
from tabi.server.outcome import Outcome, relayed, why
from tabi.server.record import Facts

PAGE = (ROOT / "docs" / "reference" / "log.md").read_text(encoding="utf-8")
SERVER = ROOT / "src" / "tabi" / "server"
ENDING = ("sessions", "rate", "lifetime")  # limits of users and rules that refuse or end


def names_in(part: str) -> set[str]:
    """Take the names out of the first column of a table."""
    first = re.findall(r"^\| (`.*?) \|", part, re.MULTILINE)
    return {name for cell in first for name in re.findall(r"`([^`]+)`", cell)}


def of_flows() -> set[str]:
    """Every cause that the engine can give, as the log shows it."""
    ends = [End(1, b"", Closer.TABI, cause, 110, 0, 0, 0.0, 0.0) for cause in Cause]
    return {relayed(end, 0.0, "user-lifetime", "").why for end in ends}


def written_out() -> set[str]:
    """Every cause that stands in the code of the server as such."""
    found = set()
    for source in SERVER.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "Outcome" and len(node.args) > 1:
                found |= {one.value for one in ast.walk(node.args[1]) if isinstance(one, ast.Constant)}
    return {str(one) for one in found if one not in ("limit:", "cap:")}  # these go on with a name


def at_a_proxy() -> TabiError:
    error = DeniedError("x")
    error.hop = HopName(1, 1, "socks5h://192.0.2.1:1080")
    return error


def test_page_has_every_reason_and_no_other() -> None:
    reasons = of_flows() | written_out()
    reasons |= {why(kind("x")) for kind in (DeniedError, AuthError, ProtocolError, DialError)}
    reasons.add(why(at_a_proxy()))
    reasons |= {f"limit:{name}" for name in TimeLimits.__dataclass_fields__ if name != "drain"}
    reasons |= {f"limit:{kind}-{name}" for kind in ("user", "rule") for name in ENDING}
    reasons |= {f"cap:{name}" for name in Caps.__dataclass_fields__}
    reasons = {re.sub("^error:.*", "error:NAME", one) for one in reasons}
    assert names_in(PAGE.partition("## `why`")[2]) == reasons


def test_limits_of_the_page_are_those_of_users_and_rules() -> None:
    for name in ("user", "rule"):
        known = {key.name for key in TABLES[name].keys}
        assert known >= {*ENDING, "bandwidth"}


def everything_known() -> Facts:
    """Facts of which none is left out of the line."""
    texts = {name: "x" for name in Facts._fields if isinstance(Facts._field_defaults.get(name, ""), str)}
    numbers = {name: 1 for name in Facts._fields if isinstance(Facts._field_defaults.get(name), int | float)}
    names = {name: b"x" for name in Facts._fields if Facts._field_defaults.get(name, "") is None}
    return Facts(**{**texts, **numbers, **names, "session": 1, "accepted": 0.0, "level": "warning"})


def test_page_has_every_field_and_no_other() -> None:
    line = json.loads(format_line(everything_known(), Outcome("tabi", "failed", note="x"), "json"))
    assert names_in(PAGE.partition("## `why`")[0].partition("| field")[2]) == set(line)
