"""One session, one line: whole, exact, and safe against what came from the wire."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tabi.errors import DialTimeoutError, Stage
from tabi.relay.lane import Tail, pack_tail
from tabi.server.line import LONGEST, Kin, LogFormat, format_line
from tabi.server.outcome import Outcome, why
from tabi.server.record import Facts

FACTS = Facts(
    7,
    1_700_000_000.25,
    "127.0.0.1:40000",
    "127.0.0.1:1080",
    socks="5",
    method="password",
    user=b"alice",
    command="connect",
    target="example.org:80",
    to="192.0.2.1:80",
    verdict="allow",
    rule="staff to the web",
    reply=0,
    handshake=0.31,
    resolve=1.0,
    connect=2.26,
)
OUTCOME = Outcome("client", "fin", 10, 20, 1234.5)


def parse(line: str) -> dict[str, str]:
    """Read a text line the way an administrator's script would."""
    head, _, rest = line.partition(" ")
    fields = {"time": head}
    while rest:
        match = re.match(r'(\w+)=("(?:[^"\\]|\\.)*"(?: ?\(\d+ characters\))?|[^ "]*)(?: |$)', rest)
        assert match, rest
        assert match[1] not in fields
        fields[match[1]] = match[2]
        rest = rest[match.end() :]
    return fields


def test_a_text_line_answers_who_where_why_how_much_and_how_long() -> None:
    assert format_line(FACTS, OUTCOME, "text") == (
        "2023-11-14T22:13:21.484Z session=7 client=127.0.0.1:40000 listener=127.0.0.1:1080 user=alice socks=5 "
        "method=password command=connect target=example.org:80 to=192.0.2.1:80 verdict=allow "
        'rule="staff to the web" reply=0 up=10 down=20 handshake_ms=0.3 resolve_ms=1.0 connect_ms=2.3 '
        "total_ms=1234.5 by=client why=fin"
    )


def test_a_json_line_has_the_same_fields_typed() -> None:
    fields = json.loads(format_line(FACTS, OUTCOME, "json"))
    assert fields["session"] == 7
    assert fields["up"] == 10
    assert fields["total_ms"] == 1234.5
    assert {key: str(value) for key, value in fields.items()} == {
        key: value.strip('"') for key, value in parse(format_line(FACTS, OUTCOME, "text")).items()
    }


def test_what_is_not_known_is_left_out() -> None:
    line = parse(format_line(Facts(1, 0.0, "[::1]:9", "[::1]:1080"), Outcome("tabi", "limit:handshake"), "text"))
    assert line == {
        "time": "1970-01-01T00:00:00.000Z",
        "session": "1",
        "client": "[::1]:9",
        "listener": "[::1]:1080",
        "up": "0",
        "down": "0",
        "total_ms": "0.0",
        "by": "tabi",
        "why": "limit:handshake",
    }


@pytest.mark.parametrize(
    "evil", [b"a\nsession=8 user=root", b'"', b"\\", b"a b=c", b"\x1b[2J", b"\xff\xfe", "ü\u2028".encode()]
)
def test_a_user_name_cannot_forge_a_line_or_a_field(evil: bytes) -> None:
    line = format_line(FACTS._replace(user=evil), OUTCOME, "text")
    assert line.isprintable()
    assert line.count("\n") == 0
    assert parse(line)["session"] == "7"
    assert parse(line)["user"].startswith('"')
    assert parse(line).keys() == parse(format_line(FACTS, OUTCOME, "text")).keys()


@given(st.binary(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_whatever_the_wire_brings_a_line_stays_one_line(user: bytes, target: str, note: str) -> None:
    facts = FACTS._replace(user=user, userid=user, target=target)
    outcome = OUTCOME._replace(note=note)
    text = format_line(facts, outcome, "text")
    assert text.isprintable()
    fields = parse(text)
    assert fields["session"] == "7"
    assert fields["why"] == "fin"
    machine: dict[str, Any] = json.loads(format_line(facts, outcome, "json"))
    assert machine.keys() == fields.keys()
    assert machine.get("target", "") == target


def test_only_our_own_limits_are_named_as_limits() -> None:
    ours = DialTimeoutError("30 s are over")
    ours.limit = "connect"
    assert why(ours) == "limit:connect"
    assert why(DialTimeoutError("the kernel gave up: ETIMEDOUT")) == "failed"
    assert why(DialTimeoutError("no name server answers", stage=Stage.RESOLVE)) == "limit:resolve"


LEVELS = st.sampled_from(["debug", "info", "warning"])
HOSTILE = st.text(st.characters(exclude_categories=()), max_size=600)


@given(HOSTILE, st.binary(max_size=255), st.binary(max_size=400), HOSTILE, HOSTILE)
def test_no_line_is_longer_than_what_a_pipe_takes_in_one_piece(
    target: str, user: bytes, userid: bytes, rule: str, note: str
) -> None:
    facts = FACTS._replace(target=target * 4, to=target, user=user, userid=userid, rule=rule * 3)
    for style in ("text", "json"):
        line = format_line(facts, OUTCOME._replace(note=note * 20), style)
        assert len(line.encode("utf-8", "backslashreplace")) <= LONGEST
        assert "\n" not in line
        assert "total_ms" in line
    assert json.loads(line)["session"] == 7


def test_only_the_long_values_of_a_line_that_is_too_long_are_cut() -> None:
    fields = json.loads(format_line(FACTS._replace(target="t" * 5000), OUTCOME, "json"))
    target = fields.pop("target")
    assert set(target[:-1]) == {"t"}
    assert target.endswith("…")
    assert 100 < len(target) <= 240
    whole = json.loads(format_line(FACTS, OUTCOME, "json"))
    assert whole.pop("target") == "example.org:80"
    assert fields == whole


def test_a_line_that_is_short_enough_is_whole_whatever_is_in_it() -> None:
    assert json.loads(format_line(FACTS._replace(rule="r" * 3000), OUTCOME, "json"))["rule"] == "r" * 3000


PERMIT = FACTS._replace(session=0, accepted=0.0, client="[2001:db8::1]", handshake=-1.0, resolve=-1.0, connect=-1.0)
MILLISECONDS = st.floats(0, 1e7)


@given(
    facts=st.builds(PERMIT._replace, user=st.binary(max_size=300), target=HOSTILE, rule=HOSTILE, level=LEVELS),
    tail=st.builds(
        Tail, st.integers(1, 1 << 63), st.floats(0, 4e9), st.integers(0, 65_535), *[MILLISECONDS] * 3
    ),
    outcome=st.builds(OUTCOME._replace, note=HOSTILE, total=MILLISECONDS, up=st.integers(0, 1 << 62)),
    style=st.sampled_from(["text", "json"]),
)
def test_a_line_of_kin_is_the_line_that_it_would_be_alone(
    facts: Facts, tail: Tail, outcome: Outcome, style: LogFormat
) -> None:
    alone = format_line(Facts.unpack(facts.pack() + pack_tail(*tail)), outcome, style)
    line = Kin.of(facts, style).line(tail, outcome)
    assert line == alone or (line is None and len(alone) > LONGEST // 4)
