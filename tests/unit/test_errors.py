"""The error tree."""

import pickle

import pytest

from tabi import errors
from tabi.errors import AuthError, DeniedError, DialError, DialTimeoutError, ProtocolError, Reply, Side, Stage
from tabi.wire.socks5 import Command, Method

KINDS = [getattr(errors, name) for name in errors.__all__ if name.endswith("Error")]


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_what_was_said_whatever_else_the_error_is(kind: type[errors.TabiError]) -> None:
    error = kind("no route to 192.0.2.1", side=Side.OUTBOUND, stage=Stage.BIND, reply=Reply(7), retryable=True)
    assert str(error) == "no route to 192.0.2.1"
    facts = (Side.OUTBOUND, Stage.BIND, Reply.COMMAND_NOT_SUPPORTED, True)
    assert (error.side, error.stage, error.reply, error.retryable) == facts


@pytest.mark.parametrize("kind", KINDS)
def test_one_error_does_not_change_what_its_kind_says(kind: type[errors.TabiError]) -> None:
    kind("x", side=Side.OUTBOUND, stage=Stage.BIND, reply=Reply(7), retryable=True)
    facts = kind.side, kind.stage, kind.reply, kind.retryable
    plain = kind("y")
    assert (plain.side, plain.stage, plain.reply, plain.retryable) == facts


def test_callers_that_know_only_the_builtin_errors_catch_ours() -> None:
    assert issubclass(DialTimeoutError, TimeoutError)
    assert issubclass(DialError, ConnectionError)
    assert issubclass(DeniedError, PermissionError)
    assert issubclass(errors.AddressError, ValueError)


def test_each_kind_knows_the_reply_that_a_client_is_owed() -> None:
    assert DeniedError("").reply is Reply.NOT_ALLOWED
    assert DialTimeoutError("").reply is Reply.TTL_EXPIRED
    assert AuthError("").stage is Stage.AUTH
    assert ProtocolError("").side is Side.INBOUND
    assert DialError("").retryable
    assert not DeniedError("").retryable


def test_what_a_proxy_did_is_told_apart_and_still_a_builtin_error() -> None:
    assert issubclass(errors.ProxyAuthError, AuthError | PermissionError)
    assert issubclass(errors.ProxyAuthError, OSError)
    assert issubclass(errors.ProxyProtocolError, ProtocolError)
    assert issubclass(errors.ProxyProtocolError, ConnectionError)
    assert issubclass(errors.ProxyUnreachableError, DialError)
    assert issubclass(errors.RefusedError, ConnectionRefusedError)
    assert not errors.NameUnknownError("").retryable
    assert errors.NameUnknownError("").stage is Stage.RESOLVE


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.TTL_EXPIRED, DialTimeoutError),
        (Reply.CONNECTION_REFUSED, errors.RefusedError),
        (Reply.HOST_UNREACHABLE, DialError),
        (Reply(0xF3), DialError),
    ],
)
def test_a_failure_is_of_the_kind_that_its_reply_says(reply: Reply, kind: type[DialError]) -> None:
    error = errors.dial_failure("x", reply=reply, stage=Stage.REQUEST)
    assert type(error) is kind
    assert (error.reply, error.stage, error.retryable) == (reply, Stage.REQUEST, True)


def test_hops_are_numbered_where_there_are_several() -> None:
    assert str(errors.HopName(1, 1, "http://h:1")) == "proxy http://h:1"
    assert str(errors.HopName(2, 3, "http://h:1")) == "proxy 2 of 3, http://h:1"


@pytest.mark.parametrize("code", range(256))
def test_every_byte_is_a_code_and_keeps_its_value(code: int) -> None:
    for kind in (Reply, Method, Command):
        member = kind(code)
        assert member == code
        assert bytes((member,)) == bytes((code,))
        assert member == kind(code)
        assert member is kind(code)
        assert list(kind) == list(kind.__members__.values())
        assert pickle.loads(pickle.dumps(member)) == member


def test_codes_without_a_name_print_as_hex() -> None:
    assert str(Method(0x80)) == "0x80"
    assert repr(Command(9)) == "<Command.0x09: 9>"
    assert str(Method.USERPASS) == "USERPASS"


@pytest.mark.parametrize("value", [-1, 256, "5", None])
def test_what_is_no_byte_is_no_code(value: object) -> None:
    with pytest.raises(ValueError):
        Reply(value)
