"""Which way a request goes: directly, or through upstreams, as the rule says that allows its target.

A name is looked up and judged here, and an upstream is asked for the address, unless the name may go there as it is
(`Verdict.by_name`). Where its addresses are allowed by several rules, the first that is allowed says the way, and those
that would go another way are left out: nothing is ever sent around its rule. That holds in a race as well, whose
direct way looks the name up and has each address judged, whatever the upstreams are asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from tabi.addr import Address, Endpoint, Name
from tabi.dial import chain
from tabi.dial.direct import DirectOptions, direct
from tabi.dial.lookup import look_up
from tabi.dial.race import by_race
from tabi.dial.ways import Way, by_ways
from tabi.dial.wishes import Connection, Family, Steps
from tabi.dial.within import within
from tabi.errors import DeniedError, TabiError
from tabi.machine.server import RequestReceived
from tabi.net.driver import drive
from tabi.policy.verdict import Grants, Verdict
from tabi.server.races import Race
from tabi.server.session import Session

__all__ = ["Route", "find", "race", "seconds_for", "through"]

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Route:
    """The way of one request.

    Args:
        grants: of the rule that says so; ``via`` is the way.
        addresses: that a name led to, where it was looked up to find the way.
        permit: judges an address as its turn comes: whether it is allowed, this way.
        timeout: seconds that are left to reach the target.
    """

    grants: Grants
    addresses: tuple[Address, ...]
    permit: Callable[[Address], bool]
    timeout: float


async def find(session: Session, event: RequestReceived, verdict: Verdict) -> Route:
    """Find the way of a request that may go on.

    Args:
        session: whose request.
        event: the request.
        verdict: about it.

    Raises:
        DeniedError: no address of the name is allowed.
        DialError: the name has none, or the time is over.
    """
    judgement, host, seconds = session.judgement, event.target.host, seconds_for(session, verdict)
    permit, command = judgement.permits(event), event.command
    grants = verdict.grants

    def is_allowed_this_way(address: Address) -> bool:
        return permit(address) and judgement.grants_to(address).way(command) == grants.way(command)

    if not session.server.upstreams or not isinstance(host, Name) or verdict.by_name:
        return Route(grants, (), is_allowed_this_way, seconds)
    families: tuple[Family, ...] = (4, 6) if verdict.grants.prefer == 4 else (6, 4)
    began = session.server.loop.time()
    plan = within(look_up(host, families), seconds)
    addresses = await drive(
        plan, resolver=session.server.resolver, client=session.key, on_wait=session.watch
    )
    first = next(filter(permit, addresses), None)
    if first is None:
        raise DeniedError(f"policy refuses all that {host} resolved to")
    grants = judgement.grants_to(first)
    left = max(seconds - (session.server.loop.time() - began), 0.001)
    return Route(grants, addresses, is_allowed_this_way, left)


def seconds_for(session: Session, verdict: Verdict) -> float:
    """Say how long it may take to reach the target of a request."""
    connect = verdict.grants.connect
    return session.server.settings.time.connect if connect is None else connect


async def through(
    session: Session,
    target: Endpoint,
    route: Route,
    ask: Callable[[Way, Endpoint, chain.Reach], Steps[C]],
    *,
    port: int | None = None,
) -> C:
    """Ask the upstreams of a route, the first that serves.

    Args:
        session: whose request; the way that is taken is noted for its line.
        target: what is asked for.
        route: its way, which has upstreams.
        ask: makes the plan of asking one of them.
        port: that they have to be trusted with; None: with every one.

    Raises:
        DeniedError: none is trusted with that.
        TabiError: as `tabi.dial.ways.by_ways`.
    """
    server, upstreams = session.server, session.server.upstreams
    reach = upstreams.reach(server.addresses, route.timeout)

    def ask_one(way: Way, asked: Endpoint) -> Steps[C]:
        session.notes.note_way(way.name, asked)
        return ask(way, asked, reach)

    plan = by_ways(
        upstreams.ways(route.grants, port),
        target,
        route.addresses,
        ask=ask_one,
        permit=route.permit,
        hear=upstreams.hear,
        timeout=route.timeout,
    )
    return await drive(
        plan,
        resolver=server.resolver,
        client=session.key,
        egress=lambda _proxy: route.grants.egress,
        on_wait=session.watch,
    )


async def race(session: Session, target: Endpoint, route: Route) -> Connection:
    """Connect to a target on the first of a route's ways that gets there.

    Args:
        session: whose request; which way won, and why the others lost, is noted for its line.
        target: what is asked for.
        route: its way, on which there is a race.

    Raises:
        TabiError: as `tabi.dial.race.by_race`.
    """
    server, upstreams, grants = session.server, session.server.upstreams, route.grants
    prefer, unmet = grants.prefer or 6, 2 * route.timeout  # the limit is that of the race, and theirs is never met
    options = DirectOptions(timeout=unmet, prefer=prefer)
    reach = upstreams.reach(server.addresses, unmet)
    permitted: set[Address] = set()
    destination = str(target)
    running = Race(server.races, destination, upstreams.hear)

    def permit(address: Address) -> bool:
        if route.permit(address):
            permitted.add(address)
        return address in permitted

    def ask(way: Way, asked: Endpoint) -> Steps[Connection]:
        session.notes.note_way(way.name, asked)
        running.began(way)
        if way.hops:
            return chain.connect(way.hops, asked, reach=reach, timeout=unmet, prefer=prefer)
        return direct(asked, permit=permit, options=options)

    def egress(address: Address) -> Address | str | None:
        return session.judgement.egress_to(address) if address in permitted else grants.egress

    ways = upstreams.racers(grants, target.port, partial(server.races.rank, destination))
    plan = by_race(
        server.races.entrants(destination, ways),
        target,
        route.addresses,
        ask=ask,
        permit=permit,
        umpire=running,
        timeout=route.timeout,
    )
    try:
        connection = await drive(
            plan, resolver=server.resolver, client=session.key, egress=egress, on_wait=session.watch
        )
    except TabiError as error:
        if not isinstance(error, DeniedError) and session.judgement.verdict is not None:
            session.notes.note_verdict(session.judgement.verdict)  # not that about an address on the direct way
        raise
    session.notes.note_way(running.winner, connection.remote)
    session.notes.lost = running.lost
    return connection
