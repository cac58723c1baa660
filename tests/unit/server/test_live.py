"""Rows of sessions, picking them, and facts as the request that is judged again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.addr import Endpoint, Name, parse_host, socket_address
from tabi.errors import AddressError
from tabi.policy.verdict import Request
from tabi.server.live import FIELDS, as_request, matches, row
from tabi.server.record import Facts
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

FACTS = Facts(
    session=7,
    accepted=0.0,
    client="192.0.2.1:5000",
    listener="[2001:db8::1]:1080",
    socks="5",
    method="password",
    user=b"alice",
    command="connect",
    target="www.example.org:443",
    to="[2001:db8::2]:443",
    verdict="allow",
    rule="web",
)
ROW = row(FACTS, stage="relay", up=1, down=2, idle=3.04)


def test_a_row_has_every_field_that_can_be_picked_by() -> None:
    assert set(FIELDS) <= set(ROW)
    assert (ROW["user"], ROW["up"], ROW["down"], ROW["idle"]) == ("alice", 1, 2, 3.0)


def test_a_user_who_is_no_utf8_is_shown_escaped() -> None:
    assert row(FACTS._replace(user=b"\xff\n"), stage="relay")["user"] == "\\xff\n"
    assert row(FACTS._replace(user=None), stage="relay")["user"] == ""


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"session": "7"},
        {"client": "192.0.2.1"},
        {"client": "192.0.2.1:5000"},
        {"client": "192.0.2.*"},
        {"to": "2001:db8::2"},
        {"to": "[2001:db8::2]:443"},
        {"target": "*.example.org"},
        {"target": "*:443"},
        {"user": "alice", "rule": "w?b", "stage": "relay"},
    ],
)
def test_a_row_is_picked(wanted: dict[str, str]) -> None:
    assert matches(ROW, wanted)


@pytest.mark.parametrize(
    "wanted",
    [
        {"session": "70"},
        {"session": ""},
        {"client": "192.0.2.10"},
        {"client": "192.0.2.1:50"},
        {"target": "example.org"},
        {"user": "Alice"},
        {"user": "alice", "rule": "other"},
    ],
)
def test_a_row_is_not_picked(wanted: dict[str, str]) -> None:
    assert not matches(ROW, wanted)


def test_what_a_name_led_to_is_judged_with_it() -> None:
    request, context = as_request(FACTS, groups=frozenset({"staff"}), minute_of_week=5)
    assert request == Request(Command.CONNECT, Endpoint(Name("www.example.org"), 443), socket_address("2001:db8::2"))
    assert (context.version, context.method, context.user) == (Version.SOCKS5, Method.USERPASS, b"alice")
    assert (context.groups, context.minute_of_week, context.userid) == (frozenset({"staff"}), 5, b"")
    assert (str(context.client), str(context.listener)) == (FACTS.client, FACTS.listener)


def test_an_association_has_no_target_to_judge() -> None:
    request, _ = as_request(
        FACTS._replace(command="udp_associate", target="0.0.0.0:0", to=""), groups=frozenset(), minute_of_week=0
    )
    assert request == Request(Command.UDP_ASSOCIATE, None)


def test_a_socks4_session_keeps_what_it_claimed() -> None:
    facts = FACTS._replace(socks="4a", method="none", user=None, userid=b"root")
    _, context = as_request(facts, groups=frozenset(), minute_of_week=0)
    assert (context.version, context.user, context.userid) == (Version.SOCKS4A, None, b"root")


@given(st.text() | st.from_regex(r"[a-zA-Z0-9_.:-]+", fullmatch=True), st.integers(0, 65535))
def test_whatever_was_asked_for_can_be_judged_again(host: str, port: int) -> None:
    try:
        target = Endpoint(parse_host(host), port)
    except AddressError:
        return
    facts = FACTS._replace(target=str(target), to="", command="bind")
    assert as_request(facts, groups=frozenset(), minute_of_week=0)[0] == Request(Command.BIND, target)
