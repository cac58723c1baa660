"""The lines of a trace."""

import json
import struct
from ipaddress import ip_address

import pytest

from tabi.addr import Endpoint
from tabi.errors import RefusedError, UsageError
from tabi.relay import Cause, Closer, End
from tabi.wrap import zone
from tabi.wrap.answers import REFUSED
from tabi.wrap.datagrams import Flow
from tabi.wrap.held import Decided
from tabi.wrap.names import Names
from tabi.wrap.trace import Trace

SOURCE, TARGET = Endpoint.parse("198.18.0.2:40000"), Endpoint.parse("one.test:443")


def question(labels: list[bytes], kind: int) -> zone.Answer:
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    said = zone.answer(struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0) + name + struct.pack("!HH", kind, 1), Names())
    assert said is not None
    return said


NAMES = [
    ([b"one", b"test"], 1, "type=A answer=198.18.1.1", "one.test"),
    ([b"one", b"test"], 28, "type=AAAA answer=fd00:5ec:0:1::1", "one.test"),
    ([b"one", b"test"], 65, "type=TYPE65 answer=NOERROR", "one.test"),
    ([b"a", b"invalid"], 1, "type=A answer=NXDOMAIN", "a.invalid"),
    ([b"1", b"0", b"0", b"127", b"in-addr", b"arpa"], 12, "type=PTR answer=NOERROR", "1.0.0.127.in-addr.arpa"),
    ([], 1, "type=A answer=NOERROR", "."),
]


@pytest.mark.parametrize(("labels", "kind", "rest", "name"), NAMES)
def test_names(labels: list[bytes], kind: int, rest: str, name: str) -> None:
    lines: list[str] = []
    Trace(lines.append).answered(SOURCE, question(labels, kind))
    assert lines == [f"name from=198.18.0.2:40000 name={name} {rest}"]


def test_name_that_would_be_more_than_a_line_is_escaped() -> None:
    lines: list[str] = []
    trace = Trace(lines.append)
    trace.answered(SOURCE, question([b"a\nconnect to=b", b"\xff"], 1))
    assert lines == [r'name from=198.18.0.2:40000 name="a\x0aconnect to=b.\xff" type=A answer=NXDOMAIN']


def test_connects_and_ends() -> None:
    lines: list[str] = []
    trace = Trace(lines.append)
    trace.decided(Decided(source=SOURCE, target=TARGET, seconds=0.0123))
    trace.decided(
        Decided(source=SOURCE, target=TARGET, answer=REFUSED, error=RefusedError("nobody there"), seconds=1.0)
    )
    trace.ended(End(1, b"198.18.0.2:40000 one.test:443", Closer.TARGET, Cause.RST, 104, 10, 20, 5.0, 6.5))
    assert lines == [
        "connect from=198.18.0.2:40000 to=one.test:443 ms=12.3 verdict=connected",
        'connect from=198.18.0.2:40000 to=one.test:443 ms=1000.0 verdict=refused error="nobody there"',
        "end from=198.18.0.2:40000 to=one.test:443 up=10 down=20 ms=1500.0 by=target why=rst",
    ]


def test_datagrams() -> None:
    lines: list[str] = []
    trace = Trace(lines.append)
    trace.flowed(Flow(SOURCE, (TARGET, Endpoint(ip_address("203.0.113.7"), 53)), 3, 30, 2, 200))
    trace.refused(UsageError("no datagrams"))
    assert lines == [
        "datagrams from=198.18.0.2:40000 to=one.test:443,203.0.113.7:53 sent=3 up=30 received=2 down=200",
        'datagrams verdict=refused error="no datagrams"',
    ]


def test_lines_as_objects() -> None:
    lines: list[str] = []
    trace = Trace(lines.append, as_json=True)
    trace.decided(Decided(source=SOURCE, target=TARGET, seconds=0.5))
    trace.answered(SOURCE, question([b"a\n"], 1))
    assert [json.loads(line) for line in lines] == [
        {"event": "connect", "from": str(SOURCE), "to": str(TARGET), "ms": 500.0, "verdict": "connected"},
        {"event": "name", "from": str(SOURCE), "name": "a\n", "type": "A", "answer": "NXDOMAIN"},
    ]
