"""What becomes of the sessions that are there when rules, users and limits change.

Those that the new configuration would refuse are ended, each with its reason: the rules refuse what was asked, or the
address that it led to; the user is gone or has another password; or one who came in without a password would be asked
for one now. All others go on, by the limits of their user and of the rule that allows them now.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable
from typing import Final

from tabi.net.clock import minute_of_week
from tabi.policy.verdict import Verdict
from tabi.relay.interface import Cause, FlowLimits
from tabi.server.live import as_request
from tabi.server.outcome import Outcome
from tabi.server.record import Facts
from tabi.server.server import Server
from tabi.server.session import Session, address_of

__all__ = ["MOVED", "RELOADED", "Groups", "Review"]

Groups = Callable[[bytes | None], frozenset[str] | None]
"""Of a user; None where there is no such user any more."""

_AT_ONCE: Final = 16  # tunnels, some 50 us each: a callback of the loop lasts no longer than a millisecond

RELOADED: Final = "since the reload"
MOVED: Final = "since this host has other addresses"
_NO_USER: Final = "there is no such user"
_OTHER_PASSWORD: Final = "the user has another password"
_NO_ENTRY: Final = "who comes in like this is asked for a password"


class Review:
    """Judges all sessions of a server once, after it was told of the new configuration (`Server.reconfigure`).

    Args:
        server: whose sessions.
        groups: of users as they are now.
        changed: users who have another password than before.
        since: when the configuration is another: what stands behind each reason.
    """

    def __init__(
        self, server: Server, groups: Groups, changed: Collection[bytes] = (), *, since: str = RELOADED
    ) -> None:
        self._server = server
        self._groups = groups
        self._changed = changed
        self._since = since
        self._minute = minute_of_week()

    async def run(self) -> int:
        """Tell every session: at once those that are served here, and then the tunnels, while others are served.

        Returns:
            how many were ended.
        """
        ended = sum(map(self._session, self._server.sessions()))
        tunnels = self._server.tunnels.review()
        while some := list(itertools.islice(tunnels, _AT_ONCE)):
            ended += self._tunnels(some)
            await asyncio.sleep(0)
        return ended

    def _tunnels(self, some: Iterable[tuple[int, Facts]]) -> int:
        ended: dict[int, str] = {}
        limited: dict[FlowLimits, list[int]] = {}
        for flow, facts in some:
            verdict = self._judge(facts)
            if isinstance(verdict, str):
                ended[flow] = verdict
            else:
                limited.setdefault(self._limits(flow, facts, verdict), []).append(flow)
        self._server.tunnels.end(ended, Cause.POLICY)
        for limits, flows in limited.items():
            self._server.engine.limit(flows, limits)
        return len(ended)

    def _session(self, session: Session) -> bool:
        """Tell one that the engine does not have: a handshake, an association, a connection that is being made."""
        if session.is_over:
            return False
        why = self._refusal(session)
        if why:
            session.cancel(Outcome("tabi", "policy", note=why), abort=True)
        return bool(why)

    def _refusal(self, session: Session) -> str:
        options = self._server.options_for(session.listener, address_of(session.client))
        if not session.machine.live_by(options):
            return f"{_NO_ENTRY} {self._since}"
        if not session.live_by(self._groups):
            return f"{_NO_USER} {self._since}"
        if session.has_login and session.notes.user in self._changed:
            return f"{_OTHER_PASSWORD} {self._since}"
        if session.is_served:
            verdict = self._judge(session.notes.facts())
            if isinstance(verdict, str):
                return verdict
            session.judgement.go_on_by(verdict)
        return ""

    def _judge(self, facts: Facts) -> Verdict | str:
        """Judge by what is known of a session; where it is refused, say why."""
        groups = self._groups(facts.user)
        if groups is None:
            return f"{_NO_USER} {self._since}"
        if facts.user in self._changed:
            return f"{_OTHER_PASSWORD} {self._since}"
        request, context = as_request(facts, groups=groups, minute_of_week=self._minute)
        options = self._server.options_for(context.listener, address_of(context.client))
        if not options.admits(context.version, context.method):
            return f"{_NO_ENTRY} {self._since}"
        verdict = self._server.policy(request, context)
        if verdict.allow:
            return verdict
        return verdict.refusal(self._since)

    def _limits(self, flow: int, facts: Facts, verdict: Verdict) -> FlowLimits:
        """Say what a tunnel has to keep to, and know it as what the rule makes of it that allows it now."""
        terms = self._server.limits.terms(facts.user, verdict)
        known = facts._replace(rule=verdict.rule, lifetime=terms.limit, level=verdict.grants.log)
        if known != facts:
            self._server.limits.move(facts.rule, verdict.rule)
            self._server.tunnels.amend(flow, known)
        return terms.flow_from(facts.before_relay)
