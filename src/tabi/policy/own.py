"""The same rules on a host that has other addresses now: ``@private`` holds the server's own, wherever it is named."""

from collections.abc import Iterable
from dataclasses import replace

from tabi.policy.criteria import Clients, Criterion, Hosts, Target
from tabi.policy.networks import NetworkSet, PrivateNetworks
from tabi.policy.rule import Rule
from tabi.policy.rules import RuleList

__all__ = ["Move"]


class Move:
    """Makes rules and criteria anew, by another ``@private``; what does not know it stays the same object.

    Args:
        private: what ``@private`` is now.
    """

    def __init__(self, private: PrivateNetworks) -> None:
        self._private = private
        self._hosts: dict[int, Hosts] = {}  # by what they were: rules that shared a set still do

    def rules(self, rules: RuleList) -> RuleList:
        """Make a list of rules anew."""
        return RuleList(tuple(map(self._rule, rules.rules)), self._private)

    def clients(self, clients: Clients) -> Clients:
        """Make ``from`` anew."""
        return replace(clients, within=self._networks(clients.within), but=self._networks(clients.but))

    def _rule(self, rule: Rule) -> Rule:
        target = None if rule.target is None else self._target(rule.target)
        criteria: list[Criterion] = []
        for one in rule.criteria:
            if one is rule.target and target is not None:
                criteria.append(target)
            else:
                criteria.append(self.clients(one) if isinstance(one, Clients) else one)
        return replace(rule, criteria=tuple(criteria), target=target)

    def _target(self, target: Target) -> Target:
        return replace(target, within=self._several(target.within), but=self._several(target.but))

    def _several(self, several: Iterable[Hosts]) -> tuple[Hosts, ...]:
        return tuple(map(self._moved, several))

    def _moved(self, hosts: Hosts) -> Hosts:
        if not hosts.networks:
            return hosts
        if id(hosts) not in self._hosts:
            self._hosts[id(hosts)] = self._anew(hosts)
        return self._hosts[id(hosts)]

    def _anew(self, hosts: Hosts) -> Hosts:
        if isinstance(hosts.networks, PrivateNetworks):
            return replace(hosts, networks=self._private, inside=self._private)
        return replace(hosts, inside=self._private.part_of(hosts.networks))

    def _networks(self, several: Iterable[NetworkSet]) -> tuple[NetworkSet, ...]:
        return tuple(self._private if isinstance(one, PrivateNetworks) else one for one in several)
