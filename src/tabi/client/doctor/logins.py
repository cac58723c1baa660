"""User and password: what is refused, how, and what is remembered. Last, for failures may have a client shut out."""

from typing import Final

from tabi.client.doctor.examination import SOCKS5, Examination
from tabi.client.doctor.finding import Result, ok, unknown, wrong
from tabi.client.doctor.line import Ending, Line, NoAnswerError
from tabi.client.doctor.patient import Need, Patient, Turn
from tabi.errors import ProtocolError
from tabi.wire.socks5 import Command, Greeting, Method, MethodSelection, Request
from tabi.wire.userpass import Credentials, Status

__all__ = ["LOGINS"]


def _at_login(patient: Patient) -> Line:
    """Have a connection on which user and password are next."""
    line = patient.line()
    turn = Turn(Greeting((Method.USERPASS,)).encode(), MethodSelection)
    line.send(turn.says)
    patient.must_succeed(line.message(turn.hears))
    return line


def _wrong_password(patient: Patient) -> Result:
    line = _at_login(patient)
    login = patient.login()
    password = bytes((login.password[0] ^ 1,)) + login.password[1:]
    line.send(Credentials(login.username, password).encode(), "(a wrong login)")
    try:
        answer = line.read(2)
    except NoAnswerError as error:
        return wrong(f"{error}, where 01 and a status are right")
    if not answer[1]:
        return wrong("answers 01 00: success")
    _, ending = line.read_to_end()
    held = ", and holds the connection, which RFC 1929 wants closed" if ending is Ending.OPEN else ", then closes"
    return (wrong if ending is Ending.OPEN else ok)(f"answers {answer.hex(' ')}{held}")


def _no_login(patient: Patient) -> Result:
    """Put a request where user and password belong."""
    line = _at_login(patient)
    spot = patient.spot()
    line.send(Request(Command.CONNECT, patient.home(), spot.endpoint.port).encode())
    try:
        answer = line.read_some(10)
    except NoAnswerError as error:
        answer = error.got
    if spot.was_visited():
        return wrong("connects without a login")
    if answer[1:2] == b"\0":
        return wrong(f"answers {answer[:10].hex(' ')}: success")
    return ok("refused")


def _nul(patient: Patient) -> Result:
    line = _at_login(patient)
    login = patient.login()
    if len(login.username) > 253:
        return unknown("the user name leaves no room for it")
    line.send(Credentials(login.username + b"\0x", login.password).encode(), "(the login, the user with 00 78 behind)")
    try:
        status = line.message(Status).status
    except NoAnswerError as error:
        return unknown(str(error)) if error.ending is Ending.OPEN else ok("refused")
    return ok(f"refused (status {status})") if status else wrong("lets a user in whose name goes on behind the NUL")


def _remembered(patient: Patient) -> Result:
    if Method.NONE in patient.methods:
        return unknown("it asks nobody for a login")
    patient.greeted()
    line = patient.line()
    line.send(Greeting((Method.NONE,)).encode())
    try:
        chosen = line.message(MethodSelection).method
    except (NoAnswerError, ProtocolError):
        return ok("the next connection has to log in again")
    if chosen is Method.NONE:
        return wrong("after one login nobody at this address needs one")
    return ok("the next connection has to log in again")


_NEEDS: Final = (Need.SHAKEN, Need.PASSWORD)

LOGINS: Final = (
    Examination(
        name="login-remembered", title="a login is remembered", run=_remembered, needs=_NEEDS, schemes=SOCKS5,
        why="everybody behind the same NAT, and every program of the host, is let in after one",
    ),
    Examination(
        name="login-skipped", title="a request in place of a login", run=_no_login, needs=(*_NEEDS, Need.NEAR),
        schemes=SOCKS5,
        why="a proxy that goes on without the login has none",
    ),
    Examination(
        name="login-wrong", title="a wrong password", run=_wrong_password, needs=_NEEDS, schemes=SOCKS5,
        why="RFC 1929: a status that is not 0, then the end; else a client goes on, or takes the proxy for dead",
    ),
    Examination(
        name="login-nul", title="a user with a NUL behind", run=_nul, needs=_NEEDS, schemes=SOCKS5,
        why="log, limits and bans see another user than the one who is let in",
    ),
)  # fmt: skip
