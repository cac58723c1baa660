"""BIND: wait for one connection from the host that the client names (RFC 1928 section 4, SOCKS4.protocol).

Two replies. The peer's address is compared with DST.ADDR, its port never: active FTP connects from port 20, not from
the port of the primary connection.
"""

import asyncio
import socket
from collections.abc import Iterable

from tabi.addr import Address, Endpoint, Name
from tabi.errors import DeniedError, DialError, Reply, Stage
from tabi.machine.server import RequestReceived
from tabi.net.errno_map import dial_error
from tabi.net.linger import reset
from tabi.net.ports import bind_within, route_source, same_family, told_address
from tabi.net.sockopts import prepare_outbound
from tabi.policy.verdict import Request
from tabi.server.outcome import CutShortError, Outcome
from tabi.server.session import Session, address_of
from tabi.wire.version import Version

__all__ = ["serve"]


async def serve(session: Session, event: RequestReceived) -> None:
    """Listen, tell where, take the one peer that is meant.

    Raises:
        DeniedError: policy refuses; any peer is asked for where no rule allows it; or the wrong peer came.
        DialError: there is no route to DST.ADDR, or no port to be had.
        CutShortError: nobody came in time, or the client left.
    """
    any_peer = not isinstance(event.target.host, Name) and event.target.host.is_unspecified
    judgement = session.judgement
    verdict = judgement.require(Request(event.command, event.target))
    if any_peer and not verdict.grants.any_peer:
        raise DeniedError(f'BIND for any peer ({event.target.host}): rule "{verdict.rule}" does not allow it')
    session.watch(fin=True)
    peers = () if any_peer else await _expected(session, event)
    listener = _listen(session, peers)
    try:
        bound = Endpoint.from_sockaddr(listener.getsockname())
        session.notes.mark_resolved()
        advertise = session.server.settings.bind.advertise
        told = told_address(advertise, address_of(bound), address_of(session.listener))
        session.machine.listening(Endpoint(told, bound.port))
        session.send_all()
        sock, peer = await _accept(session, listener)
    finally:
        listener.close()
    session.notes.to = peer
    if not any_peer and peer.host not in peers:
        reset(sock)
        raise DeniedError(f"peer {peer} is not {event.target.host}, for which the port was opened", stage=Stage.BIND)
    try:
        if not any_peer:
            judgement.confirm(event, address_of(peer))
    except DeniedError:
        reset(sock)
        raise
    prepare_outbound(sock)
    session.succeed(peer)
    session.hand_over(sock, address_of(peer))


async def _expected(session: Session, event: RequestReceived) -> tuple[Address, ...]:
    """Addresses that the peer may have: each is one that policy allows for what was asked."""
    permit = session.judgement.permits(event)
    only4 = event.version is not Version.SOCKS5  # a SOCKS4 reply cannot say where an IPv6 listener is
    if not isinstance(event.target.host, Name):
        found: Iterable[Address] = (event.target.host,)
    else:
        found = await session.server.look_up(event.target.host, session.key, only4=only4)
    allowed = tuple(address for address in found if permit(address))
    if not allowed:
        raise DeniedError(f"{event.target.host}: no address that the rules allow")
    return allowed


def _listen(session: Session, peers: tuple[Address, ...]) -> socket.socket:
    settings = session.server.settings.bind
    local = same_family(settings.address, route_source(peers[0]) if peers else address_of(session.listener))
    family = socket.AF_INET6 if local.version == 6 else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise dial_error(error, Endpoint(local, 0)) from None
    try:
        bind_within(listener, local, settings.ports)
        listener.listen(1)
    except OSError as error:
        listener.close()
        raise DialError(
            f"cannot listen on {local} ports {settings.ports or 'any'}: {error.strerror}", stage=Stage.BIND
        ) from None
    return listener


async def _accept(session: Session, listener: socket.socket) -> tuple[socket.socket, Endpoint]:
    """Wait for a peer. It is accepted in the very turn that goes on with it, so that none is left by a cancellation."""
    limit, name = session.server.settings.time.bind, "bind"
    terms = session.judgement.terms()
    if terms.lifetime and terms.flow.lifetime < limit:
        limit, name = terms.flow.lifetime, terms.limit
    there = asyncio.Event()
    session.server.loop.add_reader(listener.fileno(), there.set)
    try:
        async with asyncio.timeout(limit):
            while True:
                await there.wait()
                there.clear()
                try:
                    sock, peer = listener.accept()
                except BlockingIOError:  # it went away again before it was accepted
                    continue
                except OSError as error:
                    raise dial_error(error, Endpoint.from_sockaddr(listener.getsockname())) from None
                sock.setblocking(False)
                return sock, Endpoint.from_sockaddr(peer)
    except TimeoutError:
        raise CutShortError(
            Outcome("tabi", f"limit:{name}", note=f"no peer within {limit:g} seconds"), reply=Reply.TTL_EXPIRED
        ) from None
    finally:
        session.server.loop.remove_reader(listener.fileno())
