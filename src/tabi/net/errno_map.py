"""The one place where an errno of the outbound side becomes a DialError: reply, text, whether to retry."""

import errno
import os
from ipaddress import IPv6Address

from tabi.addr import Endpoint
from tabi.errors import DialError, Reply, Stage, dial_failure

__all__ = ["dial_error"]

_REPLIES = {
    errno.ECONNREFUSED: Reply.CONNECTION_REFUSED,
    # Accepted and reset before we could look (a full backlog with tcp_abort_on_overflow, a filter between).
    # To the client it is the same answer: somebody said no by RST.
    errno.ECONNRESET: Reply.CONNECTION_REFUSED,
    # ICMP "protocol unreachable" (icmp_err_convert in Linux' net/ipv4/icmp.c): the host lives, without TCP.
    errno.ENOPROTOOPT: Reply.CONNECTION_REFUSED,
    errno.ENETUNREACH: Reply.NETWORK_UNREACHABLE,
    errno.ENETDOWN: Reply.NETWORK_UNREACHABLE,
    # A kernel without IPv6 cannot even make the socket.
    errno.EAFNOSUPPORT: Reply.NETWORK_UNREACHABLE,
    # A blackhole route (ip-route(8)), or a link-local address without its zone: no network to send it into.
    errno.EINVAL: Reply.NETWORK_UNREACHABLE,
    errno.EHOSTUNREACH: Reply.HOST_UNREACHABLE,
    errno.EHOSTDOWN: Reply.HOST_UNREACHABLE,
    errno.ENONET: Reply.HOST_UNREACHABLE,  # ICMP "source host isolated", same table
    # A prohibit route or a local firewall; from afar only ICMPv6 "administratively prohibited" gives EACCES.
    errno.EACCES: Reply.NOT_ALLOWED,
    errno.EPERM: Reply.NOT_ALLOWED,
    errno.ETIMEDOUT: Reply.TTL_EXPIRED,
}

_LASTING = frozenset({errno.EAFNOSUPPORT, errno.EINVAL, errno.EACCES, errno.EPERM})

# For the administrator: our own shortage, and what mends it.
_ADVICE = {
    errno.EMFILE: "out of file descriptors: raise LimitNOFILE (ulimit -n)",
    errno.ENFILE: "the system is out of file descriptors: raise fs.file-max",
    errno.ENOBUFS: "out of socket memory: raise net.ipv4.tcp_mem or lower the load",
    errno.ENOMEM: "out of memory",
    errno.EADDRNOTAVAIL: "no local address and port to connect from: every port of "
    "net.ipv4.ip_local_port_range is in use towards this target, or the egress address is not of this host",
    errno.EACCES: "prohibited by a firewall or a route",
    errno.EPERM: "prohibited by a firewall",
    errno.EAFNOSUPPORT: "this system lacks the address family",
    errno.EINVAL: "no usable route",
}


def dial_error(error: OSError, endpoint: Endpoint, *, stage: Stage = Stage.CONNECT) -> DialError:
    """Say what an error of a socket towards `endpoint` means; the text names the endpoint.

    Args:
        error: what connect, send or recv raised; without an errno it is a general failure.
        endpoint: address and port that the socket was meant for.
        stage: CONNECT, or NEGOTIATE once the connection stood.
    """
    code = error.errno or 0
    if code == errno.EADDRNOTAVAIL and stage is Stage.CONNECT and isinstance(endpoint.host, IPv6Address):
        text = f"{endpoint}: this host has no IPv6 address to connect from"
        return DialError(text, stage=stage, reply=Reply.NETWORK_UNREACHABLE, retryable=False)
    reason = _ADVICE.get(code) or (os.strerror(code).lower() if code else str(error))
    text = f"{endpoint}: {reason}"
    reply = _REPLIES.get(code, Reply.GENERAL_FAILURE)
    return dial_failure(text, stage=stage, reply=reply, retryable=code not in _LASTING)
