"""What a program is told: each error has its packet, and Linux' tables say which errno that is."""

import errno
import struct

import pytest

from tabi.errors import (
    AuthError,
    ConfigError,
    DeniedError,
    DialError,
    DialTimeoutError,
    NameUnknownError,
    ProxyAuthError,
    ProxyProtocolError,
    ProxyUnreachableError,
    Reply,
    TabiError,
    UsageError,
    dial_failure,
)
from tabi.wrap.answers import (
    EXPIRED,
    NO_HOST,
    NO_NETWORK,
    PROHIBITED,
    REFUSED,
    SILENCE,
    Answer,
    answer_to,
)
from tabi.wrap.packets import Syn

TCP = struct.pack(">HHIIBBHHH", 1, 2, 3, 0, 5 << 4, 0x02, 0, 0, 0)
SYN4 = Syn.parse(struct.pack(">BBHHHBBH", 0x45, 0, 40, 0, 0, 64, 6, 0) + bytes(8) + TCP)
SYN6 = Syn.parse(struct.pack(">IHBB", 6 << 28, 20, 6, 64) + bytes(32) + TCP)

# Linux' icmp_err_convert (net/ipv4/icmp.c) and icmpv6_err_convert (net/ipv6/icmp.c), by type and code
LINUX4 = {
    (3, 0): errno.ENETUNREACH,
    (3, 1): errno.EHOSTUNREACH,
    (3, 13): errno.EHOSTUNREACH,
    (11, 0): errno.EHOSTUNREACH,
}
LINUX6 = {
    (1, 0): errno.ENETUNREACH,
    (1, 1): errno.EACCES,
    (1, 3): errno.EHOSTUNREACH,
    (3, 0): errno.EHOSTUNREACH,
}


def timed_out(limit: str) -> DialTimeoutError:
    error = DialTimeoutError("too late")
    error.limit = limit
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (dial_failure("", reply=Reply.CONNECTION_REFUSED), REFUSED),
        (dial_failure("", reply=Reply.HOST_UNREACHABLE), NO_HOST),
        (dial_failure("", reply=Reply.NETWORK_UNREACHABLE), NO_NETWORK),
        (dial_failure("", reply=Reply.GENERAL_FAILURE), NO_HOST),
        (dial_failure("", reply=Reply.TTL_EXPIRED), EXPIRED),
        (dial_failure("", reply=Reply.COMMAND_NOT_SUPPORTED), NO_NETWORK),
        (dial_failure("", reply=Reply.ADDRESS_TYPE_NOT_SUPPORTED), NO_NETWORK),
        (dial_failure("", reply=Reply(0x5B)), NO_HOST),
        (NameUnknownError(""), NO_HOST),
        (DeniedError(""), PROHIBITED),
        (timed_out(""), EXPIRED),
        (timed_out("connect"), SILENCE),
        # the proxy's trouble is not the target's, whatever it looks like
        (ProxyUnreachableError("", reply=Reply.CONNECTION_REFUSED), NO_NETWORK),
        (ProxyProtocolError(""), NO_NETWORK),
        (ProxyAuthError(""), NO_NETWORK),
        (AuthError(""), NO_NETWORK),
        (UsageError("", reply=Reply.ADDRESS_TYPE_NOT_SUPPORTED), NO_NETWORK),
        (ConfigError(""), NO_HOST),
        (DialError(""), NO_HOST),
    ],
)
def test_answer_to(error: TabiError, expected: Answer) -> None:
    assert answer_to(error) is expected


@pytest.mark.parametrize("answer", [NO_NETWORK, NO_HOST, PROHIBITED, EXPIRED], ids=lambda answer: answer.name)
def test_the_message_is_what_linux_reads_as_that_errno(answer: Answer) -> None:
    assert SYN4 is not None
    assert SYN6 is not None
    packet4, packet6 = answer.packet(SYN4), answer.packet(SYN6)
    assert packet4 is not None
    assert packet6 is not None
    assert (packet4[9], LINUX4[packet4[20], packet4[21]]) == (1, answer.errno4)
    assert (packet6[6], LINUX6[packet6[40], packet6[41]]) == (58, answer.errno6)
    assert answer.is_unreachable


def test_refusing_is_a_reset_and_silence_is_nothing() -> None:
    assert SYN4 is not None
    assert SYN6 is not None
    for packet, protocol, flags in ((REFUSED.packet(SYN4), 9, 33), (REFUSED.packet(SYN6), 6, 53)):
        assert packet is not None
        assert (packet[protocol], packet[flags]) == (6, 0x14)
    assert SILENCE.packet(SYN4) is SILENCE.packet(SYN6) is None
    assert not REFUSED.is_unreachable
    assert not SILENCE.is_unreachable
