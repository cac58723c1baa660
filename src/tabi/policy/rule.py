"""One ``[[rule]]``: what it asks, what it says, what it lets a request do."""

from dataclasses import dataclass

from tabi.addr import Address, Name
from tabi.errors import Reply
from tabi.policy.criteria import Criterion, Target, Truth
from tabi.policy.verdict import NO_GRANTS, Context, Grants, Request
from tabi.wire.socks5 import Method

__all__ = ["Rule"]


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
            if Method.USERPASS in self.auth:
                return "the rule is for clients that log in with a password, and this one has not"
            return "the rule is for clients that do not log in, and this one has"
        # DST.ADDR of an association is no target: its datagrams are
        if not self.literals and request.target is not None and not isinstance(request.target.host, Name):
            return "the rule takes names only, the target is an address"
        return ""

    def opens(self, address: Address, *, local_client: bool) -> bool:
        """Say whether this rule, where it allows, also allows an address of ``@private``."""
        if self.target is None:
            return local_client
        return self.target.opens(address) or (local_client and self.target.names_network_of(address))
