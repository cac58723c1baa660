"""What a program is told when it cannot be connected: from errors to packets, and what its kernel makes of these.

The errno of a program is nothing that anybody could set: its kernel derives it from what comes over the link
(`icmp_err_convert` in Linux' net/ipv4/icmp.c, `tab_unreach` in net/ipv6/icmp.c). So each answer is the packet that a
network would have sent in which this had happened. Only what the last proxy says about the target is told as that.
Whatever failed at a proxy, or on the way to one, is a network that has no way to anywhere.
"""

import errno
from dataclasses import dataclass

from tabi.errors import AuthError, DialTimeoutError, ProtocolError, ProxyUnreachableError, Reply, TabiError
from tabi.wrap.packets import Icmp, Syn, icmp_error, reset

__all__ = ["EXPIRED", "NO_HOST", "NO_NETWORK", "PROHIBITED", "REFUSED", "SILENCE", "Answer", "answer_to"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent, and the errno that connect() ends with.

    Args:
        name: for the trace and the table in the documentation.
        errno4: where the target is an IPv4 address.
        errno6: where it is an IPv6 address.
        icmp4: the message, None: a reset, or nothing.
        icmp6: the same.
    """

    name: str
    errno4: int
    errno6: int
    icmp4: Icmp | None = None
    icmp6: Icmp | None = None

    @property
    def is_unreachable(self) -> bool:
        """Whether a program may take it as a reason to try the next address at once (Happy Eyeballs)."""
        return self.icmp4 is not None

    def packet(self, syn: Syn) -> bytes | None:
        """Make what is to be sent to the program, None where that is nothing."""
        if self is SILENCE:
            return None
        said = self.icmp4 if syn.version == 4 else self.icmp6
        return reset(syn) if said is None else icmp_error(syn, said)


REFUSED = Answer("refused", errno.ECONNREFUSED, errno.ECONNREFUSED)
NO_NETWORK = Answer("network unreachable", errno.ENETUNREACH, errno.ENETUNREACH, Icmp(3, 0), Icmp(1, 0))
NO_HOST = Answer("host unreachable", errno.EHOSTUNREACH, errno.EHOSTUNREACH, Icmp(3, 1), Icmp(1, 3))
# IPv4 has no packet that Linux reads as EACCES: "administratively prohibited" is EHOSTUNREACH there.
PROHIBITED = Answer("prohibited", errno.EHOSTUNREACH, errno.EACCES, Icmp(3, 13), Icmp(1, 1))
EXPIRED = Answer("time exceeded", errno.EHOSTUNREACH, errno.EHOSTUNREACH, Icmp(11, 0), Icmp(3, 0))
# The kernel gives up by itself, as with a target that does not answer: after about two minutes (tcp_syn_retries).
SILENCE = Answer("no answer", errno.ETIMEDOUT, errno.ETIMEDOUT)

_OF_THE_TARGET = {
    Reply.NOT_ALLOWED: PROHIBITED,
    Reply.NETWORK_UNREACHABLE: NO_NETWORK,
    Reply.HOST_UNREACHABLE: NO_HOST,
    Reply.CONNECTION_REFUSED: REFUSED,
    Reply.TTL_EXPIRED: EXPIRED,
    # No way for this command or this family of addresses there: a program with another family shall try that.
    Reply.COMMAND_NOT_SUPPORTED: NO_NETWORK,
    Reply.ADDRESS_TYPE_NOT_SUPPORTED: NO_NETWORK,
}


def answer_to(error: TabiError) -> Answer:
    """Choose what a program is told of an error that its connect has met."""
    if isinstance(error, DialTimeoutError) and error.limit:
        return SILENCE  # our own limit, so nobody has said anything; the program's limit may be another
    if isinstance(error, ProxyUnreachableError | ProtocolError | AuthError):
        return NO_NETWORK
    return _OF_THE_TARGET.get(error.reply, NO_HOST)
