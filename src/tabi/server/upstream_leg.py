"""The far side of a UDP association whose rule has an upstream: associations of ours with each proxy on the way."""

from tabi.addr import Endpoint
from tabi.dial import chain
from tabi.dial.ways import Way
from tabi.dial.wishes import Steps
from tabi.net.associations import ANYWHERE, Associations
from tabi.policy.verdict import Verdict
from tabi.server import routes
from tabi.server.session import Session

__all__ = ["open_upstream_leg"]


async def open_upstream_leg(session: Session, verdict: Verdict) -> Associations:
    """Associate with the upstream of a rule, the first that serves.

    Raises:
        TabiError: none does, or none can.
    """
    seconds = routes.seconds_for(session, verdict)
    route = routes.Route(verdict.grants, (), lambda _address: True, seconds)

    def ask(way: Way, _target: Endpoint, reach: chain.Reach) -> Steps[tuple[chain.Bound, ...]]:
        return chain.associate_with_all(way.hops, ANYWHERE, reach=reach, timeout=seconds)

    bounds = await routes.through(session, ANYWHERE, route, ask)
    return Associations(bounds, verdict.grants.egress, session.server.loop)
