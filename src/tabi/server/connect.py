"""CONNECT: dial, answer with the truth, hand over (RFC 1928 sections 4 and 6)."""

import socket
from collections.abc import Callable
from functools import lru_cache

from tabi.addr import Address, Endpoint
from tabi.dial import chain
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.ways import Way
from tabi.dial.wishes import Connection, Family, Steps
from tabi.errors import DeniedError
from tabi.machine.server import RequestReceived
from tabi.net.driver import drive
from tabi.net.linger import reset
from tabi.policy.verdict import Request, Verdict
from tabi.server import routes
from tabi.server.session import Session, address_known

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
        TabiError: an upstream is to blame, as its `hop` says.
    """
    judgement = session.judgement
    verdict = judgement.require(Request(event.command, event.target))
    if session.server.upstreams:
        connection = await _by_route(session, event, verdict)
    else:
        options = _options(routes.seconds_for(session, verdict), verdict.grants.prefer or 6)
        connection = await _directly(session, event, judgement.permits(event), options)
    outbound = connection.handle
    if not isinstance(outbound, socket.socket):
        raise TypeError("the asyncio driver gives sockets")
    session.notes.to = connection.remote
    known = address_known(connection.remote)
    try:
        judgement.confirm(event, known)
    except DeniedError:
        outbound.close()
        raise
    session.succeed(connection.local, connection.remote)
    session.hand_over(outbound, known)


async def _directly(
    session: Session, event: RequestReceived, permit: Callable[[Address], bool], options: DirectOptions
) -> Connection:
    return await drive(
        direct(event.target, permit=permit, options=options),
        resolver=session.server.resolver,
        client=session.key,
        egress=session.judgement.egress_to,
        on_wait=session.watch,
        begun=session.take_begun(),
    )


async def _by_route(session: Session, event: RequestReceived, verdict: Verdict) -> Connection:
    route = await routes.find(session, event, verdict)
    prefer = route.grants.prefer or 6
    if not route.grants.via:
        options = DirectOptions(timeout=route.timeout, prefer=prefer)
        return await _directly(session, event, route.permit, options)

    if (begun := session.take_begun()) is not None:  # by other rules, directly
        reset(begun.sock)  # it may be connected by now

    if route.grants.pick == "race":
        return await routes.race(session, event.target, route)

    def ask(way: Way, target: Endpoint, reach: chain.Reach) -> Steps[Connection]:
        return chain.connect(way.hops, target, reach=reach, timeout=route.timeout, prefer=prefer)

    return await routes.through(session, event.target, route, ask, port=event.target.port)
