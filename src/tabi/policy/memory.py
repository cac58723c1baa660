"""Remembering verdicts: the same client asks for the same target again and again.

Policy is pure, so what it said holds for as long as it is asked by the same rules in the same minute. A judgement by
two rules takes 20 us, remembering one 2 (CPython 3.11, 21 Nov 2026).
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

from tabi.policy.verdict import Context, Policy, Request, Verdict

__all__ = ["MOST", "Memory"]

# Verdicts, some 4 MB. The oldest gives way to a new one: to forget all at once would hold everybody up for a while.
MOST: Final = 8192


class Memory:
    """A policy that asks another one, and not twice for the same.

    Args:
        policy: must not look at the client's port, which is another for each connection.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._verdicts: OrderedDict[Hashable, Verdict] = OrderedDict()

    def __len__(self) -> int:
        """Verdicts that are remembered."""
        return len(self._verdicts)

    def __call__(self, request: Request, context: Context) -> Verdict:
        """Judge."""
        target = request.target
        key = (
            context.client.host,
            context.listener,
            context.version,
            context.method,
            context.user,
            context.userid,
            context.groups,
            context.minute_of_week,
            request.command,
            target if target is None else (target.host, target.port),
            request.address,
        )
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._policy(request, context)
            if len(self._verdicts) >= MOST:
                self._verdicts.popitem(last=False)
            self._verdicts[key] = verdict
        return verdict
