"""Requests: commands, kinds of addresses, names, and whether the reply tells the truth."""

from ipaddress import IPv4Address
from typing import Final

from tabi.addr import Address, Endpoint
from tabi.client.doctor.examination import HTTP, SOCKS, SOCKS5, Examination
from tabi.client.doctor.finding import Result, Verdict, odd, ok, told, unknown, wrong
from tabi.client.doctor.line import Ending, Line, NoAnswerError
from tabi.client.doctor.patient import LOCALHOST, Need, Patient
from tabi.client.doctor.spots import Spot
from tabi.errors import DeniedError, Reply, TabiError
from tabi.machine.client import Granted
from tabi.machine.hop import Scheme
from tabi.wire.socks5 import Command, ReplyMessage, Request

__all__ = ["REQUESTS"]

_NO_COMMAND: Final = Command(0x09)
_BAD_TYPE: Final = bytes((5, 1, 0, 2)) + bytes(6)  # nobody, even for a proxy that takes it for an IPv4 address
_PING: Final = b"ping"


def _ipv6(patient: Patient) -> Result:
    spot = patient.spot(6)
    try:
        line = patient.connect(spot.endpoint)
    except DeniedError:
        raise
    except TabiError as error:
        return Result(Verdict.NOT_OFFERED, told(error))
    return _talk(line, spot, f"to {spot.endpoint}")


def _name(patient: Patient) -> Result:
    return _by_name(patient, _homes_of_localhost(patient), ())


def _to_ipv4(patient: Patient) -> Result:
    return _by_name(patient, *_apart(patient, 4))


def _to_ipv6(patient: Patient) -> Result:
    return _by_name(patient, *_apart(patient, 6))


def _to_second(patient: Patient) -> Result:
    """The address that listens is the last of the file; a resolver may turn their order, so then the first."""
    assert patient.place.twofold is not None
    name, addresses = patient.place.twofold
    for listens in (addresses[-1], addresses[0]):
        shut = tuple(address for address in addresses if address != listens)
        spot = patient.split_spot((listens,), shut)
        result = _reach(patient, spot, Endpoint(name, spot.endpoint.port))
        if result.verdict is not Verdict.OK:
            return result
    return ok(f"{name}: another address is tried where one refuses")


def _homes_of_localhost(patient: Patient) -> tuple[Address, ...]:
    return tuple(home for home in patient.place.homes if home in patient.place.names) or patient.place.homes


def _apart(patient: Patient, version: int) -> tuple[tuple[Address, ...], tuple[Address, ...]]:
    """Give the addresses of localhost of one version, and those of the other."""
    names = patient.place.names
    listens = tuple(address for address in names if address.version == version)
    return listens, tuple(address for address in names if address.version != version)


def _by_name(patient: Patient, listens: tuple[Address, ...], shut: tuple[Address, ...]) -> Result:
    spot = patient.split_spot(listens, shut)
    return _reach(patient, spot, Endpoint(LOCALHOST, spot.endpoint.port))


def _reach(patient: Patient, spot: Spot, target: Endpoint) -> Result:
    return _talk(patient.connect(target), spot, f"to {target}")


def _talk(line: Line, spot: Spot, detail: str) -> Result:
    there = spot.accept()
    line.send(_PING)
    there.read(len(_PING))
    return ok(detail)


def _bound(patient: Patient) -> Result:
    spot = patient.spot()
    _, _, event = patient.ask(Command.CONNECT, spot.endpoint)
    seen = spot.accept().remote
    assert isinstance(event, Granted)
    return judge_bound(event.bound, seen, spot.endpoint, patient.place.proxy)


def judge_bound(told: Endpoint, seen: Endpoint, asked: Endpoint, proxy: Endpoint) -> Result:
    """Compare BND with the truth.

    Args:
        told: by the proxy.
        seen: by the target, which is where the connection came from.
        asked: the target.
        proxy: where it listens.
    """
    if told == seen:
        return ok(str(told))
    if told == Endpoint(IPv4Address(0), 0):
        return odd("tells 0.0.0.0:0, which is nothing")
    whose = {asked: ", which is the target itself", proxy: ", which is where it listens"}.get(told, "")
    return wrong(f"tells {told}{whose}; the target sees {seen}")


def _unknown_command(patient: Patient) -> Result:
    spot = patient.spot()
    line = patient.greeted()
    line.send(Request(_NO_COMMAND, patient.home(), spot.endpoint.port).encode())
    result = _expect(line, Reply.COMMAND_NOT_SUPPORTED)
    return wrong("takes it for CONNECT") if spot.was_visited() else result


def _unknown_type(patient: Patient) -> Result:
    line = patient.greeted()
    line.send(_BAD_TYPE)
    return _expect(line, Reply.ADDRESS_TYPE_NOT_SUPPORTED)


def _expect(line: Line, reply: Reply) -> Result:
    try:
        answer = line.message(ReplyMessage).reply
    except NoAnswerError as error:
        if error.got[1:2] == bytes((reply,)):  # cut behind REP, as some do
            return odd(f"answers {reply:d} in {len(error.got)} bytes, where a reply has ten")
        return wrong(f"{error}, where {reply:d} is right")
    if answer is Reply.SUCCEEDED:
        return wrong("answers 0: success")
    return ok(f"answers {reply:d}") if answer is reply else odd(f"answers {answer:d}, where {reply:d} is right")


def _nul(patient: Patient) -> Result:
    """The bytes before the NUL are the target's address; whoever reads them alone connects to it."""
    spot = patient.spot(4)
    line = patient.greeted()
    host = str(spot.endpoint.host).encode() + b"\0.example"
    line.send(Request(Command.CONNECT, host, spot.endpoint.port).encode())
    try:
        answer = line.message(ReplyMessage).reply
    except NoAnswerError as error:
        if error.ending is Ending.OPEN:
            return unknown(str(error))
        return ok("refused")
    if answer is Reply.SUCCEEDED or spot.was_visited():
        return wrong("connects to what stands before the NUL")
    return ok(f"refused ({answer:d})")


def _resolve(patient: Patient) -> Result:
    spot = patient.spot()
    line = patient.greeted()
    line.send(Request(Command.RESOLVE, LOCALHOST.text.encode(), spot.endpoint.port).encode())
    try:
        answer = line.message(ReplyMessage)
    except NoAnswerError as error:
        return Result(Verdict.NOT_OFFERED, told(error))
    if spot.was_visited():
        return wrong("takes it for CONNECT")
    if answer.reply is not Reply.SUCCEEDED:
        return Result(Verdict.NOT_OFFERED, f"answers {answer.reply:d}")
    if answer.host not in patient.place.names:
        return wrong(f"{LOCALHOST} is {answer.host!s}, it says")
    return ok(f"{LOCALHOST} is {answer.host!s}")


_NAMES: Final = SOCKS5 | HTTP | {Scheme.SOCKS4A}
_FALLBACK: Final = "a host with two addresses of which one is down is down for all clients (RFC 8305)"

REQUESTS: Final = (
    Examination(
        name="connect-ipv6", title="CONNECT to an IPv6 address", run=_ipv6, schemes=SOCKS5 | HTTP,
        needs=(Need.NEAR, Need.TUNNEL, Need.IPV6),
        why="hosts that have IPv6 only cannot be reached",
    ),
    Examination(
        name="connect-name", title="CONNECT to a name", run=_name, needs=(Need.NEAR, Need.TUNNEL, Need.NAME),
        schemes=_NAMES,
        why="clients have to look names up themselves then, which tells their resolver where they go",
    ),
    Examination(
        name="name-to-ipv4", title="a name whose IPv6 address refuses", run=_to_ipv4, schemes=_NAMES,
        needs=(Need.NEAR, Need.TUNNEL, Need.BOTH), why=_FALLBACK,
    ),
    Examination(
        name="name-to-ipv6", title="a name whose IPv4 address refuses", run=_to_ipv6, schemes=_NAMES,
        needs=(Need.NEAR, Need.TUNNEL, Need.BOTH), why=_FALLBACK,
    ),
    Examination(
        name="name-to-second", title="a name whose first address refuses", run=_to_second, schemes=_NAMES,
        needs=(Need.NEAR, Need.TUNNEL, Need.TWO), why=_FALLBACK,
    ),
    Examination(
        name="bound-address", title="BND of CONNECT", run=_bound, needs=(Need.NEAR, Need.TUNNEL), schemes=SOCKS,
        why="programs that tell others where they come from (FTP, peer to peer, logs) tell something else",
    ),
    Examination(
        name="unknown-command", title="a command that there is not", run=_unknown_command, schemes=SOCKS5,
        needs=(Need.NEAR, Need.SHAKEN),
        why="without reply 7 a client cannot tell what is not supported from a proxy that has crashed",
    ),
    Examination(
        name="unknown-address-type", title="an address type that there is not", run=_unknown_type, schemes=SOCKS5,
        needs=(Need.SHAKEN,),
        why="without reply 8 a client cannot tell what is not supported from a proxy that has crashed",
    ),
    Examination(
        name="nul-in-name", title="a name with a NUL in it", run=_nul, schemes=SOCKS5,
        needs=(Need.NEAR, Need.TUNNEL, Need.IPV4),
        why="rules and log see the whole name and the connection goes to a part of it: any rule by name is gone round",
    ),
    Examination(
        name="resolve", title="RESOLVE (Tor's extension)", run=_resolve, schemes=SOCKS5,
        needs=(Need.NEAR, Need.SHAKEN, Need.NAME),
        why="a proxy that takes it for CONNECT opens connections that nobody has asked for",
    ),
)  # fmt: skip
