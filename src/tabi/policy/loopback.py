"""The policy without a configuration: clients on this host may do everything, others nothing."""

from tabi.addr import Name
from tabi.policy.verdict import Context, Request, Verdict

__all__ = ["judge"]

_ALLOW = Verdict(allow=True, rule="loopback clients")
_REFUSE = Verdict(allow=False, rule="no client from another host")


def judge(_request: Request, context: Context) -> Verdict:
    """Allow what comes from 127.0.0.0/8 or ::1, refuse the rest with reply 2."""
    host = context.client.host
    return _ALLOW if not isinstance(host, Name) and host.is_loopback else _REFUSE
