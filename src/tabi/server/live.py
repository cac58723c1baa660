"""Sessions that are alive: as rows for the administrator, and judged again when the rules change.

What a relayed session is known by are the packed facts that the engine keeps; so a snapshot of those is the list.
"""

import fnmatch
import time
from collections.abc import Mapping
from typing import TypeAlias

from tabi.addr import Endpoint, Name
from tabi.policy.criteria import METHOD_WORDS
from tabi.policy.verdict import Context, Request
from tabi.server.record import Facts
from tabi.wire.socks5 import Command
from tabi.wire.version import Version

_METHODS = {word: method for method, word in METHOD_WORDS.items()}

__all__ = ["FIELDS", "Row", "as_request", "matches", "row"]

Row: TypeAlias = dict[str, str | int | float]
"""One line of an answer, ready for JSON."""

FIELDS = ("session", "client", "listener", "user", "socks", "method", "command", "target", "to", "via", "rule", "stage")
"""What sessions can be picked by."""


def row(facts: Facts, *, stage: str, up: int = 0, down: int = 0, idle: float = 0.0) -> Row:
    """Make one row.

    Args:
        facts: what is known.
        stage: handshake, serving, relay or closing.
        up: bytes to the target so far.
        down: bytes to the client so far.
        idle: seconds since a byte moved.
    """
    return {
        "session": facts.session,
        "client": facts.client,
        "listener": facts.listener,
        "user": "" if facts.user is None else facts.user.decode("utf-8", "backslashreplace"),
        "socks": facts.socks,
        "method": facts.method,
        "command": facts.command,
        "target": facts.target,
        "to": facts.to,
        "via": facts.via,
        "rule": facts.rule,
        "stage": stage,
        "up": up,
        "down": down,
        "age": round(max(0.0, time.time() - facts.accepted), 1),
        "idle": round(idle, 1),
    }


def matches(candidate: Mapping[str, object], wanted: Mapping[str, str]) -> bool:
    """Say whether a row has all wanted fields; values are globs. A client or target also matches without its port."""
    for key, pattern in wanted.items():
        value = str(candidate[key])
        values = {value}
        if key in ("client", "target", "to", "listener"):
            values.add(value.rpartition(":")[0].strip("[]"))
        if pattern not in values and not any(fnmatch.fnmatchcase(one, pattern) for one in values):  # [::1] is no glob
            return False
    return True


def as_request(facts: Facts, *, groups: frozenset[str], minute_of_week: int) -> tuple[Request, Context]:
    """Make of the facts of a relayed session what policy judged, to have it judged again."""
    command = Command[facts.command.upper()]
    target = None if command is Command.UDP_ASSOCIATE else Endpoint.parse(facts.target)
    address = None
    if facts.to and target is not None and isinstance(target.host, Name):
        host = Endpoint.parse(facts.to).host
        address = None if isinstance(host, Name) else host  # a name: an upstream has looked it up
    request = Request(command, target, address)
    context = Context(
        client=Endpoint.parse(facts.client),
        listener=Endpoint.parse(facts.listener),
        version=Version(facts.socks),
        method=_METHODS[facts.method],
        user=facts.user,
        userid=facts.userid or b"",
        groups=groups,
        minute_of_week=minute_of_week,
    )
    return request, context
