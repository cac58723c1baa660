"""What the gate saw, one line for each name, connect, connection that is over, and socket that sent datagrams.

Values may hold anything that the program or a proxy has said; they are escaped, so that a line stays one line. What is
not known is left out.
"""

import json
from collections.abc import Callable
from ipaddress import ip_address

from tabi.addr import Endpoint, token
from tabi.errors import TabiError
from tabi.relay import End
from tabi.wrap.datagrams import Flow
from tabi.wrap.dns import Kind
from tabi.wrap.held import Decided
from tabi.wrap.zone import Answer

__all__ = ["Trace"]

_ADDRESSES = frozenset({Kind.A, Kind.AAAA})


class Trace:
    """Makes lines of what it is told.

    Args:
        write: takes each line, without its end.
        as_json: each line is an object.
    """

    def __init__(self, write: Callable[[str], object], *, as_json: bool = False) -> None:
        self._write = write
        self._as_json = as_json

    def answered(self, client: Endpoint, said: Answer) -> None:
        """Tell which name was asked for, and what stands for it now."""
        query = said.query
        addresses = [str(ip_address(one.data)) for one in said.records if one.kind in _ADDRESSES]
        name = b".".join(query.labels).decode("utf-8", "surrogateescape")
        answer = ",".join(addresses) or said.rcode.name
        self._line("name", {"from": str(client), "name": name or ".", "type": _kind(query.kind), "answer": answer})

    def decided(self, decided: Decided) -> None:
        """Tell how a connect has ended."""
        self._line("connect", {
            "from": str(decided.source),
            "to": str(decided.target),
            "ms": round(decided.seconds * 1000, 1),
            "verdict": "connected" if decided.answer is None else decided.answer.name,
            "error": None if decided.error is None else str(decided.error),
        })  # fmt: skip

    def ended(self, end: End) -> None:
        """Tell what a connection has carried; its record is ``SOURCE TARGET``."""
        source, _, target = end.record.decode().partition(" ")
        self._line("end", {
            "from": source, "to": target, "up": end.up, "down": end.down,
            "ms": round((end.ended - end.started) * 1000, 1),
            "by": end.closer.name.lower(), "why": end.cause.name.lower(),
        })  # fmt: skip

    def flowed(self, flow: Flow) -> None:
        """Tell what a socket has sent and got by datagrams."""
        self._line("datagrams", {
            "from": str(flow.source), "to": ",".join(map(str, flow.targets)),
            "sent": flow.sent, "up": flow.up, "received": flow.received, "down": flow.down,
        })  # fmt: skip

    def refused(self, error: TabiError) -> None:
        """Tell why datagrams are refused from now on."""
        self._line("datagrams", {"verdict": "refused", "error": str(error)})

    def _line(self, event: str, fields: dict[str, str | int | float | None]) -> None:
        known = {key: value for key, value in fields.items() if value is not None}
        if self._as_json:
            self._write(json.dumps({"event": event, **known}))
        else:
            self._write(" ".join((event, *(f"{key}={token(str(value))}" for key, value in known.items()))))


def _kind(kind: int) -> str:
    """Name a type of records, as RFC 3597 section 5 has it where it is none of ours."""
    try:
        return Kind(kind).name
    except ValueError:
        return f"TYPE{kind}"
