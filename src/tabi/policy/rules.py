"""The rule list: the first rule that matches decides; where none does, the request is refused.

A request for a name is judged before the look-up and again with each address that it led to. Before the look-up
address criteria are undecided; where no rule is left that could allow it, it is refused and DNS is not asked.

Two things stand outside the list. Rule 0: clients from other hosts reach ``@private`` only by a rule whose ``to``
names it or a network inside it. And a rule whose ``to`` holds only names never opens an address of ``@private``,
whoever asks: a name's owner could point it anywhere.

A rule may leave it to an upstream to look names up (``resolve = "upstream"``). Where such a rule allows a name without
its addresses, nobody here learns them: earlier rules that wait for addresses are passed over, and rule 0 with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from tabi.addr import Address, Name
from tabi.errors import Reply
from tabi.policy.criteria import Truth
from tabi.policy.index import RuleIndex
from tabi.policy.masks import lowest
from tabi.policy.networks import PRIVATE, PrivateNetworks
from tabi.policy.rule import Rule
from tabi.policy.verdict import Context, Request, Verdict
from tabi.wire.socks5 import Command

__all__ = ["NOTHING_MATCHED", "RULE_0", "RuleList", "Trial"]

NOTHING_MATCHED = "no rule matched"
RULE_0 = "private networks"
RULE_0_ADVICE = 'a client from another host reaches it only by a rule whose "to" names @private or a network inside it'
RULE_0_LOCAL = 'a rule whose "to" has only names never reaches it; it takes one that names the network'


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


@dataclass(frozen=True)
class RuleList:
    """Rules in their order. An instance is a `Policy`: call it, or `explain`.

    Args:
        rules: the list.
        private: what rule 0 guards; where it is to hold the server's own addresses, rules that name ``@private`` must
            have been built with the same.
        index: of the rules.
    """

    rules: Sequence[Rule]
    private: PrivateNetworks = PRIVATE
    index: RuleIndex = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "index", RuleIndex(self.rules))

    def __reduce__(self) -> tuple[type["RuleList"], tuple[Sequence[Rule], PrivateNetworks]]:
        """Leave the index out of a pickle: it is made anew where the list arrives."""
        return RuleList, (self.rules, self.private)

    def __call__(self, request: Request, context: Context) -> Verdict:
        """Judge; see `tabi.policy.verdict`. It is the walk of `explain`, over all rules at once."""
        sure, possible = self.index.match(request, context)
        barred = 0
        ip = request.ip
        if ip is not None and self._is_guarded(ip, request, context):
            opening = self.index.opening(ip, local_client=_is_local(context))
            barred = possible & self.index.allowing & ~opening
            sure &= ~barred
        first = sure & -sure
        before = first - 1  # all bits where there is no such rule
        undecided = possible & ~barred & ~sure & before
        hopeful = undecided & self.index.granting(request, context)
        could_allow = self._decide(lowest(hopeful), request, context) if hopeful else None
        if not first:
            return could_allow or _nothing_matched(context, barred=bool(barred))
        place = lowest(first)
        verdict = _settle(place + 1, self.rules[place], request, context, undecided=bool(undecided))
        return verdict if verdict.allow else could_allow or verdict

    def _decide(self, place: int, request: Request, context: Context) -> Verdict:
        return _decide(place + 1, self.rules[place], request, context, tentative=True)

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
        verdict = verdict or walk.end(context)
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
        if ip is None or not self._is_guarded(ip, request, context):
            return False
        return not rule.opens(ip, local_client=_is_local(context))

    def _is_guarded(self, ip: Address, request: Request, context: Context) -> bool:
        """Say whether rule 0 stands before an address."""
        if request.command is Command.BIND and ip.is_unspecified:
            return False  # "any peer" is no address; `any_peer` of the rule decides
        return ip in self.private or ip == context.listener.host


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
        verdict = _settle(number, rule, request, context, undecided=self.undecided)
        # before a rule that refuses, an earlier one may still allow an address that the name leads to
        return verdict if verdict.allow else self.could_allow or verdict

    def end(self, context: Context) -> Verdict:
        """Give the verdict where the list has ended without one."""
        return self.could_allow or _nothing_matched(context, barred=self.barred)


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
    return "yes", rule.unmet(request, context)


def _settle(number: int, rule: Rule, request: Request, context: Context, *, undecided: bool) -> Verdict:
    """Decide by a rule that matches, with or without others before it that wait for the addresses of a name."""
    if not rule.grants.via or not _awaits_addresses(request):
        return _decide(number, rule, request, context, tentative=undecided)
    leaves = rule.grants.resolve == "upstream"
    verdict = _decide(number, rule, request, context, tentative=undecided and not leaves)
    opens_all = _is_local(context) and (rule.target is None or not rule.target.within)
    return replace(verdict, by_name=verdict.allow and (leaves or (not undecided and opens_all)))


def _awaits_addresses(request: Request) -> bool:
    """Say whether a name is asked for, and is not looked up yet."""
    return request.target is not None and isinstance(request.target.host, Name) and request.address is None


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


def _nothing_matched(context: Context, *, barred: bool) -> Verdict:
    if barred:
        return Verdict(allow=False, rule=RULE_0, note=RULE_0_LOCAL if _is_local(context) else RULE_0_ADVICE)
    return Verdict(allow=False, rule=NOTHING_MATCHED)


def _is_local(context: Context) -> bool:
    host = context.client.host
    return not isinstance(host, Name) and host.is_loopback
