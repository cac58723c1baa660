"""All examinations, in their order."""

from collections.abc import Iterator

from tabi.client.doctor import idle
from tabi.client.doctor.binding import BINDING
from tabi.client.doctor.data import DATA
from tabi.client.doctor.datagrams import DATAGRAMS
from tabi.client.doctor.examination import Examination
from tabi.client.doctor.failures import FAILURES, expectation
from tabi.client.doctor.finding import Finding, Result, Verdict
from tabi.client.doctor.handshake import HANDSHAKE
from tabi.client.doctor.logins import LOGINS
from tabi.client.doctor.patient import Patient
from tabi.client.doctor.requests import REQUESTS
from tabi.client.doctor.timing import TIMING

__all__ = ["Rounds", "examinations"]


def examinations(patient: Patient) -> Iterator[tuple[str, Examination]]:
    """Give those that fit the kind of proxy, in the order in which they build on each other, with their groups."""
    expected = tuple(expectation(one, number) for number, one in enumerate(patient.expected, 1))
    groups = (
        ("handshake", HANDSHAKE),
        ("requests", REQUESTS),
        ("data", DATA),
        ("errors", (*FAILURES, *expected)),
        ("BIND", BINDING),
        ("UDP", DATAGRAMS),
        ("timing", TIMING),
        ("logins", LOGINS),
    )
    for group, members in groups:
        for examination in members:
            if patient.hop.scheme in examination.schemes:
                yield group, examination


class Rounds:
    """Every question that a kind of proxy can be asked, put in order; to be gone through once.

    Args:
        patient: the proxy.

    Attributes:
        faults: how many have been found so far.
    """

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self.faults: int = 0

    def __iter__(self) -> Iterator[Finding]:
        """Give each finding as it comes."""
        for group, examination, result in self._results():
            finding = Finding(
                group=group,
                name=examination.name,
                title=examination.title,
                result=result,
                why=examination.why,
                evidence=self.patient.record.lines() if result.verdict is not Verdict.NOT_TRIED else (),
            )
            self.faults += finding.is_fault
            yield finding

    def _results(self) -> Iterator[tuple[str, Examination, Result]]:
        patient = self.patient
        for group, examination in examinations(patient):
            yield group, examination, examination.put(patient)
        if patient.idle:
            for examination, result in idle.watch(patient):
                yield "idle limits", examination, result
