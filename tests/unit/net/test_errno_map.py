"""Each errno of the outbound side has its reply, and texts that help whoever reads the log."""

import errno

import pytest

from tabi.addr import Endpoint
from tabi.errors import DialError, DialTimeoutError, Reply, Side, Stage
from tabi.net.errno_map import dial_error

TARGET = Endpoint.parse("192.0.2.1:80")


@pytest.mark.parametrize(
    ("code", "reply"),
    [
        (errno.ECONNREFUSED, Reply.CONNECTION_REFUSED),
        (errno.ECONNRESET, Reply.CONNECTION_REFUSED),
        (errno.ENOPROTOOPT, Reply.CONNECTION_REFUSED),
        (errno.ENETUNREACH, Reply.NETWORK_UNREACHABLE),
        (errno.ENETDOWN, Reply.NETWORK_UNREACHABLE),
        (errno.EAFNOSUPPORT, Reply.NETWORK_UNREACHABLE),
        (errno.EINVAL, Reply.NETWORK_UNREACHABLE),
        (errno.EHOSTUNREACH, Reply.HOST_UNREACHABLE),
        (errno.EHOSTDOWN, Reply.HOST_UNREACHABLE),
        (errno.ENONET, Reply.HOST_UNREACHABLE),
        (errno.EACCES, Reply.NOT_ALLOWED),
        (errno.EPERM, Reply.NOT_ALLOWED),
        (errno.ETIMEDOUT, Reply.TTL_EXPIRED),
        (errno.EADDRNOTAVAIL, Reply.GENERAL_FAILURE),
        (errno.EMFILE, Reply.GENERAL_FAILURE),
        (errno.ENFILE, Reply.GENERAL_FAILURE),
        (errno.ENOBUFS, Reply.GENERAL_FAILURE),
        (errno.EPIPE, Reply.GENERAL_FAILURE),
    ],
)
def test_an_errno_has_its_reply_and_names_the_target(code: int, reply: Reply) -> None:
    error = dial_error(OSError(code, "whatever"), TARGET)
    assert error.reply is reply
    assert str(error).startswith("192.0.2.1:80: ")
    assert (error.side, error.stage) == (Side.OUTBOUND, Stage.CONNECT)
    assert isinstance(error, DialTimeoutError) == (reply is Reply.TTL_EXPIRED)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EMFILE, "LimitNOFILE"),
        (errno.ENFILE, "fs.file-max"),
        (errno.EADDRNOTAVAIL, "ip_local_port_range"),
        (errno.EACCES, "firewall"),
    ],
)
def test_our_own_shortage_tells_the_administrator_what_to_do(code: int, advice: str) -> None:
    assert advice in str(dial_error(OSError(code, "whatever"), TARGET))


def test_what_will_not_change_by_itself_is_not_to_be_tried_again() -> None:
    assert not dial_error(OSError(errno.EPERM, ""), TARGET).retryable
    assert not dial_error(OSError(errno.EAFNOSUPPORT, ""), TARGET).retryable
    assert dial_error(OSError(errno.ECONNREFUSED, ""), TARGET).retryable


def test_the_reason_is_in_words() -> None:
    assert str(dial_error(OSError(errno.ECONNREFUSED, ""), TARGET)) == "192.0.2.1:80: connection refused"


def test_an_error_without_errno_keeps_its_text() -> None:
    error = dial_error(OSError("strange"), TARGET, stage=Stage.NEGOTIATE)
    assert type(error) is DialError
    assert (str(error), error.reply, error.stage) == (
        "192.0.2.1:80: strange", Reply.GENERAL_FAILURE, Stage.NEGOTIATE,
    )  # fmt: skip


def test_a_host_without_ipv6_says_so_and_not_that_its_ports_are_used_up() -> None:
    error = dial_error(OSError(errno.EADDRNOTAVAIL, ""), Endpoint.parse("[2001:db8::1]:80"))
    assert error.reply is Reply.NETWORK_UNREACHABLE
    assert str(error) == "[2001:db8::1]:80: this host has no IPv6 address to connect from"
