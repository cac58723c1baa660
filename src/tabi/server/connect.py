"""CONNECT: dial, answer with the truth, hand over (RFC 1928 sections 4 and 6)."""

import socket
from functools import lru_cache

from tabi.dial.direct import DirectOptions, direct
from tabi.dial.wishes import Family
from tabi.errors import DeniedError
from tabi.machine.server import RequestReceived
from tabi.net.driver import drive
from tabi.policy.verdict import Request
from tabi.server.session import Session, address_of

__all__ = ["serve"]


@lru_cache(maxsize=64)
def _options(timeout: float, prefer: Family) -> DirectOptions:
    """Make the options of all dials that are alike."""
    return DirectOptions(timeout=timeout, prefer=prefer)


async def serve(session: Session, event: RequestReceived) -> None:
    """Reach the target, then reply: never before the target has answered.

    Raises:
        DeniedError: policy refuses the name, or every address that it led to.
        DialError: the target cannot be reached; its reply says why.
    """
    judgement = session.judgement
    grants = judgement.require(Request(event.command, event.target)).grants
    server = session.server
    timeout = server.settings.time.connect if grants.connect is None else grants.connect
    plan = direct(event.target, permit=judgement.permits(event), options=_options(timeout, grants.prefer or 6))
    connection = await drive(
        plan,
        resolver=server.resolver,
        client=session.key,
        egress=judgement.egress_to,
        on_wait=session.watch,
        begun=session.take_begun(),
    )
    outbound = connection.handle
    if not isinstance(outbound, socket.socket):
        raise TypeError("the asyncio driver gives sockets")
    session.notes.to = connection.remote
    try:
        judgement.confirm(event, address_of(connection.remote))
    except DeniedError:
        outbound.close()
        raise
    session.succeed(connection.local, connection.remote)
    session.hand_over(outbound, address_of(connection.remote))
