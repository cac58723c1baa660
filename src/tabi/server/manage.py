"""What an administrator asks a running server: who is there, and end these."""

import time
from collections.abc import Mapping

from tabi.relay.interface import Cause
from tabi.server.live import Row, matches, row
from tabi.server.outcome import Outcome
from tabi.server.server import Server
from tabi.server.session import Session

__all__ = ["kill", "sessions"]


def sessions(server: Server, wanted: Mapping[str, str]) -> list[Row]:
    """List the sessions that have all wanted fields; see `tabi.server.live.FIELDS`."""
    server.lane.call_in()
    rows = [one for _, one in _relayed(server)] + [one for _, one in _served(server)]
    return sorted((one for one in rows if matches(one, wanted)), key=lambda one: one["session"])


def kill(server: Server, wanted: Mapping[str, str]) -> list[Row]:
    """End the sessions that have all wanted fields: both sides are reset. Gives the rows of those."""
    server.lane.call_in()
    flows = [(flow, one) for flow, one in _relayed(server) if matches(one, wanted)]
    server.engine.kill([flow for flow, _ in flows], Cause.KILL)
    served = [(session, one) for session, one in _served(server) if not session.is_over and matches(one, wanted)]
    for session, _ in served:
        session.cancel(Outcome("tabi", "kill"), abort=True)
    return sorted([one for _, one in flows] + [one for _, one in served], key=lambda one: one["session"])


def _relayed(server: Server) -> list[tuple[int, Row]]:
    now = time.monotonic()
    return [
        (live.flow, row(facts, stage="relay", up=live.up, down=live.down, idle=now - live.last))
        for live, facts in server.tunnels.live()
    ]


def _served(server: Server) -> list[tuple[Session, Row]]:
    return [(session, row(session.notes.facts(), stage=_stage(session))) for session in server.sessions()]


def _stage(session: Session) -> str:
    if session.is_over:
        return "closing"
    return "serving" if session.is_served else "handshake"
