"""How long a proxy holds connections on which nothing happens; all are watched at once."""

import selectors
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from tabi.addr import Endpoint
from tabi.client.doctor.examination import ALL, SOCKS5, Examination
from tabi.client.doctor.finding import Result, Verdict, ok, told, unknown, wrong
from tabi.client.doctor.line import Line
from tabi.client.doctor.patient import Need, Patient
from tabi.errors import TabiError
from tabi.machine.hop import Scheme
from tabi.wire.socks5 import Command

__all__ = ["watch"]

_LONG: Final = 60.0  # seconds; a handshake that takes longer is none
_SILENT_WHY: Final = "without a time limit anybody can hold all its connections for nothing, by saying nothing"
_IDLE_WHY: Final = "SSH, databases and calls are silent for hours; whoever knows the limit keeps below it"


class _Watched(NamedTuple):
    """A connection that is opened and left alone."""

    examination: Examination
    open: Callable[[Patient], Line]
    is_handshake: bool


def _silent(patient: Patient) -> Line:
    return patient.line()


def _half(patient: Patient) -> Line:
    line = patient.line()
    line.send(b"CONNECT" if patient.hop.scheme is Scheme.HTTP else b"\x05" if patient.methods else b"\x04\x01")
    return line


def _tunnel(patient: Patient) -> Line:
    target, spot = patient.place_to_go()
    line = patient.connect(target)
    if spot is not None:
        patient.keep(spot.accept())
    return line


def _association(patient: Patient) -> Line:
    return patient.ask(Command.UDP_ASSOCIATE, Endpoint(IPv4Address(0), 0))[0]


def _examination(name: str, title: str, why: str, *needs: Need, schemes: frozenset[Scheme] = ALL) -> Examination:
    return Examination(name=name, title=title, why=why, needs=needs, run=_not_put, schemes=schemes)


def _not_put(_patient: Patient) -> Result:
    return unknown("it is watched, not asked")


_WATCHED: Final = (
    _Watched(_examination("idle-silent", "a client that says nothing", _SILENT_WHY), _silent, is_handshake=True),
    _Watched(_examination("idle-half", "half a message", _SILENT_WHY), _half, is_handshake=True),
    _Watched(
        _examination("idle-greeted", "a greeting and no request", _SILENT_WHY, Need.SHAKEN, schemes=SOCKS5),
        Patient.greeted, is_handshake=True,
    ),
    _Watched(
        _examination("idle-tunnel", "a tunnel that is idle", _IDLE_WHY, Need.TARGET, Need.TUNNEL),
        _tunnel, is_handshake=False,
    ),
    _Watched(
        _examination("idle-association", "an association that is idle", _IDLE_WHY, Need.DATAGRAMS, schemes=SOCKS5),
        _association, is_handshake=False,
    ),
)  # fmt: skip


def watch(patient: Patient) -> Iterator[tuple[Examination, Result]]:
    """Open them all, wait until they end, `patient.idle` seconds at most, and tell of each."""
    patient.begin()
    began = time.monotonic()
    try:
        with selectors.DefaultSelector() as selector:
            for one in _WATCHED:
                if patient.hop.scheme not in one.examination.schemes:
                    continue
                if missing := [need for need in one.examination.needs if need not in patient.has]:
                    yield one.examination, Result(Verdict.NOT_TRIED, missing[0].value)
                    continue
                try:
                    selector.register(one.open(patient).sock, selectors.EVENT_READ, one)
                except TabiError as error:
                    yield one.examination, unknown(told(error))
            yield from _ends(selector, began, patient.idle)
    finally:
        patient.finish()


def _ends(selector: selectors.BaseSelector, began: float, seconds: float) -> Iterator[tuple[Examination, Result]]:
    while selector.get_map() and (left := began + seconds - time.monotonic()) > 0:
        for key, _ in selector.select(left):
            if not _has_ended(key.fileobj):
                continue
            selector.unregister(key.fileobj)
            yield key.data.examination, _closed(time.monotonic() - began)
    for key in list(selector.get_map().values()):
        yield key.data.examination, _held(key.data, seconds)


def _has_ended(sock: object) -> bool:
    """Read what there is; an answer, as 3proxy has one, is not yet the end."""
    try:
        return not sock.recv(4096)  # type: ignore[attr-defined]  # a socket: selectors know files only
    except OSError:
        return True


def _closed(after: float) -> Result:
    return Result(Verdict.OK, f"closed after {after:.1f} s", {"seconds": round(after, 3)})


def _held(one: _Watched, seconds: float) -> Result:
    text = f"held for {seconds:g} s"
    if not one.is_handshake:
        return ok(text)
    return wrong(text) if seconds >= _LONG else unknown(f"{text}; with --idle {_LONG:g} or more it would be told")
