"""The rule list: the first rule that matches decides; where none does, the request is refused.

A request for a name is judged before the look-up and again with each address that it led to. Before the look-up
address criteria are undecided; where no rule is left that could allow it, it is refused and DNS is not asked.

Two things stand outside the list. Rule 0: clients from other hosts reach ``@private`` only by a rule whose ``to``
names it or a network inside it. And a rule whose ``to`` holds only names never opens an address of ``@private``,
whoever asks: a name's owner could point it anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from tabi.addr import Address, Name
from tabi.errors import Reply
from tabi.policy.criteria import METHOD_WORDS, Criterion, Target, Truth
from tabi.policy.networks import PRIVATE, PrivateNetworks
from tabi.policy.verdict import NO_GRANTS, Context, Grants, Request, Verdict
from tabi.wire.socks5 import Command, Method

__all__ = ["NOTHING_MATCHED", "RULE_0", "Rule", "RuleList", "Trial"]

NOTHING_MATCHED = "no rule matched"
RULE_0 = "private networks"
RULE_0_ADVICE = 'a client from another host reaches it only by a rule whose "to" names @private or a network inside it'
RULE_0_LOCAL = 'a rule whose "to" has only names never reaches it; it takes one that names the network'


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One ``[[rule]]``.

    Args:
        name: for logs and `tabi explain`.
        allow: or refuse, with `reply`.
        reply: what a refused client hears.
        criteria: all must match.
        target: the ``to`` among them, if there is one.
        auth: methods of which the session must have used one; unmet, the request is refused and not passed on to the
            next rule.
        literals: False refuses targets given as addresses.
        open: the rule may serve clients that nobody has authenticated, from anywhere.
        grants: what an allowed request may do and how much.
    """

    name: str
    allow: bool
    reply: Reply = Reply.NOT_ALLOWED
    criteria: tuple[Criterion, ...] = ()
    target: Target | None = None
    auth: frozenset[Method] = frozenset()
    literals: bool = True
    open: bool = False
    grants: Grants = NO_GRANTS

    def test(self, request: Request, context: Context) -> Truth:
        """Say whether all criteria match, or None where one waits for the look-up."""
        undecided = False
        for criterion in self.criteria:
            truth = criterion.test(request, context)
            if truth is False:
                return False
            undecided = undecided or truth is None
        return None if undecided else True

    def why_not(self, request: Request, context: Context) -> str:
        """Say which criterion fails first."""
        failing = (one for one in self.criteria if one.test(request, context) is False)
        return next(failing).why_not(request, context)

    def unmet(self, request: Request, context: Context) -> str:
        """Say what a matching request still lacks, empty for nothing: its authentication, or a name."""
        if self.auth and context.method not in self.auth:
            wanted = " or ".join(sorted(METHOD_WORDS[method] for method in self.auth))
            used = METHOD_WORDS.get(context.method, str(context.method))
            return f"the rule wants auth {wanted}, the session used {used}"
        # DST.ADDR of an association is no target: its datagrams are
        if not self.literals and request.target is not None and not isinstance(request.target.host, Name):
            return "the rule takes names only, the target is an address"
        return ""

    def opens(self, address: Address, *, local_client: bool) -> bool:
        """Say whether this rule, where it allows, also allows an address of ``@private``."""
        if self.target is None:
            return local_client
        return self.target.opens(address) or (local_client and self.target.names_network_of(address))


@dataclass(frozen=True, slots=True)
class Trial:
    """One rule tried on one request, for `tabi explain`.

    Args:
        number: counted from 1; 0 is the rule that is built in.
        rule: its name.
        outcome: yes, no, or undecided (before the look-up).
        why: the criterion that failed, or what is lacking.
    """

    number: int
    rule: str
    outcome: str
    why: str


@dataclass(frozen=True, slots=True)
class RuleList:
    """Rules in their order. An instance is a `Policy`: call it, or `explain`.

    Args:
        rules: the list.
        private: what rule 0 guards; where it is to hold the server's own addresses, rules that name ``@private`` must
            have been built with the same.
    """

    rules: Sequence[Rule]
    private: PrivateNetworks = PRIVATE

    def __call__(self, request: Request, context: Context) -> Verdict:
        """Judge; see `tabi.policy.verdict`."""
        walk = _Walk()
        for number, rule in enumerate(self.rules, 1):
            truth = rule.test(request, context)
            if truth is False:  # nearly all of a long list
                continue
            verdict = walk.take(number, rule, self._step(rule, truth, request, context), request, context)
            if verdict is not None:
                return verdict
        return walk.end(request, context)

    def explain(self, request: Request, context: Context) -> tuple[Verdict, list[Trial]]:
        """Judge, and tell of every rule that was tried."""
        walk = _Walk()
        trials = []
        verdict = None
        for number, rule in enumerate(self.rules, 1):
            step = self._step(rule, rule.test(request, context), request, context)
            trials.append(Trial(number, rule.name, *_told(step, rule, request, context)))
            verdict = walk.take(number, rule, step, request, context)
            if verdict is not None:
                break
        verdict = verdict or walk.end(request, context)
        if verdict.rule == RULE_0 and not verdict.number:
            trials.append(Trial(0, RULE_0, "yes", f"{request.shown}: {verdict.note}"))
        return verdict, trials

    def _step(self, rule: Rule, truth: Truth, request: Request, context: Context) -> "_Step":
        if truth is False:
            return _Step.NO
        if rule.allow and self._is_barred(rule, request, context):
            return _Step.BARRED
        return _Step.UNDECIDED if truth is None else _Step.YES

    def _is_barred(self, rule: Rule, request: Request, context: Context) -> bool:
        ip = request.ip
        if ip is None or not (ip in self.private or ip == context.listener.host):
            return False
        if request.command is Command.BIND and ip.is_unspecified:
            return False  # "any peer" is no address; `any_peer` of the rule decides
        return not rule.opens(ip, local_client=_is_local(context))


class _Step(Enum):
    """What one rule says to one request."""

    NO = auto()
    BARRED = auto()  # it would allow the request, were the address not private
    UNDECIDED = auto()
    YES = auto()


class _Walk:
    """What has been learnt on the way down the list."""

    __slots__ = ("barred", "could_allow", "undecided")

    def __init__(self) -> None:
        self.could_allow: Verdict | None = None
        self.undecided = False
        self.barred = False

    def take(self, number: int, rule: Rule, step: _Step, request: Request, context: Context) -> Verdict | None:
        """Note what a rule said; the verdict, once there is one."""
        if step is _Step.NO:
            return None
        if step is _Step.BARRED:
            self.barred = True
            return None
        if step is _Step.UNDECIDED:
            self.undecided = True
            if rule.allow and self.could_allow is None:
                verdict = _decide(number, rule, request, context, tentative=True)
                self.could_allow = verdict if verdict.allow else None
            return None
        verdict = _decide(number, rule, request, context, tentative=self.undecided)
        # before a rule that refuses, an earlier one may still allow an address that the name leads to
        return verdict if verdict.allow else self.could_allow or verdict

    def end(self, request: Request, context: Context) -> Verdict:
        """Give the verdict where the list has ended without one."""
        if self.could_allow is not None:
            return self.could_allow
        if self.barred:
            return Verdict(allow=False, rule=RULE_0, note=RULE_0_LOCAL if _is_local(context) else RULE_0_ADVICE)
        return Verdict(allow=False, rule=NOTHING_MATCHED)


def _told(step: _Step, rule: Rule, request: Request, context: Context) -> tuple[str, str]:
    """Put a step into words: outcome and reason."""
    match step:
        case _Step.NO:
            return "no", rule.why_not(request, context)
        case _Step.BARRED:
            return "no", f"{request.shown} is in @private, which this rule does not open"
        case _Step.UNDECIDED if request.target is None:
            return "undecided", "each datagram is judged with its own target"
        case _Step.UNDECIDED:
            return "undecided", f"{request.shown} is not looked up yet"
        case _Step.YES:
            return "yes", rule.unmet(request, context)


def _decide(number: int, rule: Rule, request: Request, context: Context, *, tentative: bool) -> Verdict:
    lacking = rule.unmet(request, context)
    return Verdict(
        allow=rule.allow and not lacking,
        rule=rule.name,
        number=number,
        reply=Reply.NOT_ALLOWED if lacking else rule.reply,
        grants=rule.grants,
        note=lacking,
        tentative=tentative and rule.allow and not lacking,
    )


def _is_local(context: Context) -> bool:
    host = context.client.host
    return not isinstance(host, Name) and host.is_loopback
