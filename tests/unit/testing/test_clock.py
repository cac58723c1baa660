"""The fake clock itself: it keeps the order of time, honours cancellation and refuses what it was not told."""

import math
from ipaddress import IPv4Address

import pytest

from tabi.addr import Endpoint, Name
from tabi.dial.wishes import Cancel, Close, Connection, Done, Failed, Open, Peek, Plan, Read, Resolve, Send, Sleep
from tabi.errors import DialError, Stage, UsageError
from tabi.testing.clock import FakeClock
from tabi.testing.dribble import each_byte
from tabi.testing.parts import Line, target
from tabi.testing.stream import FakeStream

HERE = IPv4Address("192.0.2.1")
NAME = Name("target.example")


def opened(*wishes: Open | Sleep | Resolve | Cancel) -> Plan:
    """Wish for all, then take facts until a connection comes."""
    fact = yield wishes
    while not (isinstance(fact, Done) and isinstance(fact.value, Connection)):
        fact = yield ()
    return fact.value


def test_facts_come_in_the_order_of_time_then_of_their_wishes() -> None:
    clock = FakeClock()
    long, short, equal = Sleep(2), Sleep(1), Sleep(1)
    clock.run(opened(long, short, equal, Open(HERE, 80)), open={HERE: (3, None)})
    facts = [(at, it.wish) for at, it in clock.transcript if isinstance(it, Done)]
    assert facts[:3] == [(1, short), (1, equal), (2, long)]
    assert clock.now == 3


def test_a_connection_has_the_ends_that_were_asked_for() -> None:
    connection = FakeClock().run(opened(Open(HERE, 80)), open={HERE: (0, None)})
    assert connection.remote == Endpoint(HERE, 80)
    assert connection.local.host == IPv4Address("127.0.0.1")


def test_a_cancelled_wish_has_no_fact() -> None:
    clock = FakeClock()
    sleep = Sleep(1)
    clock.run(opened(sleep, Cancel(sleep), Open(HERE, 80)), open={HERE: (3, None)})
    assert [it.wish for _, it in clock.transcript if isinstance(it, Done)] != [sleep]
    assert len([it for _, it in clock.transcript if isinstance(it, Done)]) == 1


def test_what_a_plan_leaves_under_way_is_told() -> None:
    clock = FakeClock()
    sleep = Sleep(9)
    clock.run(opened(sleep, Open(HERE, 80)), open={HERE: (0, None)})
    assert clock.left == (sleep,)


def test_scripted_errors_are_facts() -> None:
    clock = FakeClock()
    error = DialError("no")
    clock.run(
        opened(Resolve(NAME, 4), Open(HERE, 80)), resolve={(NAME, 4): (1, error)}, open={HERE: (2, None)}
    )
    assert [it.error for _, it in clock.transcript if isinstance(it, Failed)] == [error]


def test_the_clock_goes_on_over_two_runs() -> None:
    clock = FakeClock()
    clock.run(opened(Open(HERE, 80)), open={HERE: (1, None)})
    clock.run(opened(Open(HERE, 80)), open={HERE: (1, None)})
    assert clock.now == 2


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        (Open(HERE, 80), "no script tells"),
        (Resolve(NAME, 6), "no script tells"),
        (Read(Connection(None, Endpoint(HERE, 1), Endpoint(HERE, 2)), 1), "no script tells a part"),
    ],
)
def test_a_wish_without_a_script_is_a_mistake_of_the_test(wish: object, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        FakeClock().run(opened(wish))


def test_waiting_for_nothing_is_an_error_and_no_hang() -> None:
    with pytest.raises(UsageError, match="will ever come"):
        FakeClock().run(opened(Open(HERE, 80)), open={HERE: (math.inf, None)})


def talked(*talk: Send | Read | Peek, connection: list[Connection]) -> Plan:
    """Open, then make these wishes one by one; `talk` is given as functions of the connection."""
    fact = yield (Open(HERE, 80),)
    connection.append(fact.value)
    for make in talk:
        yield (make(fact.value),)
    return fact.value


def run_talk(stream: FakeStream, *talk: object) -> tuple[FakeClock, list[object]]:
    """Talk to `stream`; gives what the reads came to."""
    clock = FakeClock()
    clock.run(talked(*talk, connection=[]), talk={HERE: lambda: stream})
    facts = [it for _, it in clock.transcript if isinstance(it, Done | Failed) and isinstance(it.wish, Read | Peek)]
    return clock, [it.value if isinstance(it, Done) else it.error for it in facts]


def read(size: int = 99):
    return lambda connection: Read(connection, size)


def test_a_stream_gives_no_more_than_was_asked_for_and_one_segment_at_a_time() -> None:
    clock, got = run_talk(FakeStream(target(b"abcd")), read(1), lambda it: Peek(it, 2), read(2), read())
    assert got == [b"a", b"bc", b"bc", b"d"]
    clock, got = run_talk(FakeStream(target(b"abc"), cut=each_byte, pace=0.5), read(), read())
    assert got == [b"a", b"b"]
    assert clock.now == 1.0
    assert clock.streams[0].unread == b"c"


def test_a_stream_answers_what_it_has_heard_whole() -> None:
    stream = FakeStream((Line(Stage.REQUEST, b"hi", lambda _: 3), Line(Stage.RELAY, b"!", lambda _: 1)), pace=1.0)
    _, got = run_talk(stream, lambda it: Send(it, b"he"), lambda it: Send(it, b"ya"), read(), read())
    assert got == [b"hi", b"!"]
    assert stream.heard == b"heya"


def test_a_read_before_the_answer_is_due_waits_for_what_is_sent_beside_it() -> None:
    def both() -> Plan:
        fact = yield (Open(HERE, 80),)
        connection = fact.value
        first = yield (Read(connection, 9), Send(connection, b"x"))
        second = yield ()
        assert {first.value, second.value} == {None, b"hi"}
        return connection

    FakeClock().run(both(), talk={HERE: lambda: FakeStream((Line(Stage.REQUEST, b"hi", lambda _: 1),), pace=1.0)})


@pytest.mark.parametrize("end", [b"", DialError("reset")])
def test_a_stream_ends_as_it_was_told_to(end: bytes | DialError) -> None:
    _, got = run_talk(FakeStream(target(b"a"), ends=end), read(), read(), read())
    assert got == [b"a", end, end]


def test_a_stream_that_is_silent_keeps_whoever_reads() -> None:
    with pytest.raises(UsageError, match="ever come"):
        run_talk(FakeStream(target(b"a")), read(), read())


def test_a_closed_connection_is_noted() -> None:
    def closing() -> Plan:
        fact = yield (Open(HERE, 80),)
        yield (Close(fact.value), Sleep(0))
        return fact.value

    clock = FakeClock()
    clock.run(closing(), talk={HERE: lambda: FakeStream(())})
    assert clock.streams[0].closed
