"""Verdicts that are remembered are those that policy would give, and none outlives what it was about."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from tabi.addr import Endpoint, Name
from tabi.policy.memory import MOST, Memory
from tabi.policy.verdict import Context, Request, Verdict
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

REQUEST = Request(Command.CONNECT, Endpoint.parse("target.example:80"))
CONTEXT = Context(
    client=Endpoint.parse("192.0.2.1:40000"),
    listener=Endpoint.parse("192.0.2.9:1080"),
    version=Version.SOCKS5,
    method=Method.NONE,
    minute_of_week=100,
)


class Asked:
    """A policy that says how often it was asked."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, _request: Request, _context: Context) -> Verdict:
        self.count += 1
        return Verdict(allow=True, rule=f"answer {self.count}")


def test_the_same_is_asked_once_whatever_port_the_client_has() -> None:
    policy = Asked()
    memory = Memory(policy)
    first = memory(REQUEST, CONTEXT)
    again = memory(replace(REQUEST), replace(CONTEXT, client=Endpoint.parse("192.0.2.1:40001")))
    assert again is first
    assert (policy.count, len(memory)) == (1, 1)


@pytest.mark.parametrize(
    "other",
    [
        {"client": Endpoint.parse("192.0.2.2:40000")},
        {"listener": Endpoint.parse("192.0.2.9:1081")},
        {"version": Version.SOCKS4},
        {"method": Method.USERPASS},
        {"user": b"alice"},
        {"userid": b"alice"},
        {"groups": frozenset({"staff"})},
        {"minute_of_week": 101},
    ],
    ids=str,
)
def test_another_context_is_judged_anew(other: dict[str, object]) -> None:
    policy = Asked()
    memory = Memory(policy)
    memory(REQUEST, CONTEXT)
    assert memory(REQUEST, replace(CONTEXT, **other)).rule == "answer 2"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        Request(Command.BIND, REQUEST.target),
        Request(Command.CONNECT, Endpoint.parse("target.example:81")),
        Request(Command.CONNECT, Endpoint.parse("192.0.2.3:80")),
        Request(Command.CONNECT, REQUEST.target, IPv4Address("192.0.2.3")),
        Request(Command.CONNECT, None),
    ],
    ids=str,
)
def test_another_request_is_judged_anew(other: Request) -> None:
    policy = Asked()
    memory = Memory(policy)
    memory(REQUEST, CONTEXT)
    assert memory(other, CONTEXT).rule == "answer 2"


def test_every_field_of_a_request_and_its_context_is_told_apart() -> None:
    assert {*Request.__slots__, *Context.__slots__} == {
        "command", "target", "address", "client", "listener", "version", "method", "user", "userid", "groups",
        "minute_of_week",
    }  # fmt: skip  a new one belongs into the key, and into the tests above


def test_no_more_than_so_many_are_kept_and_the_oldest_gives_way() -> None:
    policy = Asked()
    memory = Memory(policy)
    requests = [Request(Command.CONNECT, Endpoint(Name("target.example"), number)) for number in range(MOST + 1)]
    for request in requests:
        memory(request, CONTEXT)
    assert (policy.count, len(memory)) == (MOST + 1, MOST)
    memory(requests[-1], CONTEXT)
    memory(requests[1], CONTEXT)
    assert policy.count == MOST + 1
    assert memory(requests[0], CONTEXT).rule == f"answer {MOST + 2}"
    assert len(memory) == MOST
