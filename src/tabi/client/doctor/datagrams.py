"""UDP ASSOCIATE: whose datagrams are relayed, which, whole or not, and for how long."""

import time
from ipaddress import IPv4Address
from typing import Final

from tabi.addr import Address, Endpoint, Name
from tabi.client.doctor.binding import stranger_to
from tabi.client.doctor.examination import SOCKS5, Examination
from tabi.client.doctor.finding import Result, Verdict, odd, ok, told, wrong
from tabi.client.doctor.line import NoAnswerError
from tabi.client.doctor.patient import LOCALHOST, Need, Patient
from tabi.client.doctor.spots import DatagramSpot, readable
from tabi.errors import DeniedError, ProtocolError, TabiError
from tabi.machine.client import Granted
from tabi.wire.address import WireHost
from tabi.wire.socks5 import Command
from tabi.wire.udp import LAST_FRAGMENT, Datagram, encode_header

__all__ = ["DATAGRAMS", "bad_ones"]

_ANY: Final = Endpoint(IPv4Address(0), 0)
_SIZES: Final = (1_472, 9_000, 60_000, 65_497)  # the last fills IPv4's largest datagram, with SOCKS5's ten bytes
_MOMENT: Final = 0.15  # seconds without a datagram after which a relay counts as ended, twice
_PAUSE: Final = 0.05  # seconds between datagrams to a relay that has to end


def bad_ones(there: Endpoint) -> dict[str, bytes]:
    """Make a bad datagram of each kind, by its name; a proxy that sends one on all the same sends it to `there`."""
    whole = encode_header(_address(there), there.port)
    return {
        "three bytes": b"\0\0\0",
        "RSV that is not 0": b"\0\x01" + whole[2:] + b"bad",
        "an unknown ATYP": whole[:3] + b"\x09" + whole[4:] + b"bad",
        "a name that is cut": b"\0\0\0\x03\xffshort",
        "port 0": encode_header(_address(there), 0) + b"bad",
        "a name that there cannot be": encode_header(b"x" * 64 + b".invalid", there.port) + b"bad",
    }


class _Association:
    """An association, and our end of it."""

    def __init__(self, patient: Patient) -> None:
        self.patience = patient.patience
        self.line, _, event = patient.ask(Command.UDP_ASSOCIATE, _ANY)
        assert isinstance(event, Granted)
        self.told = event.bound
        if not event.bound.port:
            raise ProtocolError("tells port 0 for its relay")
        # Whatever address it tells: nothing is sent to a host that the user has not named.
        self.relay = Endpoint(patient.place.proxy.host, event.bound.port)
        self.ours = patient.datagram_spot(_address(self.line.local), noted=True)

    def send(self, data: bytes, host: WireHost, port: int, frag: int = 0) -> None:
        """Have the relay send `data` on."""
        self.ours.send(Datagram(host, port, data, frag).encode(), self.relay)

    def receive(self) -> Datagram:
        """Wait for what the relay brings."""
        return Datagram.decode(self.ours.receive()[0])

    def round(self, spot: DatagramSpot, data: bytes, host: WireHost | None = None) -> Datagram:
        """Have `data` go to a target of our own and back; gives what came back.

        Raises:
            NoAnswerError: it was lost on the way.
        """
        self.send(data, host or _address(spot.endpoint), spot.endpoint.port)
        while True:  # what came before may still be on its way
            got, source = spot.receive()
            spot.send(got, source)
            answer = self.receive()
            if got == data or data.startswith(got):
                return answer


def _address(endpoint: Endpoint) -> Address:
    assert not isinstance(endpoint.host, Name), "sockets have addresses"
    return endpoint.host


def _offered(patient: Patient) -> Result:
    try:
        there = _Association(patient)
    except DeniedError:
        raise
    except TabiError as error:
        return Result(Verdict.NOT_OFFERED, told(error))
    spot = patient.datagram_spot()
    answer = there.round(spot, b"ping")
    if (answer.host, answer.port) != (spot.endpoint.host, spot.endpoint.port):
        return wrong(f"the answer's header tells {answer.host!s}:{answer.port}; it is from {spot.endpoint}")
    if answer.data != b"ping" or answer.frag:
        return wrong("the answer comes out changed")
    if there.told.host != there.relay.host:
        return odd(f"tells {there.told} for the relay; clients have to guess that {there.relay.host} is meant")
    return ok(f"relay at {there.relay}; a datagram comes back, from its true source")


def _both_versions(patient: Patient) -> Result:
    there = _Association(patient)
    for version in (4, 6, 4):
        spot = patient.datagram_spot(patient.home(version))
        try:
            answer = there.round(spot, b"ping")
        except NoAnswerError:
            return Result(Verdict.NOT_OFFERED, f"a datagram to {spot.endpoint} is lost")
        if (answer.host, answer.port) != (spot.endpoint.host, spot.endpoint.port):
            return wrong(f"the answer's header tells {answer.host!s}:{answer.port}; it is from {spot.endpoint}")
    return ok("in one association")


def _name(patient: Patient) -> Result:
    there = _Association(patient)
    homes = [home for home in patient.place.homes if home in patient.place.names] or list(patient.place.homes)
    spots = [patient.datagram_spot(homes[0])]
    spots += [patient.datagram_spot(home, spots[0].endpoint.port) for home in homes[1:]]
    there.send(b"ping", LOCALHOST.text.encode(), spots[0].endpoint.port)
    if not (ready := readable(spots, patient.patience)):
        return wrong(f"a datagram to {LOCALHOST} is lost")
    ready[0].send(*ready[0].receive())
    there.receive()
    return ok(f"to {LOCALHOST}: {ready[0].endpoint.host}")


def _sizes(patient: Patient) -> Result:
    there = _Association(patient)
    spot = patient.datagram_spot(patient.home(4))
    for size in _SIZES:
        data = bytes(range(256)) * (size // 256 + 1)
        data = data[:size]
        try:
            answer = there.round(spot, data).data
        except NoAnswerError:
            return wrong(f"{size:,} bytes are lost")
        if answer != data:
            return wrong(f"of {size:,} bytes {len(answer):,} come back, and nobody is told")
    return ok(f"up to {_SIZES[-1]:,} bytes, whole")


def _empty(patient: Patient) -> Result:
    there = _Association(patient)
    spot = patient.datagram_spot()
    try:
        there.round(spot, b"")
    except NoAnswerError:
        there.round(spot, b"ping")  # or the association is dead, which is wrong
        return odd("an empty datagram is dropped")
    return ok("is relayed")


def _fragments(patient: Patient) -> Result:
    there = _Association(patient)
    spot = patient.datagram_spot()
    there.round(spot, b"ping")
    host, port = _address(spot.endpoint), spot.endpoint.port
    there.send(b"frag", host, port, 1)
    there.send(b"ment", host, port, LAST_FRAGMENT | 2)
    there.send(b"ping", host, port)
    got = spot.receive()[0]
    if got == b"fragment":
        return ok("reassembled")
    if got == b"ping":
        return ok("dropped, as RFC 1928 section 7 has it")
    return wrong(f"the target gets {got!r}: a fragment as if it were whole")


def _bad(patient: Patient) -> Result:
    spot = patient.datagram_spot()
    bad = bad_ones(spot.endpoint)
    for what, datagram in bad.items():
        if not _survives(patient, spot, datagram):
            return wrong(f"the association is dead after one: {what}")
    return ok(f"the association lives on after {len(bad)} kinds")


def _survives(patient: Patient, spot: DatagramSpot, datagram: bytes) -> bool:
    there = _Association(patient)
    there.round(spot, b"ping")
    there.ours.send(datagram, there.relay)
    try:
        there.round(spot, b"ping")
    except (NoAnswerError, TabiError):
        return False
    return True


def _stranger(patient: Patient) -> Result:
    there = _Association(patient)
    spot = patient.datagram_spot()
    local = _address(there.ours.endpoint)
    stranger = patient.datagram_spot(stranger_to(local))
    header = encode_header(_address(spot.endpoint), spot.endpoint.port)
    host, port = _address(spot.endpoint), spot.endpoint.port
    stranger.send(header + b"stranger", there.relay)
    there.send(b"owner", host, port)
    if spot.receive()[0] != b"owner":
        return wrong(f"{stranger.endpoint.host} sends first: it is relayed{_what_else(there, spot, stranger)}")
    there.send(b"after", host, port)
    if spot.receive()[0] == b"after":
        return ok("dropped")
    return wrong(f"{stranger.endpoint.host} sends as well, and it is relayed")


def _what_else(there: _Association, spot: DatagramSpot, stranger: DatagramSpot) -> str:
    """Say what becomes of the client's own datagrams when a stranger was first."""
    try:
        data, source = spot.receive()
    except NoAnswerError:
        return ", and the client is locked out"
    spot.send(data, source)
    heard = readable((there.ours, stranger), there.patience)
    return ", and it gets the client's answers" if heard and stranger in heard else ""


def _unasked(patient: Patient) -> Result:
    there = _Association(patient)
    spot, other = patient.datagram_spot(), patient.datagram_spot()
    there.send(b"ping", _address(spot.endpoint), spot.endpoint.port)
    data, source = spot.receive()
    other.send(b"unasked", source)
    spot.send(data, source)
    if there.receive().data == b"ping":
        return ok("dropped")
    return odd("passed on: whoever knows the port may speak to the client (full cone)")


def _life(patient: Patient) -> Result:
    there = _Association(patient)
    spot = patient.datagram_spot()
    there.round(spot, b"ping")
    there.line.close()
    closed = time.monotonic()
    while (since := time.monotonic() - closed) < patient.patience:
        if not _relays(there, spot) and not _relays(there, spot):
            return ok("ends with its connection")
    return wrong(f"still relays {since:.0f} s after its connection has closed")


def _relays(there: _Association, spot: DatagramSpot) -> bool:
    try:
        there.send(b"late", _address(spot.endpoint), spot.endpoint.port)
        spot.receive(_MOMENT)
    except NoAnswerError:
        return False
    time.sleep(_PAUSE)  # not to flood it while it ends
    return True


_NEEDS: Final = (Need.NEAR, Need.DATAGRAMS)

DATAGRAMS: Final = (
    Examination(
        name="associate", title="UDP ASSOCIATE", run=_offered, needs=(Need.NEAR, Need.SHAKEN), gives=Need.DATAGRAMS,
        schemes=SOCKS5,
        why="DNS, QUIC, games and calls go by UDP",
    ),
    Examination(
        name="udp-versions", title="IPv4 and IPv6", run=_both_versions, schemes=SOCKS5,
        needs=(*_NEEDS, Need.IPV4, Need.IPV6),
        why="a program that has one association for all its peers loses those of the other kind",
    ),
    Examination(
        name="udp-name", title="a name as destination", run=_name, needs=(*_NEEDS, Need.NAME), schemes=SOCKS5,
        why="a client that leaves names to the proxy sends and hears nothing",
    ),
    Examination(
        name="udp-sizes", title="sizes", run=_sizes, needs=(*_NEEDS, Need.IPV4), schemes=SOCKS5,
        why="large datagrams (DNSSEC, NFS, jumbo frames) vanish or arrive cut, which is worse",
    ),
    Examination(
        name="udp-empty", title="an empty datagram", run=_empty, needs=_NEEDS, schemes=SOCKS5,
        why="empty datagrams are legal; some protocols keep NAT open by them",
    ),
    Examination(
        name="udp-fragments", title="fragments", run=_fragments, needs=_NEEDS, schemes=SOCKS5,
        why="RFC 1928 section 7: what is not reassembled must be dropped; the target gets pieces as if they were whole",
    ),
    Examination(
        name="udp-bad", title="bad datagrams", run=_bad, needs=_NEEDS, schemes=SOCKS5,
        why="one bad datagram, which anybody can forge, ends all flows of the association",
    ),
    Examination(
        name="udp-stranger", title="datagrams of a stranger", run=_stranger, needs=(*_NEEDS, Need.LOOPBACK),
        schemes=SOCKS5,
        why="RFC 1928 section 7 wants them dropped: the port is an open relay, or the client is locked out",
    ),
    Examination(
        name="udp-unasked", title="datagrams from whom nobody asked", run=_unasked, needs=_NEEDS, schemes=SOCKS5,
        why="answers can be forged by whoever finds the port; peer-to-peer programs may want it so",
    ),
    Examination(
        name="udp-life", title="end of the association", run=_life, needs=_NEEDS, schemes=SOCKS5,
        why="ports and sockets stay behind for clients that have long gone",
    ),
)  # fmt: skip
