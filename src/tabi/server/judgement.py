"""What policy says about one session from its request on, and what follows from it.

The rule that allows it says what the session is counted with, where its connections come from and what limits it keeps.
A name is judged before it is looked up, then each address that it led to; the address that was taken settles which
verdict counts. After a reload what was judged before is judged again.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tabi.addr import Address
from tabi.errors import DeniedError, TabiError
from tabi.machine.server import RequestReceived
from tabi.policy.verdict import NO_GRANTS, Context, Grants, Policy, Request, Verdict
from tabi.server.limits import Claims, LimitReachedError, SessionLimits, Terms
from tabi.server.notes import Notes

__all__ = ["Judgement"]

# A literal 0.0.0.0 or :: is refused as no host to connect to; the kernel would take one that a name leads to for us.
_NOWHERE: Final = Verdict(allow=False, rule="the unspecified address is no target")


class Judgement:
    """The verdicts about one session.

    Args:
        policy: who judges; always by the rules of the day.
        limits: where sessions are counted in.
        context: who asks, and how.
        notes: where verdicts are noted for the log.
    """

    __slots__ = (
        "_context", "_granted", "_limit_reached", "_limits", "_notes", "_outdated", "_policy", "claims",
        "on_new_rules", "verdict",
    )  # fmt: skip

    def __init__(self, policy: Policy, limits: SessionLimits, context: Context, notes: Notes) -> None:
        self._policy = policy
        self._limits = limits
        self._context = context
        self._notes = notes
        self._outdated = ""  # since when it is by rules that have been replaced
        self._granted: dict[Address, Verdict] = {}  # what allows each address that was judged
        self._limit_reached: LimitReachedError | None = None  # what refused the others
        self.claims: Claims = Claims(limits)
        self.verdict: Verdict | None = None  # what allows the session, as far as it is judged
        self.on_new_rules: Callable[[], None] | None = None

    def judge(self, request: Request) -> Verdict:
        """Ask policy about `request`."""
        if request.address is not None and request.address.is_unspecified:
            return _NOWHERE
        return self._policy(request, self._context)

    def require(self, request: Request) -> Verdict:
        """Ask policy, note its verdict for the log, and raise where it refuses.

        Raises:
            DeniedError: with the reply that the rule names.
            LimitReachedError: the user or the rule has no room for the session.
        """
        verdict = self.judge(request)
        self._notes.note_verdict(verdict)
        if not verdict.allow:
            raise DeniedError(verdict.refusal(), reply=verdict.reply)
        self.claims.claim_user(self._context.user)
        if not verdict.tentative:
            self.claims.claim_rule(verdict)
        self.verdict = verdict
        return verdict

    def permits(self, event: RequestReceived) -> Callable[[Address], bool]:
        """Make the judgement over addresses that dialling asks for; it marks when the first was there."""

        any_allowed = False

        def permit(address: Address) -> bool:
            nonlocal any_allowed
            self._notes.mark_resolved()
            if self._has_judged(event, address):
                return True
            verdict = self.judge(Request(event.command, event.target, address))
            if verdict.allow or not any_allowed:  # one refused address does not refuse the session
                self._notes.note_verdict(verdict)
            any_allowed = any_allowed or verdict.allow
            return verdict.allow and self._has_room(address, verdict)

        return permit

    def _has_judged(self, event: RequestReceived, address: Address) -> bool:
        """Say whether `require` has allowed this very address, which was asked for as such and not by a name."""
        if self._outdated or self.verdict is None or self.verdict.tentative:
            return False
        return address == event.target.host

    def _has_room(self, address: Address, verdict: Verdict) -> bool:
        """Count the session in with the rule that allows an address."""
        try:
            self.claims.claim_rule(verdict)
        except LimitReachedError as error:  # one address does not refuse the session
            self._limit_reached = error
            return False
        self._granted[address] = verdict
        return True

    def cause(self, error: TabiError) -> TabiError:
        """Say what refused the session in truth: where a limit struck out every address, that limit."""
        if isinstance(error, DeniedError) and self._limit_reached is not None and not self._granted:
            return self._limit_reached
        return error

    def _verdict_about(self, address: Address | None) -> Verdict | None:
        return self.verdict if address is None else self._granted.get(address, self.verdict)

    def egress_to(self, address: Address) -> Address | str | None:
        """Say where a connection to an address that was judged is to come from, as the rule has it that allows it."""
        return self.grants_to(address).egress

    def grants_to(self, address: Address) -> Grants:
        """Say what the rule grants that allows an address that was judged."""
        verdict = self._verdict_about(address)
        return NO_GRANTS if verdict is None else verdict.grants

    def settle(self, address: Address | None) -> Verdict:
        """Say which verdict counts from here on.

        Args:
            address: that was taken; None: nobody here knows it, and the verdict about the request stays.
        """
        verdict = self._verdict_about(address)
        if verdict is None:
            raise RuntimeError("settled before the request was judged")
        self.verdict = verdict
        self._notes.note_verdict(verdict)
        return verdict

    def terms(self) -> Terms:
        """Say what the session has to keep to, with what is left of its lifetime for the flow."""
        if self.verdict is None:
            raise RuntimeError("there are no terms before the request is judged")
        terms = self._limits.terms(self._context.user, self.verdict)
        return terms._replace(flow=terms.flow_from(self._notes.milliseconds() / 1000)) if terms.lifetime else terms

    def confirm(self, event: RequestReceived, address: Address | None) -> None:
        """Judge an address again, to which the way is open now, where the rules have changed meanwhile.

        Args:
            event: the request.
            address: None: nobody here knows it, and the name alone is judged.

        Raises:
            DeniedError: the new rules refuse it.
        """
        if not self._outdated:
            return
        verdict = self.judge(Request(event.command, event.target, address))
        self._notes.note_verdict(verdict)
        if not verdict.allow:
            raise DeniedError(verdict.refusal(self._outdated), reply=verdict.reply)
        self.claims.carry(verdict.rule)
        if address is None:
            self.verdict = verdict
        else:
            self._granted[address] = verdict

    def live_by(self, groups: frozenset[str]) -> None:
        """Judge by the groups that the user is in now."""
        self._context = replace(self._context, groups=groups)

    def forget_verdicts(self, since: str) -> None:
        """Have what was judged by old rules judged anew; a refusal says `since` when they are others."""
        self._outdated = since

    def go_on_by(self, verdict: Verdict) -> None:
        """Keep to what new rules say, which allow the request as far as it is known."""
        if self.verdict is None:  # it has not been judged before either
            return
        if not verdict.tentative:
            self.claims.carry(verdict.rule)
        self.verdict = verdict
        self._notes.note_verdict(verdict)
        if self.on_new_rules is not None:
            self.on_new_rules()
