"""One question to a proxy: what it is called, why it matters, what it needs, and how it is put."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tabi.client.doctor.finding import Result, Verdict, told, unknown, wrong
from tabi.client.doctor.line import NoAnswerError
from tabi.client.doctor.patient import Need, Patient
from tabi.errors import DeniedError, ProxyUnreachableError, TabiError
from tabi.machine.hop import Scheme

__all__ = ["ALL", "HTTP", "SOCKS", "SOCKS4", "SOCKS5", "Examination"]

SOCKS5: Final = frozenset({Scheme.SOCKS5, Scheme.SOCKS5H})
SOCKS4: Final = frozenset({Scheme.SOCKS4, Scheme.SOCKS4A})
HTTP: Final = frozenset({Scheme.HTTP})
SOCKS: Final = SOCKS4 | SOCKS5
ALL: Final = SOCKS | HTTP


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """One question.

    Args:
        name: for programs; words with hyphens.
        title: for people.
        why: why it matters, and what breaks where the answer is wrong.
        run: puts the question; what it raises becomes a result as well.
        needs: what it cannot do without.
        gives: what later ones may count on where this one is ok.
        schemes: of proxies that it is put to.
    """

    name: str
    title: str
    why: str
    run: Callable[[Patient], Result]
    needs: tuple[Need, ...] = ()
    gives: Need | None = None
    schemes: frozenset[Scheme] = ALL

    def put(self, patient: Patient) -> Result:
        """Put it, unless something is missing; it always ends, and always with a result."""
        for need in self.needs:
            if need not in patient.has:
                return Result(Verdict.NOT_TRIED, need.value)
        patient.begin()
        try:
            result = self._answer(patient)
        finally:
            patient.finish()
        if self.gives is not None and result.verdict in (Verdict.OK, Verdict.ODD):
            patient.has.add(self.gives)
        return result

    def _answer(self, patient: Patient) -> Result:
        try:
            return self.run(patient)
        except NoAnswerError as error:
            return wrong(told(error))
        except ProxyUnreachableError as error:
            return unknown(told(error))
        except DeniedError as error:
            return unknown(f"its rules refuse that: {told(error)}")
        except TabiError as error:
            return wrong(told(error))
        except OSError as error:  # of our own sockets: those to the proxy raise what is above
            return unknown(f"this host cannot do it: {error.strerror or error}")
