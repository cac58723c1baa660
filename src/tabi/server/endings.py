"""Taking back from the engine what is over: it is counted out, and has its line in the log.

Under load this is most of what the control plane has to do, once for each connection. So what the sessions of one
permit of the express lane have in common is worked out once, and of what comes together is counted out together.
"""

from collections import OrderedDict
from typing import Final

from tabi.addr import socket_address
from tabi.relay.interface import End, Engine
from tabi.relay.lane import TAIL_SIZE, Tail
from tabi.server.admission import Admission, ClientKey, client_key
from tabi.server.journal import Journal
from tabi.server.limits import SessionLimits
from tabi.server.line import Kin
from tabi.server.outcome import relayed
from tabi.server.races import Races
from tabi.server.record import Facts
from tabi.server.tunnels import Tunnels

__all__ = ["Endings"]

_MOST_PERMITS: Final = 4096  # that are remembered; the oldest gives way to a new one


class _Party:
    """What sessions are counted with.

    Args:
        facts: of one of them.
        address: of the client, IPv6 in brackets.
    """

    __slots__ = ("client", "rule", "user")

    def __init__(self, facts: Facts, address: str) -> None:
        self.client: ClientKey = client_key(socket_address(address.strip("[]")))
        self.rule = facts.rule.encode()
        self.user = facts.user


class _Permit:
    """What the sessions of one permit have in common.

    Args:
        facts: of the permit.
        kin: for their lines; None: they have none.
    """

    __slots__ = ("kin", "lifetime", "party")

    def __init__(self, facts: Facts, kin: Kin | None) -> None:
        self.party = _Party(facts, facts.client)
        self.kin = kin
        self.lifetime = facts.lifetime


class Endings:
    """Count out what is over, and log it.

    Args:
        engine: that relayed it.
        tunnels: of that engine.
        admission: where clients are counted.
        limits: where users and rules are.
        journal: of what is over.
        races: that learn from it.
    """

    def __init__(
        self,
        engine: Engine,
        tunnels: Tunnels,
        admission: Admission,
        limits: SessionLimits,
        journal: Journal,
        races: Races,
    ) -> None:
        self._engine = engine
        self._tunnels = tunnels
        self._admission = admission
        self._limits = limits
        self._journal = journal
        self._races = races
        self._permits: OrderedDict[bytes, _Permit] = OrderedDict()  # by their packed facts

    def forget(self) -> None:
        """Forget what was worked out: the log has other settings."""
        self._permits.clear()

    def take(self) -> None:
        """Take all that is over."""
        lines: list[str] = []
        parties: dict[_Party, int] = {}
        for end in self._engine.ends():
            record, note = self._tunnels.take(end)
            permit = self._permits.get(record[: -TAIL_SIZE]) or self._learn(record)
            party = self._tell(end, record, note, lines) if permit is None else self._tell_kin(end, permit, note, lines)
            parties[party] = parties.get(party, 0) + 1
        for party, count in parties.items():
            self._admission.release(party.client, count)
            self._limits.release("rule", party.rule, count)
            if party.user is not None:
                self._limits.release("user", party.user, count)
        self._journal.write(lines)

    def _learn(self, record: bytes) -> _Permit | None:
        """Work out what is common to the sessions of a permit; None: the record is that of one session alone."""
        facts = Facts.of_permit(record)
        if facts is None:
            return None
        if len(self._permits) >= _MOST_PERMITS:
            self._permits.popitem(last=False)
        kin = self._journal.kin(facts) if self._journal.hears(facts) else None
        permit = self._permits[record[: -TAIL_SIZE]] = _Permit(facts, kin)
        return permit

    def _tell_kin(self, end: End, permit: _Permit, note: str, lines: list[str]) -> _Party:
        if permit.kin is not None:
            tail = Tail.of(end.record)
            outcome = relayed(end, tail.before_relay, permit.lifetime, note)
            line = self._journal.line_of_kin(permit.kin, tail, outcome)
            lines.append(line or self._journal.line(Facts.unpack(end.record), outcome))
        return permit.party

    def _tell(self, end: End, record: bytes, note: str, lines: list[str]) -> _Party:
        facts = Facts.unpack(record)
        self._races.hear_end(facts.target, facts.via, end)
        if self._journal.hears(facts):
            lines.append(self._journal.line(facts, relayed(end, facts.before_relay, facts.lifetime, note)))
        return _Party(facts, facts.client.rpartition(":")[0])
