"""Method negotiation."""

import itertools

import pytest

from tabi.machine.methods import STRENGTH, strongest
from tabi.wire.socks5 import Method

OFFER = [Method.NONE, Method.USERPASS, Method.GSSAPI, Method(0x80)]


@pytest.mark.parametrize("offered", list(itertools.permutations(OFFER)))
def test_order_of_the_offer_does_not_decide(offered: tuple[Method, ...]) -> None:
    assert strongest(offered, set(STRENGTH)) is Method.GSSAPI
    assert strongest(offered, {Method.NONE, Method.USERPASS}) is Method.USERPASS
    assert strongest(offered, {Method.NONE}) is Method.NONE


def test_nothing_in_common_is_no_acceptable_method() -> None:
    assert strongest([], {Method.NONE}) is Method.NO_ACCEPTABLE
    assert strongest([Method.NONE], {Method.USERPASS}) is Method.NO_ACCEPTABLE
    assert strongest([Method.NONE], set()) is Method.NO_ACCEPTABLE


@pytest.mark.parametrize("method", [Method(0x03), Method(0x80), Method.NO_ACCEPTABLE])
def test_method_outside_the_table_is_never_chosen(method: Method) -> None:
    assert strongest([method], {method}) is Method.NO_ACCEPTABLE
