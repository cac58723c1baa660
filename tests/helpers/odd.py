"""A criterion of a kind that the rule list has no table for."""

from dataclasses import dataclass

from tabi.policy.criteria import Truth
from tabi.policy.verdict import Context, Request

__all__ = ["Odd"]


@dataclass(frozen=True)
class Odd:
    """Says the same of every request."""

    truth: Truth

    def test(self, _request: Request, _context: Context) -> Truth:
        """See `Criterion`."""
        return self.truth

    def why_not(self, _request: Request, _context: Context) -> str:
        """See `Criterion`."""
        return "odd"
