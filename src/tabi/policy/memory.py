"""Remembering verdicts: the same client asks for the same target again and again.

Policy is pure, so what it said holds for as long as it is asked by the same rules in the same minute. A judgement by
two rules takes 20 us, remembering one 2 (CPython 3.11, 21 Nov 2026).
"""

from collections.abc import Hashable
from typing import Final

from tabi.policy.verdict import Context, Policy, Request, Verdict

__all__ = ["MOST", "Memory"]

MOST: Final = 8192  # verdicts, some 4 MB; all are forgotten when there would be more


class Memory:
    """A policy that asks another one, and not twice for the same.

    Args:
        policy: must not look at the client's port, which is another for each connection.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._verdicts: dict[Hashable, Verdict] = {}
        self._minute = -1

    def __len__(self) -> int:
        """Verdicts that are remembered."""
        return len(self._verdicts)

    def __call__(self, request: Request, context: Context) -> Verdict:
        """Judge."""
        if context.minute_of_week != self._minute or len(self._verdicts) >= MOST:
            self._minute = context.minute_of_week
            self._verdicts.clear()
        target = request.target
        key = (
            context.client.host,
            context.listener,
            context.version,
            context.method,
            context.user,
            context.userid,
            context.groups,
            request.command,
            target if target is None else (target.host, target.port),
            request.address,
        )
        verdict = self._verdicts.get(key)
        if verdict is None:
            verdict = self._verdicts[key] = self._policy(request, context)
        return verdict
