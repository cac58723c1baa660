"""docs/reference/log.md names all that a line of the log can hold, and nothing else."""

import ast
import re

from helpers.pages import ROOT
from tabi.config.keys import TABLES
from tabi.config.settings import Caps, TimeLimits
from tabi.errors import AuthError, DeniedError, DialError, ProtocolError
from tabi.relay.interface import Cause, Closer, End
from tabi.server.outcome import relayed, why

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


def test_page_has_every_reason_and_no_other() -> None:
    reasons = of_flows() | written_out()
    reasons |= {why(kind("x")) for kind in (DeniedError, AuthError, ProtocolError, DialError)}
    reasons |= {f"limit:{name}" for name in TimeLimits.__dataclass_fields__ if name != "drain"}
    reasons |= {f"limit:{kind}-{name}" for kind in ("user", "rule") for name in ENDING}
    reasons |= {f"cap:{name}" for name in Caps.__dataclass_fields__}
    reasons = {re.sub("^error:.*", "error:NAME", one) for one in reasons}
    assert names_in(PAGE.partition("## `why`")[2]) == reasons


def test_limits_of_the_page_are_those_of_users_and_rules() -> None:
    for name in ("user", "rule"):
        known = {key.name for key in TABLES[name].keys}
        assert known >= {*ENDING, "bandwidth"}


def test_page_has_every_field_and_no_other() -> None:
    tree = ast.parse((SERVER / "record.py").read_text())
    makers = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "_fields")
    fields = next(makers)
    known = {
        one.value
        for one in ast.walk(fields)
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and re.fullmatch(r"[a-z_]+", one.value)
    }
    known -= {"utf", "backslashreplace"}
    assert names_in(PAGE.partition("## `why`")[0].partition("| field")[2]) == known
