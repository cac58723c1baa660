"""Why a request would be allowed or refused: the greeting, the rules before the look-up, the rules for each address."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tabi.addr import Address, Endpoint, Name
from tabi.config.kinds import hint
from tabi.config.load import Configuration
from tabi.errors import Reply
from tabi.policy.rules import Trial
from tabi.policy.verdict import Context, Request, Verdict
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

__all__ = ["REPLY_TEXTS", "Explanation", "Judgement", "Question", "explain", "judge_before"]

REPLY_TEXTS = {
    Reply.SUCCEEDED: "succeeded",
    Reply.GENERAL_FAILURE: "general failure",
    Reply.NOT_ALLOWED: "not allowed by ruleset",
    Reply.NETWORK_UNREACHABLE: "network unreachable",
    Reply.HOST_UNREACHABLE: "host unreachable",
    Reply.CONNECTION_REFUSED: "connection refused",
    Reply.TTL_EXPIRED: "TTL expired",
    Reply.COMMAND_NOT_SUPPORTED: "command not supported",
    Reply.ADDRESS_TYPE_NOT_SUPPORTED: "address type not supported",
}
"""RFC 1928 section 6."""

SOCKS4_REFUSED = 91
"""SOCKS4.protocol: "request rejected or failed", whatever the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked about.

    Args:
        client: address of the client.
        listener: where it comes in.
        version: what it speaks.
        method: what it authenticates by; None: a password where there is a user.
        user: what it logs in as.
        userid: what a SOCKS4 client claims.
        command: what it wants.
        target: of what.
        minute_of_week: when.
    """

    client: Address
    listener: Endpoint
    command: Command
    target: Endpoint
    version: Version = Version.SOCKS5
    method: Method | None = None
    user: bytes | None = None
    userid: bytes = b""
    minute_of_week: int = 0

    @property
    def used_method(self) -> Method:
        """What the client authenticates by."""
        if self.method is not None:
            return self.method
        return Method.NONE if self.user is None else Method.USERPASS

    def context(self, configuration: Configuration) -> Context:
        """Make what policy is told of the client."""
        return Context(
            client=Endpoint(self.client, 0),
            listener=self.listener,
            version=self.version,
            method=self.used_method,
            user=self.user,
            userid=self.userid,
            groups=configuration.groups(self.user),
            minute_of_week=self.minute_of_week,
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """One walk down the list.

    Args:
        address: that a name led to; None: the walk before the look-up, or a target that is an address.
        verdict: what came of it.
        trials: the rules that were tried.
    """

    address: Address | None
    verdict: Verdict
    trials: tuple[Trial, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The answer.

    Args:
        question: what was asked.
        at_greeting: why the client does not even come to its request; empty where it does.
        heard: what the client hears then.
        judgements: one, or one for each address that a name led to.
        looked_up: whether the server would ask for addresses.
        shown: addresses that `judgements` speak of although it would not, for a fuller answer.
    """

    question: Question
    at_greeting: str = ""
    heard: str = ""
    judgements: tuple[Judgement, ...] = ()
    looked_up: bool = False
    shown: tuple[Address, ...] = ()

    @property
    def deciding(self) -> Judgement | None:
        """The judgement that the client feels: the first that allows, else the first."""
        allowing = (one for one in self.judgements if one.verdict.allow)
        return next(allowing, self.judgements[0] if self.judgements else None)

    @property
    def allow(self) -> bool:
        """Whether the request goes through."""
        return self.deciding is not None and self.deciding.verdict.allow

    @property
    def by_name(self) -> bool:
        """Whether a name goes to an upstream as it is."""
        return self.deciding is not None and self.deciding.verdict.by_name

    @property
    def wants_addresses(self) -> bool:
        """Whether addresses would make the answer fuller: some rule was passed over for want of them."""
        named = isinstance(self.question.target.host, Name) and not self.by_name
        return named and any(trial.outcome == "undecided" for one in self.judgements for trial in one.trials)


def judge_before(configuration: Configuration, question: Question) -> Explanation | None:
    """Explain what is settled without a look-up.

    Returns:
        the explanation; None where the addresses of the name decide.
    """
    refusal = _greeting(configuration, question)
    if refusal is not None:
        heard, why = refusal
        return Explanation(question=question, at_greeting=why, heard=heard)
    if question.command is Command.UDP_ASSOCIATE:
        opening = _judge(configuration, question, Request(question.command, None))
        if not opening.verdict.allow:
            return Explanation(question=question, judgements=(opening,))
    judgement = _judge(configuration, question, Request(question.command, question.target))
    if isinstance(question.target.host, Name) and judgement.verdict.allow and not judgement.verdict.by_name:
        return None
    return Explanation(question=question, judgements=(judgement,))


def explain(configuration: Configuration, question: Question, addresses: Sequence[Address] = ()) -> Explanation:
    """Explain a request.

    Args:
        configuration: whose rules.
        question: the request.
        addresses: what a name leads to; not looked at where that does not matter.
    """
    settled = judge_before(configuration, question)
    if settled is not None and not settled.wants_addresses:
        return settled
    requests = (Request(question.command, question.target, address) for address in addresses)
    judgements = tuple(_judge(configuration, question, request) for request in requests)
    if settled is None:
        return Explanation(question=question, judgements=judgements, looked_up=True)
    same = [one for one in judgements if _effect(one) == _effect(settled.judgements[0])]
    if len(judgements) == 1 and same:  # the rules say more of an address than of a name
        return replace(settled, judgements=judgements, shown=tuple(addresses))
    return settled


def _effect(judgement: Judgement) -> tuple[bool, int, Reply]:
    return judgement.verdict.allow, judgement.verdict.number, judgement.verdict.reply


def _judge(configuration: Configuration, question: Question, request: Request) -> Judgement:
    verdict, trials = configuration.rules.explain(request, question.context(configuration))
    ip = request.ip
    if verdict.allow and ip is not None and ip.is_unspecified:
        if question.command is not Command.BIND:
            verdict = Verdict(allow=False, rule="the unspecified address is no target")
        elif not verdict.grants.any_peer:
            lacking = "it names no peer, and the rule does not say any_peer = true"
            verdict = replace(verdict, allow=False, reply=Reply.NOT_ALLOWED, note=lacking)
    if verdict.allow and question.command is Command.UDP_ASSOCIATE:
        verdict = _held_to_association(configuration, question, request, verdict)
    return Judgement(request.address, verdict, tuple(trials))


def _held_to_association(
    configuration: Configuration, question: Question, request: Request, verdict: Verdict
) -> Verdict:
    """Refuse a datagram that would have to leave the way of its association."""
    opening = configuration.rules(Request(question.command, None), question.context(configuration))
    lacking = ""
    upstreams = opening.grants.upstreams
    if verdict.grants.upstreams != upstreams:
        way = f"through {', '.join(upstreams)}" if upstreams else "directly"
        lacking = f'it goes another way than the association, which goes {way} by rule "{opening.rule}"'
    elif verdict.by_name and verdict.grants.resolve == "upstream":
        lacking = "it leaves look-ups to the upstream, and datagrams go to addresses only"
    return replace(verdict, allow=False, by_name=False, note=lacking) if lacking else replace(verdict, by_name=False)


def _greeting(configuration: Configuration, question: Question) -> tuple[str, str] | None:
    """Say what a client hears that is turned away before anything is asked of the rules, and why."""
    terms = configuration.terms(question.listener, question.client)
    where = f"listener {question.listener}"
    if question.version is not Version.SOCKS5:
        advice = "a [[client]] table with its network and socks4 = true would take it"
        why = f"{where} takes no SOCKS4 from {question.client}, for it carries no password; {advice}"
        return None if terms.socks4 else (f"reply {SOCKS4_REFUSED}, request rejected", why)
    if question.used_method not in terms.methods:
        why = f"{where} asks {question.client} for a password; add --user NAME"
        if question.used_method is not Method.NONE:
            why = f"{where} takes no password from {question.client}; leave --user out"
        return "no acceptable method", why
    if question.user is not None and question.user not in configuration.users:
        name = question.user.decode("utf-8", "backslashreplace")
        return "login failed", f'there is no user "{name}"{hint(name, (one.decode() for one in configuration.users))}'
    return None
