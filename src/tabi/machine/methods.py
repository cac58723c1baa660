"""Method negotiation: of the methods that both sides offer, the strongest (RFC 1928 section 3)."""

from collections.abc import Collection, Iterable

from tabi.wire.socks5 import Method

__all__ = ["STRENGTH", "strongest"]

STRENGTH: tuple[Method, ...] = (
    Method.GSSAPI,  # proves both sides and protects every message (RFC 1961)
    Method.USERPASS,  # proves the client, in the clear (RFC 1929)
    Method.NONE,
)
"""All methods that tabi knows, strongest first. What is not in the table is never chosen."""


def strongest(offered: Iterable[Method], accepted: Collection[Method]) -> Method:
    """Choose the method of a session.

    Args:
        offered: what the client offers, in any order, duplicates and unknown ones included.
        accepted: what this listener takes.

    Returns:
        the strongest common method, or `Method.NO_ACCEPTABLE`.
    """
    common = frozenset(offered).intersection(accepted)
    return next((method for method in STRENGTH if method in common), Method.NO_ACCEPTABLE)
