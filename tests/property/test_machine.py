"""Both machines: any cut is the same conversation, any garbage ends in an event, memory has a bound."""

import itertools
import tracemalloc
from ipaddress import IPv4Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tabi.addr import Endpoint, Name, parse_host
from tabi.errors import TabiError, UsageError
from tabi.machine.base import MAX_MESSAGE, Failed, Machine, NeedData
from tabi.machine.client import Accepted, ClientMachine, ClientOptions, Granted
from tabi.machine.methods import STRENGTH, strongest
from tabi.machine.server import CredentialsReceived, RequestReceived, ServerMachine, ServerOptions
from tabi.testing import Pair, each_byte, grant, random_cuts, whole
from tabi.wire.socks5 import Command, Method
from tabi.wire.version import Version

BOUND = Endpoint(IPv4Address("203.0.113.9"), 1080)
PORTS = st.integers(1, 65535)
LABELS = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=63)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(lambda labels: Name(".".join(labels)))
ADDRESSES = st.ip_addresses().map(str).map(parse_host).filter(lambda host: not host.is_unspecified)
TARGETS = st.builds(Endpoint, st.one_of(NAMES, ADDRESSES), PORTS)
CONTROL = bytes(range(32)) + b"\x7f"
SECRETS = st.binary(min_size=1, max_size=255).map(lambda data: data.translate(None, CONTROL)).filter(bool)
CREDENTIALS = st.one_of(st.none(), st.tuples(SECRETS, SECRETS))
BEHIND = st.binary(max_size=40)
COMMANDS = st.sampled_from(list(Command))

ALL = ServerOptions(methods=frozenset({Method.NONE, Method.USERPASS}), tor_resolve=True, empty_credentials=True)
OPTIONS = st.builds(
    ServerOptions,
    methods=st.sets(st.sampled_from([Method.NONE, Method.USERPASS])).map(frozenset),
    tor_resolve=st.booleans(),
    empty_credentials=st.booleans(),
    strict_rsv=st.booleans(),
)


def sizes(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """Cut `data` anywhere."""
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=12)))
    return [piece for start, end in itertools.pairwise([0, *cuts, len(data)]) if (piece := data[start:end])]


@st.composite
def cut_input(draw: st.DrawFn, data: st.SearchStrategy[bytes]) -> tuple[bytes, list[bytes]]:
    whole_data = draw(data)
    return whole_data, sizes(draw, whole_data)


# what a client might send: well-formed messages, near misses and noise, joined


def message(*heads: bytes) -> st.SearchStrategy[bytes]:
    return st.builds(bytes.__add__, st.sampled_from(heads), st.binary(max_size=30))


CLIENT_BYTES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"\x05\x01\x00", b"\x05\x01\x02", b"\x05\x02\x00\x02", b"\x01\x01a\x01b", b"\x01\x00\x00",
                b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", b"\x05\x01\x00\x03\x03a.b\x00\x50",
                b"\x04\x01\x00\x50\x7f\x00\x00\x01u\x00", b"\x04\x01\x00\x50\x00\x00\x00\x01u\x00a.b\x00",
            ]
        ),
        message(b"\x05", b"\x05\x01\x00\x03", b"\x01", b"\x04\x01\x00\x50\x00\x00\x00\x01", b"GET "),
        st.binary(max_size=600),
    ),
    max_size=6,
).map(b"".join)  # fmt: skip
SERVER_BYTES = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"\x05\x00", b"\x05\x02", b"\x05\xff", b"\x01\x00", b"\x01\x01",
                b"\x05\x00\x00\x01\x7f\x00\x00\x01\x04\x38", b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00",
                b"\x00\x5a\x04\x38\x7f\x00\x00\x01", b"\x00\x5b" + bytes(6),
            ]
        ),
        message(b"\x05", b"\x05\x00\x00\x03", b"\x05\x04\x00\x00", b"\x00\x5a"),
        st.binary(max_size=300),
    ),
    max_size=6,
).map(b"".join)  # fmt: skip


def converse(machine: Machine[object], pieces: list[bytes], *, end: bool) -> tuple[list[object], bytes, bytes]:
    """Feed the pieces as a driver does that reads only when asked to; returns events, bytes sent, early data."""
    events: list[object] = []
    sent = b""
    unread = list(pieces)
    while not machine.is_over:
        event = machine.next_event()
        sent += machine.data_to_send()
        if isinstance(event, NeedData):
            assert 0 < event.need <= MAX_MESSAGE
            if unread:
                machine.receive_data(unread.pop(0))
            elif end:
                machine.receive_data(b"")
            else:
                break
            continue
        events.append(plain(event))
        if isinstance(event, CredentialsReceived):
            machine.authenticated() if event.username < b"n" else machine.refuse_credentials()
    early = machine.take_early() + b"".join(unread) if machine.is_over else b""
    return events, sent + machine.data_to_send(), early


def plain(event: object) -> object:
    """Make failures comparable."""
    if not isinstance(event, Failed):
        return event
    error = event.error
    assert isinstance(error, TabiError)
    assert (error.text + event.asked).isprintable()
    return type(error), error.text, error.side, error.stage, error.reply, event.asked


def client(command: Command, target: Endpoint, options: ClientOptions) -> ClientMachine | None:
    try:
        return ClientMachine(command, target, options)
    except UsageError:
        return None


@given(cut_input(CLIENT_BYTES), OPTIONS, st.booleans())
def test_server_hears_the_same_however_its_input_is_cut(
    data: tuple[bytes, list[bytes]], options: ServerOptions, end: bool
) -> None:
    joined, pieces = data
    expected = converse(ServerMachine(options), [joined] if joined else [], end=end)
    assert converse(ServerMachine(options), pieces, end=end) == expected
    assert converse(ServerMachine(options), list(each_byte(joined)), end=end) == expected


@given(cut_input(SERVER_BYTES), COMMANDS, TARGETS, st.sampled_from(Version), st.booleans(), st.booleans())
def test_client_hears_the_same_however_its_input_is_cut(
    data: tuple[bytes, list[bytes]], command: Command, target: Endpoint, version: Version, login: bool, end: bool
) -> None:
    with_password = login and version is Version.SOCKS5
    options = ClientOptions(version=version, username=b"u" * login, password=b"p" * with_password)
    joined, pieces = data
    if client(command, target, options) is None:
        return
    expected = converse(ClientMachine(command, target, options), [joined] if joined else [], end=end)
    assert converse(ClientMachine(command, target, options), pieces, end=end) == expected
    assert converse(ClientMachine(command, target, options), list(each_byte(joined)), end=end) == expected


@given(st.binary(max_size=2000), OPTIONS)
@example(b"\x05\xff" + b"\x00" * 255 + b"\x05\x01\x00\x03\xff" + b"a" * 300, ALL)
def test_server_survives_any_garbage(data: bytes, options: ServerOptions) -> None:
    events, _, _ = converse(ServerMachine(options), [data] if data else [], end=True)
    *others, last = events
    assert isinstance(last, RequestReceived | tuple)
    assert all(isinstance(event, CredentialsReceived) for event in others)


@given(st.binary(max_size=2000), st.sampled_from(Version))
def test_client_survives_any_garbage(data: bytes, version: Version) -> None:
    machine = ClientMachine(Command.BIND, BOUND, ClientOptions(version=version))
    events, _, _ = converse(machine, [data] if data else [], end=True)
    *others, last = events
    assert isinstance(last, Accepted | tuple)
    assert all(isinstance(event, Granted) for event in others)


@given(CLIENT_BYTES, OPTIONS)
def test_server_that_is_read_as_it_asks_never_reads_past_the_handshake(data: bytes, options: ServerOptions) -> None:
    machine, unread = ServerMachine(options), data
    expected = converse(ServerMachine(options), [data] if data else [], end=False)
    while not machine.is_over:
        event = machine.next_event()
        if isinstance(event, CredentialsReceived):
            machine.authenticated() if event.username < b"n" else machine.refuse_credentials()
        elif isinstance(event, NeedData):
            if not unread:
                break
            machine.receive_data(unread[: event.need])
            unread = unread[event.need :]
        elif isinstance(event, RequestReceived):
            assert machine.take_early() == b""
            assert unread == expected[2]


@pytest.mark.parametrize(
    "opening", [b"", b"\x05\x01\x02", b"\x04\x01\x00\x50\x00\x00\x00\x01", b"\x05\xff", b"\x05\x01\x00"]
)
@pytest.mark.parametrize("noise", [b"\x00", b"\x01", b"\x05", b"u", b"\xff"])
def test_machine_holds_less_than_a_message_and_one_read(opening: bytes, noise: bytes) -> None:
    """A megabyte in reads of 4 KiB, as long as the machine asks; the buffer is let go with what it held."""
    read = 4096
    tracemalloc.start()
    try:
        machine = ServerMachine(ALL)
        feed = itertools.chain([opening] if opening else [], itertools.repeat(noise * read, 256))
        while not machine.is_over:
            event = machine.next_event()
            if isinstance(event, CredentialsReceived):
                machine.authenticated()
            elif isinstance(event, NeedData):
                machine.receive_data(next(feed))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 1024
    assert len(machine.take_early()) < MAX_MESSAGE + read


@given(TARGETS, CREDENTIALS, st.sampled_from(Version), COMMANDS, BEHIND, BEHIND, st.integers(0, 2**32))
def test_pair_understands_each_other_in_every_cut(
    target: Endpoint,
    credentials: tuple[bytes, bytes] | None,
    version: Version,
    command: Command,
    payload: bytes,
    banner: bytes,
    seed: int,
) -> None:
    username, password = credentials or (b"", b"")
    if version is not Version.SOCKS5:
        username, password = username.replace(b"\0", b""), b""
    options = ClientOptions(version=version, username=username, password=password)
    if client(command, target, options) is None or (command is Command.RESOLVE_PTR and isinstance(target.host, Name)):
        return
    heard = set()
    for cut in (whole, each_byte, random_cuts(seed)):
        pair = Pair(ClientMachine(command, target, options), ServerMachine(ALL), cut=cut)
        pair.run(grant(BOUND), payload=payload, banner=banner)
        request = pair.server_events[-1]
        assert isinstance(request, RequestReceived)
        assert (request.command, request.target) == (command, target)
        if version is Version.SOCKS5 and credentials:
            assert pair.server_events[0] == CredentialsReceived(username, password)
        expected = [Granted(BOUND), Accepted(BOUND)] if command is Command.BIND else [Granted(BOUND)]
        assert pair.client_events == expected
        assert pair.server.take_early() == payload
        assert pair.client.take_early() == banner
        heard.add((tuple(pair.client_events), tuple(pair.server_events), pair.client_sent, pair.server_sent))
    assert len(heard) == 1


@given(st.lists(st.integers(0, 255).map(Method)), st.sets(st.sampled_from(STRENGTH)), st.randoms())
def test_strongest_method_does_not_depend_on_the_order(offered: list[Method], accepted: set[Method], dice) -> None:
    shuffled = [*offered, *offered]
    dice.shuffle(shuffled)
    chosen = strongest(offered, accepted)
    assert strongest(shuffled, accepted) is chosen
    assert chosen is Method.NO_ACCEPTABLE or (chosen in offered and chosen in accepted)
