"""Tor's RESOLVE and RESOLVE_PTR (socks-extensions.txt section 2): names looked up for the client."""

from tabi.addr import Endpoint, Name
from tabi.errors import DeniedError, DialError, Reply, Stage
from tabi.machine.server import RequestReceived
from tabi.policy.verdict import Request
from tabi.server.outcome import Outcome
from tabi.server.session import Session, address_of
from tabi.wire.version import Version

__all__ = ["serve", "serve_ptr"]

_DONE = Outcome("tabi", "done")


async def serve(session: Session, event: RequestReceived) -> None:
    """Answer RESOLVE with the first address that policy allows; an address is answered as itself.

    Raises:
        DeniedError: policy refuses the name or all its addresses.
        DialError: the name has none; or it is not for us to ask.
    """
    _require(session, event)
    session.watch()
    host = event.target.host
    if isinstance(host, Name):
        found = await session.server.look_up(host, session.key, only4=event.version is not Version.SOCKS5)
        permit = session.judgement.permits(event)
        answer = next((address for address in found if permit(address)), None)
        if answer is None:
            raise DeniedError(f"{host}: no address that the rules allow")
    else:
        answer = host
        if answer.version == 6 and event.version is not Version.SOCKS5:
            raise DialError(f"SOCKS4 cannot answer with {answer}", stage=Stage.RESOLVE, reply=Reply.HOST_UNREACHABLE)
    session.answer(Endpoint(answer, 0), _DONE)


async def serve_ptr(session: Session, event: RequestReceived) -> None:
    """Answer RESOLVE_PTR with the name of an address.

    Raises:
        DeniedError: policy refuses.
        DialError: the address has no name; or it is not for us to ask.
    """
    _require(session, event)
    session.watch()
    name = await session.server.resolver.reverse(address_of(event.target), session.key)
    session.answer(Endpoint(name, 0), _DONE)


def _require(session: Session, event: RequestReceived) -> None:
    grants = session.judgement.require(Request(event.command, event.target)).grants
    if grants.resolve == "upstream":
        text = f"the rule leaves it to upstream {', '.join(grants.via)} to look names up, and nobody else is asked"
        raise DialError(text, stage=Stage.RESOLVE, reply=Reply.COMMAND_NOT_SUPPORTED, retryable=False)
