"""The UDP relay's judgement under any sequence of datagrams, and reassembly against a slow model."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from tabi.addr import Name, parse_host
from tabi.machine import association, reassembly
from tabi.machine.association import Association, Drop, Dropped, Forward, LookUp
from tabi.machine.reassembly import Reassembly
from tabi.wire.udp import Datagram

CLIENT = IPv4Address("198.51.100.7")
NAMES = [f"n{number}.example" for number in range(30)]
HOSTS = st.one_of(st.sampled_from(NAMES).map(str.encode), st.integers(1, 40).map(lambda n: IPv4Address(0xC0000200 + n)))
PORTS = st.integers(0, 40)
FRAGS = st.sampled_from([0, 0, 0, 1, 2, 3, 0x81, 0x82, 0x83, 0x80, 127, 255])
DATAGRAMS = st.builds(Datagram, HOSTS, PORTS, st.binary(max_size=8), FRAGS).map(Datagram.encode)
BYTES = st.one_of(DATAGRAMS, DATAGRAMS, st.binary(max_size=30))
SOURCES = st.sampled_from([(CLIENT, 5000), (CLIENT, 5000), (CLIENT, 5001), (IPv4Address("198.51.100.8"), 5000)])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), BYTES, SOURCES),
        st.tuples(st.just("answer"), st.sampled_from(NAMES), st.lists(st.integers(1, 40), max_size=3)),
        st.tuples(st.just("wait"), st.floats(0, 40), st.none()),
    ),
    max_size=120,
)


def make() -> Association:
    """Make an association whose policy refuses some ports and some addresses."""

    def judge(target: object, address: IPv4Address | None) -> bool:
        return target.port % 7 != 3 and (address is None or int(address) % 5 != 0)

    return Association(client=CLIENT, judge=judge)


def state(relay: Association) -> object:
    """Everything but the counters."""
    return (
        relay.client_port, list(relay._routes.items()), list(relay._mappings), list(relay._waiting),
        list(relay._fragments._parts), relay._fragments._target, relay._fragments._started,
    )  # fmt: skip


@given(STEPS)
def test_nothing_grows_beyond_its_bound_and_strangers_change_nothing(steps: list[tuple]) -> None:
    relay, now, under_way = make(), 0.0, set()
    for what, one, other in steps:
        before = state(relay)
        if what == "wait":
            now += one
        elif what == "answer":
            name = parse_host(one)
            forwards = relay.looked_up(name, [IPv4Address(0xC0000200 + n) for n in other], now)
            under_way.discard(name)
            assert all(int(forward.address) % 5 for forward in forwards)
        else:
            outcome = relay.from_client(one, *other, now)
            if outcome in (Dropped(Drop.STRANGER), Dropped(Drop.MALFORMED)):
                assert state(relay) == before
            else:
                assert other[0] == CLIENT
                assert relay.client_port == other[1]
            if isinstance(outcome, LookUp):
                assert outcome.name not in under_way
                under_way.add(outcome.name)
            under_way.discard(getattr(outcome, "instead", None))
            if isinstance(outcome, Forward):
                assert relay.header_for(outcome.address, outcome.port) is not None
        assert len(relay._waiting) <= association.MAX_WAITING
        assert {waiting.name for waiting in relay._waiting} == under_way
        assert len(relay._routes) <= association.MAX_ROUTES
        assert len(relay._mappings) <= association.MAX_MAPPINGS
        assert len(relay._fragments) <= 127


@given(st.lists(st.integers(1, 60), min_size=1, max_size=400))
def test_tables_keep_their_bounds_and_drop_the_oldest_first(ports: list[int]) -> None:
    bound = 20
    original = association.MAX_ROUTES, association.MAX_MAPPINGS
    association.MAX_ROUTES = association.MAX_MAPPINGS = bound
    try:
        relay = Association(client=CLIENT, judge=lambda _target, _address: True)
        recent: list[int] = []
        for port in ports:
            relay.from_client(Datagram(IPv4Address("192.0.2.1"), port, b"").encode(), CLIENT, 5000, 0.0)
            recent = [*(other for other in recent if other != port), port][-bound:]
            assert len(relay._routes) <= bound
            assert [other for _, other in relay._mappings] == recent
    finally:
        association.MAX_ROUTES, association.MAX_MAPPINGS = original


# reassembly

FRAGMENTS = st.lists(
    st.tuples(
        st.one_of(st.integers(1, 4), st.integers(0x81, 0x84), st.sampled_from([0x80, 127])),
        st.sampled_from([b"", b"a", b"bb", b"x" * 30_000]),
        st.sampled_from([53, 53, 53, 54]),
        st.floats(0, 3),
    ),
    max_size=40,
)


class Model:
    """RFC 1928 section 7 as a list of what was accepted: slow, and written without looking at the other."""

    def __init__(self) -> None:
        self.held: list[Datagram] = []
        self.since = 0.0

    def add(self, fragment: Datagram, now: float) -> tuple[bytes | None, int]:
        lost = 0
        if self.held and now - self.since >= 5:  # REASSEMBLY TIMER
            lost, self.held = len(self.held), []
        position, is_last = fragment.frag & 0x7F, bool(fragment.frag & 0x80)
        same = bool(self.held) and (self.held[0].host, self.held[0].port) == (fragment.host, fragment.port)
        if same and len(self.held) >= 2 and position == len(self.held):
            return None, lost  # not lower than the highest: no reason to begin anew, and nothing new
        begins = position == 1
        follows = same and position == len(self.held) + 1
        if begins:
            lost, self.held, self.since = lost + len(self.held), [], now
        if not begins and not follows:
            lost, self.held = lost + len(self.held) + 1, []
            return None, lost
        self.held = [*self.held, fragment]
        data = b"".join(part.data for part in self.held)
        if len(data) > 65_507:
            lost, self.held = lost + len(self.held), []
            return None, lost
        if is_last:
            self.held = []
            return data, lost
        return None, lost


@given(FRAGMENTS)
def test_reassembly_does_as_the_model_does(fragments: list[tuple[int, bytes, int, float]]) -> None:
    queue, model, now = Reassembly(), Model(), 0.0
    for frag, data, port, pause in fragments:
        now += pause
        fragment = Datagram(b"a.b", port, data, frag)
        joined = queue.add(fragment, now)
        assert (joined.datagram and joined.datagram.data, joined.lost) == model.add(fragment, now)
        assert joined.datagram is None or joined.datagram.frag == 0
        assert len(queue) == len(model.held) <= 127
        assert queue._size == sum(len(part.data) for part in model.held) <= 65_507


@given(st.lists(st.binary(max_size=500), min_size=1, max_size=127))
def test_any_payload_in_any_pieces_comes_out_whole(pieces: list[bytes]) -> None:
    queue = Reassembly()
    target = parse_host("192.0.2.1")
    for position, piece in enumerate(pieces, 1):
        last = reassembly.LAST_FRAGMENT if position == len(pieces) else 0
        joined = queue.add(Datagram(target, 53, piece, position | last), 0.0)
    assert joined == (Datagram(target, 53, b"".join(pieces)), 0)


def test_names_compare_as_they_were_normalised() -> None:
    relay = make()
    first = relay.from_client(Datagram(b"N1.Example", 53, b"").encode(), CLIENT, 5000, 0.0)
    assert first == LookUp(Name("n1.example"))
