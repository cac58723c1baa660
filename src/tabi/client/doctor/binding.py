"""BIND: both replies, and who may connect."""

import socket
from typing import Final

from tabi.addr import Address, Endpoint, Host, Name
from tabi.client.doctor.examination import SOCKS, Examination
from tabi.client.doctor.finding import Result, Verdict, ok, told, unknown, wrong
from tabi.client.doctor.line import Deadline, Ending, Line, NoAnswerError, Record
from tabi.client.doctor.patient import Need, Patient, Place
from tabi.errors import DeniedError, ProtocolError, TabiError
from tabi.machine.client import Accepted, Granted
from tabi.machine.hop import HopMachine
from tabi.wire.socks5 import Command

__all__ = ["BINDING", "is_here", "stranger_to"]


def _bind(patient: Patient) -> tuple[Line, HopMachine, Endpoint]:
    """Ask for it; gives the address that a peer has to connect to."""
    line, machine, event = patient.ask(Command.BIND, Endpoint(patient.home(), 0))
    assert isinstance(event, Granted)
    bound = event.bound
    if getattr(bound.host, "is_unspecified", False):
        bound = Endpoint(patient.place.proxy.host, bound.port)
    return line, machine, bound


def _offered(patient: Patient) -> Result:
    try:
        line, machine, bound = _bind(patient)
    except DeniedError:
        raise
    except TabiError as error:
        return Result(Verdict.NOT_OFFERED, told(error))
    if not bound.port or bound == patient.place.proxy:
        return wrong(f"tells {bound}, which is no port of its own for the peer")
    if not is_here(bound.host, patient.place):
        return unknown(f"tells {bound}, where a peer would connect; doctor connects to no host that was not named")
    try:
        peer = _peer(patient, bound, patient.home())
    except OSError as error:
        return wrong(f"tells {bound}, where nobody can connect: {error.strerror or 'no answer'}")
    return _second_reply(patient, line, machine, peer, bound)


def _second_reply(patient: Patient, line: Line, machine: HopMachine, peer: Line, bound: Endpoint) -> Result:
    told = patient.drive(machine, line)
    assert isinstance(told, Accepted)
    if told.peer != peer.local:
        return wrong(f"the second reply tells {told.peer}; the peer is {peer.local}")
    peer.send(b"peer")
    line.send(b"ours")
    if (line.read(4), peer.read(4)) != (b"peer", b"ours"):
        return wrong("the bytes come out changed")
    return ok(f"listens on {bound}; both replies are true")


def is_here(host: Host, place: Place) -> bool:
    """Say whether an address that a proxy tells is one of its own host, as far as we know."""
    return not isinstance(host, Name) and (host.is_loopback or host in place.homes)


def _stranger(patient: Patient) -> Result:
    line, machine, bound = _bind(patient)
    if not is_here(bound.host, patient.place):
        return unknown(f"tells {bound}")
    other = stranger_to(patient.home())
    try:
        _peer(patient, bound, other)
    except ConnectionResetError:  # it is sent away before connect(2) has returned
        pass
    try:
        patient.drive(machine, line)
    except NoAnswerError as error:
        return ok("still waits for the right one" if error.ending is Ending.OPEN else "closes")
    except ProtocolError:
        return ok("closes")
    except TabiError as error:
        return ok(told(error))
    return wrong(f"asked for {patient.home()}, it takes the connection of {other}")


def stranger_to(address: Address) -> Address:
    """Give another address of this host, for somebody who is not meant."""
    return address + 1


def _peer(patient: Patient, bound: Endpoint, source: Address) -> Line:
    sock = socket.create_connection((str(bound.host), bound.port), patient.patience, (str(source), 0))
    return patient.keep(Line(sock, Deadline(patient.patience), patient.patience, Record()))


BINDING: Final = (
    Examination(
        name="bind", title="BIND", run=_offered, needs=(Need.NEAR, Need.SHAKEN), gives=Need.BIND, schemes=SOCKS,
        why="active FTP and whoever waits for a connection need the address that the peer really has to connect to",
    ),
    Examination(
        name="bind-stranger", title="BIND: a peer that was not meant", run=_stranger, schemes=SOCKS,
        needs=(Need.NEAR, Need.BIND, Need.LOOPBACK),
        why="whoever finds the port first speaks to the client in the peer's place",
    ),
)  # fmt: skip
