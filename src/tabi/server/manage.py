"""What an administrator asks a running server: who is there, end these, and judge all again after a reload."""

import time
from collections.abc import Callable, Mapping

from tabi.net.clock import minute_of_week
from tabi.policy.verdict import Policy
from tabi.relay.interface import Cause
from tabi.server.live import Row, as_request, matches, row
from tabi.server.outcome import Outcome
from tabi.server.record import Facts
from tabi.server.server import Server
from tabi.server.session import Session

__all__ = ["judge_again", "kill", "sessions"]


def sessions(server: Server, wanted: Mapping[str, str]) -> list[Row]:
    """List the sessions that have all wanted fields; see `tabi.server.live.FIELDS`."""
    rows = [one for _, one in _relayed(server)] + [one for _, one in _served(server)]
    return sorted((one for one in rows if matches(one, wanted)), key=lambda one: one["session"])


def kill(server: Server, wanted: Mapping[str, str]) -> list[Row]:
    """End the sessions that have all wanted fields: both sides are reset. Gives the rows of those."""
    flows = [(flow, one) for flow, one in _relayed(server) if matches(one, wanted)]
    server.engine.kill([flow for flow, _ in flows], Cause.KILL)
    served = [(session, one) for session, one in _served(server) if not session.is_over and matches(one, wanted)]
    for session, _ in served:
        session.cancel(Outcome("tabi", "kill"), abort=True)
    return sorted([one for _, one in flows] + [one for _, one in served], key=lambda one: one["session"])


def judge_again(server: Server, policy: Policy, groups: Callable[[bytes | None], frozenset[str] | None]) -> int:
    """End sessions that new rules or users would refuse.

    A tunnel is judged by what was asked and by the address that it led to. An association or a BIND that still waits is
    judged as a whole; what an association relays is judged datagram by datagram, from now on anew.

    Args:
        server: whose sessions.
        policy: the new one.
        groups: of a user; None where there is no such user any more.

    Returns:
        how many were ended.
    """
    minute = minute_of_week()

    def refuses(facts: Facts) -> bool:
        known = groups(facts.user)
        return known is None or not policy(*as_request(facts, groups=known, minute_of_week=minute)).allow

    flows = [live.flow for live in server.engine.snapshot() if refuses(Facts.unpack(live.record))]
    server.engine.kill(flows, Cause.POLICY)
    ended = 0
    for session in server.sessions():
        note = ""
        if not session.live_by(groups):
            note = "there is no such user since the reload"
        elif session.is_served and refuses(session.notes.facts()):
            note = "refused by the rules since the reload"
        if note and not session.is_over:
            session.cancel(Outcome("tabi", "policy", note=note), abort=True)
            ended += 1
    return len(flows) + ended


def _relayed(server: Server) -> list[tuple[int, Row]]:
    now = time.monotonic()
    return [
        (live.flow, row(Facts.unpack(live.record), stage="relay", up=live.up, down=live.down, idle=now - live.last))
        for live in server.engine.snapshot()
    ]


def _served(server: Server) -> list[tuple[Session, Row]]:
    return [(session, row(session.notes.facts(), stage=_stage(session))) for session in server.sessions()]


def _stage(session: Session) -> str:
    if session.is_over:
        return "closing"
    return "serving" if session.is_served else "handshake"
