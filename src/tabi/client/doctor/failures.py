"""What a client hears when the target cannot be reached."""

from typing import Final

from tabi.client.doctor.examination import SOCKS4, SOCKS5, Examination
from tabi.client.doctor.finding import Result, odd, ok, told, wrong
from tabi.client.doctor.line import Ending, NoAnswerError
from tabi.client.doctor.patient import Expected, Need, Patient
from tabi.errors import PeerClosedError, ProtocolError, Reply, TabiError
from tabi.machine.hop import Scheme
from tabi.wire.socks5 import Command, ReplyMessage, Request

__all__ = ["FAILURES", "REPLIES", "expectation"]

REPLIES: Final = {reply.name.lower().replace("_", "-"): reply for reply in Reply if reply <= Reply.TTL_EXPIRED}
"""What a user can say that a target has to be answered by."""

# A label that DNS cannot carry (RFC 1035 section 2.3.4), below a domain that there is not (RFC 6761 section 6.4):
# no resolver can ask a name server for it.
_NO_NAME: Final = b"x" * 64 + b".invalid"


def _refused(patient: Patient) -> Result:
    return _judge(patient, Expected(patient.closed_spot().endpoint, Reply.CONNECTION_REFUSED))


def _judge(patient: Patient, expected: Expected) -> Result:
    """Ask for a target and compare what is answered with what is right."""
    line = patient.line()
    try:
        patient.drive(patient.hop.machine(Command.CONNECT, expected.endpoint), line)
    except NoAnswerError as error:
        return wrong(f"{error}, where a refusal is right" if expected.reply else told(error))
    except PeerClosedError:
        return wrong("closes without an answer")
    except ProtocolError as error:
        return wrong(told(error))
    except TabiError as error:
        result = _compare(patient, error, expected.reply)
        held = line.read_to_end()[1] is Ending.OPEN
        return odd(f"{result.detail}; then holds the connection") if held and result == ok(result.detail) else result
    return ok("answers success") if expected.reply is Reply.SUCCEEDED else wrong("answers success")


def _compare(patient: Patient, error: TabiError, right: Reply) -> Result:
    said = told(error)
    if patient.hop.scheme in SOCKS4:  # it has one answer for all
        return ok(said) if right else wrong(said)
    if error.reply is right:
        return ok(said)
    if patient.hop.scheme is Scheme.HTTP and right and error.reply is not Reply.NOT_ALLOWED:
        return odd(f"{said}, which does not tell why")
    return wrong(f"{said}, where {right:d} ({right.name.lower().replace('_', ' ')}) is right")


def _unknown_name(patient: Patient) -> Result:
    line = patient.greeted()
    line.send(Request(Command.CONNECT, _NO_NAME, 9).encode())
    try:
        answer = line.message(ReplyMessage).reply
    except NoAnswerError as error:
        return wrong(f"{error}, where 4 is right")
    if answer is Reply.SUCCEEDED:
        return wrong("answers success")
    return ok("answers 4") if answer is Reply.HOST_UNREACHABLE else odd(f"answers {answer:d}, where 4 is right")


_WHY: Final = "a client cannot tell a target that is down from a proxy that is, tries the wrong thing again, or hangs"


def expectation(expected: Expected, number: int) -> Examination:
    """Make the examination of a target that the user named."""
    return Examination(
        name=f"expected-{number}", title=f"{expected.endpoint}", why=_WHY, needs=(Need.SHAKEN,),
        run=lambda patient: _judge(patient, expected),
    )  # fmt: skip


FAILURES: Final = (
    Examination(
        name="refused", title="a target that refuses", run=_refused, needs=(Need.NEAR, Need.TUNNEL), why=_WHY,
    ),
    Examination(
        name="unknown-name", title="a name that there cannot be", run=_unknown_name, schemes=SOCKS5,
        needs=(Need.NEAR, Need.SHAKEN),
        why="4 (host unreachable) is what clients know; by any other a wrong name looks like a proxy that fails",
    ),
)  # fmt: skip
