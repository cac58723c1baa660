"""The handshake: versions, methods, messages that come in pieces, and several that come at once."""

import time
from typing import Final

from tabi.addr import Endpoint
from tabi.client.doctor.examination import ALL, SOCKS5, Examination
from tabi.client.doctor.finding import Result, Verdict, odd, ok, told, unknown, wrong
from tabi.client.doctor.line import Ending, Line, NoAnswerError
from tabi.client.doctor.patient import LOCALHOST, Need, Patient, Turn
from tabi.client.doctor.spots import Spot
from tabi.errors import TabiError
from tabi.machine.hop import Hop, Scheme
from tabi.wire.socks5 import Command, Greeting, Method, MethodSelection

__all__ = ["HANDSHAKE"]

_PRIVATE: Final = Method(0xFE)  # RFC 1928 section 3: reserved for private methods, the last of them
_PAUSE: Final = 0.005  # seconds between bytes, so that each is read alone; no verdict hangs on it
_PING: Final = b"ping"
_NAMES: Final = {Method.NONE: "none", Method.GSSAPI: "GSSAPI", Method.USERPASS: "password"}


def _select(patient: Patient, *methods: Method) -> tuple[Line, Method]:
    """Offer methods; gives the connection and what was chosen."""
    line = patient.line()
    line.send(Greeting(methods).encode())
    return line, line.message(MethodSelection).method


def _methods(patient: Patient) -> Result:
    found, last = [], None
    for method in _NAMES:
        try:
            _, chosen = _select(patient, method)
        except NoAnswerError as error:  # ssh -D closes; what it should say is the next question
            last = error
            continue
        if chosen is method:
            found.append(method)
        elif chosen is not Method.NO_ACCEPTABLE:
            return wrong(f"chooses {chosen:#04x} where only {method:#04x} was offered")
    patient.methods = tuple(found)
    if not found:
        return wrong(f"to each of {', '.join(_NAMES.values())} alone it {last or 'says no'}")
    return _usable(patient, "takes " + ", ".join(_NAMES[method] for method in found))


def _usable(patient: Patient, takes: str) -> Result:
    """Choose what is used from here on."""
    has_login = bool(patient.hop.username and patient.hop.password)
    if has_login and Method.USERPASS in patient.methods:
        patient.method = Method.USERPASS
        patient.has.add(Need.PASSWORD)
    elif Method.NONE not in patient.methods:
        lacks = "its login" if Method.USERPASS in patient.methods else "a method that is spoken here"
        return unknown(f"{takes}; to go on, {lacks} is needed: write socks5h://USER:PASSWORD@… or @FILE")
    return ok(takes)


def _login(patient: Patient) -> Result:
    patient.greeted()
    return ok("accepted" if patient.method is Method.USERPASS else "none is wanted")


def _no_common(patient: Patient) -> Result:
    line, chosen = _select(patient, _PRIVATE)
    if chosen is not Method.NO_ACCEPTABLE:
        return wrong(f"answers 05 {chosen:02x}: it chooses what was not offered")
    more, ending = line.read_to_end()
    if more:
        return wrong(f"answers 05 ff and {len(more)} bytes more")
    if ending is Ending.OPEN:
        return odd("answers 05 ff and holds the connection")
    return ok("05 ff, then closes")


def _no_methods(patient: Patient) -> Result:
    line = patient.line()
    line.send(b"\x05\x00")
    try:
        chosen = line.message(MethodSelection).method
    except NoAnswerError as error:
        return odd(f"{error}; 05 ff is what says no")
    if chosen is not Method.NO_ACCEPTABLE:
        return wrong(f"chooses {chosen:#04x} where none was offered")
    return ok("05 ff")


def _many_methods(patient: Patient) -> Result:
    others = [Method(code) for code in range(0x80, 0xFF)] * 2
    _, chosen = _select(patient, *others, patient.method)
    if chosen is not patient.method:
        return wrong(f"chooses {chosen:#04x}, not the {patient.method:#04x} at the end")
    return ok("finds the one that it knows at their end")


def _cut_greeting(patient: Patient) -> Result:
    """The method that it takes comes behind the cut: whoever reads only what came first cannot choose it."""
    line = patient.line()
    line.send(bytes((5, 2, _PRIVATE)))
    if early := _soon(line):
        return wrong(f"answers {early.hex(' ')} before the second of two methods has come")
    line.send(bytes((patient.method,)))
    chosen = line.message(MethodSelection).method
    return ok("waits for all of it") if chosen is patient.method else wrong(f"chooses {chosen:#04x}")


def _soon(line: Line) -> bytes:
    """Give what it says within a moment."""
    return line.read_to_end(0.1)[0]


def _version(patient: Patient) -> Result:
    line = patient.line()
    line.send(b"\x07\x01\x00")
    answer, ending = line.read_to_end()
    if answer:
        return odd(f"answers {answer[:8].hex(' ')}, as if it had understood")
    return odd("waits for more") if ending is Ending.OPEN else ok("closes without a word")


def _connect(patient: Patient) -> Result:
    target, spot = patient.place_to_go()
    try:
        line = patient.connect(target)
    except TabiError as error:
        if not patient.place.near:
            raise
        hint = "; in a container or elsewhere, this host's addresses are not the proxy's: name a --target"
        return Result(Verdict.WRONG, f"{told(error)}{hint}")
    if spot is not None:
        _exchange(line, spot.accept())
    return ok(f"to {target}")


def _socks4(patient: Patient) -> Result:
    return _older(patient, Scheme.SOCKS4, patient.spot(4))


def _socks4a(patient: Patient) -> Result:
    homes = tuple(home for home in patient.place.homes if home in patient.place.names)
    spot = patient.split_spot(homes or patient.place.homes)
    result = _older(patient, Scheme.SOCKS4A, spot, Endpoint(LOCALHOST, spot.endpoint.port))
    if result.verdict is Verdict.NOT_OFFERED:  # it speaks SOCKS4: so it has taken 0.0.0.1 for the target
        return wrong(f"speaks SOCKS4 and not this: {result.detail}")
    return result


def _older(patient: Patient, scheme: Scheme, spot: Spot, target: Endpoint | None = None) -> Result:
    hop = Hop(scheme, patient.hop.proxy, patient.hop.username)
    try:
        line, _, _ = patient.ask(Command.CONNECT, target or spot.endpoint, hop)
    except TabiError as error:
        return Result(Verdict.NOT_OFFERED, told(error))
    _exchange(line, spot.accept())
    return ok("connects")


def _exchange(line: Line, there: Line) -> None:
    """Have a few bytes go both ways.

    Raises:
        NoAnswerError: they do not.
    """
    line.send(_PING)
    there.send(there.read(len(_PING)))
    line.read(len(_PING))


def _split(patient: Patient) -> Result:
    target, spot = patient.place_to_go()
    line = patient.line()
    for turn in patient.turns(target):
        for number in range(len(turn.says)):
            piece = turn.says[number : number + 1]
            line.send(piece, patient.shown(turn.says))
            time.sleep(_PAUSE)
        patient.must_succeed(line.message(turn.hears))
    if spot is not None:
        _exchange(line, spot.accept())
    return ok("any cut of the messages will do")


def _coalesced(patient: Patient) -> Result:
    target, spot = patient.place_to_go()
    line = _in_one(patient, patient.turns(target))
    if spot is not None:
        _exchange(line, spot.accept())
    return ok("all messages in one segment will do")


def _early(patient: Patient) -> Result:
    spot = patient.spot()
    line = _in_one(patient, patient.turns(spot.endpoint), _PING)
    there = spot.accept()
    try:
        came = there.read(len(_PING))
    except NoAnswerError as error:
        return wrong(f"of {len(_PING)} bytes of data behind the request {len(error.got)} reach the target")
    there.send(b"pong")
    there.end()
    answer, _ = line.read_to_end()
    if (came, answer) != (_PING, b"pong"):
        return wrong(f"the target gets {came!r}, and its answer arrives as {answer[:16]!r}")
    return ok("data behind the request reach the target")


def _in_one(patient: Patient, turns: list[Turn], data: bytes = b"") -> Line:
    says = b"".join(turn.says for turn in turns) + data
    line = patient.line()
    line.send(says, patient.shown(says))
    for turn in turns:
        patient.must_succeed(line.message(turn.hears))
    return line


HANDSHAKE: Final = (
    Examination(
        name="methods", title="SOCKS5 methods", run=_methods, gives=Need.METHOD, schemes=SOCKS5,
        why="a client and a proxy without a method in common never come together (RFC 1928 section 3)",
    ),
    Examination(
        name="login", title="login", run=_login, needs=(Need.METHOD,), gives=Need.SHAKEN, schemes=SOCKS5,
        why="without it nothing else can be asked for (RFC 1929)",
    ),
    Examination(
        name="no-common-method", title="no method in common", run=_no_common, schemes=SOCKS5,
        why="without 05 FF a client cannot tell a login that it lacks from a proxy that is down",
    ),
    Examination(
        name="no-methods", title="no methods at all", run=_no_methods, schemes=SOCKS5,
        why="a proxy that waits for more holds a connection for nobody",
    ),
    Examination(
        name="many-methods", title="255 methods", run=_many_methods, needs=(Need.METHOD,), schemes=SOCKS5,
        why="NMETHODS goes up to 255; a short buffer loses the one that both know",
    ),
    Examination(
        name="cut-greeting", title="greeting in two segments", run=_cut_greeting, needs=(Need.METHOD,), schemes=SOCKS5,
        why="TCP may cut anywhere: through a VPN, a small MTU or TLS such a client fails, and only sometimes",
    ),
    Examination(
        name="wrong-version", title="a version that there is not", run=_version, schemes=SOCKS5,
        why="an answer to what is no SOCKS5 tells scanners what listens here; silence keeps a connection for nothing",
    ),
    Examination(
        name="connect", title="CONNECT", run=_connect, needs=(Need.SHAKEN, Need.TARGET), gives=Need.TUNNEL,
        why="it is what a proxy is for",
    ),
    Examination(
        name="socks4", title="SOCKS4", run=_socks4, needs=(Need.NEAR, Need.IPV4), gives=Need.SOCKS4, schemes=SOCKS5,
        why="old clients speak nothing else",
    ),
    Examination(
        name="socks4a", title="SOCKS4a", run=_socks4a, needs=(Need.NEAR, Need.SOCKS4, Need.NAME), schemes=SOCKS5,
        why="the name goes unread and 0.0.0.x is taken for the target: who leaves names to the proxy cannot connect",
    ),
    Examination(
        name="split", title="handshake byte by byte", run=_split, needs=(Need.TARGET, Need.TUNNEL), schemes=ALL,
        why="TCP may cut anywhere: clients on slow or tunnelled links fail, and only sometimes",
    ),
    Examination(
        name="coalesced", title="whole handshake in one segment", run=_coalesced, needs=(Need.TARGET, Need.TUNNEL),
        why="a client that saves round trips, or whose packets wait in a queue, hangs",
    ),
    Examination(
        name="early-data", title="data behind the request", run=_early, needs=(Need.NEAR, Need.TUNNEL),
        why="data that come early are lost: an optimistic client's request never arrives, and nobody is told",
    ),
)  # fmt: skip
