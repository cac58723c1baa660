"""BIND: wait for one connection from the host that the client names (RFC 1928 section 4, SOCKS4.protocol).

Where the rule has an upstream, that listens in our place and tells who has come.

Two replies. The peer's address is compared with DST.ADDR, its port never: active FTP connects from port 20, not from
the port of the primary connection.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable

from tabi.addr import Address, Endpoint, Name
from tabi.dial import chain
from tabi.dial.ways import Way
from tabi.dial.wishes import Steps
from tabi.errors import DeniedError, DialError, DialTimeoutError, Reply, Stage
from tabi.machine.server import RequestReceived
from tabi.net.driver import drive
from tabi.net.errno_map import dial_error
from tabi.net.linger import reset
from tabi.net.ports import bind_within, route_source, same_family, told_address
from tabi.net.sockopts import prepare_outbound
from tabi.policy.verdict import Request
from tabi.server import routes
from tabi.server.outcome import CutShortError, Outcome
from tabi.server.session import Session, address_known, address_of
from tabi.wire.version import Version

__all__ = ["serve"]


async def serve(session: Session, event: RequestReceived) -> None:
    """Listen, tell where, take the one peer that is meant.

    Raises:
        DeniedError: policy refuses; any peer is asked for where no rule allows it; or the wrong peer came.
        DialError: there is no route to DST.ADDR, or no port to be had.
        CutShortError: nobody came in time, or the client left.
        TabiError: an upstream is to blame, as its `hop` says.
    """
    any_peer = not isinstance(event.target.host, Name) and event.target.host.is_unspecified
    judgement = session.judgement
    verdict = judgement.require(Request(event.command, event.target))
    if any_peer and not verdict.grants.any_peer:
        raise DeniedError(f'BIND for any peer ({event.target.host}): rule "{verdict.rule}" does not allow it')
    session.watch(fin=True)
    route = await routes.find(session, event, verdict)
    if route.grants.upstreams:
        await _at_upstream(session, event, route, any_peer=any_peer)
        return
    peers = () if any_peer else await _expected(session, event, route.permit)
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


async def _at_upstream(session: Session, event: RequestReceived, route: routes.Route, *, any_peer: bool) -> None:
    """Have the upstream listen and take the peer; what it tells of both is passed on."""
    expected = event.target

    def ask(way: Way, target: Endpoint, reach: chain.Reach) -> Steps[chain.Bound]:
        nonlocal expected
        expected = target
        return chain.bind(way.hops, target, reach=reach, timeout=route.timeout)

    bound = await routes.through(session, event.target, route, ask)
    sock = bound.handle
    if not isinstance(sock, socket.socket):
        raise TypeError("the asyncio driver gives sockets")
    try:
        session.machine.listening(bound.local)
        session.send_all()
        peer = await _accept_at(session, bound)
        session.notes.to = peer
        is_known = any_peer or isinstance(expected.host, Name)  # a name is the upstream's to look up and compare
        if not is_known and peer.host != expected.host:
            text = f"peer {peer} is not {expected.host}, for which upstream \"{session.notes.via}\" opened the port"
            raise DeniedError(text, stage=Stage.BIND)
        if not any_peer:
            session.judgement.confirm(event, address_known(expected))
    except BaseException:
        reset(sock)
        raise
    session.succeed(peer)
    session.hand_over(sock, None if any_peer else address_known(expected))


async def _accept_at(session: Session, bound: chain.Bound) -> Endpoint:
    limit, name = _limit(session)
    try:
        accepted = await drive(
            chain.accept(bound, timeout=limit), resolver=session.server.resolver, client=session.key
        )
    except DialTimeoutError as error:
        if not error.limit:
            raise
        raise _nobody_came(limit, name) from None
    return accepted.remote


async def _expected(
    session: Session, event: RequestReceived, permit: Callable[[Address], bool]
) -> tuple[Address, ...]:
    """Addresses that the peer may have: each is one that policy allows for what was asked."""
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
    limit, name = _limit(session)
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
        raise _nobody_came(limit, name) from None
    finally:
        session.server.loop.remove_reader(listener.fileno())


def _limit(session: Session) -> tuple[float, str]:
    """Say how many seconds there are to wait for the peer, and what says so."""
    limit, name = session.server.settings.time.bind, "bind"
    terms = session.judgement.terms()
    if terms.lifetime and terms.flow.lifetime < limit:
        return terms.flow.lifetime, terms.limit
    return limit, name


def _nobody_came(limit: float, name: str) -> CutShortError:
    note = f"no peer within {limit:g} seconds"
    return CutShortError(Outcome("tabi", f"limit:{name}", note=note), reply=Reply.TTL_EXPIRED)
